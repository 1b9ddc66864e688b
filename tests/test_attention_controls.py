"""Controls close the edges that they say, and no others."""

import pytest
import torch
from ablation_oracle import random_model, random_tokens
from sparse_circuits.attention_controls import gate_masks, largest_edges, masked_edges, random_edges
from sparse_circuits.sparsity.attention import gated

TOKENS = random_tokens(0, 3, 6)


def patterns(model):
    seen = {}
    hooks = [(f"blocks.{layer}.attn.hook_pattern", lambda p, hook: seen.update({hook.name: p})) for layer in range(2)]
    with model.hooks(fwd_hooks=hooks):
        model(TOKENS)
    return list(seen.values())


@pytest.mark.parametrize("renormalized", [True, False])
def test_the_largest_edges_of_each_row_stay(renormalized):
    model = random_model(1)
    first = patterns(model)[0]
    with largest_edges(model, 2, renormalized):
        kept = patterns(model)[0]
    for row, whole in zip(kept.flatten(0, 2), first.flatten(0, 2), strict=True):
        largest = sorted(whole.tolist(), reverse=True)[:2]
        factor = whole.sum().item() / sum(largest) if renormalized else 1.0
        assert sorted(row[row > 0].tolist(), reverse=True) == pytest.approx([x * factor for x in largest if x > 0])


def test_random_edges_have_the_density_and_the_weights_of_the_model():
    model = random_model(0)
    first = patterns(model)[0]
    shares = []
    for seed in range(40):
        with random_edges(model, 0.3, seed):
            kept = patterns(model)[0]
        assert torch.equal(kept[kept > 0], first[kept > 0])
        shares.append(float((kept > 0).sum() / (first > 0).sum()))
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(patterns(model)[0], first)


def test_the_mask_of_gates_on_the_same_weights_is_the_model_with_gates():
    dense = random_model(1).eval()
    sparse = gated(dense, bias=0.1)
    with masked_edges(dense, gate_masks(sparse, TOKENS)):
        torch.testing.assert_close(dense(TOKENS), sparse(TOKENS))
    assert not torch.allclose(dense(TOKENS), sparse(TOKENS))


def test_bad_input_is_named():
    model = random_model(0)
    with pytest.raises(ValueError, match="k is 0; keep at least 1"), largest_edges(model, 0):
        pass
    with pytest.raises(ValueError, match=r"density is 1\.5; give"), random_edges(model, 1.5, 0):
        pass
    with pytest.raises(ValueError, match="has no attention gates"):
        gate_masks(model, TOKENS)
    masks = gate_masks(gated(model), TOKENS[:, :4])
    with (
        pytest.raises(ValueError, match=r"has shape \(3, 2, 4, 4\), the run \(3, 2, 6, 6\); run the prompts"),
        masked_edges(model, masks),
    ):
        model(TOKENS)
