"""Pruned weights against definitions written out: scores for magnitude and Wanda, inverses for SparseGPT."""

import pytest
import torch
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import Pattern, prune_weights
from sparse_circuits.sparsity.pruned_weights import METHODS, prune_matrix, sparsegpt

CONFIG = TransformerConfig(d_vocab=20, n_ctx=9, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, gated_mlp=True)
HALF = Pattern(2, 4)
draw = torch.Generator().manual_seed(0)
# Correlated channels, so that others can make up for one that goes.
X = torch.randn(40, 12, generator=draw, dtype=torch.float64) @ torch.randn(12, 12, generator=draw, dtype=torch.float64)
W = torch.randn(12, 5, generator=draw, dtype=torch.float64)
TOKENS = torch.randint(20, (4, 9), generator=draw)


def kept_by_scores(score: torch.Tensor, keep: int, group: int) -> torch.Tensor:
    kept = torch.zeros_like(score, dtype=torch.bool)
    for output in range(score.shape[1]):
        for start in range(0, len(score), group):
            values = score[start : start + group, output].tolist()
            for i in sorted(range(group), key=lambda i: -values[i])[:keep]:
                kept[start + i, output] = True
    return kept


@pytest.mark.parametrize(("pattern", "sizes"), [(HALF, (2, 4)), (Pattern(3, 6), (3, 6)), (Pattern(50), (6, 12))])
def test_magnitude_and_wanda_keep_the_largest_scores_of_each_output(pattern, sizes):
    magnitude = W * kept_by_scores(W.abs(), *sizes)
    assert torch.equal(prune_matrix(W, pattern, "magnitude"), magnitude)
    wanda = W * kept_by_scores(W.abs() * X.square().sum(0).sqrt()[:, None], *sizes)
    assert torch.equal(prune_matrix(W, pattern, "Wanda", X), wanda)
    assert not torch.equal(magnitude, wanda)


def sparsegpt_by_inverses(weight, x, keep, group, damping=0.01):
    """Optimal brain surgery, one channel after another, with the inverse Hessian of those that are left each time."""
    rows = weight.T.clone()
    hessian = 2 * x.T @ x / len(x)
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    inverses = [torch.linalg.inv(hessian[j:, j:]) for j in range(len(hessian))]
    for row in rows:
        for j in range(len(row)):
            if j % group == 0:
                saliency = [row[j + i].item() ** 2 / inverses[j + i][0, 0].item() for i in range(group)]
                stays = sorted(range(group), key=lambda i: -saliency[i])[:keep]
            if j % group not in stays:
                row[j:] -= row[j] / inverses[j][0, 0] * inverses[j][:, 0]
                row[j] = 0
    return rows.T


@pytest.mark.parametrize(("pattern", "sizes"), [(HALF, (2, 4)), (Pattern(3, 6), (3, 6)), (Pattern(50), (6, 12))])
def test_sparsegpt_is_brain_surgery_in_order(pattern, sizes):
    found = sparsegpt(W, X, pattern)
    torch.testing.assert_close(found, sparsegpt_by_inverses(W, X, *sizes))
    assert (found == 0).sum() == W.numel() // 2


def test_an_unstructured_block_keeps_half_of_each_output():
    found = sparsegpt(W, X, Pattern(50), block=4)
    assert torch.equal(found != 0, sparsegpt(W, X, HALF) != 0)
    assert ((sparsegpt(W, X, Pattern(50)) != 0).sum(0) == 6).all()


def test_making_up_for_what_goes_leaves_a_smaller_error_than_not():
    def error(method):
        return (X @ (prune_matrix(W, HALF, method, X) - W)).square().mean().item()

    assert error("SparseGPT") < error("Wanda") < error("magnitude")


def test_a_channel_that_is_always_zero_does_no_harm():
    x = X.clone()
    x[:, 3] = 0
    found = sparsegpt(W, x, HALF)
    assert found.isfinite().all()
    assert (found[3] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_of_a_copy_is_pruned_in_the_groups_in_which_inputs_compete(method):
    model = Transformer(CONFIG, seed=1)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    pruned = prune_weights(model, HALF, method, TOKENS)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    blocks = list(pruned.blocks)
    by_channel = [w for block in blocks for w in (block.mlp.W_gate, block.mlp.W_in, block.mlp.W_out)]
    by_channel += [block.attn.W_O.flatten(0, 1) for block in blocks]
    by_channel += [w[h] for block in blocks for w in (block.attn.W_Q, block.attn.W_K, block.attn.W_V) for h in (0, 1)]
    for weight in by_channel:
        assert (weight.T.reshape(-1, 4).count_nonzero(-1) == 2).all()
    assert torch.equal(pruned.W_U, model.W_U)
    assert not pruned.training or model.training


def test_later_blocks_see_the_inputs_that_pruned_ones_make():
    model = Transformer(CONFIG, seed=1).double()
    pruned = prune_weights(model, HALF, "Wanda", TOKENS, ["down"])
    _, cache = pruned.run_with_cache(TOKENS)
    x = cache["blocks.1.mlp.hook_post"].flatten(0, 1)
    assert torch.equal(pruned.blocks[1].mlp.W_out, prune_matrix(model.blocks[1].mlp.W_out, HALF, "Wanda", x))
    assert torch.equal(pruned.blocks[1].attn.W_Q, model.blocks[1].attn.W_Q)


def test_bad_input_is_refused_with_the_remedy():
    model = Transformer(CONFIG)
    with pytest.raises(ValueError, match=r"no method 'wanda'; choose one of"):
        prune_weights(model, HALF, "wanda", TOKENS)
    with pytest.raises(ValueError, match=r"Wanda looks at inputs, and tokens is None; give calibration"):
        prune_weights(model, HALF, "Wanda")
    with pytest.raises(ValueError, match=r"3:5 does not divide 16 entries"):
        prune_weights(model, Pattern(3, 5), "magnitude")
