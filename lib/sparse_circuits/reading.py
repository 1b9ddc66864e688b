"""Readings of attribution graphs: which nodes somebody pinned, which supernodes they made of them, what they noted.

First used in chapter 11. The page of `explorer.explore_graph` saves a reading as JSON, and this reads it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoints import canonical_json, write_atomically

if TYPE_CHECKING:
    from .attribution_graph import AttributionGraph
    from .feature_nodes import FeatureNodes

FORMAT = "sparse-circuits reading 1"


@dataclass(frozen=True)
class Reading:
    """What somebody made of a graph.

    Parameters
    ----------
    groups : mapping of str to list of str
        The supernodes: a name, and the names of the nodes that are taken together. A node is in one at most.
    pins : list of str
        Names of the nodes that were pinned.
    notes : mapping of str to str
        Notes by the name of a node.

    Raises
    ------
    ValueError
        If a supernode has no name or no node, or a node is in two.
    """

    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pins: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name, members in self.groups.items():
            if not name.strip() or isinstance(members, str) or not members:
                raise ValueError(f"Supernode {name!r} has the nodes {members!r}; give it a name and a list of nodes.")
            for node in members:
                if node in seen:
                    raise ValueError(
                        f"{node} is in {seen[node]!r} and in {name!r}; a node is in one supernode at most."
                    )
                seen[node] = name

    @classmethod
    def load(cls, path: str | os.PathLike) -> Reading:
        """Read what the page of a graph, or `save`, has written.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError(f"its format is {stored['format']!r}")
            return cls(dict(stored["groups"]), list(stored["pins"]), dict(stored["notes"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is no reading of a graph ({error}); save one in the page of a graph.") from error

    def save(self, path: str | os.PathLike) -> None:
        """Write the reading as JSON."""
        write_atomically(Path(path), canonical_json(self.to_dict()))

    def to_dict(self) -> dict:
        """Return the reading as plain JSON values."""
        groups = {name: list(members) for name, members in self.groups.items()}
        return {"format": FORMAT, "groups": groups, "pins": list(self.pins), "notes": dict(self.notes)}

    def names(self) -> Iterator[str]:
        """Yield the name of every node that the reading speaks of, some more than once."""
        yield from self.pins
        yield from self.notes
        for members in self.groups.values():
            yield from members

    def check(self, nodes: FeatureNodes) -> None:
        """Raise ValueError if the reading speaks of a node that a graph has not."""
        for name in self.names():
            nodes.index(name)


def supernode_edges(graph: AttributionGraph, reading: Reading) -> dict[tuple[str, str], float]:
    """Return the edges between the supernodes of a reading, and from them to the logits.

    Parameters
    ----------
    graph : AttributionGraph
        The graph.
    reading : Reading
        Its supernodes.

    Returns
    -------
    dict of (str, str) to float
        For source and target, what all nodes of one add to all nodes of the other: the sum of the edges, with their
        signs. Logits that are in no supernode stand under their own names. Pairs without an edge are left out.

    Raises
    ------
    ValueError
        If the reading speaks of a node that the graph has not.
    """
    reading.check(graph.nodes)
    units = {name: [graph.nodes.index(node) for node in members] for name, members in reading.groups.items()}
    taken = {node for members in units.values() for node in members}
    logits = graph.nodes.is_kind("logit").nonzero()[:, 0].tolist()
    units |= {graph.nodes.names[node]: [node] for node in logits if node not in taken}
    edges = {}
    for source, writers in units.items():
        for target, readers in units.items():
            between = graph.adjacency[readers][:, writers]
            if source != target and between.any():
                edges[source, target] = float(between.sum())
    return edges
