"""Adapters begin at the model, add matrices of their rank and nothing else, and leave an ordinary model behind."""

from dataclasses import replace

import pytest
import torch
from sparse_circuits.attention_objective import AttentionSparsity
from sparse_circuits.checkpoints import load_model
from sparse_circuits.low_rank import MATRICES, LowRank, add_adapters, has_adapters, merged
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.post_training import held_out_loss, post_train
from sparse_circuits.sparsity.attention import gated, open_edges
from sparse_circuits.sparsity.weights import WeightSparsity
from sparse_circuits.training import TrainingConfig, train

CONFIG = TransformerConfig(d_vocab=12, n_ctx=12, n_layers=2, d_model=24, n_heads=2, d_head=12, d_mlp=32)
TOKENS = torch.randint(12, (3, 9), generator=torch.Generator().manual_seed(0))
RANK = 3


def adapted(low_rank=None, spread=0.3):
    """A model with adapters whose every entry is drawn, in float64."""
    model = Transformer(CONFIG, seed=1).double().eval()
    add_adapters(model, low_rank or LowRank(rank=RANK))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name and spread:
                weight.copy_(spread * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model


def ordinary():
    return Transformer(CONFIG, seed=1).double().eval()


def added(model):
    """What the adapters add, by the name of the weight; of each head by itself."""
    before = ordinary().state_dict()
    return {name: weight - before[name] for name, weight in merged(model).state_dict().items()}


def test_adapters_begin_at_the_model_and_nothing_else_is_trained():
    model = adapted(spread=0)
    assert torch.equal(model(TOKENS), ordinary()(TOKENS))
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name for name in trained)
    by_head, by_layer = CONFIG.d_model + CONFIG.d_head, CONFIG.d_model + CONFIG.d_mlp
    expected = CONFIG.n_layers * RANK * (4 * CONFIG.n_heads * by_head + 2 * by_layer)
    assert sum(weight.numel() for weight in trained.values()) == expected


def test_what_is_added_has_the_rank_and_only_matrices_get_it():
    for name, change in added(adapted()).items():
        if name.rpartition(".")[2] in MATRICES:
            assert (torch.linalg.matrix_rank(change) == RANK).all(), name
        else:
            assert not change.any(), name


def test_only_the_matrices_asked_for_change_and_alpha_scales_the_change():
    some = LowRank(rank=RANK, weights=("W_Q", "W_out"))
    once, twice = added(adapted(some)), added(adapted(replace(some, alpha=2 * some.alpha)))
    changed = {name.rpartition(".")[2] for name, change in once.items() if change.any()}
    assert changed == {"W_Q", "W_out"}
    for name, change in once.items():
        torch.testing.assert_close(twice[name], 2 * change)


def test_the_merged_model_computes_what_the_adapted_one_does():
    model = adapted()
    plain = merged(model)
    assert not has_adapters(plain) and merged(plain) is plain
    assert (model(TOKENS) - ordinary()(TOKENS)).abs().max() > 0.1
    torch.testing.assert_close(plain(TOKENS), model(TOKENS))
    caches = [run.run_with_cache(TOKENS)[1] for run in (plain, model)]
    assert caches[0].keys() == caches[1].keys()
    for hook, activation in caches[0].items():
        torch.testing.assert_close(caches[1][hook], activation)


def test_gradients_reach_the_adapters_as_finite_differences_say():
    model = adapted()
    weight = dict(model.named_parameters())["blocks.0.attn.lora_B.default.weight"]
    model(TOKENS).square().mean().backward()
    step = 1e-5
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[2, 1] += sign * step
            sides.append(model(TOKENS).square().mean())
            weight[2, 1] -= sign * step
    assert float(weight.grad[2, 1]) == pytest.approx(float(sides[0] - sides[1]) / (2 * step), rel=1e-5)


def test_gates_see_the_adapters():
    model = Transformer(CONFIG, seed=1)
    with_gates = gated(model, 0.5)
    add_adapters(with_gates, LowRank(rank=RANK))
    with torch.no_grad():
        for name, weight in with_gates.named_parameters():
            if ".lora_B" in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(open_edges(with_gates, TOKENS).counts, open_edges(merged(with_gates), TOKENS).counts)
    assert not torch.equal(open_edges(with_gates, TOKENS).counts, open_edges(gated(model, 0.5), TOKENS).counts)


@pytest.fixture(scope="module")
def post_training():
    """What `post_train` needs: a model that copies its first token, batches, settings with adapters, windows."""

    def batches(step):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(12, (32, 13), generator=generator)
        return torch.where(torch.rand(32, 13, generator=generator) < 0.75, tokens[:, :1], tokens)

    training = TrainingConfig(steps=150, batch_size=32, learning_rate=1e-2, log_every=150, checkpoint_every=150)
    dense = train(Transformer(CONFIG), batches, training, progress=False).model
    held_out = batches(10_000)
    settings = AttentionSparsity(held_out_loss(dense, held_out) + 0.1, rate=0.5, low_rank=LowRank(rank=RANK))
    return dense, batches, replace(training, steps=60, log_every=10, checkpoint_every=20), settings, held_out


def test_post_training_by_adapters_closes_edges_and_changes_matrices_by_their_rank(post_training, tmp_path):
    dense, batches, training, settings, held_out = post_training
    run = post_train(dense, batches, training, settings, held_out, tmp_path, progress=False)
    assert not has_adapters(run.model)
    assert run.best["open_density"] < 0.8
    assert held_out_loss(run.model, held_out) == pytest.approx(run.best["held_out_loss"], rel=1e-5)
    assert run.best["held_out_loss"] <= settings.limit
    for name, weight in run.model.state_dict().items():
        change = weight - dense.state_dict()[name]
        if name.rpartition(".")[2] in MATRICES:
            sizes = torch.linalg.svdvals(change)
            assert (sizes[..., RANK:] <= 1e-5 * sizes[..., :1]).all(), name
            assert sizes.any(), name
        else:
            assert not change.any(), name
    stored = load_model(tmp_path / "best")
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), run.model.parameters(), strict=True))


def test_a_run_with_adapters_resumes_to_the_same_weights(post_training, tmp_path):
    dense, batches, training, settings, held_out = post_training
    whole = post_train(dense, batches, training, settings, held_out, tmp_path / "whole", progress=False)

    def stopping(step):
        if step == 45:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises(KeyboardInterrupt):
        post_train(dense, stopping, training, settings, held_out, tmp_path / "stopped", progress=False)
    again = post_train(dense, batches, training, settings, held_out, tmp_path / "stopped", progress=False)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)


def test_settings_that_cannot_be_used_are_refused(post_training):
    for wrong in ({"rank": 0}, {"alpha": -1.0}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name} is .*; give a positive number"):
            LowRank(**wrong)
    with pytest.raises(ValueError, match=r"weights are \('W_E',\); choose from \['W_Q'"):
        LowRank(weights=["W_E"])
    with pytest.raises(ValueError, match="has adapters already"):
        add_adapters(adapted(), LowRank())
    with pytest.raises(ValueError, match="has 1 head; adapters of attention need 2"):
        add_adapters(Transformer(replace(CONFIG, n_heads=1)), LowRank())
    dense, batches, training, settings, held_out = post_training
    with pytest.raises(ValueError, match="cannot be made sparse"):
        sparse = replace(training, sparsity=WeightSparsity(density=0.5))
        post_train(dense, batches, sparse, settings, held_out)


def test_a_recipe_may_ask_for_adapters():
    settings = AttentionSparsity(limit=1.0, low_rank={"rank": 4, "weights": ["W_Q", "W_K"]})
    assert settings.low_rank == LowRank(rank=4, weights=("W_Q", "W_K"))
