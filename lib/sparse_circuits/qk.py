"""QK attribution: why a head attends from one position to another, in terms of features.

First used in chapter 11. An attention score is bilinear in the residual stream at the query and at the key (the norms'
denominators are those of the run), and the residual stream is a sum over nodes, so the score is exactly a sum over
pairs of nodes (Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions"). In an ordinary model
this explains the score, not the softmax over the other keys. With the gates of `sparsity.attention` whether an edge is
open is `score > -bias`: a threshold on that sum, with no other key in it, so an open edge is explained completely.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .attribution_graph import AttributionGraph
from .graph import ATTENTION_READ
from .local_replacement import LocalReplacement


@dataclass(frozen=True, eq=False)
class QKAttribution:
    """An attention score as a sum over pairs of nodes.

    Attributes
    ----------
    terms : float tensor, shape (query node, key node)
        Entry (i, j) is what node i at the query and node j at the key add together. The last row is the bias b_Q of the
        head, the last column its b_K.
    names : list of str
        Names of the rows, and of the columns but for the last, which is `b_K`.
    score : float
        The scaled score of the run; the sum of the terms.
    weight : float
        The entry of the attention pattern, 0 if its gate is closed.
    gate_bias : float or None
        Bias of the gate; None if the model has no gates.
    """

    terms: Float[Tensor, "query_node key_node"]
    names: list[str]
    score: float
    weight: float
    gate_bias: float | None

    def __repr__(self) -> str:
        gate = (
            ""
            if self.gate_bias is None
            else f", threshold {self.threshold:.4g}, {'open' if self.is_open else 'closed'}"
        )
        return f"QKAttribution(score {self.score:.4g}{gate}, weight {self.weight:.4g})"

    @property
    def threshold(self) -> float | None:
        """The score above which the edge is open; None if the model has no gates."""
        return None if self.gate_bias is None else -self.gate_bias

    @property
    def is_open(self) -> bool:
        """Whether the edge is open; without gates every edge is that the mask allows."""
        return self.gate_bias is None or self.score + self.gate_bias > 0

    def largest(self, n: int = 10) -> list[tuple[str, str, float]]:
        """Return the `n` pairs of nodes that matter most: name at the query, name at the key, what they add."""
        order = self.terms.abs().flatten().argsort(descending=True)[:n].tolist()
        pairs = (divmod(i, self.terms.shape[1]) for i in order)
        columns = [*self.names[:-1], "b_K"]
        return [(self.names[i], columns[j], float(self.terms[i, j])) for i, j in pairs]


@torch.no_grad()
def qk_attribution(
    graph: AttributionGraph | LocalReplacement, layer: int, head: int, query: int, key: int
) -> QKAttribution:
    """Attribute one attention score to pairs of nodes.

    Parameters
    ----------
    graph : AttributionGraph or LocalReplacement
        A prompt.
    layer, head : int
        The head.
    query, key : int
        The positions.

    Raises
    ------
    ValueError
        If one of the numbers is out of range, or the mask forbids the pair.
    """
    local = getattr(graph, "local", graph)
    cfg, nodes = local.model.cfg, local.nodes
    asked = {"layer": layer, "head": head, "query": query, "key": key}
    sizes = {"layer": cfg.n_layers, "head": cfg.n_heads, "query": nodes.n_pos, "key": nodes.n_pos}
    for name, number in asked.items():
        if not 0 <= number < sizes[name]:
            raise ValueError(f"{name} is {number}; give 0 to {sizes[name] - 1}.")
    score = float(local.at(layer, "attn.hook_attn_scores")[head, query, key])
    if score == -torch.inf:
        raise ValueError(f"Position {query} cannot attend to {key}, which comes later; give a key up to the query.")
    attn = local.model.blocks[layer].attn
    queries = _at_head(local, layer, head, query, "Q")
    keys = _at_head(local, layer, head, key, "K")
    pattern = local.at(layer, "attn.hook_pattern")
    return QKAttribution(
        terms=queries.T @ keys * attn.scale,
        names=[*nodes.names, "b_Q"],
        score=score,
        weight=float(pattern[head, query, key]),
        gate_bias=cfg.attention_gate_bias,
    )


def _at_head(
    local: LocalReplacement, layer: int, head: int, position: int, letter: str
) -> Float[Tensor, "d_head node_and_bias"]:
    """Return what each node, and last the bias, adds to the query or key of a head at a position."""
    attn, causal = local.model.blocks[layer].attn, local.model.cfg.attention_dir == "causal"
    length = position + 1 if causal else local.nodes.n_pos
    weight, bias = getattr(attn, f"W_{letter}")[head], getattr(attn, f"b_{letter}")[head]
    reads = weight.new_zeros(weight.shape[1], length, weight.shape[0])
    reads[:, position] = weight.T / local.at(layer, "ln1.hook_scale")[position]
    parts = local.contributions(local.masked(layer, ATTENTION_READ, reads), layer, behind_attention=False)
    parts = torch.cat([parts, bias[:, None]], dim=1)
    place = f"attn.hook_{letter.lower()}"
    cfg = local.model.cfg
    if cfg.activation_density < 1 and place in cfg.activation_locations:
        parts = parts * (local.at(layer, place)[position, head] != 0)[:, None]
    return parts
