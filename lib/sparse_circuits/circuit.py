"""Circuits: subsets of a graph, how many nodes and edges they keep, and how two of them overlap.

First used in chapter 0. What is a node and what is an edge stands in `graph.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .checkpoints import canonical_json, write_atomically
from .graph import Graph, Masks, count, equal_masks
from .overlap import Overlap

FORMAT = "sparse-circuits circuit 1"


@dataclass(frozen=True, eq=False)
class Circuit:
    """Some nodes of a graph and some of the edges between them.

    Parameters
    ----------
    graph : Graph
        The universe.
    node_masks : mapping of str to bool tensor, shape (coordinate,)
        For each location, which coordinates are kept.
    edge_masks : mapping of str to bool tensor, shape (source, target)
        For each matrix, which entries are kept.

    Raises
    ------
    ValueError
        If a mask is missing or has the wrong shape, if an edge is not in the graph, or if an edge's end is not kept.
    TypeError
        If a mask is not boolean.

    Examples
    --------
    >>> circuit = Circuit.from_names(graph, ["blocks.0.mlp.hook_post[3] -> blocks.0.hook_mlp_out[1]"])
    >>> circuit.count_nodes(), circuit.count_edges()
    (2, 1)
    """

    graph: Graph
    node_masks: Masks
    edge_masks: Masks

    def __post_init__(self) -> None:
        graph = self.graph
        _check_masks(self.node_masks, {place: (n,) for place, n in graph.sizes.items()}, "node mask")
        _check_masks(self.edge_masks, {m: tuple(mask.shape) for m, mask in graph.edge_masks.items()}, "edge mask")
        for matrix, mask in self.edge_masks.items():
            for allowed, why in (
                (graph.edge_masks[matrix], "the graph has no such edge; keep only edges of the graph"),
                (graph.both_ends(matrix, self.node_masks), "one of its ends is not kept; keep both, or drop the edge"),
            ):
                wrong = (mask & ~allowed).nonzero()
                if len(wrong):
                    raise ValueError(f"{graph.edge_name(matrix, *wrong[0].tolist())}: {why}.")

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """Return the circuit that keeps every node and every edge."""
        return cls.induced(graph, {place: torch.ones(n, dtype=torch.bool) for place, n in graph.sizes.items()})

    @classmethod
    def induced(cls, graph: Graph, node_masks: Masks) -> Circuit:
        """Return the circuit of the kept nodes and of every edge between two of them.

        Parameters
        ----------
        graph : Graph
            The universe.
        node_masks : mapping of str to bool tensor, shape (coordinate,)
            One mask for each location.
        """
        _check_masks(node_masks, {place: (n,) for place, n in graph.sizes.items()}, "node mask")
        return cls(
            graph, node_masks, {m: mask & graph.both_ends(m, node_masks) for m, mask in graph.edge_masks.items()}
        )

    @classmethod
    def from_names(cls, graph: Graph, edges: Iterable[str] = (), nodes: Iterable[str] = ()) -> Circuit:
        """Return the circuit of the named edges, with their ends and with further named nodes.

        Parameters
        ----------
        graph : Graph
            The universe.
        edges : iterable of str
            Names such as `"blocks.1.attn.hook_v[0] -> blocks.1.hook_attn_out[4]"`.
        nodes : iterable of str
            Nodes besides the ends of the edges, such as `"blocks.1.attn.hook_q[0]"` where a query is a bias only.

        Raises
        ------
        TypeError
            If `edges` or `nodes` is one string instead of a list of them.
        ValueError
            If a name cannot be read, or names no node or no edge of the graph.
        """
        edge_masks = {matrix: torch.zeros_like(mask) for matrix, mask in graph.edge_masks.items()}
        for edge in listed(edges, "edges"):
            matrix, i, j = graph.find_edge(edge)
            edge_masks[matrix][i, j] = True
        node_masks = graph.ends_of(edge_masks)
        for node in listed(nodes, "nodes"):
            location, i = graph.find_node(node)
            node_masks[location][i] = True
        return cls(graph, node_masks, edge_masks)

    def count_nodes(self) -> int:
        """Return the number of kept nodes; `graph.py` says what a node is."""
        return count(self.node_masks)

    def count_edges(self) -> int:
        """Return the number of kept edges; `graph.py` says what is an edge and what is not."""
        return count(self.edge_masks)

    def nodes(self) -> list[str]:
        """Return the names of the kept nodes in the order of the forward pass."""
        graph = self.graph
        return [graph.node_name(p, i) for p in graph.sizes for (i,) in self.node_masks[p].nonzero().tolist()]

    def edges(self) -> list[str]:
        """Return the names of the kept edges in the order of the forward pass; one string each, so for small models."""
        graph = self.graph
        return [graph.edge_name(m, i, j) for m in graph.ends for i, j in self.edge_masks[m].nonzero().tolist()]

    def union(self, other: Circuit) -> Circuit:
        """Return the nodes and edges that are in either circuit; also `self | other`."""
        return self._combine(other, torch.logical_or)

    def intersection(self, other: Circuit) -> Circuit:
        """Return the nodes and edges that are in both circuits; also `self & other`."""
        return self._combine(other, torch.logical_and)

    def without(self, nodes: Iterable[str] = (), edges: Iterable[str] = ()) -> Circuit:
        """Return the circuit less some named nodes, with the edges that end in them, and less some named edges.

        Raises
        ------
        TypeError, ValueError
            If a name cannot be read, or the circuit does not hold what it names.
        """
        node_masks = {place: mask.clone() for place, mask in self.node_masks.items()}
        edge_masks = {matrix: mask.clone() for matrix, mask in self.edge_masks.items()}
        for name in listed(nodes, "nodes"):
            place, i = self.graph.find_node(name)
            _take_out(node_masks[place], (i,), name)
        for name in listed(edges, "edges"):
            matrix, i, j = self.graph.find_edge(name)
            _take_out(edge_masks[matrix], (i, j), name)
        kept = {matrix: mask & self.graph.both_ends(matrix, node_masks) for matrix, mask in edge_masks.items()}
        return Circuit(self.graph, node_masks, kept)

    def complement(self) -> Circuit:
        """Return all other edges of the graph, with their ends, and all other nodes; also `~self`.

        Edges of a circuit and of its complement are disjoint. Nodes need not be: a node with one edge inside and one
        outside is in both.
        """
        graph = self.graph
        edge_masks = {matrix: mask & ~self.edge_masks[matrix] for matrix, mask in graph.edge_masks.items()}
        ends = graph.ends_of(edge_masks)
        return Circuit(graph, {place: ends[place] | ~mask for place, mask in self.node_masks.items()}, edge_masks)

    __or__, __and__, __invert__ = union, intersection, complement

    def overlap(self, reference: Circuit) -> Overlap:
        """Return how many nodes and edges this circuit shares with a reference, such as a planted one."""
        both = self & reference
        return Overlap(
            *(both.count_nodes(), self.count_nodes(), reference.count_nodes()),
            *(both.count_edges(), self.count_edges(), reference.count_edges()),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the circuit as JSON: indices of the kept nodes and edges, and the sizes of the graph; atomically."""
        graph = self.graph
        content = {
            "format": FORMAT,
            "kind": graph.kind,
            "sizes": dict(graph.sizes),
            "graph_edges": graph.count_edges(),
            "nodes": {place: mask.nonzero().flatten().tolist() for place, mask in self.node_masks.items()},
            "edges": {matrix: mask.nonzero().tolist() for matrix, mask in self.edge_masks.items()},
        }
        write_atomically(Path(path), canonical_json(content))

    @classmethod
    def load(cls, path: str | os.PathLike, graph: Graph) -> Circuit:
        """Read a circuit of `graph` that `save` wrote.

        Raises
        ------
        ValueError
            If the file is no stored circuit, or belongs to another graph. The message names the file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            known = content["format"] == FORMAT
            stored = (content["kind"], content["sizes"], content["graph_edges"]) if known else None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no stored circuit ({error!r}); write it again with circuit.save(path)."
            ) from error
        if not known:
            raise ValueError(f"{path} has format {content['format']!r}, this library reads {FORMAT!r}; save it again.")
        here = (graph.kind, dict(graph.sizes), graph.count_edges())
        if stored != here:
            raise ValueError(
                f"{path} belongs to another graph {stored}; load it with the graph of the model it was made from."
            )
        try:
            node_masks = {place: _mask_at((n,), content["nodes"][place]) for place, n in graph.sizes.items()}
            edge_masks = {m: _mask_at(tuple(mask.shape), content["edges"][m]) for m, mask in graph.edge_masks.items()}
            return cls(graph, node_masks, edge_masks)
        except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not fit its graph ({error}); write it again with circuit.save(path)."
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return (
            self.graph.same_as(other.graph)
            and equal_masks(self.node_masks, other.node_masks)
            and equal_masks(self.edge_masks, other.edge_masks)
        )

    __hash__ = None

    def __repr__(self) -> str:
        graph = self.graph
        nodes = f"{self.count_nodes()} of {graph.count_nodes()} nodes"
        return f"Circuit({nodes}, {self.count_edges()} of {graph.count_edges()} edges, {graph.kind} graph)"

    def _combine(self, other: Circuit, operation) -> Circuit:
        if not isinstance(other, Circuit):
            raise TypeError(f"The other side is {type(other).__name__}; give a Circuit.")
        if not self.graph.same_as(other.graph):
            raise ValueError(f"{self!r} and {other!r} are subsets of different graphs; build both from one graph.")
        nodes = {place: operation(mask, other.node_masks[place]) for place, mask in self.node_masks.items()}
        edges = {matrix: operation(mask, other.edge_masks[matrix]) for matrix, mask in self.edge_masks.items()}
        return Circuit(self.graph, nodes, edges)


def listed(names: Iterable[str], what: str) -> list[str]:
    """Return the names as a list; a single string is a mistake that Python would read letter by letter."""
    if isinstance(names, str):
        raise TypeError(f"{what} is the single string {names!r}; give a list of names.")
    if not isinstance(names, Iterable):
        raise TypeError(f"{what} is {names!r}; give a list.")
    return list(names)


def _take_out(mask: Tensor, index: tuple[int, ...], name: str) -> None:
    if not mask[index]:
        raise ValueError(f"{name} is not in the circuit; circuit.nodes() and circuit.edges() list what is.")
    mask[index] = False


def _mask_at(shape: tuple[int, ...], indices: list) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    where = torch.tensor(indices, dtype=torch.long).view(-1, len(shape))
    if (where < 0).any():
        raise ValueError(f"an index is negative: {where.min().item()}")
    mask[tuple(where.T)] = True
    return mask


def _check_masks(masks: Masks, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    if masks.keys() != shapes.keys():
        odd = sorted(masks.keys() ^ shapes.keys())
        raise ValueError(f"The {what}s do not match the graph at {odd}; give one for each of {list(shapes)}.")
    for name, shape in shapes.items():
        if masks[name].dtype != torch.bool:
            raise TypeError(
                f"The {what} of {name} has dtype {masks[name].dtype}; give booleans, for example scores > 0."
            )
        if tuple(masks[name].shape) != shape:
            raise ValueError(f"The {what} of {name} has shape {tuple(masks[name].shape)}; the graph needs {shape}.")
