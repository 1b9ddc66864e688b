"""Stored transcoders come back bit for bit, fit circuit-tracer's layout, and damage is named."""

import json
from pathlib import Path

import pytest
import torch
from ablation_oracle import random_model
from graph_oracle import random_transcoder
from safetensors.torch import load_file, save_file
from sparse_circuits.checkpoints import CheckpointError
from sparse_circuits.transcoder_files import (
    export_circuit_tracer,
    import_circuit_tracer,
    load_transcoder,
    save_transcoder,
)
from torch.testing import assert_close


@pytest.fixture(scope="module")
def model():
    return random_model(4, n_layers=3).eval()


@pytest.fixture(params=[{}, {"cross_layer": False, "input_hook": "hook_resid_mid"}], ids=["cross", "per layer"])
def transcoder(request, model):
    return random_transcoder(model, 4, **request.param)


def published(directory: Path):
    """Load as circuit-tracer's published `load_clt` does: layers by counting files, kind of activation by its keys."""
    n_layers = len(list(directory.glob("W_enc_*.safetensors")))
    encoders = [load_file(directory / f"W_enc_{i}.safetensors") for i in range(n_layers)]
    decoders = [load_file(directory / f"W_dec_{i}.safetensors")[f"W_dec_{i}"] for i in range(n_layers)]
    W_enc, b_enc, b_dec = (
        torch.stack([encoder[f"{name}_{i}"] for i, encoder in enumerate(encoders)])
        for name in ("W_enc", "b_enc", "b_dec")
    )
    d_transcoder, d_model = encoders[0]["W_enc_0"].shape
    assert b_enc.shape == (n_layers, d_transcoder) and b_dec.shape == (n_layers, d_model)
    assert not any(name.startswith("W_skip") for encoder in encoders for name in encoder)
    threshold = torch.stack([encoder[f"threshold_{i}"] for i, encoder in enumerate(encoders)])[:, None]

    def forward(x):
        """From (n_layers, pos, d_model), as the published encoder and decoder take it."""
        features = torch.einsum("lbd,lfd->lbf", x, W_enc) + b_enc[:, None]
        features = features * (features > threshold)
        out = torch.zeros_like(x)
        for layer, pos, feature in features.nonzero().tolist():
            assert decoders[layer].shape == (d_transcoder, n_layers - layer, d_model)
            for step, target in enumerate(range(layer, n_layers)):
                out[target, pos] += features[layer, pos, feature] * decoders[layer][feature, step]
        return out + b_dec[:, None]

    return forward


def test_what_is_saved_comes_back(transcoder, model, tmp_path):
    save_transcoder(transcoder, tmp_path / "t", notes__md=b"text")
    found = load_transcoder(tmp_path / "t", model)
    assert found.cfg == transcoder.cfg
    for name, weight in transcoder.state_dict().items():
        assert torch.equal(weight, found.state_dict()[name])
    with pytest.raises(ValueError, match="SHA-256"):
        load_transcoder(tmp_path / "t", random_model(2, n_layers=3))
    with pytest.raises(ValueError, match="for 3 layers, the model has 2"):
        load_transcoder(tmp_path / "t", random_model(2))
    weights = tmp_path / "t" / "transcoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"transcoder\.safetensors is damaged"):
        load_transcoder(tmp_path / "t")


def test_the_export_loads_by_the_published_rules(transcoder, model, tmp_path):
    export_circuit_tracer(transcoder, tmp_path / "e", "sparse-circuits/tiny")
    x = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forward = published(tmp_path / "e")
    assert_close(forward(x.transpose(0, 1)), transcoder(x).reconstruction.transpose(0, 1))
    text = (tmp_path / "e" / "config.yaml").read_text()
    lines = dict(line.split(": ") for line in text.splitlines())
    assert {key: json.loads(value) for key, value in lines.items()} == {
        "model_name": "sparse-circuits/tiny",
        "model_kind": "cross_layer_transcoder",
        "feature_input_hook": transcoder.cfg.input_hook,
        "feature_output_hook": "hook_mlp_out",
    }
    found = import_circuit_tracer(tmp_path / "e", model)
    assert_close(found(x).activations, transcoder(x).activations, rtol=0, atol=0)
    assert_close(found(x).reconstruction, transcoder(x).reconstruction)
    with pytest.raises(ValueError, match="quotes"):
        export_circuit_tracer(transcoder, tmp_path / "f", 'a"b')


def test_a_folder_of_others_is_read_without_manifest_and_thresholds(model, tmp_path):
    transcoder = random_transcoder(model, 4)
    export_circuit_tracer(transcoder, tmp_path, "tiny")
    (tmp_path / "manifest.json").unlink()
    for i in range(3):
        tensors = load_file(tmp_path / f"W_enc_{i}.safetensors")
        del tensors[f"threshold_{i}"]
        save_file(tensors, tmp_path / f"W_enc_{i}.safetensors")
    config = tmp_path / "config.yaml"
    config.write_text("# comment\nmodel_kind: cross_layer_transcoder  # unquoted\n" + config.read_text())
    found = import_circuit_tracer(tmp_path)
    x = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(found(x).activations, transcoder.pre_activations(x).relu())


def without_manifest(change):
    def spoil(folder):
        (folder / "manifest.json").unlink()
        change(folder)

    return spoil


def rewritten(name, change):
    def spoil(folder):
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return without_manifest(spoil)


def put(tensors, **new):
    tensors.update(new)


SPOILT = {
    "damaged": (lambda d: (d / "W_dec_1.safetensors").write_bytes(b"x"), r"W_dec_1\.safetensors is damaged"),
    "no safetensors": (
        without_manifest(lambda d: (d / "W_dec_1.safetensors").write_bytes(b"x")),
        r"W_dec_1\.safetensors is no safetensors file",
    ),
    "missing": (without_manifest(lambda d: (d / "W_dec_2.safetensors").unlink()), r"W_dec_2\.safetensors is missing"),
    "gap": (without_manifest(lambda d: (d / "W_enc_1.safetensors").unlink()), r"W_enc_1\.safetensors is missing"),
    "empty": (
        without_manifest(lambda d: [path.unlink() for path in d.glob("W_enc*")]),
        r"W_enc_0\.safetensors is missing",
    ),
    "kind": (
        without_manifest(lambda d: (d / "config.yaml").write_text("model_kind: transcoder_set")),
        "model_kind 'transcoder_set'",
    ),
    "hook": (
        without_manifest(
            lambda d: (d / "config.yaml").write_text(
                "model_kind: cross_layer_transcoder\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: mlp.hook_out"
            )
        ),
        r"hooks \('mlp.hook_in'",
    ),
    "nan": (
        rewritten("W_enc_1.safetensors", lambda t: t["b_enc_1"].__setitem__(0, torch.nan)),
        "b_enc_1 has the value nan",
    ),
    "shape": (
        rewritten("W_dec_0.safetensors", lambda t: put(t, W_dec_0=t["W_dec_0"][:, :2].contiguous())),
        r"W_dec_0 has shape \(7, 2, 6\)",
    ),
    "skip": (
        rewritten("W_enc_0.safetensors", lambda t: put(t, W_skip_0=torch.zeros(6, 6))),
        "skip connections",
    ),
    "unknown": (
        rewritten("W_enc_0.safetensors", lambda t: put(t, W_other_0=torch.zeros(6))),
        r"\['W_other_0'\] are missing or unknown",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_with_a_folder_is_named(name, model, tmp_path):
    spoil, message = SPOILT[name]
    export_circuit_tracer(random_transcoder(model, 4), tmp_path / "e", "tiny")
    spoil(tmp_path / "e")
    with pytest.raises(CheckpointError, match=message):
        import_circuit_tracer(tmp_path / "e")
