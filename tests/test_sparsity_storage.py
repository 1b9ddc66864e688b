"""Sparse weights come back bit for bit, take less room, and are refused when their parts do not fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from sparse_circuits.checkpoints import CheckpointError, canonical_json, load_model, save_model, write_folder
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import WeightSparsity, sparsify
from sparse_circuits.sparsity.storage import pack, unpack

CONFIG = TransformerConfig(d_vocab=40, n_ctx=8, n_layers=1, d_model=32, n_heads=2, d_head=16, d_mlp=64)
WHOLE_BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = WHOLE_BITS.get(a.dtype)
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*(x.view(bits) if bits else x for x in (a, b)))


@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.5, float("inf"), float("nan"), 1e-45]), max_size=60),
    dtype=st.sampled_from([*WHOLE_BITS]),
)
def test_every_bit_comes_back(values, dtype):
    state = {"a": torch.tensor(values, dtype=dtype), "layer.b": torch.tensor(values * 2, dtype=dtype).view(2, -1)}
    state |= {"step": torch.tensor(3), "used": torch.tensor([True, False, False, False] * 50)}
    found = unpack(load(save(pack(state))))
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert same_bits(found[name], tensor)


def test_only_what_gets_smaller_is_stored_sparsely():
    state = {"sparse": torch.eye(64), "dense": torch.ones(64, 64), "half": torch.tensor([0.0, 1.0]).repeat(2048)}
    assert pack(state).keys() == {"sparse.values", "sparse.indices", "sparse.shape", "dense", "half"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sparse_model_is_small_and_comes_back(tmp_path, dtype):
    model = Transformer(CONFIG, seed=1)
    save_model(model, tmp_path / "dense")
    sparsify(model, WeightSparsity(1 / 16))
    model = model.to(dtype)
    save_model(model, tmp_path / "sparse")
    loaded = load_model(tmp_path / "sparse")
    for name, weight in model.state_dict().items():
        assert same_bits(loaded.state_dict()[name], weight)
    dense, sparse = ((tmp_path / kind / "model.safetensors").stat().st_size for kind in ("dense", "sparse"))
    assert sparse < dense / 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_E.indices": None}, "'W_E' is stored sparsely, but indices of it is missing"),
        ({"W_E.values": torch.ones(3)}, "'W_E' is stored sparsely, but its 80 indices"),
        ({"W_E.indices": torch.arange(80).flip(0).int()}, "do not rise from 0 to below 1280"),
        ({"W_E.indices": torch.arange(1240, 1320).int()}, "do not rise from 0 to below 1280"),
        ({"W_E.indices": torch.arange(-1, 79).int()}, "do not rise from 0"),
        ({"W_E.shape": torch.tensor([41, 32])}, r"'W_E' has shape \(41, 32\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, change, message):
    model = Transformer(CONFIG)
    sparsify(model, WeightSparsity(1 / 16))
    stored = {**pack(model.state_dict()), **change}
    weights = save({name: tensor for name, tensor in stored.items() if tensor is not None})
    files = {"config.json": canonical_json(CONFIG.to_dict()), "model.safetensors": weights}
    write_folder(tmp_path / "model", files, kind="model")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model")
