"""Recipes of the small languages: trained, gone on with, and their attention post-trained, from files alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from sparse_circuits.checkpoints import load_model
from sparse_circuits.recipes import Recipe, run_recipe
from sparse_circuits.sources import SOURCES
from sparse_circuits.sparsity.attention import open_edges

DENSE = """
[model]
preset = "minute"
n_ctx = {n_ctx}
n_layers = 1
d_model = 32
n_heads = 2
d_mlp = 32
{more}
[data]
stream = "{stream}"
held_out_windows = 16
[training]
seed = 0
steps = {steps}
batch_size = 16
learning_rate = 0.01
log_every = 10
checkpoint_every = 10
"""
GOING_ON = """
[model]
start = "{start}"
[data]
stream = "{stream}"
held_out_windows = 16
[training]
seed = 1
steps = 10
batch_size = 16
learning_rate = 0.001
log_every = 5
checkpoint_every = 5
"""
LENGTHS = {"recall": 24, "mixed": 24, "addition": 11}


def written(tmp_path, name: str, text: str):
    (tmp_path / name).mkdir()
    recipe = tmp_path / name / "recipe.toml"
    recipe.write_text(text)
    return recipe


def run(tmp_path, name: str, text: str) -> str:
    run_recipe(Recipe.read(written(tmp_path, name, text)), tmp_path / name, progress=False)
    return str(tmp_path / name / "model")


@pytest.mark.parametrize("stream", LENGTHS)
def test_a_recipe_trains_on_each_language(tmp_path, stream):
    more = 'attention_dir = "bidirectional"' if stream == "addition" else ""
    text = DENSE.format(stream=stream, n_ctx=LENGTHS[stream], steps=30, more=more)
    log = run_recipe(Recipe.read(written(tmp_path, stream, text)), tmp_path / stream, progress=False).log
    assert log[-1]["held_out_loss"] < log[0]["held_out_loss"]


@pytest.mark.parametrize("stream", LENGTHS)
def test_training_windows_and_held_out_ones_are_different(stream):
    source, length = SOURCES[stream], LENGTHS[stream] + 1
    batches = source.batches(length, 8, 0)
    held_out = {tuple(row) for row in source.held_out(length, 50).tolist()}
    seen = {tuple(row) for step in range(20) for row in batches(step).tolist()}
    assert held_out.isdisjoint(seen)
    assert torch.equal(batches(3), batches(3))
    assert all(len(row) == length for row in held_out | seen)


def test_attention_is_post_trained_from_a_recipe(tmp_path):
    dense = run(tmp_path, "dense", DENSE.format(stream="recall", n_ctx=24, steps=300, more=""))
    limit = "[attention]\nlimit = 9.0\nbias = 1.0\n"
    recipe = written(tmp_path, "sparse", GOING_ON.format(start=dense, stream="recall") + limit)
    command = [sys.executable, "-m", "sparse_circuits.train", str(recipe), "--output", str(recipe.parent), "--quiet"]
    assert "% of attention edges open" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    model, held_out = load_model(recipe.parent / "model"), SOURCES["recall"].held_out(25, 16)
    assert model.cfg.attention_gate_bias == 1.0
    assert 0 < open_edges(model, held_out[:, :-1]).of_allowed_pairs < 1
    tuned = run(tmp_path, "tuned", GOING_ON.format(start=dense, stream="recall"))
    assert load_model(tuned).cfg == load_model(dense).cfg
    assert not torch.equal(load_model(tuned).W_E, load_model(dense).W_E)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOING_ON.format(start="nowhere", stream="recall"), "nowhere"),
        (
            DENSE.format(stream="recall", n_ctx=24, steps=10, more="") + "[attention]\nlimit = 1.0\n",
            "name it as .* start",
        ),
        (GOING_ON.format(start='x"\nn_ctx = 5 # "', stream="recall"), r"has \['n_ctx'\] beside start"),
    ],
)
def test_bad_recipes_are_named(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.read(path)


def test_a_model_of_additions_has_the_length_of_a_problem():
    with pytest.raises(ValueError, match="n_ctx is 12; a model of additions reads 11 tokens"):
        SOURCES["addition"].batches(13, 8, 0)
