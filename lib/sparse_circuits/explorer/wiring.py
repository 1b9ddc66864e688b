"""What the explorer shows of a small model: its edges, the nodes at their ends, and all weights as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import as_matrix, weight_graph
from sparse_circuits.model import Transformer

LOCATION_WORDS = {
    "ln1.hook_normalized": "attention read",
    "attn.hook_q": "query",
    "attn.hook_k": "key",
    "attn.hook_v": "value",
    "hook_attn_out": "attention write",
    "ln2.hook_normalized": "MLP read",
    "mlp.hook_post": "neuron",
    "hook_mlp_out": "MLP write",
}
HEAD_LOCATIONS = ("attn.hook_q", "attn.hook_k", "attn.hook_v")


@dataclass(frozen=True, order=True)
class Node:
    """One coordinate at one location of one layer; head channels are numbered `head * d_head + channel`."""

    layer: int
    location: str
    index: int

    @classmethod
    def parse(cls, name: str) -> Node:
        """Read a name of `Circuit.nodes()`, such as `blocks.0.mlp.hook_post[3]`."""
        place, _, index = name.removesuffix("]").partition("[")
        _, layer, location = place.split(".", 2)
        return cls(int(layer), location, int(index))

    @property
    def hook(self) -> str:
        """Name of the hook point where the model computes this node."""
        return f"blocks.{self.layer}.{self.location}"

    def words(self, d_head: int, channel_names: Mapping[int, str]) -> str:
        """Return for example `query 0.2` (head 0, channel 2) or `MLP read 3 (quote)`, without the layer."""
        words = LOCATION_WORDS[self.location]
        if self.location in HEAD_LOCATIONS:
            head, channel = divmod(self.index, d_head)
            return f"{words} {head}.{channel}"
        named = self.location != "mlp.hook_post" and self.index in channel_names
        return f"{words} {self.index}" + (f" ({channel_names[self.index]})" if named else "")


@dataclass(frozen=True)
class Edge:
    """One non-zero weight between two nodes: entry `index` of the flattened parameter `parameter`."""

    parameter: str
    index: int
    source: Node
    target: Node
    weight: float

    @property
    def name(self) -> str:
        """The name that `Circuit.edges()` gives this edge."""
        return f"{self.source.hook}[{self.source.index}] -> {self.target.hook}[{self.target.index}]"


def whole_circuit(model: Transformer) -> Circuit:
    """Return all edges of the weight graph, their ends, and the queries and keys that are a bias only."""
    graph = weight_graph(model)
    nodes = graph.ends_of(graph.edge_masks)
    for layer in range(model.cfg.n_layers):
        for kind in "qk":
            bias = model.get_parameter(f"blocks.{layer}.attn.b_{kind.upper()}")
            nodes[f"blocks.{layer}.attn.hook_{kind}"] |= bias.detach().flatten().ne(0).cpu()
    return Circuit(graph, nodes, graph.edge_masks)


def find_edges(model: Transformer, circuit: Circuit) -> list[Edge]:
    """List the kept edges in the order of the forward pass."""
    edges = []
    for matrix, (source, target) in circuit.graph.ends.items():
        parameter = model.get_parameter(matrix).detach().cpu()
        weights = as_matrix(matrix, parameter)
        flat_index = as_matrix(matrix, torch.arange(parameter.numel()).view(parameter.shape))
        edges += [
            Edge(
                matrix,
                int(flat_index[i, j]),
                Node.parse(f"{source}[{i}]"),
                Node.parse(f"{target}[{j}]"),
                float(weights[i, j]),
            )
            for i, j in circuit.edge_masks[matrix].nonzero().tolist()
        ]
    return edges


def nonzero_weights(model: Transformer) -> dict[str, dict[str, list]]:
    """Return each parameter as its shape, the flat indices of its non-zero entries and their exact values."""
    weights = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().cpu().double().numpy()
        index = np.flatnonzero(values)
        weights[name] = {"shape": list(values.shape), "index": index.tolist(), "value": values.flat[index].tolist()}
    return weights
