"""Edit a copy of a model edge by edge: cut named edges, keep a circuit and cut the rest, or change one weight.

First used in chapter 0. An edge is cut by setting its weight to zero; biases, embeddings and the unembedding stay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from .circuit import Circuit, listed
from .graph import Masks, as_matrix, as_weight, weight_graph

if TYPE_CHECKING:
    from .model import Transformer


def cut_edges(model: Transformer, edges: Iterable[str] | Circuit) -> Transformer:
    """Return a copy of the model in which the weights of some edges are zero.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    edges : iterable of str, or Circuit
        Names such as `"blocks.1.attn.hook_v[0] -> blocks.1.hook_attn_out[4]"`, or a circuit whose edges are all cut.

    Raises
    ------
    TypeError
        If `edges` is a single string.
    ValueError
        If a name is not that of an edge of the model (an entry that is zero already is no edge).
    """
    if not isinstance(edges, Circuit):
        edges = Circuit.from_names(weight_graph(model), listed(edges, "edges"))
    return _with_only(model, {matrix: ~mask for matrix, mask in edges.edge_masks.items()})


def keep_edges(model: Transformer, circuit: Circuit) -> Transformer:
    """Return a copy of the model in which every edge outside the circuit is cut.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    circuit : Circuit
        Of the model's weight graph. Only its edges matter: the biases of nodes that it leaves out stay.

    Raises
    ------
    ValueError
        If the circuit's matrices do not have the shapes of the model's.
    """
    return _with_only(model, circuit.edge_masks)


@torch.no_grad()
def set_edge(model: Transformer, edge: str, weight: float) -> Transformer:
    """Return a copy of the model in which one edge has another weight.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    edge : str
        Name of an edge of the model.
    weight : float
        Its new weight; 0 cuts it.

    Raises
    ------
    ValueError
        If there is no such edge, or the weight is not finite.
    """
    matrix, i, j = weight_graph(model).find_edge(edge)
    if not math.isfinite(weight):
        raise ValueError(f"The weight of {edge} is {weight}; give a finite number.")
    edited = copy.deepcopy(model)
    parameter = edited.get_parameter(matrix)
    entries = as_matrix(matrix, parameter).clone()
    entries[i, j] = weight
    parameter.copy_(as_weight(matrix, entries, model.cfg.n_heads))
    return edited


@torch.no_grad()
def _with_only(model: Transformer, kept: Masks) -> Transformer:
    edited = copy.deepcopy(model)
    for matrix, mask in kept.items():
        try:
            weight = edited.get_parameter(matrix)
        except AttributeError as error:
            raise ValueError(
                f"The model has no matrix {matrix}; use a circuit of this model's weight graph."
            ) from error
        shaped = as_weight(matrix, mask, model.cfg.n_heads)
        if shaped.shape != weight.shape:
            expected, given = tuple(weight.shape), tuple(shaped.shape)
            raise ValueError(
                f"{matrix} has shape {expected}, the circuit's mask {given}; use this model's weight graph."
            )
        weight.masked_fill_(~shaped.to(weight.device), 0)
    return edited
