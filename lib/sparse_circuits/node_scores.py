"""Circuits of whole heads and MLPs: how much each one matters, and the circuit that a set of them spans.

First used in chapter 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .circuit import Circuit, listed
from .component_scores import ComponentScore
from .components import EDGES, SOURCE, ComponentGraph
from .edge_scores import EdgeScores
from .sparsity.selection import largest_mask


@dataclass(frozen=True, eq=False)
class NodeScores:
    """The change of a metric when all that a head or an MLP writes is corrupted.

    `faithfulness_curve` and `smallest_circuit` take it in the place of `EdgeScores`; the numbers asked for are then
    numbers of heads and MLPs.

    Parameters
    ----------
    graph : ComponentGraph
        The graph.
    scores : float tensor, shape (component,)
        In the order of `graph.names["source"]`, without `input`.
    method : str
        How they were found.
    """

    graph: ComponentGraph
    scores: Float[Tensor, " component"]
    method: str

    def __len__(self) -> int:
        return len(self.scores)

    def ranked(self) -> list[tuple[str, float]]:
        """Return names and scores, those of largest magnitude first."""
        order = self.scores.abs().sort(descending=True, stable=True).indices.tolist()
        return [(self.graph.names[SOURCE][1 + i], float(self.scores[i])) for i in order]

    def largest(self, k: int) -> Circuit:
        """Return the circuit that the `k` components with scores of largest magnitude span."""
        chosen = torch.cat([torch.ones(1, dtype=torch.bool), largest_mask(self.scores, k)])
        return _spanned(self.graph, chosen)


def node_attribution(scores: EdgeScores) -> NodeScores:
    """Return to first order what corrupting a whole component does: the sum of its edges' scores over their readers.

    Exact for a linear model. From `eap` scores it is attribution patching of nodes.
    """
    graph: ComponentGraph = scores.graph
    real = torch.where(graph.edge_masks[EDGES], scores.scores[EDGES], 0)
    return NodeScores(graph, real.sum(1)[1:], f"{scores.method}, summed over readers")


def exact_node_scores(score: ComponentScore, graph: ComponentGraph) -> NodeScores:
    """Return what corrupting a whole component does, each in a run of its own."""
    whole = Circuit.full(graph)
    unchanged, changes = score(whole), []
    for source in range(1, graph.sizes[SOURCE]):
        kept = whole.edge_masks[EDGES].clone()
        kept[source] = False
        changes.append(score(Circuit(graph, whole.node_masks, {EDGES: kept})) - unchanged)
    return NodeScores(graph, torch.tensor(changes), "exact")


def component_circuit(graph: ComponentGraph, components: Iterable[str]) -> Circuit:
    """Return all edges between the input, the named heads and MLPs, and the logits, less those on no path.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of a head or an MLP of the graph.
    """
    chosen = torch.zeros(graph.sizes[SOURCE], dtype=torch.bool)
    chosen[0] = True
    for name in listed(components, "components"):
        location, i = graph.find_node(name)
        if location != SOURCE:
            raise ValueError(f"{name!r} is an input of a component; name the head or MLP itself, such as 'a1.h0'.")
        chosen[i] = True
    return _spanned(graph, chosen)


def _spanned(graph: ComponentGraph, chosen: Bool[Tensor, " source"]) -> Circuit:
    read_by = (graph.own_readers & chosen[:, None]).any(0)
    read_by[-1] = True
    masks = graph.connected({EDGES: graph.edge_masks[EDGES] & chosen[:, None] & read_by})
    return Circuit(graph, graph.ends_of(masks), masks)
