"""Circuits that were found in a model, one for each task and target loss, kept in one file.

First used in chapter 5. A file is made, and gone on with after a kill, by

    python -m sparse_circuits.found_circuits MODEL --output FILE [--tasks ...] [--targets ...] [--calibrate]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from .ablation_values import AblationValues, mean_values
from .calibration import UNCALIBRATED, Calibration
from .checkpoints import canonical_json, load_model, write_atomically
from .circuit import Circuit
from .graph import Graph, weight_graph
from .mask_learning import PruningConfig
from .model import Transformer
from .pruning import prune
from .tasks.code import code_tokens
from .tasks.contrast import CONTRAST_TASKS
from .training import random_windows
from .two_way import TwoWayPrompts, task_prompts, two_way_loss

FORMAT = "sparse-circuits found circuits 1"
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
        return cls(weight_graph(model), _digest(model))

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
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, this library reads {FORMAT!r}")
            weights, records = content["weights"], list(content["records"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no found circuits ({error}); make it again, see `found_circuits`."
            ) from error
        if weights != found.weights:
            raise ValueError(
                f"{path} belongs to a model with other weights (SHA-256 {weights[:12]}, this one has "
                f"{found.weights[:12]}); load the model that it was made from, or search again."
            )
        return replace(found, records=records)

    def save(self, path: str | os.PathLike) -> None:
        """Write the circuits as JSON, atomically."""
        content = {"format": FORMAT, "weights": self.weights, "records": self.records}
        write_atomically(Path(path), canonical_json(content))

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
        Names of contrast tasks. A task whose loss in the whole model is above a target has no circuit at that target
        and is passed over.
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
        learning, selection = (task_prompts(task, n, seed) for n, seed in (LEARNING, SELECTION))
        whole = two_way_loss(model, selection)
        for target in targets:
            if whole > target or target in found.targets(task, config.calibrate):
                continue
            config = replace(config, target_loss=target)
            found.records.append(record_of(model, task, learning, selection, values, config, restarts))
            yield found.records[-1]


def record_of(
    model: Transformer,
    task: str,
    learning: TwoWayPrompts,
    selection: TwoWayPrompts,
    values: AblationValues,
    config: PruningConfig,
    restarts: int = 1,
) -> dict:
    """Prune a model for one task and return what `FoundCircuits` keeps of it; parameters as in `prune`."""
    started = time.process_time()
    pruned = prune(model, learning, selection, values, config, restarts)
    masks = pruned.circuit.node_masks.items()
    return {
        "task": task,
        "target_loss": config.target_loss,
        "calibrated": config.calibrate,
        "nodes": {place: mask.nonzero().flatten().tolist() for place, mask in masks if mask.any()},
        "selection_loss": round(pruned.loss, 6),
        "scale": pruned.calibration.scale,
        "offset": pruned.calibration.offset,
        "tried": [list(sizes) for sizes in pruned.tried],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and search."""
    parser = argparse.ArgumentParser(
        prog="python -m sparse_circuits.found_circuits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file; what it holds already is kept")
    parser.add_argument(
        "--tasks", nargs="+", default=list(CONTRAST_TASKS), help="names of contrast tasks (default: all)"
    )
    parser.add_argument(
        "--targets", nargs="+", type=float, default=[TARGET_LOSS], help="target losses in nats per prompt"
    )
    parser.add_argument("--restarts", type=int, default=1, help="masks learned for each circuit; the best is kept")
    parser.add_argument("--steps", type=int, default=PruningConfig.steps, help="steps of the learning")
    parser.add_argument("--calibrate", action="store_true", help="judge circuits after scale and offset of the margin")
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    found = FoundCircuits.load(options.output, model) if options.output.exists() else FoundCircuits.of(model)
    config = PruningConfig(steps=options.steps, calibrate=options.calibrate)
    for record in search(model, found, options.tasks, options.targets, config, options.restarts):
        found.save(options.output)
        print({key: value for key, value in record.items() if key != "nodes"}, flush=True)


def _digest(model: Transformer) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
