"""Head loadings: which head, reading which position, brings each edge of an attribution graph to its target.

First used in chapter 11. Every path of an edge s -> t either stays at one position, or has a last attention step: some
head h of some layer l reads position k and writes at the position of t, from where nothing but the residual stream
leads on. The edge is therefore exactly

    direct + sum over (l, h, k) of loading(l, h, k)

with no path counted twice. Where s reaches t through one attention layer alone this is the head loading of Kamath et
al. 2025, "Tracing Attention Computation Through Feature Interactions".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .attribution_graph import EDGES, AttributionGraph
from .circuit import Circuit
from .graph_pruning import edge_influence

AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class HeadLoadings:
    """The loadings of some edges.

    Attributes
    ----------
    edges : int tensor, shape (edge, 2)
        Source and target of each, as indices of nodes.
    loadings : float tensor, shape (edge, layer, head, pos)
        By the position that the head reads.
    direct : float tensor, shape (edge,)
        What no attention head carries.
    """

    edges: Int[Tensor, "edge 2"]
    loadings: Float[Tensor, "edge layer head pos"]
    direct: Float[Tensor, " edge"]

    def __repr__(self) -> str:
        return f"HeadLoadings({len(self.edges)} edges, {int((self.loadings != 0).sum())} loadings)"


@dataclass(frozen=True, eq=False)
class AttentionTerms:
    """How much of the attention-mediated attribution of a graph each term of its attention carries.

    Attributes
    ----------
    weights : float tensor, shape (layer, head, query, key)
        Sum over the edges of |loading| times influence per unit of edge: what a term moves, as far as it reaches the
        logits.
    """

    weights: Float[Tensor, "layer head query key"]

    def count(self, share: float = 0.8, by: str = "term") -> int:
        """Return how few terms carry a share of the attribution.

        Parameters
        ----------
        share : float
            Of the sum of all weights.
        by : {"term", "head", "head and source"}
            What is one term: an entry (layer, head, query, key), a head, or a head and the position it reads.

        Raises
        ------
        ValueError
            If the share is not between 0 and 1, or `by` is not allowed.
        """
        axes = {"term": (), "head": (2, 3), "head and source": (2,)}
        if by not in axes:
            raise ValueError(f"by is {by!r}; choose one of {list(axes)}.")
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share!r}; give a share, 0 to 1.")
        weights = (self.weights.sum(axes[by]) if axes[by] else self.weights).flatten()
        reached = weights.sort(descending=True).values.cumsum(0)
        # A little less than asked, so that rounding in the last sum does not add a term.
        return int((reached < share * reached[-1] * (1 - 1e-9)).sum()) + 1 if reached[-1] > 0 else 0

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.count(by=by)} by {by}" for by in ("term", "head and source", "head"))
        return f"AttentionTerms(to 80 % of attention-mediated attribution: {counts})"


@torch.no_grad()
def head_loadings(graph: AttributionGraph, edges: Int[Tensor, "edge 2"]) -> HeadLoadings:
    """Return the loadings of some edges of a graph.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    edges : int tensor, shape (edge, 2)
        Source and target: indices of nodes, see `attention_edges`. Sources are features, errors, tokens and positions;
        targets are features and logits.

    Raises
    ------
    ValueError
        If an index is out of range, or a node cannot be a source or a target of such an edge.
    """
    edges = _checked(graph, edges)
    cfg, n_pos = graph.local.model.cfg, graph.nodes.n_pos
    loadings = graph.adjacency.new_zeros(len(edges), cfg.n_layers, cfg.n_heads, n_pos)
    for rows, layer, part in _loadings(graph, edges):
        loadings[rows, layer] = part
    sources, targets = edges.T
    return HeadLoadings(edges, loadings, graph.adjacency[targets, sources] - loadings.sum((1, 2, 3)))


@torch.no_grad()
def attention_terms(graph: AttributionGraph, circuit: Circuit | None = None) -> AttentionTerms:
    """Return what each term of the attention carries of the attribution of a graph, or of a part of it.

    Each edge counts with its influence (`graph_pruning.edge_influence`), divided among its loadings by their size.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    circuit : Circuit, optional
        The part, such as `prune_graph` returns; the whole graph if not given, which takes long for long prompts.
    """
    edges = attention_edges(graph, circuit)
    cfg, n_pos = graph.local.model.cfg, graph.nodes.n_pos
    sources, targets = edges.T
    per_unit = edge_influence(graph)[targets, sources] / graph.adjacency[targets, sources].abs()
    weights = graph.adjacency.new_zeros(cfg.n_layers, cfg.n_heads, n_pos, n_pos)
    for rows, layer, part in _loadings(graph, edges):
        carried = (part.abs() * per_unit[rows][:, None, None]).transpose(0, 1)
        weights[layer].index_add_(1, graph.nodes.position[targets[rows]].to(weights.device), carried)
    return AttentionTerms(weights)


def attention_edges(graph: AttributionGraph, circuit: Circuit | None = None) -> Int[Tensor, "edge 2"]:
    """Return the edges of a graph, or of a part of it, whose sources write at one position: (source, target) indices.

    Those from biases and the bigram table are left out; they carry nothing from one position to another.
    """
    edges = (graph.graph.edge_masks if circuit is None else circuit.edge_masks)[EDGES].nonzero()
    return edges[graph.nodes.is_kind("feature", "error", "token", "position")[edges[:, 0]]]


def _loadings(graph: AttributionGraph, edges: Int[Tensor, "edge 2"]):
    """Yield rows of `edges`, a layer, and their loadings there, (row, head, pos); sources a few at a time."""
    local, nodes = graph.local, graph.nodes
    cfg = local.model.cfg
    needed, which = edges[:, 0].unique(return_inverse=True)
    order = which.argsort(stable=True)
    at_once = max(1, AT_ONCE // (nodes.n_pos * cfg.d_model * cfg.n_layers))
    rows_at_once = max(1, AT_ONCE // (nodes.n_pos * cfg.n_heads * cfg.d_head))
    for first in range(0, len(needed), at_once):
        messages = local.messages(needed[first : first + at_once])
        rows_here = order[(which[order] >= first) & (which[order] < first + at_once)]
        for layer in range(cfg.n_layers):
            values, pattern = local.head_values(layer, messages[layer]), local.at(layer, "attn.hook_pattern")
            behind = _reads_behind(graph, edges[rows_here, 1], layer)
            reaching = behind.any(1)
            for rows, reads in zip(
                rows_here[reaching].split(rows_at_once), behind[reaching].split(rows_at_once), strict=True
            ):
                positions = nodes.position[edges[rows, 1]]
                mixed = torch.einsum("td,hed->the", reads, local.model.blocks[layer].attn.W_O)
                part = torch.einsum("tkhe,the->thk", values[which[rows] - first], mixed)
                yield rows, layer, part * pattern[:, positions].transpose(0, 1)


def _reads_behind(graph: AttributionGraph, targets: Int[Tensor, " n"], layer: int) -> Float[Tensor, "n d_model"]:
    """Return what targets read, at their own position, of what the attention of a layer writes; 0 if they come before.

    Between there and the target nothing but the residual stream is counted: the attention step is the last.
    """
    local, nodes = graph.local, graph.nodes
    distinct, which = targets.unique(return_inverse=True)
    reads = graph.adjacency.new_zeros(len(distinct), local.model.cfg.d_model)
    is_logit = nodes.is_kind("logit")[distinct]
    for of_layer in range(layer, local.model.cfg.n_layers):
        at = ~is_logit & (nodes.layer[distinct] == of_layer)
        if at.any():
            positions, features = nodes.position[distinct[at]], nodes.feature[distinct[at]]
            every = local.feature_reads(of_layer, positions, features, nodes.n_pos)
            reads[at] = _written(graph, layer, every)[range(len(positions)), positions]
    if is_logit.any():
        W_U = local.model.W_U
        tokens = nodes.feature[distinct[is_logit]]
        directions = (W_U[:, tokens] - (W_U.mean(1, keepdim=True) if graph.demeaned else 0)).T
        position = int(nodes.position[-1])
        every = local.logit_reads(directions, position, nodes.n_pos)
        reads[is_logit] = _written(graph, layer, every)[:, position]
    return reads[which]


def _written(graph: AttributionGraph, layer: int, reads: Tensor) -> Tensor:
    return graph.local.masked(layer, "hook_attn_out", reads)


def _checked(graph: AttributionGraph, edges: Tensor) -> Int[Tensor, "edge 2"]:
    edges = torch.as_tensor(edges)
    if edges.ndim != 2 or edges.shape[1] != 2 or edges.is_floating_point():
        raise ValueError(f"edges have shape {tuple(edges.shape)}; give (edge, 2), the indices of sources and targets.")
    wrong = edges[(edges < 0) | (edges >= len(graph.nodes))]
    if len(wrong):
        raise ValueError(f"Node {wrong[0].item()} is out of range; the graph has nodes 0 to {len(graph.nodes) - 1}.")
    graph.nodes.check_local(edges[:, 0])
    odd = edges[:, 1][~graph.nodes.is_kind("feature", "logit")[edges[:, 1]]]
    if len(odd):
        raise ValueError(f"{graph.nodes.names[int(odd[0])]} has no edges in; give features and logits as targets.")
    return edges
