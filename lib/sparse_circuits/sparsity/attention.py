"""Attention edges that open and close: a gate on every entry of every attention pattern, with no weights of its own.

First used in chapter 8. After arXiv 2512.05865 and its authors' reference layer: the softmax goes over all causal keys
as before, and each of its weights is then multiplied by a gate that is 0 or 1. A closed edge carries nothing, and the
open ones of its row do not grow; a row may have no open edge at all.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Transformer

SCORES = "attn.hook_attn_scores"


class AttentionGate(nn.Module):
    """Multiplies attention weights by gates that the attention scores open.

    The logit of a gate is the scaled attention score plus a constant. In training a gate is drawn: open where the
    logit plus logistic noise is above 0, and differentiated as the sigmoid of that sum (straight-through
    Gumbel-sigmoid at temperature 1). In evaluation it is open where the logit is above 0.

    Parameters
    ----------
    bias : float
        The constant. A positive one keeps gates open when post-training begins.

    Notes
    -----
    The noise comes from PyTorch's random state; `torch.manual_seed` repeats it.
    """

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(
        self, pattern: Float[Tensor, "batch head query key"], scores: Float[Tensor, "batch head query key"]
    ) -> Float[Tensor, "batch head query key"]:
        """Return the gated pattern; `scores` are what the pattern is the softmax of, -inf where the mask forbids."""
        logits = scores + self.bias
        if not self.training:
            return pattern * (logits > 0)
        noisy = logits + torch.rand_like(logits).logit()
        soft = noisy.sigmoid()
        # In this order the value is exactly 0 or 1.
        return pattern * (soft - soft.detach() + (noisy > 0))


def check_gate_bias(bias: float | None) -> None:
    """Raise ValueError if the bias is neither None nor a finite number."""
    if bias is not None and (isinstance(bias, bool) or not isinstance(bias, int | float) or not math.isfinite(bias)):
        raise ValueError(f"attention_gate_bias is {bias!r}; give a finite number, or None for attention without gates.")


def gated(model: Transformer, bias: float = 3.0) -> Transformer:
    """Return a copy of a model whose attention edges have gates.

    Parameters
    ----------
    model : Transformer
        The model; it is left as it is.
    bias : float
        Of the gates, see `AttentionGate`.

    Returns
    -------
    Transformer
        In the same mode, precision and place, with the same weights.

    Raises
    ------
    ValueError
        If the model has gates already, or the bias is not finite.
    """
    from ..model import Transformer

    if model.cfg.attention_gate_bias is not None:
        raise ValueError(f"The model has gates with bias {model.cfg.attention_gate_bias} already; give one without.")
    copy = Transformer(replace(model.cfg, attention_gate_bias=float(bias))).to(model.W_E)
    copy.load_state_dict(model.state_dict())
    return copy.train(model.training)


@contextmanager
def kept_scores(model: Transformer) -> Iterator[list[Float[Tensor, "batch head query key"]]]:
    """Collect the attention scores of all layers, in their order, while the model runs inside the context."""
    kept: list[Tensor] = []
    names = [f"blocks.{layer}.{SCORES}" for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=[(name, lambda scores, hook: kept.append(scores)) for name in names]):
        yield kept


def expected_density(
    model: Transformer, scores: list[Float[Tensor, "batch head query key"]]
) -> Float[Tensor, " layer"]:
    """Return the probability that an edge which the mask allows is open in training, mean over each layer's edges.

    Differentiable: the gradient of one gate is g (1 - g) over the number of edges.

    Parameters
    ----------
    model : Transformer
        A model with gates.
    scores : list of float tensors, shape (batch, head, query, key)
        From `kept_scores`, for one run.
    """
    batch, heads, _, length = scores[0].shape
    n = batch * heads * _allowed_pairs(model, length)
    return torch.stack([(layer + model.cfg.attention_gate_bias).sigmoid().sum() / n for layer in scores])


@dataclass(frozen=True, eq=False)
class OpenEdges:
    """How many attention edges are open, without noise.

    Parameters
    ----------
    counts : float64 tensor, shape (layer, head)
        Open edges, mean over prompts.
    expected : float64 tensor, shape (layer, head)
        Sum of the probabilities with which gates are open in training, mean over prompts.
    length : int
        Tokens T in a prompt.
    allowed : float
        Pairs that the mask allows, for each head: T (T + 1) / 2 if attention is causal, else T squared.
    """

    counts: Float[Tensor, "layer head"]
    expected: Float[Tensor, "layer head"]
    length: int
    allowed: float

    @property
    def of_allowed_pairs(self) -> float:
        """Open edges over the pairs that the mask allows: the density of the book's claims."""
        return float(self.counts.mean()) / self.allowed

    @property
    def of_all_pairs(self) -> float:
        """Open edges over T squared pairs for each head, as figure 2 of arXiv 2512.05865 has it; about half as much."""
        return float(self.counts.mean()) / self.length**2

    @property
    def expected_of_allowed_pairs(self) -> float:
        """The expected density in training over the same pairs."""
        return float(self.expected.mean()) / self.allowed

    @property
    def per_token(self) -> float:
        """Open edges of the whole model for each token."""
        return float(self.counts.sum()) / self.length

    def __repr__(self) -> str:
        return (
            f"OpenEdges({100 * self.of_allowed_pairs:.3g} % of allowed pairs, {100 * self.of_all_pairs:.3g} % of all "
            f"pairs, {self.per_token:.3g} per token)"
        )


@torch.no_grad()
def open_edges(model: Transformer, tokens: Int[Tensor, "n pos"], batch_size: int = 64) -> OpenEdges:
    """Count the attention edges that are open when a model reads some prompts, by layer and head.

    Parameters
    ----------
    model : Transformer
        With gates: edges whose gate is open in evaluation. Without: all causal pairs.
    tokens : int tensor, shape (n, pos)
        Prompts without padding, which would be counted.
    batch_size : int
        Prompts in a run.

    Raises
    ------
    ValueError
        If there is no prompt.
    """
    if tokens.ndim != 2 or not tokens.numel():
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give at least one prompt, shape (n, pos).")
    bias = model.cfg.attention_gate_bias
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    counts, expected = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    training = model.training
    model.eval()
    try:
        for batch in tokens.split(batch_size):
            with kept_scores(model) as scores:
                model(batch.to(model.W_E.device))
            for layer, logits in enumerate(scores):
                logits = logits + (torch.inf if bias is None else bias)
                # A score of -inf plus an infinite bias is nan, which is neither open nor counted.
                counts[layer] += (logits > 0).sum((0, 2, 3)).cpu()
                expected[layer] += logits.sigmoid().nan_to_num(0).sum((0, 2, 3), dtype=torch.float64).cpu()
    finally:
        model.train(training)
    length = tokens.shape[1]
    return OpenEdges(counts / len(tokens), expected / len(tokens), length, _allowed_pairs(model, length))


@contextmanager
def closed_attention(model: Transformer) -> Iterator[Transformer]:
    """Close every attention edge of a model for as long as the context lasts."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=[(name, lambda pattern, hook: torch.zeros_like(pattern)) for name in names]):
        yield model


def _allowed_pairs(model: Transformer, length: int) -> float:
    return length * (length + 1) / 2 if model.cfg.attention_dir == "causal" else length**2
