"""What the explorer shows of a model: the edges of a circuit, the nodes at their ends, and who uses which channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
READS, WRITES = ("ln1.hook_normalized", "ln2.hook_normalized"), ("hook_attn_out", "hook_mlp_out")
RESIDUAL = READS + WRITES
SHORT_NAMES = {
    "ln1.hook_normalized": "a{}.read",
    "attn.hook_q": "a{}.q",
    "attn.hook_k": "a{}.k",
    "attn.hook_v": "a{}.v",
    "hook_attn_out": "a{}.write",
    "ln2.hook_normalized": "m{}.read",
    "mlp.hook_post": "m{}.neuron",
    "hook_mlp_out": "m{}.write",
}
BIASES = {
    "attn.hook_q": "attn.b_Q",
    "attn.hook_k": "attn.b_K",
    "attn.hook_v": "attn.b_V",
    "hook_attn_out": "attn.b_O",
    "mlp.hook_post": "mlp.b_in",
    "hook_mlp_out": "mlp.b_out",
}
TOP_TOKENS = 6
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

    @property
    def short_name(self) -> str:
        """For example `m1.neuron[403]`; the number of a head's channel counts through all heads."""
        return f"{SHORT_NAMES[self.location].format(self.layer)}[{self.index}]"

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


def find_nodes(model: Transformer, circuit: Circuit) -> dict[Node, float | None]:
    """Return the kept nodes in the order of the forward pass, each with its bias; what a norm gives has none."""
    nodes: dict[Node, float | None] = {}
    for name in circuit.nodes():
        node = Node.parse(name)
        bias = BIASES.get(node.location)
        parameter = None if bias is None else model.get_parameter(f"blocks.{node.layer}.{bias}")
        nodes[node] = None if parameter is None else float(parameter.detach().flatten()[node.index])
    return nodes


@dataclass(frozen=True)
class Traffic:
    """Which tokens write a residual channel and which read it, as (token, weight), the largest weights first."""

    writing: list[tuple[str, float]]
    reading: list[tuple[str, float]]


def find_traffic(model: Transformer, circuit: Circuit, tokens: list[str]) -> dict[int, Traffic]:
    """Return for each residual channel of the circuit its largest entries in the embedding and the unembedding."""
    nodes = [Node.parse(name) for name in circuit.nodes()]

    def largest(weights: Tensor) -> list[tuple[str, float]]:
        order = weights.abs().topk(min(TOP_TOKENS, len(weights))).indices.tolist()
        return [(tokens[token], float(f"{weights[token]:.4g}")) for token in order if weights[token] != 0]

    with torch.no_grad():
        return {
            channel: Traffic(largest(model.W_E[:, channel]), largest(model.W_U[channel]))
            for channel in sorted({node.index for node in nodes if node.location in RESIDUAL})
        }
