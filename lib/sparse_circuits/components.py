"""The component graph: what the embedding, heads and MLPs write, and which head inputs, MLPs and logits read it.

First used in chapter 9.

* A **source** is what one component adds to the residual stream: `input` (token and position embedding), `a1.h0`
  (head 0 of layer 1), `m1` (the MLP of layer 1).
* A **reader** is one place where the residual stream is read: `a1.h0<q>`, `a1.h0<k>`, `a1.h0<v>`, `m1`, `logits`. As
  a node the MLP's reader is called `m1<in>`, because `m1` is what it writes.
* An **edge** joins a source to every reader that comes after it: `input->a1.h0<k>`. The names are those of EAP-IG and
  of the MIB benchmark (arXiv 2504.13151).
* **Not edges**: what happens inside a component, biases, which no prompt changes, and the bigram table, which stays
  that of the clean prompt. Each edge is counted once, not once per position.

L layers of H heads have `1 + L (H + 1)` sources, `L (3 H + 1) + 1` readers and
`L (5 H + 2) + 1 + (H + 1) (3 H + 1) L (L - 1) / 2` edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from .graph import Graph, Masks

if TYPE_CHECKING:
    from .circuit import Circuit
    from .model import Transformer, TransformerConfig

SOURCE, READER, EDGES = "source", "reader", "edges"
LETTERS, INTO_MLP = "qkv", "<in>"
WRITTEN = "'input->a1.h0<q>', 'a0.h1->m0' or 'm1->logits'"


@dataclass(frozen=True, eq=False, repr=False)
class ComponentGraph(Graph):
    """The component graph of a model; a `Graph` with one matrix, sources by readers.

    Parameters
    ----------
    n_layers, n_heads : int
        Shape of the model.
    """

    n_layers: int
    n_heads: int

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """The names of the sources and of the readers, in the order of their indices."""
        heads = range(self.n_heads)
        sources, readers = ["input"], []
        for layer in range(self.n_layers):
            sources += [*(f"a{layer}.h{h}" for h in heads), f"m{layer}"]
            readers += [*(f"a{layer}.h{h}<{letter}>" for letter in LETTERS for h in heads), f"m{layer}"]
        return {SOURCE: sources, READER: [*readers, "logits"]}

    def attention_readers(self, layer: int) -> slice:
        """Return the indices of the readers of a layer's heads: all q, then all k, then all v."""
        first = layer * (3 * self.n_heads + 1)
        return slice(first, first + 3 * self.n_heads)

    def mlp_reader(self, layer: int) -> int:
        """Return the index of the MLP of a layer among the readers."""
        return self.attention_readers(layer).stop

    def sources_before(self, layer: int, after_attention: bool = False) -> int:
        """Return how many sources are written before the heads of a layer read, or before its MLP does."""
        return 1 + layer * (self.n_heads + 1) + (self.n_heads if after_attention else 0)

    def node_name(self, location: str, i: int) -> str:
        """Return the name of a source or reader: `"a1.h0"`, `"a1.h0<q>"`, `"m1"`, `"m1<in>"`."""
        name = self.names[location][i]
        return f"{name}{INTO_MLP}" if location == READER and name.startswith("m") else name

    def edge_name(self, matrix: str, i: int, j: int) -> str:
        """Return the name of an edge as EAP-IG writes it: `"input->a1.h0<q>"`."""
        return f"{self.names[SOURCE][i]}->{self.names[READER][j]}"

    def find_node(self, name: str) -> tuple[str, int]:
        """Return location and index of a named source or reader.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or names no source or reader.
        """
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of a component; write it as the string 'a1.h0' or 'a1.h0<q>'.")
        known = name.strip().removesuffix(INTO_MLP)
        for location in (READER,) if name.strip() != known else (SOURCE, READER):
            if known in self._index[location]:
                return location, self._index[location][known]
        raise ValueError(
            f"There is no component {name!r}; choose from 'input', 'a0.h0' to 'a{self.n_layers - 1}.h"
            f"{self.n_heads - 1}', 'm0' to 'm{self.n_layers - 1}', and as readers 'a0.h0<q>' and the like, or 'logits'."
        )

    def find_edge(self, name: str) -> tuple[str, int, int]:
        """Return matrix, source index and reader index of a named edge.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or names no edge of the graph.
        """
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of an edge; write it as the string {WRITTEN}.")
        source, _, reader = (part.strip() for part in name.partition("->"))
        i, j = self._index[SOURCE].get(source), self._index[READER].get(reader)
        if i is None or j is None:
            raise ValueError(f"{name!r} is no name of an edge of this graph; write it as {WRITTEN}.")
        if not self.edge_masks[EDGES][i, j]:
            raise ValueError(f"{name!r} is not an edge: {source} is written after {reader} is read; turn it round.")
        return EDGES, i, j

    def connected(self, edge_masks: Masks) -> dict[str, Bool[Tensor, "source reader"]]:
        """Return the edges that lie on a path from `input` to `logits`, within the given ones.

        This is the pruning of EAP-IG: a head or MLP without an edge in or without an edge out carries nothing.
        """
        kept = edge_masks[EDGES].clone()
        while True:
            reads = self.own_readers & kept.any(0)
            alive = kept.any(1) & reads.any(1)
            alive[0] = kept[0].any()
            read_by = (self.own_readers & alive[:, None]).any(0)
            read_by[-1] = True
            remaining = kept & alive[:, None] & read_by
            if torch.equal(remaining, kept):
                return {EDGES: kept}
            kept = remaining

    def components(self, circuit: Circuit) -> list[str]:
        """Return the heads and MLPs of a circuit: those with an edge in or an edge out."""
        edges = circuit.edge_masks[EDGES]
        used = edges.any(1) | (self.own_readers & edges.any(0)).any(1)
        return [name for name, is_used in zip(self.names[SOURCE][1:], used[1:].tolist(), strict=True) if is_used]

    @cached_property
    def _index(self) -> dict[str, dict[str, int]]:
        return {location: {name: i for i, name in enumerate(names)} for location, names in self.names.items()}

    @cached_property
    def own_readers(self) -> Bool[Tensor, "source reader"]:
        """Which readers belong to each source's component."""
        own = torch.zeros(self.sizes[SOURCE], self.sizes[READER], dtype=torch.bool)
        for name, j in self._index[READER].items():
            if name != "logits":
                own[self._index[SOURCE][name.partition("<")[0]], j] = True
        return own


def component_graph(model: Transformer | TransformerConfig) -> ComponentGraph:
    """Return the component graph of a model, or of the shape that a configuration gives.

    Parameters
    ----------
    model : Transformer or TransformerConfig
        Anything with `n_layers` and `n_heads`, itself or as its `cfg`.

    Returns
    -------
    ComponentGraph
        The module's docstring defines its nodes and edges and says how many there are.
    """
    cfg = getattr(model, "cfg", model)
    n_layers, n_heads = cfg.n_layers, cfg.n_heads
    sizes = {SOURCE: 1 + n_layers * (n_heads + 1), READER: n_layers * (3 * n_heads + 1) + 1}
    mask = torch.zeros(sizes[SOURCE], sizes[READER], dtype=torch.bool)
    graph = ComponentGraph("component", sizes, {EDGES: (SOURCE, READER)}, {EDGES: mask}, n_layers, n_heads)
    for layer in range(n_layers):
        mask[: graph.sources_before(layer), graph.attention_readers(layer)] = True
        mask[: graph.sources_before(layer, after_attention=True), graph.mlp_reader(layer)] = True
    mask[:, -1] = True
    return graph
