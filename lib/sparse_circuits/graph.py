"""Graphs: the universe of nodes and edges that circuits are subsets of.

First used in chapter 0.

The kind built here is the *weight graph* of a `Transformer`, after arXiv 2511.13653, section 2 and appendix A.5:

* A **node** is one coordinate at one of eight locations in every layer l: `blocks.{l}.ln1.hook_normalized` (what
  attention reads), `blocks.{l}.attn.hook_q`, `hook_k` and `hook_v` (channels of the heads), `blocks.{l}.hook_attn_out`
  (what attention writes), `blocks.{l}.ln2.hook_normalized` (what the MLP reads), `blocks.{l}.mlp.hook_post` (neurons)
  and `blocks.{l}.hook_mlp_out` (what the MLP writes). Channel d of head h has index `h * d_head + d`.
* An **edge** is a non-zero entry of W_Q, W_K, W_V, W_O, W_in or W_out. It is in a circuit only if both its ends are.
* **Not edges**: biases, embeddings, the unembedding, the residual stream (which carries what one block writes to every
  later read), the product of query and key, the attention sink and the bigram table. None of them is counted.

A node is one number per token; it is counted once, not once per position and not once per prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import Transformer, TransformerConfig

ATTENTION_READ, ATTENTION_WRITE = "ln1.hook_normalized", "hook_attn_out"
MLP_READ, MLP_WRITE, NEURON = "ln2.hook_normalized", "hook_mlp_out", "mlp.hook_post"
ENDS = {
    "attn.W_Q": (ATTENTION_READ, "attn.hook_q"),
    "attn.W_K": (ATTENTION_READ, "attn.hook_k"),
    "attn.W_V": (ATTENTION_READ, "attn.hook_v"),
    "attn.W_O": ("attn.hook_v", ATTENTION_WRITE),
    "mlp.W_in": (MLP_READ, NEURON),
    "mlp.W_out": (NEURON, MLP_WRITE),
}
NODE_NAME = re.compile(r"(\S+)\[(\d+)\]")

Masks = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Graph:
    """A universe of nodes and edges, of which circuits are subsets.

    Parameters
    ----------
    kind : str
        What counts as an edge: `"weight"` for `weight_graph`, `"component"` for `component_graph`, `"token"` for
        `token_graph`. Printed with every count.
    sizes : mapping of str to int
        Number of coordinates at each location, in the order of the forward pass.
    ends : mapping of str to (str, str)
        Source and target location of each matrix, for example of `"blocks.0.mlp.W_in"`.
    edge_masks : mapping of str to bool tensor, shape (source, target)
        True where the matrix has an edge.
    """

    kind: str
    sizes: Mapping[str, int]
    ends: Mapping[str, tuple[str, str]]
    edge_masks: Masks

    def count_nodes(self) -> int:
        """Return the number of coordinates over all locations, with or without an edge."""
        return sum(self.sizes.values())

    def count_edges(self) -> int:
        """Return the number of edges over all matrices."""
        return count(self.edge_masks)

    def __repr__(self) -> str:
        return f"Graph({self.count_nodes()} nodes, {self.count_edges()} edges, {self.kind} graph)"

    def same_as(self, other: Graph) -> bool:
        """Return whether the other graph has the same kind, locations and edges."""
        return self is other or (
            (self.kind, dict(self.sizes), dict(self.ends)) == (other.kind, dict(other.sizes), dict(other.ends))
            and equal_masks(self.edge_masks, other.edge_masks)
        )

    def both_ends(self, matrix: str, node_masks: Masks) -> Tensor:
        """Return a mask of shape (source, target): True where both ends of an entry of `matrix` are in `node_masks`."""
        source, target = self.ends[matrix]
        return node_masks[source][:, None] & node_masks[target]

    def ends_of(self, edge_masks: Masks) -> dict[str, Tensor]:
        """Return node masks, shape (coordinate,) each: True at the ends of the edges in `edge_masks`."""
        nodes = {place: torch.zeros(n, dtype=torch.bool) for place, n in self.sizes.items()}
        for matrix, mask in edge_masks.items():
            source, target = self.ends[matrix]
            nodes[source] |= mask.any(1)
            nodes[target] |= mask.any(0)
        return nodes

    def node_name(self, location: str, i: int) -> str:
        """Return the name of coordinate i of a location: `"blocks.1.attn.hook_v[0]"`."""
        return f"{location}[{i}]"

    def edge_name(self, matrix: str, i: int, j: int) -> str:
        """Return the name of entry (i, j) of `matrix`: `"blocks.1.attn.hook_v[0] -> blocks.1.hook_attn_out[4]"`."""
        source, target = self.ends[matrix]
        return f"{self.node_name(source, i)} -> {self.node_name(target, j)}"

    def find_node(self, name: str) -> tuple[str, int]:
        """Return location and index of a named node.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or is not the name of a node of this graph.
        """
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of a node; write it as the string 'blocks.0.mlp.hook_post[3]'.")
        match = NODE_NAME.fullmatch(name.strip())
        if match is None:
            raise ValueError(f"{name!r} is no name of a node; write it as 'blocks.0.mlp.hook_post[3]'.")
        location, i = match[1], int(match[2])
        if location not in self.sizes:
            raise ValueError(f"{name!r}: there is no location {location!r}; choose one of {list(self.sizes)}.")
        if i >= self.sizes[location]:
            raise ValueError(f"{name!r}: {location} has {self.sizes[location]} coordinates; give an index below that.")
        return location, i

    def find_edge(self, name: str) -> tuple[str, int, int]:
        """Return matrix, source index and target index of a named edge.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or is not the name of an edge of this graph.
        """
        written = "'blocks.0.mlp.hook_post[3] -> blocks.0.hook_mlp_out[1]'"
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of an edge; write it as the string {written}.")
        if name.count("->") != 1:
            raise ValueError(f"{name!r} is no name of an edge; write it as {written}.")
        (source, i), (target, j) = (self.find_node(end) for end in name.split("->"))
        matrix = self._matrix_between.get((source, target))
        if matrix is None:
            pairs = [" -> ".join(ends) for ends in self._matrix_between]
            raise ValueError(f"{name!r}: no matrix leads from {source} to {target}; choose one of {pairs}.")
        if not self.edge_masks[matrix][i, j]:
            raise ValueError(
                f"{name!r} is not an edge: that entry of {matrix} is zero; Circuit.full(graph).edges() lists them."
            )
        return matrix, i, j

    @cached_property
    def _matrix_between(self) -> dict[tuple[str, str], str]:
        return {ends: matrix for matrix, ends in self.ends.items()}


def weight_graph(model: Transformer) -> Graph:
    """Return the weight graph of a model: all coordinates, and all non-zero entries of its six kinds of matrices.

    The module's docstring defines node and edge. A layer has `4 * d_model + 3 * n_heads * d_head + d_mlp` nodes.

    Parameters
    ----------
    model : Transformer
        The model; its weights are read, not changed.

    Returns
    -------
    Graph
        Of kind `"weight"`, on the CPU. It does not follow later changes of the weights.

    Raises
    ------
    ValueError
        If the model has gated MLPs, whose neurons are no sums over edges.
    """
    refuse_gated(model, "have no place in the weight graph")
    cfg = model.cfg
    sizes = node_sizes(cfg)
    ends = {
        f"blocks.{layer}.{matrix}": (f"blocks.{layer}.{source}", f"blocks.{layer}.{target}")
        for layer in range(cfg.n_layers)
        for matrix, (source, target) in ENDS.items()
    }
    masks = {matrix: as_matrix(matrix, model.get_parameter(matrix).detach()).ne(0).cpu() for matrix in ends}
    return Graph("weight", sizes, ends, masks)


def refuse_gated(model: Transformer, what: str) -> None:
    """Raise ValueError if the model has gated MLPs, which `what` says cannot be held.

    A gated neuron is a product of two sums; what is written for one sum per neuron must not take either for it.
    """
    if getattr(model.cfg, "gated_mlp", False):
        raise ValueError(f"The model has gated MLPs, which {what}; give a model with gated_mlp=False.")


def node_sizes(cfg: TransformerConfig) -> dict[str, int]:
    """Return the number of coordinates at each of the eight locations of every layer, in the order of the forward pass.

    Parameters
    ----------
    cfg : TransformerConfig
        Anything with the fields `n_layers`, `d_model`, `n_heads`, `d_head` and `d_mlp`.
    """
    channels = cfg.n_heads * cfg.d_head
    layer_sizes = {
        ATTENTION_READ: cfg.d_model,
        "attn.hook_q": channels,
        "attn.hook_k": channels,
        "attn.hook_v": channels,
        ATTENTION_WRITE: cfg.d_model,
        MLP_READ: cfg.d_model,
        NEURON: cfg.d_mlp,
        MLP_WRITE: cfg.d_model,
    }
    return {f"blocks.{layer}.{place}": n for layer in range(cfg.n_layers) for place, n in layer_sizes.items()}


def as_matrix(name: str, weight: Tensor) -> Tensor:
    """Return a weight as (source, target), heads laid side by side: channel d of head h is at `h * d_head + d`.

    W_Q, W_K and W_V come as (head, d_model, d_head), W_O as (head, d_head, d_model); W_in and W_out stay as they are.
    """
    if weight.ndim == 2:
        return weight
    return weight.flatten(0, 1) if name.endswith("W_O") else weight.transpose(0, 1).flatten(1)


def as_weight(name: str, matrix: Tensor, n_heads: int) -> Tensor:
    """Return a (source, target) matrix in the shape of the model's weight; undoes `as_matrix`."""
    if name.endswith("W_O"):
        return matrix.unflatten(0, (n_heads, -1))
    return matrix.unflatten(1, (n_heads, -1)).transpose(0, 1) if "attn" in name else matrix


def count(masks: Masks) -> int:
    """Return the number of True entries over all masks."""
    return sum(int(mask.sum()) for mask in masks.values())


def equal_masks(a: Masks, b: Masks) -> bool:
    """Return whether two sets of masks have the same names and entries."""
    return a.keys() == b.keys() and all(torch.equal(mask, b[name]) for name, mask in a.items())
