"""How faithful circuits of growing size are, the area under that curve, and the smallest circuit that recovers enough.

First used in chapter 9. MIB (arXiv 2504.13151) puts the share of edges asked for on the x axis, from 0.1 % on. On a
graph of 479 edges that is 0, 0, 2, 4, 9 edges, and fewer after pruning. The curves here count the edges that are left
after pruning and begin at none; MIB's two numbers are computed beside them, as MIB's code does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from .circuit import Circuit
from .circuit_scores import relative_score
from .edge_scores import EdgeScores
from .node_scores import NodeScores

MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Score = Callable[[Circuit], float]


@dataclass(frozen=True)
class FaithfulnessCurve:
    """The faithfulness of the circuits of the k highest scores, for some k.

    Parameters
    ----------
    asked, left : tuple of int
        Edges asked for, and edges left after pruning.
    total : int
        Edges left when all are asked for: those on a path from the input to the output.
    metric : tuple of float
        F of each circuit.
    faithfulness : tuple of float
        (F - F(empty)) / (F(whole) - F(empty)) of each; it can leave [0, 1].
    """

    asked: tuple[int, ...]
    left: tuple[int, ...]
    total: int
    metric: tuple[float, ...]
    faithfulness: tuple[float, ...]

    def area(self) -> float:
        """Return the area under the curve over the share of edges left; near 1 if few edges recover everything."""
        return trapezoid([n / self.total for n in self.left], self.faithfulness)

    def distance(self) -> float:
        """Return the area between the curve and 1 over the share of edges left; less is better."""
        return trapezoid([n / self.total for n in self.left], [abs(1 - f) for f in self.faithfulness])


def faithfulness_curve(
    score: Score, scores: EdgeScores | NodeScores, counts: Iterable[int] | None = None
) -> FaithfulnessCurve:
    """Return the faithfulness of the circuits of the edges with the highest scores, by size.

    Parameters
    ----------
    score : callable
        F, such as a `ComponentScore` or a `TokenScore`.
    scores : EdgeScores or NodeScores
        Their magnitude ranks the edges, or the heads and MLPs.
    counts : iterable of int, optional
        Edges (heads and MLPs) asked for; 0, all, and nine numbers between that grow by a constant factor if not given.

    Raises
    ------
    ValueError
        If a count is not between 0 and the number of scores, none is given, or the metric of the whole model is that of
        the empty circuit.
    """
    total = len(scores)
    asked = tuple(growing_counts(total) if counts is None else counts)
    if not asked or not all(0 <= k <= total for k in asked):
        raise ValueError(f"counts are {asked}; give numbers from 0 to {total}.")
    relative = relative_score(score, scores.graph)
    circuits = [scores.largest(k) for k in asked]
    metric = tuple(score(circuit) for circuit in circuits)
    left = tuple(circuit.count_edges() for circuit in circuits)
    connected = scores.largest(total).count_edges()
    return FaithfulnessCurve(asked, left, connected, metric, tuple(map(relative, metric)))


def growing_counts(total: int, points: int = 11) -> list[int]:
    """Return 0, `total` and up to `points` - 2 whole numbers between, each about the same factor above the last."""
    return sorted({0, *(round(total ** (i / (points - 2))) for i in range(points - 1))})


def mib_areas(score: Score, scores: EdgeScores | NodeScores) -> tuple[float, float]:
    """Return CPR and CMD as the code of MIB computes them.

    CPR, the integrated circuit performance ratio, is the area under the faithfulness over the share of edges asked
    for; CMD, the integrated circuit-model distance, is the area of |1 - faithfulness|. Both by the trapezoid rule over
    the ten shares from 0.1 % to 100 %, each taken as `int(share * total)` edges and pruned, so that a perfect circuit
    has a CPR of 0.999.

    Parameters and errors as in `faithfulness_curve`.
    """
    total = len(scores)
    curve = faithfulness_curve(score, scores, [int(share * total) for share in MIB_SHARES])
    return (
        trapezoid(MIB_SHARES, curve.faithfulness),
        trapezoid(MIB_SHARES, [abs(1 - f) for f in curve.faithfulness]),
    )


def smallest_circuit(
    score: Score, scores: EdgeScores | NodeScores, recovery: float = 0.9, growth: float = 1.25
) -> Circuit:
    """Return the smallest circuit of highest-scored edges that recovers a share of what the model does.

    The number of edges asked for grows by a constant factor until the faithfulness reaches `recovery`, and is then
    bisected between the last size that failed and the first that did not. Faithfulness need not grow with size, so a
    smaller circuit may exist; the procedure is the same for every model.

    Parameters
    ----------
    score, scores
        As in `faithfulness_curve`.
    recovery : float
        The faithfulness to reach, above 0 and at most 1, which the whole graph has.
    growth : float
        The factor.

    Returns
    -------
    Circuit
        Pruned: count its edges.

    Raises
    ------
    ValueError
        If no circuit can reach `recovery`, or the metric of the whole model is that of the empty circuit.
    """
    if not 0 < recovery <= 1:
        raise ValueError(
            f"recovery is {recovery!r}; give a share above 0 and at most 1, which the whole model recovers."
        )
    if not growth > 1:
        raise ValueError(f"growth is {growth!r}; give a factor above 1.")
    relative, total = relative_score(score, scores.graph), len(scores)

    def recovers(k: int) -> bool:
        # The whole graph recovers 1 up to rounding.
        return k == total or relative(score(scores.largest(k))) >= recovery

    failed, k = 0, 1
    while k < total and not recovers(k):
        failed, k = k, min(total, max(k + 1, round(k * growth)))
    while k - failed > 1:
        middle = (k + failed) // 2
        failed, k = (failed, middle) if recovers(middle) else (middle, k)
    return scores.largest(k)


def trapezoid(x: Iterable[float], y: Iterable[float]) -> float:
    """Return the area under the straight lines between the points."""
    points = list(zip(x, y, strict=True))
    return sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(points))
