"""Controls: what a claim about a circuit has to be compared with.

First used in chapter 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .circuit import Circuit


def random_circuit(
    reference: Circuit,
    seed: int,
    match: Literal["edges", "matrices", "nodes"] = "edges",
    pool: Circuit | None = None,
) -> Circuit:
    """Return a random circuit of the size of `reference`: the control for any claim about that circuit.

    Parameters
    ----------
    reference : Circuit
        The circuit whose size is matched.
    seed : int
        Seed of the draw; the caller's random state is left as it was.
    match : {"edges", "matrices", "nodes"}
        `"edges"`: as many edges, drawn evenly from the pool. `"matrices"`: as many edges in each matrix. Both keep the
        ends of the edges as nodes, so the number of nodes may differ. `"nodes"`: as many nodes at each location, with
        every edge between two of them, so the number of edges may differ.
    pool : Circuit, optional
        Where to draw from; the whole graph if not given. `~reference` draws only from outside the reference.

    Raises
    ------
    ValueError
        If `match` is unknown, or the pool is too small or of another graph.
    """
    graph = reference.graph
    pool = Circuit.full(graph) if pool is None else pool & Circuit.full(graph)
    generator = torch.Generator().manual_seed(seed)
    if match == "nodes":
        kept = {p: _draw(mask, int(reference.node_masks[p].sum()), generator, p) for p, mask in pool.node_masks.items()}
        return Circuit.induced(graph, kept)
    if match == "matrices":
        masks = {
            m: _draw(mask, int(reference.edge_masks[m].sum()), generator, m) for m, mask in pool.edge_masks.items()
        }
    elif match == "edges":
        flat = torch.cat([mask.flatten() for mask in pool.edge_masks.values()])
        chosen = _draw(flat, reference.count_edges(), generator, "the graph").split(
            [m.numel() for m in pool.edge_masks.values()]
        )
        masks = {m: part.view_as(mask) for (m, mask), part in zip(pool.edge_masks.items(), chosen, strict=True)}
    else:
        raise ValueError(f"match is {match!r}; choose 'edges', 'matrices' or 'nodes'.")
    return Circuit(graph, graph.ends_of(masks), masks)


def _draw(pool: Tensor, size: int, generator: torch.Generator, where: str) -> Tensor:
    candidates = pool.flatten().nonzero().flatten()
    if size > len(candidates):
        raise ValueError(
            f"The pool has {len(candidates)} to draw from in {where}, {size} are needed; give a larger pool."
        )
    mask = torch.zeros(pool.numel(), dtype=torch.bool)
    mask[candidates[torch.randperm(len(candidates), generator=generator)[:size]]] = True
    return mask.view_as(pool)
