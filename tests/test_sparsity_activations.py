"""Activation AbsTopK: as many coordinates stay at each location as the configuration says, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from sparse_circuits.checkpoints import load_model, save_model
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import ACTIVATION_LOCATIONS

DENSE = TransformerConfig(d_vocab=20, n_ctx=8, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32)
SPARSE = replace(DENSE, activation_density=0.25)
TOKENS = torch.randint(20, (3, 8), generator=torch.Generator().manual_seed(0))


def zero_all_but_largest(x: torch.Tensor, k: int) -> torch.Tensor:
    kept = torch.zeros_like(x).scatter(-1, x.abs().sort(-1, descending=True).indices[..., :k], 1)
    return x * kept


def test_each_location_keeps_its_share():
    _, cache = Transformer(SPARSE).run_with_cache(TOKENS)
    widths = {"mlp.hook_post": 32}
    for layer in range(2):
        for location in ACTIVATION_LOCATIONS:
            active = cache[f"blocks.{layer}.{location}"].flatten(2).count_nonzero(-1)
            assert (active == widths.get(location, 16) // 4).all()


def test_the_forward_pass_is_that_of_hooks_written_by_hand():
    locations = ("ln1.hook_normalized", "attn.hook_v", "mlp.hook_post")
    sparse = Transformer(replace(SPARSE, activation_locations=locations), seed=1)
    dense = Transformer(DENSE, seed=1)

    def by_hand(x, hook):
        return zero_all_but_largest(x.flatten(2), x.flatten(2).shape[-1] // 4).view_as(x)

    names = [f"blocks.{layer}.{location}" for layer in range(2) for location in locations]
    expected = dense.run_with_hooks(TOKENS, fwd_hooks=[(name, by_hand) for name in names])
    torch.testing.assert_close(sparse(TOKENS), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(sparse(TOKENS), dense(TOKENS), atol=1e-2)


def test_other_hooks_come_and_go_without_it():
    model = Transformer(SPARSE)
    before = model(TOKENS)
    seen = []
    with model.hooks(fwd_hooks=[("blocks.0.mlp.hook_post", lambda x, hook: seen.append(x.count_nonzero(-1)))]):
        model(TOKENS)
    model.reset_hooks()
    assert (seen[0] == 8).all()
    assert torch.equal(model(TOKENS), before)


def test_a_location_keeps_at_least_one_coordinate():
    _, cache = Transformer(replace(DENSE, activation_density=1e-3)).run_with_cache(TOKENS)
    assert (cache["blocks.1.mlp.hook_post"].count_nonzero(-1) == 1).all()


def test_the_setting_is_stored_with_the_model(tmp_path):
    model = Transformer(replace(SPARSE, activation_locations=("mlp.hook_post",)), seed=2)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.cfg == model.cfg
    assert torch.equal(loaded(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_density": 0.0}, "activation_density is 0.0; give a share above 0"),
        ({"activation_density": 1.01}, "activation_density is 1.01"),
        ({"activation_locations": ("mlp.hook_pre",)}, r"activation_locations has \['mlp.hook_pre'\]; choose among"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(DENSE, **change)
