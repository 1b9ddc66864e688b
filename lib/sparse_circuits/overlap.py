"""What two circuits of one graph share.

First used in chapter 0.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Overlap:
    """What a found circuit shares with a reference: numerators and denominators, then precision and recall.

    Precision is shared / found, recall is shared / reference; NaN where the denominator is zero.
    """

    nodes_shared: int
    nodes_found: int
    nodes_reference: int
    edges_shared: int
    edges_found: int
    edges_reference: int

    @property
    def node_precision(self) -> float:
        return _ratio(self.nodes_shared, self.nodes_found)

    @property
    def node_recall(self) -> float:
        return _ratio(self.nodes_shared, self.nodes_reference)

    @property
    def edge_precision(self) -> float:
        return _ratio(self.edges_shared, self.edges_found)

    @property
    def edge_recall(self) -> float:
        return _ratio(self.edges_shared, self.edges_reference)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
