"""The circuit alone: a model whose nodes outside a circuit stand at given values, as weights that a page can hold.

What a constant node adds to others is a constant, so it joins their bias, and its weights need not be sent. Where a
whole location is constant, nothing that enters it is needed. The result runs as the model does inside
`sc.ablated(model, sc.nodes_outside(circuit), values=values)`.
"""

from __future__ import annotations

import numpy as np
import torch

from sparse_circuits.ablation_values import AblationValues
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer.payload import read_weights
from sparse_circuits.graph import as_matrix, as_weight
from sparse_circuits.model import Transformer

WRITES = {"attn": "hook_attn_out", "mlp": "hook_mlp_out"}
BIAS = {"W_Q": "b_Q", "W_K": "b_K", "W_V": "b_V", "W_O": "b_O", "W_in": "b_in", "W_out": "b_out"}
Fixed = dict[str, tuple[np.ndarray, np.ndarray]]


def circuit_alone(model: Transformer, circuit: Circuit, values: AblationValues) -> tuple[dict[str, np.ndarray], Fixed]:
    """Return the weights of the circuit alone and the values of the nodes that no bias can stand for.

    Parameters
    ----------
    model : Transformer
        The whole model.
    circuit : Circuit
        The nodes that stay; edges between them that it leaves out run too.
    values : AblationValues
        One value for each node, the same for every prompt and position.

    Returns
    -------
    weights : dict of str to float64 ndarray
        All parameters, in the model's shapes; zero where nothing is needed.
    fixed : dict of str to (int ndarray (n,), float64 ndarray (coordinate,))
        By hook name the coordinates to set after AbsTopK, and a value for every coordinate.

    Raises
    ------
    ValueError
        If the values differ between prompts or positions, or do not fit the model.
    """
    weights, graph = read_weights(model), circuit.graph
    outside = {place: (~mask).numpy() for place, mask in circuit.node_masks.items()}
    constant = {place: _constants(model, place, n, values) for place, n in graph.sizes.items()}
    for name, (source, target) in graph.ends.items():
        prefix, _, kind = name.rpartition(".")
        if outside[target].all():
            weights[name][:] = 0
            weights[f"{prefix}.{BIAS[kind]}"][:] = 0
            continue
        matrix = as_matrix(name, torch.from_numpy(weights[name])).numpy().copy()
        bias = weights[f"{prefix}.{BIAS[kind]}"].reshape(-1)
        # With a sink a head's shares do not add up to one, so what it mixes from constant values is not constant.
        if kind != "W_O" or not model.cfg.attention_sink:
            gone = outside[source]
            bias += constant[source][gone] @ matrix[gone]
            matrix[gone] = 0
        if model.cfg.activation_density == 1 or _within_layer(target) not in model.cfg.activation_locations:
            matrix[:, outside[target]] = 0
            bias[outside[target]] = 0
        weights[name] = as_weight(name, torch.from_numpy(matrix), model.cfg.n_heads).numpy()
    written = {target: _written_by(name.rpartition(".")[0]) for name, (_, target) in graph.ends.items()}
    fixed = {
        place: (np.flatnonzero(outside[place]), constant[place])
        for place, write in written.items()
        if place == write or not (outside[place].all() and outside[write].all())
    }
    return weights, fixed


def _written_by(prefix: str) -> str:
    """Return where the attention or MLP of a name such as `blocks.0.attn` writes to the residual stream."""
    block, _, part = prefix.rpartition(".")
    return f"{block}.{WRITES[part]}"


def _within_layer(place: str) -> str:
    return place.split(".", 2)[2]


def _constants(model: Transformer, place: str, n: int, values: AblationValues) -> np.ndarray:
    activation = torch.empty(1, 1, n, dtype=model.W_E.dtype)
    fitted = values.fitted(place, activation)
    if values.activations and values.activations[place].ndim != 1:
        raise ValueError(
            f"The {values.kind} values of {place} differ between prompts or positions; give mean_values(...) without "
            "by_position, or zero_values()."
        )
    return fitted.double().expand(1, 1, n).reshape(n).numpy()
