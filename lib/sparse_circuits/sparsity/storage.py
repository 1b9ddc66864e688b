"""Sparse weights on disk: indices and values instead of mostly zeros, and the same bits back.

A tensor `W` of a state may be stored as three: `W.values` (what is not zero, in row-major order), `W.indices` (where it
stands in the flattened tensor, int32) and `W.shape` (int64). A tensor for which that would not be smaller is stored as
it is, and so is one with more entries than an int32 counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .selection import BITS

PARTS = ("values", "indices", "shape")
LARGEST_INDEX = torch.iinfo(torch.int32).max


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors to store for a state: each weight as it is, or as its three parts if they are smaller."""
    stored = {}
    for name, weight in state.items():
        parts = _parts(weight)
        if weight.numel() <= LARGEST_INDEX and sum(part.nbytes for part in parts) < weight.nbytes:
            stored |= {f"{name}.{part}": tensor for part, tensor in zip(PARTS, parts, strict=True)}
        else:
            stored[name] = weight.contiguous()
    return stored


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that `pack` was given, bit for bit.

    Raises
    ------
    ValueError
        If a part of a sparse weight is missing, or its parts do not fit one another.
    """
    state = {}
    for key, tensor in stored.items():
        name, _, part = key.rpartition(".")
        if part not in PARTS:
            state[key] = tensor
        elif name not in state:
            state[name] = _whole(name, *(stored.get(f"{name}.{part}") for part in PARTS))
    return state


def _parts(weight: Tensor) -> tuple[Tensor, ...]:
    """Return values, indices and shape; `-0.0` counts as a value, so that every bit comes back."""
    flat = weight.flatten()
    bits = flat.view(BITS[weight.dtype]) if weight.dtype in BITS else flat
    indices = bits.nonzero().squeeze(1)
    return flat[indices], indices.int(), torch.tensor(weight.shape)


def _whole(name: str, values: Tensor | None, indices: Tensor | None, shape: Tensor | None) -> Tensor:
    missing = [part for part, tensor in zip(PARTS, (values, indices, shape), strict=True) if tensor is None]
    if missing:
        raise ValueError(f"weight {name!r} is stored sparsely, but {', '.join(missing)} of it is missing")
    size = math.prod(shape.tolist())
    rising = bool((indices[1:] > indices[:-1]).all())
    inside = not len(indices) or (indices[0] >= 0 and indices[-1] < size)
    if values.shape != indices.shape or not rising or not inside:
        raise ValueError(
            f"weight {name!r} is stored sparsely, but its {len(indices)} indices do not rise from 0 to below {size} "
            f"with one of {len(values)} values each"
        )
    flat = torch.zeros(size, dtype=values.dtype)
    flat[indices.long()] = values
    return flat.view(shape.tolist())
