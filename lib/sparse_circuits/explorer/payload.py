"""Weights as text in the page: where a weight is not zero as gaps of one byte or more, its values bit by bit."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from sparse_circuits.model import Transformer

Record = dict[str, str | list[int]]


def pack(values: np.ndarray, index: np.ndarray | None = None) -> Record:
    """Return an array as JSON values: its shape, the flat indices that are stored and what stands there.

    Parameters
    ----------
    values : float ndarray
        Any shape.
    index : int ndarray, shape (n,), optional
        Which entries of the flattened array to store, ascending; those that are not zero if not given.

    Returns
    -------
    dict
        `shape`; `gaps`, from each stored entry to the next one, less one, each in as many bytes as it needs (LEB128,
        base64), and missing if every entry is stored; `f4`, or `f8` where a value needs double precision, the values
        (little-endian, base64).
    """
    flat = np.ascontiguousarray(values).reshape(-1)
    index = np.flatnonzero(flat) if index is None else index
    stored = flat[index]
    kind = "f4" if np.array_equal(stored.astype("<f4").astype(np.float64), stored) else "f8"
    record: Record = {"shape": list(values.shape), kind: _text(stored.astype(f"<{kind}"))}
    if len(index) < len(flat):
        record["gaps"] = _text(_variable_length(np.diff(index, prepend=-1) - 1))
    return record


def _variable_length(numbers: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, " bytes"]:
    """Return the bytes of numbers from 0 to below 2^35, seven bits each, the lowest first; a high bit says: goes on."""
    parts = numbers[:, None] >> np.arange(0, 35, 7)
    goes_on = parts[:, 1:] > 0
    bytes_of = (parts & 127) | (np.pad(goes_on, ((0, 0), (0, 1))) << 7)
    return bytes_of[np.pad(goes_on, ((0, 0), (1, 0)), constant_values=True)].astype(np.uint8)


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


@dataclass(frozen=True)
class Offer:
    """What of a vocabulary and of the positions a page holds.

    Parameters
    ----------
    outputs : int ndarray, shape (n,)
        Tokens that have a logit, ascending. The page numbers them anew, from 0.
    inputs : int ndarray, shape (m,)
        Those among `outputs` that a prompt may have.
    n_ctx : int
        Longest prompt.
    """

    outputs: Int[np.ndarray, " n"]
    inputs: Int[np.ndarray, " m"]
    n_ctx: int

    @property
    def is_input(self) -> np.ndarray:
        """Which of the page's tokens a prompt may have, shape (n,), bool."""
        return np.isin(self.outputs, self.inputs)

    def page_ids(self, tokens: list[int]) -> list[int]:
        """Return the numbers that tokens have in the page."""
        return np.searchsorted(self.outputs, tokens).tolist()

    def restrict(self, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the weights without the rows and columns of tokens and positions that the page does not hold."""
        rows = ~self.is_input
        offered = dict(weights)
        offered["W_U"], offered["b_U"] = weights["W_U"][:, self.outputs], weights["b_U"][self.outputs]
        for name in {"W_E", "W_bigram"} & weights.keys():
            offered[name] = weights[name][self.outputs]
            offered[name][rows] = 0
        if "W_bigram" in weights:
            offered["W_bigram"] = offered["W_bigram"][:, self.outputs]
        if "W_pos" in weights:
            offered["W_pos"] = weights["W_pos"][: self.n_ctx]
        return offered


def read_weights(model: Transformer) -> dict[str, np.ndarray]:
    """Return copies of all parameters, in float64."""
    return {name: weight.detach().cpu().double().numpy().copy() for name, weight in model.named_parameters()}
