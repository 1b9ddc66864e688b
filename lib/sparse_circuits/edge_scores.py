"""One number for every edge of a graph: how much a metric changes when that edge is ablated.

First used in chapter 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .circuit import Circuit
from .graph import Graph
from .sparsity.selection import largest_mask


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """The change of a metric, mean over prompts, when each edge of a graph is ablated on its own.

    Negative where the edge supports a metric of which more is better. EAP-IG's files hold the change of a loss, which
    has the other sign.

    Parameters
    ----------
    graph : Graph
        The universe of edges.
    scores : mapping of str to float tensor, shape (source, target)
        For each matrix of the graph; where there is no edge the entry has no meaning.
    method : str
        How they were found, for tables: `"exact"`, `"EAP"`, `"EAP-IG, 5 steps"`.

    Raises
    ------
    ValueError
        If the matrices are not those of the graph, or the score of an edge is not finite.

    Examples
    --------
    >>> scores["input->a1.h0<k>"]
    -0.25
    >>> scores.largest(20)
    Circuit(21 of 74 nodes, 17 of 479 edges, component graph)
    """

    graph: Graph
    scores: Mapping[str, Float[Tensor, "source target"]]
    method: str

    def __post_init__(self) -> None:
        shapes, given = ({m: tuple(x.shape) for m, x in part.items()} for part in (self.graph.edge_masks, self.scores))
        if given != shapes:
            odd = {m: (given.get(m), shapes.get(m)) for m in {*given, *shapes} if given.get(m) != shapes.get(m)}
            raise ValueError(f"The scores do not fit {self.graph!r}; (given, needed) shapes differ: {odd}; give these.")
        if not self.of_edges().isfinite().all():
            raise ValueError("The score of an edge is not finite; give a model whose weights and activations are.")

    def __len__(self) -> int:
        return self.graph.count_edges()

    def __getitem__(self, name: str) -> float:
        """Return the score of a named edge."""
        matrix, i, j = self.graph.find_edge(name)
        return float(self.scores[matrix][i, j])

    def of_edges(self) -> Float[Tensor, " edge"]:
        """Return the scores of the edges alone, in the order of the matrices, row by row."""
        return torch.cat([self.scores[matrix][mask] for matrix, mask in self.graph.edge_masks.items()])

    def ranked(self, n: int | None = None) -> list[tuple[str, float]]:
        """Return names and scores of the `n` edges (all if not given) of largest magnitude, the largest first."""
        places = [(matrix, i, j) for matrix, mask in self.graph.edge_masks.items() for i, j in mask.nonzero().tolist()]
        scores = self.of_edges()
        order = scores.abs().sort(descending=True, stable=True).indices[:n].tolist()
        return [(self.graph.edge_name(*places[at]), float(scores[at])) for at in order]

    def largest(self, k: int, pruned: bool = True) -> Circuit:
        """Return the circuit of the `k` edges of largest magnitude; of equal ones that with the lower index is kept.

        Parameters
        ----------
        k : int
            Edges asked for.
        pruned : bool
            Take away edges that lie on no path from the input to the output, so that fewer than `k` may be left.

        Raises
        ------
        TypeError, ValueError
            If `k` is no integer from 0 to the number of edges.
        """
        scores = self.of_edges()
        chosen = largest_mask(scores, k) if k else torch.zeros(len(scores), dtype=torch.bool)
        masks = {}
        for matrix, mask in self.graph.edge_masks.items():
            n = int(mask.sum())
            masks[matrix] = torch.zeros_like(mask).masked_scatter_(mask, chosen[:n])
            chosen = chosen[n:]
        if pruned:
            masks = self.graph.connected(masks)
        return Circuit(self.graph, self.graph.ends_of(masks), masks)

    def rank_correlation(self, other: EdgeScores, absolute: bool = True) -> float:
        """Return Spearman's rank correlation with other scores of the same graph; ties get their mean rank.

        Parameters
        ----------
        other : EdgeScores
            For example the exact ones.
        absolute : bool
            Compare magnitudes, by which circuits are chosen.

        Raises
        ------
        ValueError
            If the graphs differ, or all scores of one side are equal, which have no ranks.
        """
        if not self.graph.same_as(other.graph):
            raise ValueError(f"The scores are of {self.graph!r} and of {other.graph!r}; compare scores of one graph.")
        ranks = []
        for side in (self, other):
            scores = side.of_edges().double()
            rank = _mean_ranks(scores.abs() if absolute else scores)
            ranks.append(rank - rank.mean())
            if not ranks[-1].any():
                raise ValueError(
                    f"All {len(scores)} scores ({side.method}) are equal, so they have no ranks; use others."
                )
        one, two = ranks
        return float((one @ two) / (one.norm() * two.norm()))

    def __repr__(self) -> str:
        return f"EdgeScores({self.method}, {self.graph!r})"


def _mean_ranks(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    _, place, count = x.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2)[place]
