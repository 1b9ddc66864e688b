"""Transcoders are trained from recipes, and the shipped ones are what their recipes, logs and scores say."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from sparse_circuits.checkpoints import CheckpointError, data_path, load_model, save_model
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sources import SOURCES
from sparse_circuits.transcoder import Transcoder, TranscoderConfig
from sparse_circuits.transcoder_files import load_transcoder
from sparse_circuits.transcoder_recipes import TranscoderRecipe, in_half_precision, read_scores
from sparse_circuits.transcoder_scores import score_transcoder

RECIPE = """
[transcoder]
model = "{model}"
d_transcoder = 32
k = 4

[data]
stream = "recall"
windows_at_once = 8
held_out_windows = 8

[training]
seed = 3
steps = 40
batch_size = 64
learning_rate = 0.01
log_every = 20
checkpoint_every = 20

[learning]
dead_after = 500
"""
SHIPPED = sorted(data_path("transcoders").iterdir())


@pytest.fixture
def model(tmp_path):
    cfg = TransformerConfig(
        SOURCES["recall"].d_vocab(), n_ctx=24, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32
    )
    model = Transformer(cfg, seed=1).requires_grad_(False)
    save_model(model, tmp_path / "model")
    return model.eval()


def test_a_transcoder_is_trained_from_a_recipe_by_command(model, tmp_path):
    path = tmp_path / "small" / "recipe.toml"
    path.parent.mkdir()
    path.write_text(RECIPE.format(model=tmp_path / "model"))
    command = [sys.executable, "-m", "sparse_circuits.train", str(path), "--output", str(path.parent), "--quiet"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith("small: TranscoderScores(FVU 0.")
    recipe, folder = TranscoderRecipe.read(path), path.parent / "transcoder"
    assert (recipe.training.weight_decay, recipe.learning.seed, recipe.learning.dead_after) == (0.0, 3, 500)
    transcoder = load_transcoder(folder, model)
    assert transcoder.W_enc.dtype == torch.float32
    assert transcoder.cfg == replace(recipe.config, activation="jumprelu")
    measured = score_transcoder(model, transcoder, SOURCES["recall"].held_out(25, 8), loss=SOURCES["recall"].loss)
    assert measured.fvu < 1 and repr(measured) == repr(read_scores(folder))
    assert (folder / "log.csv").read_text() == (path.parent / "log.csv").read_text()


def test_half_precision_keeps_a_threshold_that_nothing_reaches():
    transcoder = Transcoder(TranscoderConfig(n_layers=1, d_model=2, d_transcoder=3, k=1, activation="jumprelu"))
    with torch.no_grad():
        transcoder.threshold.copy_(torch.tensor([[0.5, 1.0, torch.finfo(torch.float32).max]]))
    rounded = in_half_precision(transcoder)
    assert rounded.threshold.tolist() == [[0.5, 1.0, 65504.0]]
    assert rounded.W_enc.dtype == torch.float16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("d_transcoder = 32", "", r"missing: \['\[transcoder\] d_transcoder'\]"),
        ("[learning]", "[larning]", r"unknown tables: \['larning'\]"),
        ('"recall"', '"prose"', "stream is 'prose'"),
        ("k = 4", "k = 40", "k is 40, but a layer has 32"),
        ("dead_after = 500", "dead = 500", "unexpected keyword argument 'dead'"),
        ("windows_at_once = 8", "windows_at_once = 8\nlength = 3", "unexpected keyword argument 'length'"),
        ("{model}", "nowhere", "no shipped model of that name"),
    ],
)
def test_bad_recipes_are_named(model, tmp_path, old, new, message):
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.replace(old, new).format(model=tmp_path / "model"))
    with pytest.raises(ValueError, match=rf"bad\.toml is no recipe of a transcoder: .*{message}"):
        TranscoderRecipe.read(path)


def test_an_unknown_name_is_answered_with_those_that_are_there():
    with pytest.raises(CheckpointError, match=r"no shipped transcoder of that name; shipped: \['mixed"):
        load_transcoder("mixed-nothing")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_shipped_transcoder_belongs_to_its_model_and_scores_what_it_says(folder):
    recipe = TranscoderRecipe.read(folder / "recipe.toml")
    model, source = load_model(recipe.model).requires_grad_(False), SOURCES[recipe.stream]
    transcoder = load_transcoder(folder.name, model)
    assert recipe.name == folder.name
    assert transcoder.cfg == replace(recipe.config, activation="jumprelu")
    assert transcoder.cfg.model_sha256 is not None
    with (folder / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    stated = read_scores(folder)
    assert int(last["step"]) == recipe.training.steps
    # The log is of the weights before they were rounded for storage.
    assert stated.fvu == pytest.approx(float(last["held_out_fvu"]), rel=0.01)
    assert stated.l0 == pytest.approx(float(last["held_out_l0"]), rel=0.01)
    windows = source.held_out(model.cfg.n_ctx + 1, recipe.held_out_windows)
    found = score_transcoder(model, transcoder, windows, loss=source.loss)
    for name, value in json.loads((folder / "scores.json").read_text()).items():
        measured = getattr(found, name)
        measured = measured.tolist() if isinstance(measured, torch.Tensor) else measured
        assert measured == pytest.approx(value, rel=2e-3, abs=2e-4), name
