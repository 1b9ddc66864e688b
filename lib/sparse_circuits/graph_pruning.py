"""Influence in attribution graphs: which nodes and edges matter for the logits, and how much is left to errors.

First used in chapter 11. Definitions of Ameisen et al. 2025, "Circuit Tracing", appendix on pruning, and of
circuit-tracer: `A` is the matrix of absolute edges with each row divided by its sum, `p` the probabilities of the logit
nodes. The influence of a node is its entry of p (A + A^2 + ...): the share of what reaches the logits that passes
through it, or begins there. Absolute values mean that paths which cancel count twice; intervene before you believe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attribution_graph import EDGES, NODE, AttributionGraph
from .circuit import Circuit

# Kinds that are not left out however small their influence, and kinds that need an edge in.
ALWAYS_KEPT = ("token", "position", "bigram", "logit")
INPUTS = ("token", "position", "bigram")


@dataclass(frozen=True)
class GraphScores:
    """How much of a graph is explained; ratios of influence, and not the completeness of `circuit_scores`.

    Attributes
    ----------
    replacement : float
        I(inputs) / (I(inputs) + I(errors)), where I sums the influence of the tokens, positions and bigram table, or of
        the error nodes: the share of what arrives at the logits from the ends of the graph that did not begin in an
        error. Biases are neither; they are the same for every prompt.
    completeness : float
        Mean over features and logits of the share of their absolute edges in that does not come from an error, weighted
        by influence (by probability for logits).
    """

    replacement: float
    completeness: float


def influence(graph: AttributionGraph) -> Float[Tensor, " node"]:
    """Return the influence of every node on the logit nodes."""
    return _influence(_normalised(graph.adjacency), _weights(graph))


def edge_influence(graph: AttributionGraph) -> Float[Tensor, "target source"]:
    """Return the influence of every edge: the normalised edge times the influence of its target (a logit's, p)."""
    return _edge_influence(graph.adjacency, _weights(graph))


def prune_graph(graph: AttributionGraph, node_share: float = 0.8, edge_share: float = 0.98) -> Circuit:
    """Return the part of a graph that carries most influence.

    The fewest nodes are kept that hold `node_share` of all influence, and with them the inputs and the logits; then, of
    the edges between them and with their influence computed anew, the fewest that hold `edge_share`. At last features,
    errors and biases without an edge out are left out, and features without an edge in, until none is left.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    node_share, edge_share : float
        The shares; 0.8 and 0.98 are those of circuit-tracer.

    Returns
    -------
    Circuit
        Of `graph.graph`.

    Raises
    ------
    ValueError
        If a share is not between 0 and 1.
    """
    for name, share in (("node_share", node_share), ("edge_share", edge_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} is {share!r}; give a share, 0 to 1.")
    weights = _weights(graph)
    scores = _influence(_normalised(graph.adjacency), weights)
    fixed = graph.nodes.is_kind(*ALWAYS_KEPT).to(scores.device)
    nodes = _smallest_set(scores, node_share) | fixed
    inside = graph.adjacency * nodes * nodes[:, None]
    edges = _smallest_set(_edge_influence(inside, weights), edge_share)
    is_feature = graph.nodes.is_kind("feature").to(scores.device)
    while True:
        kept = nodes & (fixed | edges.any(0)) & (~is_feature | edges.any(1))
        edges = edges & kept & kept[:, None]
        if torch.equal(kept, nodes):
            return Circuit(graph.graph, {NODE: nodes.cpu()}, {EDGES: edges.T.cpu()})
        nodes = kept


def graph_scores(graph: AttributionGraph, circuit: Circuit | None = None) -> GraphScores:
    """Return replacement and completeness scores of a graph.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    circuit : Circuit, optional
        A part of it, such as `prune_graph` returns: nodes outside then count as errors, so that leaving out does not
        look like explaining. (circuit-tracer scores whole graphs only.)
    """
    normalised, nodes = _normalised(graph.adjacency), graph.nodes
    weights = _weights(graph)
    unexplained = nodes.is_kind("error").to(weights.device)
    if circuit is not None:
        unexplained = unexplained | ~circuit.node_masks[NODE].to(weights.device)
        # What is left out passes nothing on: it is an end of the graph.
        passing = normalised * ~unexplained[:, None]
    else:
        passing = normalised
    scores = _influence(passing, weights)
    is_input = nodes.is_kind(*INPUTS).to(weights.device) & ~unexplained
    from_inputs, from_errors = scores[is_input].sum(), scores[unexplained].sum()
    counted = nodes.is_kind("feature", "logit").to(weights.device) & ~unexplained
    reach = (scores + weights)[counted]
    explained = 1 - normalised[counted][:, unexplained].sum(1)
    return GraphScores(
        replacement=float(from_inputs / (from_inputs + from_errors)),
        completeness=float((reach * explained).sum() / reach.sum()),
    )


def _weights(graph: AttributionGraph) -> Float[Tensor, " node"]:
    weights = graph.adjacency.new_zeros(len(graph.nodes))
    weights[graph.nodes.is_kind("logit").to(weights.device)] = graph.probabilities
    return weights


def _normalised(adjacency: Float[Tensor, "target source"]) -> Float[Tensor, "target source"]:
    absolute = adjacency.abs()
    return absolute / absolute.sum(1, keepdim=True).clamp_min(torch.finfo(absolute.dtype).tiny)


def _influence(normalised: Float[Tensor, "target source"], weights: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
    # A path has at most one feature of each layer, so that this ends.
    reached = weights @ normalised
    total = reached
    while reached.any():
        reached = reached @ normalised
        total = total + reached
    return total


def _edge_influence(adjacency: Tensor, weights: Tensor) -> Float[Tensor, "target source"]:
    normalised = _normalised(adjacency)
    return normalised * (_influence(normalised, weights) + weights)[:, None]


def _smallest_set(scores: Float[Tensor, "*shape"], share: float) -> Bool[Tensor, "*shape"]:
    """Return the fewest entries that together hold a share of the sum; entries as large as the last come with it."""
    positive = scores[scores > 0]
    if not len(positive):
        return torch.zeros_like(scores, dtype=torch.bool)
    descending = positive.sort(descending=True).values
    reached = descending.cumsum(0)
    last = int((reached < share * reached[-1]).sum())
    return scores >= descending[min(last, len(descending) - 1)]
