"""The whole grid of pruned inputs for one model, in a file: what takes too long for a chapter is measured once.

First used in chapter 15. The file of a model is made, and gone on with after a kill, by

    python -m sparse_circuits.input_grid MODEL --output FILE [--patterns 2:4 ...] [--rates-of FILE]

It holds the next-token loss and accuracy on the same held-out windows for every pattern with every criterion and every
simple mitigation, with every learned mitigation, for every kind of layer alone, and for weights at the same patterns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from .checkpoints import load_model
from .input_study import LEARNED, SIMPLE, Learning, measured, mitigated
from .model import Transformer
from .search_files import read_records, stored_records, weights_digest, write_records
from .sparsity.criteria import CRITERIA, RANDOM
from .sparsity.inputs import InputPruning, projection_of, pruned_inputs, pruned_layers
from .sparsity.patterns import PATTERNS, Pattern
from .sparsity.pruned_weights import METHODS, prune_weights
from .tasks.code import code_tokens
from .training import random_windows

KIND = "pruned inputs"
HELD_OUT_WINDOWS, CALIBRATION_WINDOWS, LEARNING_WINDOWS = 32, 16, 4
# Seeds of what is drawn from the training text; that of the held-out windows is the seed of the study.
CALIBRATION_SEED, CHOICE_SEED, LEARNING_SEED = 1001, 1002, 1003
RATES, STEPS, RATE_PATTERN = (0.001, 0.003, 0.01), 60, Pattern(8, 16)
NOTHING_PRUNED = Pattern(100)


@dataclass(frozen=True)
class Texts:
    """The windows of a study, each with one token more than the model reads, except those for calibration.

    Parameters
    ----------
    held_out : int tensor, shape (window, pos + 1)
        What is measured on.
    calibration : int tensor, shape (window, pos)
        Training text for static shifts, Wanda and SparseGPT.
    choice : int tensor, shape (window, pos + 1)
        Training text on which a learning rate is chosen.
    batches : callable
        `batches(step)` returns training text to learn from.
    """

    held_out: Int[Tensor, "window pos_and_one"]
    calibration: Int[Tensor, "window pos"]
    choice: Int[Tensor, "window pos_and_one"]
    batches: Callable[[int], Int[Tensor, "window pos_and_one"]]


def study_texts(model: Transformer, seed: int = 0, windows: int = HELD_OUT_WINDOWS) -> Texts:
    """Return windows of real code, drawn with a seed.

    Parameters
    ----------
    model : Transformer
        Gives the length.
    seed : int
        Of the windows; the file of a model has those of seed 0.
    windows : int
        Held-out ones.
    """
    length, train = model.cfg.n_ctx + 1, code_tokens("train")

    def drawn(n: int, own_seed: int) -> Int[Tensor, "window pos"]:
        return random_windows(train, length, n, own_seed + 10_000 * seed)(0)

    return Texts(
        held_out=random_windows(code_tokens("held_out"), length, windows, seed)(0),
        calibration=drawn(CALIBRATION_WINDOWS, CALIBRATION_SEED)[:, :-1],
        choice=drawn(CALIBRATION_WINDOWS, CHOICE_SEED),
        batches=random_windows(train, length, LEARNING_WINDOWS, LEARNING_SEED + 10_000 * seed),
    )


def study(
    model: Transformer,
    records: list[dict],
    texts: Texts | None = None,
    patterns: Sequence[Pattern] = PATTERNS,
    rates: Mapping[str, float] | None = None,
) -> Iterator[dict]:
    """Measure what is not among `records` yet, and add it one by one.

    Parameters
    ----------
    model : Transformer
        The model; its weights stay as they are.
    records : list of dict
        Gets the new records.
    texts : Texts, optional
        What to measure and learn on; those of seed 0 if not given.
    patterns : sequence of Pattern
        Which patterns; all of the paper and unstructured if not given.
    rates : mapping of str to float, optional
        Learning rate of each learned mitigation, see `chosen_rates`; chosen anew if not given.

    Yields
    ------
    dict
        `part` ("grid", "kinds", "weights" or "rates"), `pattern`, `criterion`, `mitigation`, `kind` (the layers that
        are pruned, or "all"), `method` (of pruned weights), `rate` (of what is learned), `loss` in nats per token and
        `accuracy` on the held-out windows, and `cpu_seconds`, learning included. A record of `rates` has the loss on
        the windows for the choice, and no accuracy.

    Raises
    ------
    ValueError
        If `rates` are given and one is missing.
    """
    texts = study_texts(model) if texts is None else texts
    if rates is not None and (missing := set(LEARNED) - rates.keys()):
        raise ValueError(
            f"There is no learning rate for {sorted(missing)}; give one for each, or None to choose them anew."
        )
    for cell in _cells(model, patterns, rates is None):
        if any(cell.items() <= record.items() for record in records):
            continue
        started = time.process_time()
        record = cell | _measure(model, cell, texts, rates or chosen_rates(records))
        record["cpu_seconds"] = round(time.process_time() - started, 2)
        records.append(record)
        yield record


def chosen_rates(records: list[dict]) -> dict[str, float]:
    """Return, for each learned mitigation that was tried, the learning rate with the lowest loss on other text."""
    tried = sorted((r for r in records if r["part"] == "rates"), key=lambda record: -record["loss"])
    return {record["mitigation"]: record["rate"] for record in tried}


def read_study(path: str | os.PathLike, model: Transformer) -> list[dict]:
    """Return the records of a file of pruned inputs.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no such records, or those of a model with other weights.
    """
    return read_records(path, KIND, weights_digest(model))


def _cells(model: Transformer, patterns: Sequence[Pattern], choosing: bool) -> Iterator[dict]:
    """Yield what names each record, in an order in which a learning rate is known before it is used."""
    nothing = {"criterion": "", "mitigation": "", "kind": "all", "method": ""}
    yield {"part": "grid", "pattern": "dense"} | nothing
    for pattern in map(str, patterns):
        cell = {"part": "grid", "pattern": pattern} | nothing
        for criterion in CRITERIA:
            yield from (cell | {"criterion": criterion, "mitigation": name} for name in ("none", *SIMPLE))
        yield cell | {"criterion": RANDOM, "mitigation": "none"}
    kinds = dict.fromkeys(projection_of(name) for name in pruned_layers(model))
    for pattern in map(str, patterns):
        cell = {"part": "kinds", "pattern": pattern} | nothing | {"criterion": "magnitude", "mitigation": "none"}
        yield from (cell | {"kind": kind} for kind in kinds)
        cell = {"part": "weights", "pattern": pattern} | nothing
        yield from (cell | {"method": method} for method in METHODS)
    learned = nothing | {"criterion": "magnitude"}
    for name in LEARNED:
        cell = {"part": "rates", "pattern": str(RATE_PATTERN)} | learned | {"mitigation": name}
        yield from (cell | {"rate": rate} for rate in RATES if choosing)
    for pattern in map(str, (*patterns, NOTHING_PRUNED)):
        yield from ({"part": "grid", "pattern": pattern} | learned | {"mitigation": name} for name in LEARNED)


def _measure(model: Transformer, cell: dict, texts: Texts, rates: Mapping[str, float]) -> dict:
    if cell["pattern"] == "dense":
        return _rounded(measured(model, texts.held_out))
    pattern = Pattern.parse(cell["pattern"])
    if cell["part"] == "weights":
        return _rounded(measured(prune_weights(model, pattern, cell["method"], texts.calibration), texts.held_out))
    pruning = InputPruning(pattern, cell["criterion"])
    if cell["part"] == "kinds":
        with pruned_inputs(model, pruning, [cell["kind"]]):
            return _rounded(measured(model, texts.held_out))
    learning = Learning(texts.calibration, texts.batches, STEPS)
    if cell["part"] == "rates":
        with mitigated(model, pruning, cell["mitigation"], replace(learning, learning_rate=cell["rate"])):
            return {"loss": _rounded(measured(model, texts.choice))["loss"]}
    chosen = {}
    if cell["mitigation"] in LEARNED:
        chosen["rate"] = rates[cell["mitigation"]]
        learning = replace(learning, learning_rate=chosen["rate"])
    with mitigated(model, pruning, cell["mitigation"], learning):
        return _rounded(measured(model, texts.held_out)) | chosen


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_circuits.input_grid", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file; what it holds already is kept")
    parser.add_argument(
        "--patterns", nargs="+", type=Pattern.parse, default=PATTERNS, help="which patterns (default: all)"
    )
    parser.add_argument(
        "--rates-of", type=Path, metavar="FILE", help="learning rates as chosen for another model (default: choose)"
    )
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    weights = weights_digest(model)
    records = read_records(options.output, KIND, weights) if options.output.exists() else []
    rates = options.rates_of and chosen_rates(stored_records(options.rates_of, KIND)[1])
    for record in study(model, records, patterns=options.patterns, rates=rates):
        write_records(options.output, KIND, weights, records)
        print(record, flush=True)


if __name__ == "__main__":
    main()
