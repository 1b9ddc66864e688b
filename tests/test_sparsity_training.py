"""Training with sparse weights: the budget holds exactly after every step, and what was zero can come back."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import nonzeros
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.checkpoints import load_model, save_model
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.recipes import Recipe, run_recipe
from sparse_circuits.sparsity import WeightSparsity, sparse_weights, sparsify
from sparse_circuits.training import TrainingConfig, random_windows, train

CONFIG = TransformerConfig(d_vocab=30, n_ctx=16, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32)
SPARSITY = WeightSparsity(density=1 / 8, expansion=2)
TRAINING = TrainingConfig(
    steps=40,
    batch_size=8,
    learning_rate=0.05,
    warmup_steps=4,
    epsilon=0.1,
    normalize_gradients=True,
    log_every=5,
    checkpoint_every=10,
    sparsity=SPARSITY,
)
STREAM = torch.randint(CONFIG.d_vocab, (600,), generator=torch.Generator().manual_seed(0)).cumsum(0) % CONFIG.d_vocab


def batches():
    return random_windows(STREAM, CONFIG.n_ctx + 1, TRAINING.batch_size, seed=0)


def watch_steps(monkeypatch) -> list[dict[str, int]]:
    """Return a list that receives the non-zeros of every weight after each step of `train`."""
    seen = []

    def watched(model, sparsity, progress):
        sparsify(model, sparsity, progress)
        seen.append(nonzeros(model))

    monkeypatch.setattr("sparse_circuits.training.sparsify", watched)
    return seen


@settings(max_examples=10, deadline=None)
@given(
    density=st.floats(1e-3, 1),
    expansion=st.floats(1, 20),
    anneal=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    seed=st.integers(0, 100),
)
def test_the_budget_holds_exactly_after_every_step(density, expansion, anneal, seed):
    sparsity = WeightSparsity(density, expansion, anneal_from=anneal[0], anneal_to=anneal[1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        seen = watch_steps(monkeypatch)
        config = replace(TRAINING, steps=10, warmup_steps=1, sparsity=sparsity)
        model = train(Transformer(CONFIG, seed=seed), batches(), config, progress=False).model
    sizes = {name: weight.numel() for name, weight in sparse_weights(model)}
    for step, found in enumerate(seen):
        done = (step + 1) / 10
        share = 1 if done >= anneal[1] else 0 if done <= anneal[0] else (done - anneal[0]) / (anneal[1] - anneal[0])
        for name, size in sizes.items():
            final = min(1, density * expansion) if name in ("W_E", "W_pos", "W_U") else density
            assert found[name] == pytest.approx(max(1, size * (1 - share * (1 - final))), abs=0.5 + 1e-6 * size)
    assert len(seen) == 10
    assert seen[-1] == sparsity.counts(model)


def test_zeroed_weights_come_back():
    model = Transformer(CONFIG)
    masks = []

    def watch(model):
        masks.append(torch.cat([weight.flatten() != 0 for _, weight in sparse_weights(model)]))
        return {}

    config = replace(TRAINING, log_every=1, checkpoint_every=1, sparsity=replace(SPARSITY, anneal_to=0.1))
    train(model, batches(), config, evaluate=watch, progress=False)
    sparse = torch.stack(masks[4:])
    assert (sparse.sum(1) == sparse[0].sum()).all()
    returned = ~sparse[0] & sparse[-1]
    assert returned.sum() > 20


def test_annealing_and_the_learning_rate_are_coupled():
    sparsity = WeightSparsity(density=1 / 16, anneal_from=0.1, anneal_to=0.5)
    config = replace(TRAINING, steps=100, warmup_steps=10, learning_rate=1.0, sparsity=sparsity)
    assert sparsity.progress(9, 100) == 0
    assert sparsity.progress(29, 100) == pytest.approx(0.5)
    assert sparsity.progress(49, 100) == sparsity.progress(99, 100) == 1
    assert sparsity.learning_rate_factor(0, 100) == pytest.approx(1 / 4)
    assert sparsity.learning_rate_factor(29, 100) == pytest.approx(math.sqrt((1 / 16) / (1 - 0.5 * 15 / 16)))
    assert sparsity.learning_rate_factor(60, 100) == 1
    assert config.learning_rate_at(4) == pytest.approx(0.5 / 4)
    assert config.learning_rate_at(60) == pytest.approx(40 / 90)


def test_a_step_is_adam_on_normalised_gradients_then_the_projection():
    config = replace(TRAINING, steps=3, warmup_steps=0, weight_decay=0.0, log_every=1, checkpoint_every=1)
    trained = train(Transformer(CONFIG), batches(), config, progress=False).model
    model = Transformer(CONFIG).double()
    moments = {name: (0.0, 0.0) for name, _ in model.named_parameters()}
    for step in range(3):
        tokens = batches()(step)
        logits = model(tokens[:, :-1]).log_softmax(-1)
        loss = -logits.gather(-1, tokens[:, 1:, None]).mean()
        gradients = dict(zip(moments, torch.autograd.grad(loss, list(model.parameters())), strict=True))
        rms = torch.cat([gradient.flatten() for gradient in gradients.values()]).square().mean().sqrt() + 1e-5
        with torch.no_grad():
            for name, weight in model.named_parameters():
                first, second = moments[name]
                gradient = gradients[name] / rms
                first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
                moments[name] = first, second
                corrected = (second / (1 - 0.95 ** (step + 1))).sqrt() + 0.1
                weight -= config.learning_rate_at(step) * first / (1 - 0.9 ** (step + 1)) / corrected
            sparsify(model, SPARSITY, SPARSITY.progress(step, 3))
    for name, weight in trained.named_parameters():
        torch.testing.assert_close(weight.double(), model.get_parameter(name), atol=1e-5, rtol=0)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    whole = train(Transformer(CONFIG), batches(), TRAINING, progress=False).model

    def stop(model):
        stop.rows += 1
        if stop.rows == 6:
            raise KeyboardInterrupt
        return {}

    stop.rows = 0
    with pytest.raises(KeyboardInterrupt):
        train(Transformer(CONFIG), batches(), TRAINING, directory=tmp_path, evaluate=stop, progress=False)
    resumed = train(Transformer(CONFIG), batches(), TRAINING, directory=tmp_path, progress=False).model
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight)


def test_the_budget_survives_save_and_load(tmp_path):
    model = train(Transformer(CONFIG), batches(), TRAINING, progress=False).model
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert nonzeros(loaded) == SPARSITY.counts(loaded) == nonzeros(model)
    sparsify(loaded, SPARSITY)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


RECIPE = """
[model]
preset = "minute"
n_layers = 1
d_model = 16
n_ctx = 16
activation_density = 0.25
activation_locations = ["mlp.hook_post", "hook_attn_out"]

[data]
stream = "mini_python"
held_out_windows = 2

[training]
seed = 0
steps = 20
batch_size = 4
learning_rate = 0.05
epsilon = 0.1
normalize_gradients = true
log_every = 5
checkpoint_every = 10

[sparsity]
density = 0.0625
expansion = 4
"""


def test_a_recipe_states_both_kinds_of_sparsity(tmp_path, monkeypatch):
    monkeypatch.setattr("sparse_circuits.sources.MINI_PYTHON_TOKENS", {"train": 3000, "held_out": 500})
    path = tmp_path / "sparse.toml"
    path.write_text(RECIPE)
    recipe = Recipe.read(path)
    assert recipe.training.sparsity == WeightSparsity(1 / 16, 4)
    run_recipe(recipe, tmp_path / "run", progress=False)
    model = load_model(tmp_path / "run" / "model")
    assert model.cfg.activation_locations == ("mlp.hook_post", "hook_attn_out")
    assert nonzeros(model) == WeightSparsity(1 / 16, 4).counts(model)
    path.write_text(RECIPE.replace("expansion", "expanse"))
    with pytest.raises(ValueError, match=r"sparse\.toml is no recipe.*expanse"):
        Recipe.read(path)


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        (3, r"floor is 3, but blocks\.0\.attn\.W_Q has 16 connections for each of 16 neurons or channels and keeps 32"),
        (17, "floor is 17"),
    ],
)
def test_a_floor_above_the_budget_is_refused_before_training(floor, message):
    config = replace(TRAINING, sparsity=replace(SPARSITY, floor=floor))
    with pytest.raises(ValueError, match=message):
        train(Transformer(CONFIG), batches(), config, progress=False)


def test_a_weight_that_is_no_number_stops_the_run():
    model = Transformer(CONFIG)
    with torch.no_grad():
        model.W_U[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="holds a NaN; lower learning_rate"):
        train(model, batches(), TRAINING, progress=False)
