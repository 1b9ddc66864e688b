"""Circuits that were found in a model, one for each task and target loss, kept in one file.

First used in chapter 5. A file is made, and gone on with after a kill, by

    python -m sparse_circuits.found_circuits MODEL --output FILE [--tasks ...] [--targets ...] [--calibrate]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from .ablation_values import AblationValues, mean_values
from .calibration import UNCALIBRATED, Calibration, reachable_loss
from .checkpoints import load_model
from .circuit import Circuit
from .graph import Graph, weight_graph
from .mask_learning import PruningConfig
from .model import Transformer
from .pruning import prune
from .search_files import config_of, node_lists, read_records, search_parser, weights_digest, write_records
from .tasks.code import code_tokens
from .tasks.contrast import CONTRAST_TASKS
from .training import random_windows
from .two_way import TwoWayPrompts, task_prompts

KIND = "found circuits"
TARGET_LOSS = 0.15
# Prompt pairs on which masks are learned, on which nodes are chosen, and which no search has seen; seeds of their draw.
LEARNING, SELECTION, FRESH = (256, 0), (64, 1), (128, 2)
REFERENCE_WINDOWS, REFERENCE_SEED = 512, 3


@dataclass(frozen=True, eq=False)
class FoundCircuits:
    """The circuits of one model.

    Parameters
    ----------
    graph : Graph
        The model's weight graph.
    weights : str
        SHA-256 of the model's weights; circuits of other weights are refused.
    records : list of dict
        For each search `task`, `target_loss` (nats per prompt), `calibrated` (whether the target is one of the loss
        after scale and offset), `nodes` (for each location the kept coordinates), `selection_loss`, `scale` and
        `offset` (1 and 0 without calibration), `tried` (nodes and edges of each restart) and `cpu_seconds`.
    """

    graph: Graph
    weights: str
    records: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, model: Transformer) -> FoundCircuits:
        """Return an empty collection for a model."""
        return cls(weight_graph(model), weights_digest(model))

    @classmethod
    def load(cls, path: str | os.PathLike, model: Transformer) -> FoundCircuits:
        """Read the circuits of a model.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file holds no found circuits, or those of a model with other weights.
        """
        found = cls.of(model)
        return replace(found, records=read_records(path, KIND, found.weights))

    def save(self, path: str | os.PathLike) -> None:
        """Write the circuits as JSON, atomically."""
        write_records(path, KIND, self.weights, self.records)

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the search."""
        return list(dict.fromkeys(record["task"] for record in self.records))

    def targets(self, task: str, calibrated: bool = False) -> list[float]:
        """Return the target losses for which a task has a circuit, the largest first."""
        return sorted((loss for name, loss, how in self._by_search if (name, how) == (task, calibrated)), reverse=True)

    def circuit(self, task: str, target_loss: float = TARGET_LOSS, calibrated: bool = False) -> Circuit:
        """Return the circuit of a task, with every edge between two of its nodes.

        Raises
        ------
        ValueError
            If there is none for this task and target.
        """
        return Circuit.induced(self.graph, self._masks(self._record(task, target_loss, calibrated)["nodes"]))

    def calibration(self, task: str, target_loss: float = TARGET_LOSS) -> Calibration:
        """Return scale and offset of a circuit that was searched with calibration; errors as in `circuit`."""
        record = self._record(task, target_loss, calibrated=True)
        return replace(UNCALIBRATED, scale=record["scale"], offset=record["offset"])

    @property
    def _by_search(self) -> dict[tuple[str, float, bool], dict]:
        return {(record["task"], record["target_loss"], record["calibrated"]): record for record in self.records}

    def _record(self, task: str, target_loss: float, calibrated: bool) -> dict:
        try:
            return self._by_search[task, target_loss, calibrated]
        except KeyError:
            there = [(name, self.targets(name, calibrated)) for name in self.tasks if self.targets(name, calibrated)]
            raise ValueError(
                f"There is no circuit for {task!r} at a loss of {target_loss} {'with' if calibrated else 'without'} "
                f"calibration; there are {there}."
            ) from None

    def _masks(self, nodes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
        masks = {place: torch.zeros(n, dtype=torch.bool) for place, n in self.graph.sizes.items()}
        for place, coordinates in nodes.items():
            masks[place][coordinates] = True
        return masks


def reference_values(model: Transformer) -> AblationValues:
    """Return the mean activations over the pretraining distribution that all searches of the book ablate with."""
    windows = random_windows(code_tokens("train"), model.cfg.n_ctx, REFERENCE_WINDOWS, REFERENCE_SEED)(0)
    return mean_values(model, windows, "standard library, training split")


def search(
    model: Transformer,
    found: FoundCircuits,
    tasks: Iterable[str],
    targets: Iterable[float],
    config: PruningConfig | None = None,
    restarts: int = 1,
) -> Iterator[dict]:
    """Search the circuits that `found` does not hold yet, and add them to it one by one.

    Parameters
    ----------
    model : Transformer
        The model of `found`.
    found : FoundCircuits
        Gets the records.
    tasks : iterable of str
        Names of contrast tasks. A task on which the whole model, judged as its circuits are, is above a target has no
        circuit at that target and is passed over.
    targets : iterable of float
        Target losses, in nats per prompt.
    config : PruningConfig, optional
        How masks are learned; its target is replaced.
    restarts : int
        Of each search; see `prune`.

    Yields
    ------
    dict
        Each new record, when `found` has it.
    """
    config = PruningConfig() if config is None else config
    values, targets = reference_values(model), list(targets)
    for task in tasks:
        yield from search_task(model, found, task, partial(task_prompts, task), values, targets, config, restarts)


def search_task(
    model: Transformer,
    found: FoundCircuits,
    task: str,
    draw: Callable[[int, int], TwoWayPrompts],
    values: AblationValues,
    targets: Iterable[float],
    config: PruningConfig,
    restarts: int = 1,
) -> Iterator[dict]:
    """Search the circuits of one task, whose prompts are drawn by number of pairs and seed; the rest as in `search`."""
    learning, selection = (draw(n, seed) for n, seed in (LEARNING, SELECTION))
    whole = reachable_loss(model, selection, config.calibrate)
    for target in targets:
        if whole > target or target in found.targets(task, config.calibrate):
            continue
        started = time.process_time()
        pruned = prune(model, learning, selection, values, replace(config, target_loss=target), restarts)
        record = {
            "task": task,
            "target_loss": target,
            "calibrated": config.calibrate,
            "nodes": node_lists(pruned.circuit),
            "selection_loss": round(pruned.loss, 6),
            "scale": pruned.calibration.scale,
            "offset": pruned.calibration.offset,
            "tried": [list(sizes) for sizes in pruned.tried],
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        found.records.append(record)
        yield record


def circuits_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return the command line of a search for circuits at several targets."""
    parser = search_parser(module, description)
    parser.add_argument(
        "--targets", nargs="+", type=float, default=[TARGET_LOSS], help="target losses in nats per prompt"
    )
    parser.add_argument("--restarts", type=int, default=1, help="masks learned for each circuit; the best is kept")
    return parser


def search_into_file(
    options: argparse.Namespace, searching: Callable[[Transformer, FoundCircuits], Iterator[dict]]
) -> None:
    """Search in the model of a command line; the file holds each circuit as soon as it is found."""
    model = load_model(options.model)
    found = FoundCircuits.load(options.output, model) if options.output.exists() else FoundCircuits.of(model)
    for record in searching(model, found):
        found.save(options.output)
        print({key: value for key, value in record.items() if key != "nodes"}, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and search."""
    parser = circuits_parser("found_circuits", __doc__.splitlines()[0])
    parser.add_argument(
        "--tasks", nargs="+", default=list(CONTRAST_TASKS), help="names of contrast tasks (default: all)"
    )
    options = parser.parse_args(arguments)
    search_into_file(
        options,
        lambda model, found: search(model, found, options.tasks, options.targets, config_of(options), options.restarts),
    )


if __name__ == "__main__":
    main()
