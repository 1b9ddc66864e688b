"""Adapters begin at the model, add matrices of their rank and nothing else, and leave an ordinary model behind."""

from dataclasses import replace

import pytest
import torch
from sparse_circuits.checkpoints import data_path
from sparse_circuits.low_rank import MATRICES, LowRank, add_adapters, has_adapters, merged
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.recipes import Recipe
from sparse_circuits.sparsity.attention import gated, open_edges

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


def test_settings_that_cannot_be_used_are_refused():
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
    with pytest.raises(ValueError, match=r"none of the matrices \('W_gate',\); choose others"):
        add_adapters(Transformer(CONFIG), LowRank(weights=["W_gate"]))


def test_a_gated_mlp_has_an_adapter_on_its_gate():
    model = Transformer(replace(CONFIG, gated_mlp=True), seed=1)
    add_adapters(model, LowRank(rank=RANK))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    by_head, by_layer = CONFIG.d_model + CONFIG.d_head, CONFIG.d_model + CONFIG.d_mlp
    assert trained == CONFIG.n_layers * RANK * (4 * CONFIG.n_heads * by_head + 3 * by_layer)
    assert merged(model).state_dict().keys() == Transformer(model.cfg).state_dict().keys()


def test_a_recipe_may_ask_for_adapters(tmp_path):
    stored = data_path("attention_frontier", "recall-rank-8-0", "recipe.toml")
    assert Recipe.read(stored).attention.low_rank == LowRank(rank=8, alpha=16.0)
    wrong = tmp_path / "recipe.toml"
    wrong.write_text(stored.read_text().replace("rank = 8", "rank = 0"))
    with pytest.raises(ValueError, match=r"is no recipe: rank is 0; give a positive number"):
        Recipe.read(wrong)
