"""Post-training opens few edges within its limit, resumes exactly, and keeps the best state when the loss diverges."""

from dataclasses import replace

import pytest
import torch
from sparse_circuits.attention_objective import AttentionSparsity, SparseAttention
from sparse_circuits.checkpoints import CheckpointError, data_path, load_model
from sparse_circuits.frontier import control_of
from sparse_circuits.low_rank import LowRank
from sparse_circuits.metrics import next_token_loss
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.post_training import DivergedError, check_attention_is_needed, held_out_loss, post_train
from sparse_circuits.recipes import Recipe
from sparse_circuits.sparsity.attention import gated, open_edges
from sparse_circuits.sparsity.weights import WeightSparsity
from sparse_circuits.training import TrainingConfig, train

CONFIG = TransformerConfig(d_vocab=12, n_ctx=12, n_layers=1, d_model=24, n_heads=2, d_head=12, d_mlp=32)
DENSE = TrainingConfig(
    steps=150, batch_size=32, learning_rate=1e-2, weight_decay=0.0, log_every=150, checkpoint_every=150
)
SPARSE = replace(DENSE, steps=60, learning_rate=5e-3, log_every=10, checkpoint_every=20)


def first_token_again(step, n=32):
    """Sequences whose every later token is the first one with chance 3/4, so that attention to position 0 pays."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(12, (n, 13), generator=generator)
    copied = torch.rand(n, 13, generator=generator) < 0.75
    return torch.where(copied, tokens[:, :1], tokens)


HELD_OUT = first_token_again(10_000, 64)


@pytest.fixture(scope="module")
def dense():
    return train(Transformer(CONFIG), first_token_again, DENSE, progress=False).model


@pytest.fixture(scope="module")
def settings(dense):
    return AttentionSparsity(limit=held_out_loss(dense, HELD_OUT) + 0.1, rate=0.5)


def test_edges_close_within_the_limit_and_the_best_state_is_returned(dense, settings, tmp_path):
    before = [weight.clone() for weight in dense.parameters()]
    run = post_train(dense, first_token_again, SPARSE, settings, HELD_OUT, tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, dense.parameters(), strict=True))
    assert [row["step"] for row in run.log] == list(range(10, 61, 10))
    assert run.log[0].keys() >= {"loss", "expected_density", "multiplier", "held_out_loss", "open_density"}
    within = [row for row in run.log if row["held_out_loss"] <= settings.limit]
    assert run.best["open_density"] == min(row["open_density"] for row in within) < 0.8
    assert held_out_loss(run.model, HELD_OUT) == pytest.approx(run.best["held_out_loss"])
    assert open_edges(run.model, HELD_OUT[:, :-1]).of_allowed_pairs == pytest.approx(run.best["open_density"])
    stored = load_model(tmp_path / "best")
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), run.model.parameters(), strict=True))


def test_the_best_state_may_have_a_limit_of_its_own(dense, settings):
    strict = replace(settings, held_out_limit=settings.limit - 0.06)
    run = post_train(dense, first_token_again, SPARSE, strict, HELD_OUT, progress=False)
    within = [row["open_density"] for row in run.log if row["held_out_loss"] <= strict.held_out_limit]
    assert run.best is None if not within else run.best["open_density"] == min(within)
    assert post_train(dense, first_token_again, SPARSE, replace(settings, held_out_limit=0.01), HELD_OUT).best is None


def test_adapters_close_edges_and_change_matrices_by_their_rank_and_nothing_else(dense, settings, tmp_path):
    low_rank = LowRank(rank=3)
    run = post_train(
        dense, first_token_again, SPARSE, replace(settings, low_rank=low_rank), HELD_OUT, tmp_path, progress=False
    )
    assert run.best["open_density"] < 0.8
    assert run.best["held_out_loss"] <= settings.limit
    assert held_out_loss(run.model, HELD_OUT) == pytest.approx(run.best["held_out_loss"], rel=1e-5)
    for name, weight in run.model.state_dict().items():
        change = weight - dense.state_dict()[name]
        if name.rpartition(".")[2] in low_rank.weights:
            sizes = torch.linalg.svdvals(change)
            assert (sizes[..., low_rank.rank :] <= 1e-5 * sizes[..., :1]).all(), name
            assert sizes.any(), name
        else:
            assert not change.any(), name
    stored = load_model(tmp_path / "best")
    assert all(torch.equal(a, b) for a, b in zip(stored.parameters(), run.model.parameters(), strict=True))


def test_adapters_and_sparse_weights_exclude_each_other(dense, settings):
    sparse = replace(SPARSE, sparsity=WeightSparsity(density=0.5))
    with pytest.raises(ValueError, match="cannot be made sparse; give one of both"):
        post_train(dense, first_token_again, sparse, replace(settings, low_rank=LowRank()), HELD_OUT)


@pytest.mark.parametrize("low_rank", [None, LowRank(rank=3)], ids=["whole", "adapters"])
def test_a_run_that_was_stopped_resumes_to_the_same_weights(dense, settings, low_rank, tmp_path):
    settings = replace(settings, low_rank=low_rank)
    whole = post_train(dense, first_token_again, SPARSE, settings, HELD_OUT, tmp_path / "whole", progress=False)

    def stopping(step):
        if step == 45:
            raise KeyboardInterrupt
        return first_token_again(step)

    with pytest.raises(KeyboardInterrupt):
        post_train(dense, stopping, SPARSE, settings, HELD_OUT, tmp_path / "stopped", progress=False)
    again = post_train(dense, first_token_again, SPARSE, settings, HELD_OUT, tmp_path / "stopped", progress=False)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.log] for run in (whole, again)]
    assert untimed[0] == untimed[1]
    assert again.best == whole.best
    with pytest.raises(CheckpointError, match="best state of another run"):
        other = replace(settings, limit=settings.limit + 1)
        post_train(dense, first_token_again, SPARSE, other, HELD_OUT, tmp_path / "whole", progress=False)


def test_a_loss_that_is_not_finite_keeps_the_best_state(dense, settings):
    def breaking(logits, tokens):
        loss = next_token_loss(logits, tokens)
        return loss * torch.inf if len(tokens) == 32 and torch.equal(tokens, first_token_again(25)) else loss

    with pytest.raises(DivergedError, match=r"The loss is inf.*The best state so far: \{'held_out_loss'") as stopped:
        post_train(dense, first_token_again, SPARSE, settings, HELD_OUT, loss=breaking, progress=False)
    run = stopped.value.run
    assert held_out_loss(run.model, HELD_OUT) == pytest.approx(run.best["held_out_loss"])
    assert run.best["held_out_loss"] <= settings.limit


def test_a_model_that_needs_no_attention_is_refused():
    model = Transformer(CONFIG)
    with torch.no_grad():
        model.blocks[0].attn.W_O.zero_()
    with pytest.raises(ValueError, match=r"costs 0 nats per token, less than the 0\.05 asked for.*Train it longer"):
        check_attention_is_needed(model, HELD_OUT, 0.05)


def test_closing_all_edges_costs_what_the_check_says(dense):
    with torch.no_grad():
        closed = Transformer(CONFIG)
        closed.load_state_dict(dense.state_dict())
        closed.blocks[0].attn.W_O.zero_()
    cost = held_out_loss(closed, HELD_OUT) - held_out_loss(dense, HELD_OUT)
    assert check_attention_is_needed(dense, HELD_OUT, 0.05) == pytest.approx(cost, rel=1e-5)


def test_distillation_adds_the_divergence_from_the_dense_model(dense, settings):
    model = gated(dense, -2.0).train()
    tokens, config = first_token_again(3), replace(settings, distillation=0.5)
    plain, distilled = SparseAttention(model, settings), SparseAttention(model, config, dense)
    without, _ = plain(model, tokens, 7)
    value, measures = distilled(model, tokens, 7)
    assert measures["divergence"].item() > 0.01
    assert (value - without).item() == pytest.approx(0.5 * measures["divergence"].item(), rel=1e-4)
    with pytest.raises(ValueError, match=r"distillation is 0\.5 and there is no teacher; give"):
        SparseAttention(model, config)


def test_a_fixed_multiplier_stays(dense, settings):
    model = gated(dense, settings.bias)
    objective = SparseAttention(model, replace(settings, multiplier=0.3))
    for step in range(3):
        value, measures = objective(model, first_token_again(step), step)
        whole = measures["expected_density"] + 0.3 * measures["loss"]
        assert value.item() == pytest.approx(whole.item(), rel=1e-5)
    assert objective.controller.multiplier == pytest.approx(0.3)


def test_the_noise_is_that_of_the_step_and_the_callers_random_state_stays(dense, settings):
    model = gated(dense, 0.0).train()
    objective = SparseAttention(model, settings)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    losses = [float(objective(model, HELD_OUT, step)[1]["loss"]) for step in (4, 4, 5)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": -1.0}, r"limit is -1\.0; give"),
        ({"held_out_limit": 0.0}, r"held_out_limit is 0\.0; give"),
        ({"distillation": -1.0}, r"distillation is -1\.0; give"),
        ({"multiplier": 0.0}, r"multiplier is 0\.0; give"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        AttentionSparsity(**{"limit": 1.0, **change})


def shipped_runs():
    """Folders of post-training runs."""
    folders = [*data_path("models").glob("*-attention-*"), *data_path("attention_frontier").iterdir()]
    return sorted(run for run in folders if "-tuned-" not in run.name)


@pytest.mark.parametrize("run", shipped_runs(), ids=lambda run: run.name)
def test_a_shipped_run_has_a_control_that_saw_the_same_batches(run):
    recipe = Recipe.read(run / "recipe.toml")
    log = (run / "log.csv").read_text().splitlines()
    assert recipe.attention
    assert int(dict(zip(log[0].split(","), log[-1].split(","), strict=True))["step"]) == recipe.training.steps
    if recipe.stream == "addition":
        return  # the dense model solves every sum, so there is nothing to fine-tune
    control = Recipe.read(control_of(run) / "recipe.toml")
    assert not control.attention
    for name in ("start", "stream", "seed", "held_out_windows"):
        assert getattr(recipe, name) == getattr(control, name)
    assert (recipe.training.steps, recipe.training.batch_size) == (control.training.steps, control.training.batch_size)
