"""What sparse attention has to be compared with: the same number of open edges, chosen in ways that need no training.

First used in chapter 8. Each control is a context in which the model runs; leaving it restores the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .model import Transformer
from .sparsity.attention import kept_scores
from .sparsity.selection import largest_mask


@contextmanager
def largest_edges(model: Transformer, k: int, renormalized: bool = True) -> Iterator[Transformer]:
    """Keep the `k` largest attention weights of every row and close the others: top-k of the dense model.

    Parameters
    ----------
    model : Transformer
        The model.
    k : int
        Edges of each query; a query with fewer causal keys keeps them all.
    renormalized : bool
        Let the kept weights of a row add up to what all of them did.

    Raises
    ------
    ValueError
        If `k` is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; keep at least 1 edge for each query, or use closed_attention.")

    def keep(pattern: Tensor, hook) -> Tensor:
        kept = pattern * largest_mask(pattern, min(k, pattern.shape[-1]), dim=-1)
        if not renormalized:
            return kept
        return kept * (pattern.sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp_min(1e-30))

    with model.hooks(fwd_hooks=[(name, keep) for name in _patterns(model)]):
        yield model


@contextmanager
def random_edges(model: Transformer, density: float, seed: int) -> Iterator[Transformer]:
    """Leave every attention edge open with the same probability, drawn anew for each edge of each prompt.

    Parameters
    ----------
    model : Transformer
        The model.
    density : float
        The probability: the share of causal pairs that are open on average.
    seed : int
        Of the draws of the whole context.

    Raises
    ------
    ValueError
        If `density` is outside [0, 1].
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density is {density!r}; give a share from 0 to 1.")
    generator = torch.Generator().manual_seed(seed)

    def draw(pattern: Tensor, hook) -> Tensor:
        return pattern * (torch.rand(pattern.shape, generator=generator) < density).to(pattern.device)

    with model.hooks(fwd_hooks=[(name, draw) for name in _patterns(model)]):
        yield model


@contextmanager
def masked_edges(model: Transformer, masks: list[Bool[Tensor, "batch head query key"]]) -> Iterator[Transformer]:
    """Close every attention edge outside the masks, one for each layer, for the prompts that they were made from."""

    def close(pattern: Tensor, hook) -> Tensor:
        mask = masks[int(hook.name.split(".")[1])]
        if mask.shape != pattern.shape:
            raise ValueError(
                f"The mask of {hook.name} has shape {tuple(mask.shape)}, the run {tuple(pattern.shape)}; run the "
                "prompts that the masks were made from."
            )
        return pattern * mask

    with model.hooks(fwd_hooks=[(name, close) for name in _patterns(model)]):
        yield model


@torch.no_grad()
def gate_masks(model: Transformer, tokens: Int[Tensor, "batch pos"]) -> list[Bool[Tensor, "batch head query key"]]:
    """Return which edges a model with gates leaves open on some prompts, without noise, layer by layer.

    Put on the original weights by `masked_edges`, they say whether the mask alone carries the result.

    Raises
    ------
    ValueError
        If the model has no gates.
    """
    bias = model.cfg.attention_gate_bias
    if bias is None:
        raise ValueError("The model has no attention gates, so it leaves no mask; give a post-trained one.")
    training = model.training
    model.eval()
    try:
        with kept_scores(model) as scores:
            model(tokens)
    finally:
        model.train(training)
    return [layer + bias > 0 for layer in scores]


def _patterns(model: Transformer) -> list[str]:
    return [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
