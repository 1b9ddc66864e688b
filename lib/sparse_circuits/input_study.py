"""What pruned inputs cost a model: loss, accuracy and energy for patterns, criteria, corrections and kinds of layers.

First used in chapter 15.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .metrics import match_with_label, next_token_loss
from .model import Transformer
from .sparsity.corrections import first_corrections, learn_corrections, static_shifts
from .sparsity.inputs import InputPruning, layer_inputs, projection_of, pruned_inputs, pruned_layers
from .sparsity.order_statistics import FAMILIES, energy_lost, energy_lost_by, fitted_law
from .sparsity.patterns import Pattern, pattern_mask
from .sparsity.selection import zero_outside

# Mitigation -> fields of InputPruning, and the kind of correction that is made from data.
MITIGATIONS: dict[str, tuple[dict, str | None]] = {
    "none": ({}, None),
    "shift, median": ({"shift": "median"}, None),
    "shift, mean": ({"shift": "mean"}, None),
    "shift, static": ({}, "static"),
    "variance": ({"variance": True}, None),
    "shift, learned": ({}, "shift"),
    "scale, learned": ({}, "scale"),
    "low rank, learned": ({}, "low rank"),
}
SIMPLE = ("shift, median", "shift, mean", "shift, static", "variance")
LEARNED = ("shift, learned", "scale, learned", "low rank, learned")
FITTED_ENTRIES = 20_000


@dataclass(frozen=True)
class Learning:
    """How corrections are learned, and on what.

    Parameters
    ----------
    calibration : int tensor, shape (window, pos)
        Prompts for the static shift.
    batches : callable
        `batches(step)` returns training windows with one token more than the model reads.
    steps : int
        Steps of Adam.
    learning_rate : float
        Of the first step.
    rank : int
        Of the low-rank residual.
    """

    calibration: Int[Tensor, "window pos"]
    batches: Callable[[int], Int[Tensor, "batch pos"]]
    steps: int = 30
    learning_rate: float = 0.002
    rank: int = 8


@torch.no_grad()
def measured(model: Transformer, windows: Int[Tensor, "window pos_and_one"], batch_size: int = 32) -> dict[str, float]:
    """Return the next-token loss of a model, in nats per token, and its accuracy, with the hooks that it carries.

    Parameters
    ----------
    model : Transformer
        In whatever state it is.
    windows : int tensor, shape (window, pos + 1)
        Tokens; each but the first is predicted.
    batch_size : int
        Windows per run. A criterion that looks at other tokens sees those of its run.

    Raises
    ------
    ValueError
        If a logit is nan.
    """
    loss = accuracy = 0.0
    for batch in windows.split(batch_size):
        logits, share = model(batch[:, :-1]), len(batch) / len(windows)
        loss += share * next_token_loss(logits, batch).item()
        accuracy += share * match_with_label(logits.flatten(0, 1), batch[:, 1:].flatten())
    return {"loss": loss, "accuracy": accuracy}


def mitigated(
    model: Transformer,
    pruning: InputPruning,
    mitigation: str,
    learning: Learning | None = None,
    projections: Iterable[str] | None = None,
) -> AbstractContextManager[Transformer]:
    """Return a context in which a model runs with pruned inputs and a named mitigation; what is learned is learned now.

    Parameters
    ----------
    model : Transformer
        The model.
    pruning : InputPruning
        Pattern and criterion.
    mitigation : str
        A name in `MITIGATIONS`.
    learning : Learning, optional
        Needed by the static shift and by what is learned.
    projections : iterable of str, optional
        As in `pruned_inputs`.

    Raises
    ------
    ValueError
        If there is no such mitigation, or it needs data and there are none.
    """
    if mitigation not in MITIGATIONS:
        raise ValueError(f"There is no mitigation {mitigation!r}; choose one of {list(MITIGATIONS)}.")
    fields, kind = MITIGATIONS[mitigation]
    pruning = replace(pruning, **fields)
    if kind is None:
        return pruned_inputs(model, pruning, projections)
    if learning is None:
        raise ValueError(f"The mitigation {mitigation!r} is made from data, and learning is None; give a Learning.")
    if kind == "static":
        return pruned_inputs(model, pruning, projections, static_shifts(model, learning.calibration, projections))
    first = first_corrections(model, kind, projections, learning.rank)
    learned = learn_corrections(model, pruning, first, learning.batches, learning.steps, learning.learning_rate)
    return pruned_inputs(model, pruning, projections, learned)


def grid(
    model: Transformer,
    windows: Int[Tensor, "window pos_and_one"],
    patterns: Sequence[Pattern],
    criteria: Sequence[str],
    mitigations: Sequence[str],
    learning: Learning | None = None,
) -> Iterator[dict[str, object]]:
    """Yield one row for the dense model, then one for each pattern, criterion and mitigation.

    Yields
    ------
    dict
        `pattern`, `criterion`, `mitigation`, `loss` (nats per token), `accuracy`, and `increase`, the loss over that
        of the dense model. The names of the dense model's row are "dense", "" and "".
    """
    dense = measured(model, windows)
    yield {"pattern": "dense", "criterion": "", "mitigation": ""} | dense | {"increase": 0.0}
    for pattern in patterns:
        for criterion in criteria:
            for mitigation in mitigations:
                with mitigated(model, InputPruning(pattern, criterion), mitigation, learning):
                    row = measured(model, windows)
                names = {"pattern": str(pattern), "criterion": criterion, "mitigation": mitigation}
                yield names | row | {"increase": row["loss"] - dense["loss"]}


@torch.no_grad()
def energies(
    model: Transformer, tokens: Int[Tensor, "batch pos"], patterns: Sequence[Pattern]
) -> Iterator[dict[str, object]]:
    """Yield the energy that magnitude pruning loses in every layer, beside what three laws predict.

    Parameters
    ----------
    model : Transformer
        The model, without pruning.
    tokens : int tensor, shape (batch, pos)
        Prompts.
    patterns : sequence of Pattern
        The patterns.

    Yields
    ------
    dict
        `weight`, `projection`, `kurtosis` (of the entries about zero; 3 for a Gaussian law), `best` (the family under
        which the entries are likeliest), `pattern`, `measured`, and one prediction for each family.
    """
    layers, of_input = pruned_layers(model), {}
    for matrix, x in layer_inputs(model, tokens).items():
        source = layers[matrix][0]
        if source not in of_input:  # several layers read the same
            of_input[source] = list(_energies_of_input(x, patterns))
        yield from ({"weight": matrix, "projection": projection_of(matrix)} | row for row in of_input[source])


def _energies_of_input(x: Float[Tensor, "token channel"], patterns: Sequence[Pattern]) -> Iterator[dict[str, object]]:
    entries = x.flatten()
    drawn = torch.randint(len(entries), (FITTED_ENTRIES,), generator=torch.Generator().manual_seed(0))
    fits = {family: fitted_law(entries[drawn], family) for family in FAMILIES}
    square = entries.double().square()
    shared = {
        "kurtosis": (square.square().mean() / square.mean().square()).item(),
        "best": max(fits, key=lambda family: fits[family][1]),
    }
    for pattern in patterns:
        pruned = zero_outside(x, pattern_mask(x, pattern))
        predictions = {family: energy_lost(law, pattern, x.shape[1]) for family, (law, _) in fits.items()}
        yield shared | {"pattern": str(pattern), "measured": energy_lost_by(x, pruned)} | predictions
