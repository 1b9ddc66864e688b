"""Corrections of pruned inputs that are made from data: a calibrated shift, and three that are learned.

First used in chapter 15.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from ..graph import as_matrix
from ..metrics import next_token_loss
from .inputs import Correction, InputPruning, layer_inputs, projection_of, pruned_inputs, pruned_layers

if TYPE_CHECKING:
    from ..model import Transformer

LEARNED = ("shift", "scale", "low rank")
# Standard deviation of the first entries of a low-rank residual, as in the code of arXiv 2509.22166.
FIRST_ENTRIES = 0.02


def static_shifts(
    model: Transformer, tokens: Int[Tensor, "batch pos"], projections: Iterable[str] | None = None
) -> dict[str, Correction]:
    """Return the mean of each channel over calibration tokens, as a shift for each pruned layer (S-PTS).

    Parameters
    ----------
    model : Transformer
        The model, without pruning.
    tokens : int tensor, shape (batch, pos)
        Calibration prompts; not those that are measured on.
    projections : iterable of str, optional
        As in `pruned_inputs`.

    Notes
    -----
    arXiv 2509.22166 gives a static shift beside the dynamic one; its code has none, so the statistic, the mean of each
    channel, is a reading of the text.
    """
    inputs = layer_inputs(model, tokens, projections)
    return {matrix: Correction(shift=x.mean(0)) for matrix, x in inputs.items()}


def first_corrections(
    model: Transformer, kind: str, projections: Iterable[str] | None = None, rank: int = 8, seed: int = 0
) -> dict[str, Correction]:
    """Return corrections before learning: zeros, or small random numbers for a low-rank residual.

    Parameters
    ----------
    model : Transformer
        Gives names and shapes.
    kind : {"shift", "scale", "low rank"}
        L-PTS: a shift for each input channel. LS: a gain and an offset for each output. R-Sparse: a low-rank layer
        around the pruned one.
    projections : iterable of str, optional
        As in `pruned_inputs`.
    rank : int
        Of the low-rank layer, at most the widths of the layer. (The authors of arXiv 2509.22166 take 128 where the
        width is 4,096 or so.)
    seed : int
        Of the random numbers.

    Raises
    ------
    ValueError
        If there is no such kind, or the rank is not positive.
    """
    if kind not in LEARNED:
        raise ValueError(f"There is no learned correction {kind!r}; choose one of {list(LEARNED)}.")
    if rank < 1:
        raise ValueError(f"rank is {rank}; give 1 or more.")
    generator = torch.Generator().manual_seed(seed)
    first = {}
    for matrix in pruned_layers(model, projections):
        weight = as_matrix(matrix, model.get_parameter(matrix)).detach()
        channels, outputs = weight.shape
        if kind == "shift":
            first[matrix] = Correction(shift=weight.new_zeros(channels))
        elif kind == "scale":
            first[matrix] = Correction(gain=weight.new_zeros(outputs), offset=weight.new_zeros(outputs))
        else:
            shapes = (channels, min(rank, channels, outputs)), (min(rank, channels, outputs), outputs)
            down, up = (FIRST_ENTRIES * torch.randn(shape, generator=generator).to(weight) for shape in shapes)
            first[matrix] = Correction(down=down, up=up)
    return first


def learn_corrections(
    model: Transformer,
    pruning: InputPruning,
    first: dict[str, Correction],
    batches: Callable[[int], Int[Tensor, "batch pos"]],
    steps: int,
    learning_rate: float,
) -> dict[str, Correction]:
    """Return corrections after learning: gradient descent on the next-token loss of the pruned model, end to end.

    Parameters
    ----------
    model : Transformer
        Its weights stay as they are.
    pruning : InputPruning
        How inputs are pruned: those of every layer of the kinds that are in `first`.
    first : dict of str to Correction
        Where to begin, see `first_corrections`.
    batches : callable
        `batches(step)` returns training windows, shape (batch, pos), with one token more than the model reads.
    steps : int
        Steps of Adam; the learning rate falls in a line to zero.
    learning_rate : float
        Of the first step.

    Raises
    ------
    ValueError
        If `steps` or the learning rate is not positive.
    FloatingPointError
        If the loss is not finite.
    """
    if not (steps > 0 and learning_rate > 0):
        raise ValueError(f"steps is {steps} and learning_rate {learning_rate}; give positive numbers.")
    learned = {
        matrix: {name: tensor.detach().clone().requires_grad_() for name, tensor in correction.parameters().items()}
        for matrix, correction in first.items()
    }
    free = [tensor for tensors in learned.values() for tensor in tensors.values()]
    corrections = {matrix: Correction(**tensors) for matrix, tensors in learned.items()}
    projections = {projection_of(matrix) for matrix in first}
    optimiser = torch.optim.Adam(free, lr=learning_rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate * (steps - step) / steps
        windows = batches(step)
        with pruned_inputs(model, pruning, projections, corrections):
            loss = next_token_loss(model(windows[:, :-1]), windows)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss.item()} at step {step}; lower learning_rate.")
        for tensor, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
            tensor.grad = gradient
        optimiser.step()
    return {
        matrix: Correction(**{name: tensor.detach() for name, tensor in tensors.items()})
        for matrix, tensors in learned.items()
    }
