"""Weights pruned after training, at the same patterns as inputs: magnitude, Wanda and SparseGPT.

First used in chapter 15. A layer is x @ W with W of shape (channel, output); the groups of a pattern are consecutive
channels of one output, so that they are the groups in which inputs compete.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..graph import as_matrix, as_weight
from .inputs import layer_inputs, projection_of, pruned_layers
from .patterns import Pattern, pattern_mask

if TYPE_CHECKING:
    from ..model import Transformer

METHODS = ("magnitude", "Wanda", "SparseGPT")
DAMPING = 0.01
BLOCK = 128


@torch.no_grad()
def prune_weights(
    model: Transformer,
    pattern: Pattern,
    method: str,
    tokens: Int[Tensor, "batch pos"] | None = None,
    projections: Iterable[str] | None = None,
) -> Transformer:
    """Return a copy of a model with pruned weights.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    pattern : Pattern
        How many weights of each group stay.
    method : {"magnitude", "Wanda", "SparseGPT"}
        Which stay. The last changes those that stay, too.
    tokens : int tensor, shape (batch, pos), optional
        Calibration prompts; magnitude needs none. Blocks are pruned one after another, each with the inputs that it
        gets from the pruned blocks before it.
    projections : iterable of str, optional
        Which kinds of layers, as in `pruned_inputs`; all but the unembedding if not given.

    Raises
    ------
    ValueError
        If there is no such method or projection, tokens are missing, or the pattern does not fit a layer.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {list(METHODS)}.")
    if tokens is None and method != "magnitude":
        raise ValueError(f"{method} looks at inputs, and tokens is None; give calibration prompts.")
    pruned = copy.deepcopy(model)
    layers = pruned_layers(pruned, projections)
    chosen = {projection_of(matrix) for matrix in layers}
    for block in range(pruned.cfg.n_layers):
        inputs = {} if method == "magnitude" else layer_inputs(pruned, tokens, chosen)
        for matrix in (name for name in layers if name.startswith(f"blocks.{block}.")):
            weight = pruned.get_parameter(matrix)
            kept = prune_matrix(as_matrix(matrix, weight), pattern, method, inputs.get(matrix))
            weight.copy_(as_weight(matrix, kept, pruned.cfg.n_heads))
    return pruned


def prune_matrix(
    weight: Float[Tensor, "channel output"],
    pattern: Pattern,
    method: str,
    x: Float[Tensor, "token channel"] | None = None,
) -> Float[Tensor, "channel output"]:
    """Return the pruned weights of one layer.

    Parameters
    ----------
    weight : float tensor, shape (channel, output)
        The weights.
    pattern, method
        As in `prune_weights`. An unstructured pattern keeps its share of the channels of each output.
    x : float tensor, shape (token, channel), optional
        Inputs of the layer; magnitude needs none.

    Notes
    -----
    Magnitude keeps the largest |W|. Wanda (arXiv 2306.11695, equation 1) keeps the largest |W_jo| ||x_j||, compared
    within each output. SparseGPT: see `sparsegpt`.
    """
    if method == "SparseGPT":
        return sparsegpt(weight, x, pattern)
    score = weight if method == "magnitude" else weight * x.norm(dim=0)[:, None]
    return weight * pattern_mask(score.T, pattern).T


def sparsegpt(
    weight: Float[Tensor, "channel output"],
    x: Float[Tensor, "token channel"],
    pattern: Pattern,
    damping: float = DAMPING,
    block: int = BLOCK,
) -> Float[Tensor, "channel output"]:
    """Prune channel after channel, and let the later channels of the same output make up for each that goes.

    Parameters
    ----------
    weight : float tensor, shape (channel, output)
        The weights.
    x : float tensor, shape (token, channel)
        Inputs of the layer.
    pattern : Pattern
        Which weights stay is decided when the first channel of their group is reached, by w² / d², where d² is the
        entry of the channel in the inverse of the Hessian of the channels from it on. An unstructured pattern is
        decided within each block of `block` channels and each output. (The authors compare all outputs of a block.)
    damping : float
        Share of the mean of the Hessian's diagonal that is added to the diagonal.
    block : int
        Channels that an unstructured pattern compares.

    Notes
    -----
    Frantar and Alistarh, arXiv 2301.00774, algorithm 1. The Hessian is H = 2 X^T X / n; its factor 2 / n cancels.
    """
    channels = weight.shape[0]
    size = min(block, channels) if pattern.group is None else pattern.sizes(channels)[1]
    rows = weight.T.double().clone()  # (output, channel)
    hessian = 2 * x.double().T @ x.double() / len(x)
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    rows[:, dead] = 0
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)  # row j belongs to the channels from j on
    for start in range(0, channels, size):
        group = slice(start, min(start + size, channels))
        saliency = rows[:, group] / factor.diagonal()[group]
        stays: Bool[Tensor, "output channel"] = pattern_mask(saliency, pattern)
        for place, channel in enumerate(range(group.start, group.stop)):
            error = torch.where(stays[:, place], 0, rows[:, channel]) / factor[channel, channel]
            rows[:, channel:] -= error[:, None] * factor[channel, channel:]
            rows[~stays[:, place], channel] = 0
    return rows.T.to(weight)
