"""A stored model comes back bit for bit, or not at all."""

import csv
import json
import random
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save
from sparse_circuits.checkpoints import (
    FORMAT_VERSION,
    CheckpointError,
    canonical_json,
    data_path,
    load_model,
    save_model,
    write_atomically,
    write_folder,
)
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.recipes import Recipe

CONFIG = TransformerConfig(
    d_vocab=20, n_ctx=8, n_layers=1, d_model=8, n_heads=2, d_head=4, d_mlp=16, attention_sink=True
)


@pytest.fixture
def saved(tmp_path):
    model = Transformer(CONFIG, seed=1)
    save_model(model, tmp_path / "model", recipe__toml=b"[model]\n")
    return model, tmp_path / "model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_model_comes_back_bit_for_bit(tmp_path, dtype):
    model = Transformer(CONFIG, seed=1).to(dtype)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.cfg == model.cfg
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == dtype
        assert torch.equal(loaded.state_dict()[name], weight)


def test_a_hundred_random_truncations_and_bit_flips_are_refused(saved, tmp_path):
    _, folder = saved
    rng = random.Random(0)
    names = sorted(path.name for path in folder.iterdir())
    for attempt in range(100):
        damaged = tmp_path / f"damaged-{attempt}"
        shutil.copytree(folder, damaged)
        victim = damaged / rng.choice(names)
        content = bytearray(victim.read_bytes())
        if rng.random() < 0.5:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(content)
        with pytest.raises(CheckpointError, match=victim.name.replace(".", r"\.")):
            load_model(damaged)


def test_a_missing_file_a_missing_folder_and_an_unknown_name_are_told_apart(saved, tmp_path):
    _, folder = saved
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_model(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        load_model(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no folder 'nothing-of-that-name' and no shipped model"):
        load_model("nothing-of-that-name")


def rewrite(folder, **changes):
    """Store a folder anew, manifest and all, with some files changed: damage that hashes cannot see."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    write_folder(folder, files | {name.replace("__", "."): content for name, content in changes.items()}, kind="model")


def test_weights_of_another_shape_or_name_are_refused(saved):
    _, folder = saved
    rewrite(folder, config__json=canonical_json({**CONFIG.to_dict(), "d_mlp": 32}))
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.mlp\.W_in' has shape \(8, 16\).*asks for \(8, 32\)"):
        load_model(folder)
    rewrite(folder, config__json=canonical_json({**CONFIG.to_dict(), "attention_sink": False}))
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.attn\.sink' has shape \(2,\).*asks for None"):
        load_model(folder)
    rewrite(folder, config__json=canonical_json({**CONFIG.to_dict(), "d_novel": 3}))
    with pytest.raises(CheckpointError, match="d_novel"):
        load_model(folder)


def test_other_versions_and_kinds_are_refused(saved, monkeypatch):
    _, folder = saved
    files = {"config.json": b"{}\n"}
    write_folder(folder, files, kind="training checkpoint")
    with pytest.raises(CheckpointError, match="'training checkpoint', not a 'model'"):
        load_model(folder)
    monkeypatch.setattr("sparse_circuits.checkpoints.FORMAT_VERSION", FORMAT_VERSION + 1)
    write_folder(folder, files, kind="model")
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError, match=rf"format version {FORMAT_VERSION + 1}, this package reads \(1, {FORMAT_VERSION}\)"
    ):
        load_model(folder)


def test_a_folder_of_the_first_version_is_still_read(saved, monkeypatch):
    model, folder = saved
    monkeypatch.setattr("sparse_circuits.checkpoints.FORMAT_VERSION", 1)
    whole = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    rewrite(folder, model__safetensors=save(whole))
    monkeypatch.undo()
    assert json.loads((folder / "manifest.json").read_text())["format_version"] == 1
    assert torch.equal(load_model(folder).W_U, model.W_U)


def test_replacing_a_model_leaves_one_folder(saved, tmp_path):
    _, folder = saved
    newer = Transformer(CONFIG, seed=2)
    save_model(newer, folder)
    assert torch.equal(load_model(folder).W_E, newer.W_E)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_the_manifest_is_plain_json(saved):
    _, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["kind"] == "model"
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "recipe.toml"}


@pytest.mark.parametrize("folder", sorted(data_path("models").iterdir()), ids=lambda folder: folder.name)
def test_every_shipped_model_loads_and_has_the_recipe_that_made_it(folder):
    recipe = Recipe.read(folder / "recipe.toml")
    assert recipe.name == folder.name
    bias = recipe.attention.bias if recipe.attention else None
    assert load_model(folder.name).cfg == replace(recipe.model, attention_gate_bias=bias)
    steps = [int(row["step"]) for row in csv.DictReader((folder / "log.csv").open())]
    assert steps[-1] == recipe.training.steps
