"""Which nodes and edges an ablation speaks of: names, circuits and masks, all turned into masks.

First used in chapter 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformer_lens import HookedRootModule

from .ablation_values import location_sizes
from .circuit import Circuit, listed
from .graph import NODE_NAME, Masks, weight_graph

if TYPE_CHECKING:
    from .model import Transformer

HEAD_NAME, MLP_NAME = re.compile(r"a(\d+)\.h(\d+)"), re.compile(r"m(\d+)")
NODE_NAMES = "'blocks.0.mlp.hook_post[3]', 'a1.h0' or 'm0'"


def nodes_outside(circuit: Circuit) -> dict[str, Tensor]:
    """Return masks of the nodes that a circuit leaves out, for `ablated(model, nodes=...)`."""
    return {location: ~mask for location, mask in circuit.node_masks.items()}


def edges_outside(circuit: Circuit) -> dict[str, Tensor]:
    """Return masks of the edges that a circuit leaves out, for `ablated(model, edges=...)`."""
    return {matrix: mask & ~circuit.edge_masks[matrix] for matrix, mask in circuit.graph.edge_masks.items()}


def masks_of_nodes(model: HookedRootModule, nodes: Circuit | Masks | Iterable[str]) -> dict[str, Tensor]:
    """Return masks of shape (coordinate,) for the locations that `nodes` speaks of.

    Raises
    ------
    TypeError, ValueError
        If a name names nothing, or a mask does not fit its location.
    """
    sizes = location_sizes(model)
    if isinstance(nodes, Circuit):
        nodes = nodes.node_masks
    if isinstance(nodes, Mapping):
        _check(nodes, {location: (n,) for location, n in sizes.items()}, "location")
        return {location: nodes[location] for location in sizes if location in nodes}
    masks: dict[str, Tensor] = {}
    for name in listed(nodes, "nodes"):
        location, coordinates = _located(model, sizes, name)
        masks.setdefault(location, torch.zeros(sizes[location], dtype=torch.bool))[coordinates] = True
    return {location: masks[location] for location in sizes if location in masks}


def masks_of_edges(model: Transformer, edges: Circuit | Masks | Iterable[str]) -> dict[str, Tensor]:
    """Return masks of shape (source, target) for every matrix of the model; nothing if no edge is listed.

    Raises
    ------
    TypeError, ValueError
        If a name is not that of an edge of the model, or a mask does not fit its matrix.
    """
    if isinstance(edges, Circuit):
        edges = edges.edge_masks
    if not isinstance(edges, Mapping):
        names = listed(edges, "edges")
        edges = Circuit.from_names(weight_graph(model), names).edge_masks if names else {}
    if not edges:
        return {}
    every = weight_graph(model).edge_masks
    _check(edges, {matrix: tuple(mask.shape) for matrix, mask in every.items()}, "matrix")
    return {matrix: edges.get(matrix, torch.zeros_like(mask)) for matrix, mask in every.items()}


def source_of(matrix: str) -> str:
    """Return the location whose activation a matrix multiplies; `attn.hook_z` for W_O."""
    block, _, kind = matrix.rpartition(".")
    if kind == "W_O":
        return f"{block}.hook_z"
    if kind == "W_out":
        return f"{block}.hook_post"
    layer = block.rpartition(".")[0]
    return f"{layer}.{'ln2' if kind == 'W_in' else 'ln1'}.hook_normalized"


def target_of(matrix: str) -> str:
    """Return the location whose activation is the product with a matrix; `mlp.hook_pre` for W_in."""
    block, _, kind = matrix.rpartition(".")
    layer = block.rpartition(".")[0]
    places = {"W_O": f"{layer}.hook_attn_out", "W_out": f"{layer}.hook_mlp_out", "W_in": f"{block}.hook_pre"}
    return places.get(kind, f"{block}.hook_{kind[-1].lower()}")


def draw_subset(
    node_masks: Masks, edge_masks: Masks, sizes: Mapping[str, int], share: float, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the masks with each entry kept with probability `share`.

    Numbers are drawn for every coordinate of `sizes`, then for every entry of the matrices of `edge_masks`, in their
    order, so that a node or an edge meets the same draw whatever else is listed.
    """
    generator = torch.Generator().manual_seed(seed)

    def thinned(mask: Tensor, shape: int | tuple[int, ...]) -> Tensor:
        drawn = torch.rand(shape, generator=generator) < share
        return mask.cpu() & drawn if mask.dtype == torch.bool else mask * drawn.to(mask.device)

    none = torch.zeros((), dtype=torch.bool)
    nodes = {location: thinned(node_masks.get(location, none), n) for location, n in sizes.items()}
    edges = {matrix: thinned(mask, tuple(mask.shape)) for matrix, mask in edge_masks.items()}
    return {location: nodes[location] for location in node_masks}, edges


def in_use(masks: Masks) -> dict[str, Tensor]:
    """Return the masks less the boolean ones that choose nothing."""
    return {name: mask for name, mask in masks.items() if mask.dtype != torch.bool or mask.any()}


def _located(model: HookedRootModule, sizes: Mapping[str, int], name: str) -> tuple[str, slice | int]:
    """Return location and coordinates of a named node, head or MLP."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a node; write it as {NODE_NAMES}.")
    name, cfg = name.strip(), model.cfg
    if head := HEAD_NAME.fullmatch(name):
        layer, h = int(head[1]), int(head[2])
        if layer >= cfg.n_layers or h >= cfg.n_heads:
            raise ValueError(f"There is no head {name}; choose from {cfg.n_layers} layers of {cfg.n_heads} heads.")
        return f"blocks.{layer}.attn.hook_z", slice(h * cfg.d_head, (h + 1) * cfg.d_head)
    if mlp := MLP_NAME.fullmatch(name):
        if int(mlp[1]) >= cfg.n_layers:
            raise ValueError(f"There is no MLP {name}; choose from {cfg.n_layers} layers.")
        return f"blocks.{int(mlp[1])}.hook_mlp_out", slice(None)
    match = NODE_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of a node; write it as {NODE_NAMES}.")
    location, i = match[1], int(match[2])
    if location not in sizes:
        raise ValueError(f"{name!r}: there is no location {location!r}; choose one of {list(sizes)}.")
    if i >= sizes[location]:
        raise ValueError(f"{name!r}: {location} has {sizes[location]} coordinates; give an index below that.")
    return location, i


def _check(masks: Masks, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    for name, mask in masks.items():
        if name not in shapes:
            raise ValueError(f"There is no {what} {name!r} in this model; choose from {list(shapes)}.")
        if not isinstance(mask, Tensor) or (mask.dtype != torch.bool and not mask.is_floating_point()):
            found = f"dtype {mask.dtype}" if isinstance(mask, Tensor) else f"type {type(mask).__name__}"
            raise TypeError(f"The mask of {name} has {found}; give a tensor of booleans, for example scores > 0.")
        if tuple(mask.shape) != shapes[name]:
            raise ValueError(f"The mask of {name} has shape {tuple(mask.shape)}; give one of shape {shapes[name]}.")
        if mask.dtype != torch.bool and not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError(f"The mask of {name} goes from {mask.min()} to {mask.max()}; give values in [0, 1].")
