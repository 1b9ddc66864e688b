"""A planted circuit hidden inside a larger model of random weights, at places that give nothing away.

First used in chapter 5, where pruning has to find it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import torch
from jaxtyping import Int
from torch import Tensor

from ..circuit import Circuit
from ..graph import ENDS, NEURON, NODE_NAME, Graph, weight_graph
from ..model import Transformer
from .base import PlantedCircuit

AXES = {
    "W_E": ("token", "channel"),
    "W_pos": ("position", "channel"),
    **dict.fromkeys(("W_Q", "W_K", "W_V"), ("head", "channel", "within head")),
    **dict.fromkeys(("b_Q", "b_K", "b_V"), ("head", "within head")),
    "W_O": ("head", "within head", "channel"),
    "W_in": ("channel", "neuron"),
    "b_in": ("neuron",),
    "W_out": ("neuron", "channel"),
    **dict.fromkeys(("b_O", "b_out"), ("channel",)),
    "W_U": ("channel", "token"),
    "b_U": ("token",),
}
READS = ("W_Q", "W_K", "W_V", "W_in", "W_U")
WRITES = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")
# The spare channels stay this much quieter than at initialisation, so that RMSNorm hardly sees them.
LOUDNESS = 0.05
UNEMBEDDING, BIAS = 3.0, 0.2
SPARE = "nothing that the task needs: its weight is random"


def hidden_circuit(
    planted: PlantedCircuit, seed: int, *, channels: int = 50, heads: int = 6, neurons: int = 30
) -> PlantedCircuit:
    """Return the same circuit and task in a larger model, whose other weights are random.

    Parameters
    ----------
    planted : PlantedCircuit
        What is hidden; it is left as it is.
    seed : int
        Of the random weights, and of the order in which channels, heads and neurons stand in each layer.
    channels, heads, neurons : int
        How many are added: to the residual stream, and to every layer.

    Returns
    -------
    PlantedCircuit
        Its `circuit`, `channels` and `carries` use the new indices.

    Raises
    ------
    ValueError
        If a number is negative, or the planted model has options that no planted model of this library has (an
        attention sink, a bigram table, AbsTopK).

    Notes
    -----
    Spare heads and neurons read planted and spare channels alike. They write to spare channels only, and what is
    planted reads planted channels only. So the planted channels carry what they carried, up to two things: RMSNorm
    counts the spare channels too, and the spare channels have an unembedding of their own. The first is small because
    the spare channels are quiet; the larger `d_model` alone changes nothing, because what reads planted channels is
    multiplied by sqrt(d_model of the planted model / d_model), and `rms_eps` by the square of that. Both together are
    checked on every prompt by `accuracy()`. Tokens with equal rows in `W_E` have equal rows here as well.
    """
    cfg = planted.model.cfg
    for name, number in (("channels", channels), ("heads", heads), ("neurons", neurons)):
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"{name} is {number!r}; give the number of spare ones, 0 or more.")
    if cfg.attention_sink or cfg.bigram_table or cfg.activation_density < 1:
        raise ValueError(f"The planted model has {cfg}; give one without attention sink, bigram table and AbsTopK.")
    d_model = cfg.d_model + channels
    larger = replace(
        cfg,
        d_model=d_model,
        n_heads=cfg.n_heads + heads,
        d_mlp=cfg.d_mlp + neurons,
        rms_eps=cfg.rms_eps * cfg.d_model / d_model,
    )
    generator = torch.Generator().manual_seed(seed)
    places = _Places.drawn(cfg, larger, generator)
    model = Transformer(larger, seed=seed).eval()
    _write(planted.model, model, places, generator)
    graph = weight_graph(model)
    names = {place: number for number, place in enumerate(places.channel.tolist())}
    return replace(
        planted,
        name=f"{planted.name}, hidden",
        model=model,
        circuit=_moved_circuit(planted.circuit, graph, places, cfg.d_head),
        channels=tuple(planted.channels[names[i]] if i in names else f"spare {i}" for i in range(d_model)),
        carries=dict.fromkeys(Circuit.full(graph).edges(), SPARE)
        | {_moved_edge(edge, places, cfg.d_head): what for edge, what in planted.carries.items()},
    )


@dataclass(frozen=True)
class _Places:
    """Where the planted channels stand, and in each layer the planted heads and neurons."""

    channel: Int[Tensor, " d_model"]
    head: list[Int[Tensor, " n_heads"]]
    neuron: list[Int[Tensor, " d_mlp"]]

    @classmethod
    def drawn(cls, cfg, larger, generator: torch.Generator) -> _Places:
        def some(n: int, among: int) -> Tensor:
            return torch.randperm(among, generator=generator)[:n]

        layers = range(cfg.n_layers)
        return cls(
            some(cfg.d_model, larger.d_model),
            [some(cfg.n_heads, larger.n_heads) for _ in layers],
            [some(cfg.d_mlp, larger.d_mlp) for _ in layers],
        )

    def of_axis(self, axis: str, layer: int | None, size: int) -> Int[Tensor, " size"]:
        """Return where the planted entries of one axis of a weight stand."""
        if axis == "channel":
            return self.channel
        if axis in ("head", "neuron"):
            return getattr(self, axis)[layer]
        return torch.arange(size)

    def of_nodes(self, location: str, d_head: int) -> Int[Tensor, " coordinate"]:
        """Return where the planted coordinates of a node location stand."""
        _, layer, place = location.split(".", 2)
        if place == NEURON:
            return self.neuron[int(layer)]
        if place in (ENDS["attn.W_Q"][1], ENDS["attn.W_K"][1], ENDS["attn.W_V"][1]):
            return (self.head[int(layer)][:, None] * d_head + torch.arange(d_head)).flatten()
        return self.channel


@torch.no_grad()
def _write(planted: Transformer, model: Transformer, places: _Places, generator: torch.Generator) -> None:
    """Write the planted weights into a model with fresh random ones, and cut what would disturb them."""
    _, same_row = planted.W_E.unique(dim=0, return_inverse=True)
    model.W_E.copy_(model.W_E[same_row])
    narrower = sqrt(planted.cfg.d_model / model.cfg.d_model)
    for name, weight in planted.named_parameters():
        grown, kind = model.get_parameter(name), name.rpartition(".")[2]
        if kind.startswith("b_"):
            grown.normal_(0, BIAS, generator=generator)
        if kind in WRITES:
            grown.mul_(LOUDNESS)
        if kind == "W_U":
            grown.mul_(UNEMBEDDING)
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else None
        axes = AXES[kind]
        at = [places.of_axis(axis, layer, n) for axis, n in zip(axes, weight.shape, strict=True)]
        for dim, axis in enumerate(axes):
            if axis in ("head", "neuron") or (axis == "channel" and kind in WRITES):
                grown.index_fill_(dim, at[dim], 0)
        grown[torch.meshgrid(*at, indexing="ij")] = weight * (narrower if kind in READS else 1)


def _moved_circuit(circuit: Circuit, graph: Graph, places: _Places, d_head: int) -> Circuit:
    nodes = {place: torch.zeros(n, dtype=torch.bool) for place, n in graph.sizes.items()}
    for place, mask in circuit.node_masks.items():
        nodes[place][places.of_nodes(place, d_head)] = mask
    edges = {matrix: torch.zeros_like(mask) for matrix, mask in graph.edge_masks.items()}
    for matrix, mask in circuit.edge_masks.items():
        source, target = (places.of_nodes(end, d_head) for end in graph.ends[matrix])
        edges[matrix][source[:, None], target] = mask
    return Circuit(graph, nodes, edges)


def _moved_edge(edge: str, places: _Places, d_head: int) -> str:
    def moved(match) -> str:
        return f"{match[1]}[{places.of_nodes(match[1], d_head)[int(match[2])]}]"

    return NODE_NAME.sub(moved, edge)
