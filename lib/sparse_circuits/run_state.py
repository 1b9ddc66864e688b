"""What a training run keeps on disk, so that it can be killed at any moment and go on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .checkpoints import CheckpointError, canonical_json, read_folder, write_atomically, write_folder
from .model import Transformer

if TYPE_CHECKING:
    from .objectives import Objective
    from .training import TrainingConfig

CHECKPOINT_KIND = "training checkpoint"
MOMENTS = ("exp_avg", "exp_avg_sq")


def run_identity(model: Transformer, config: TrainingConfig) -> dict[str, dict]:
    """Return, as JSON values, what must be the same for a run to be resumed."""
    return json.loads(json.dumps({"training": asdict(config), "model": model.cfg.to_dict()}))


def write_checkpoint(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    log: list[dict[str, float]],
    identity: dict[str, dict],
    directory: Path,
    step: int,
    objective: Objective,
) -> None:
    """Write weights, optimiser moments, log and the objective's state as a new folder, then delete the older one."""
    from safetensors.torch import save

    older = _folders(directory)
    weights = dict(model.named_parameters())
    moments = {
        f"{moment}.{name}": optimizer.state[weight][moment]
        for name, weight in weights.items()
        if weight.requires_grad
        for moment in MOMENTS
    }
    files = {
        "model.safetensors": save(weights),
        "optimizer.safetensors": save(moments),
        "progress.json": canonical_json({"step": step, "log": log, "state": objective.state_dict(), **identity}),
    }
    write_folder(directory / f"checkpoint-{step:08d}", files, CHECKPOINT_KIND)
    for path in older:
        shutil.rmtree(path)


def read_checkpoint(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    log: list[dict[str, float]],
    identity: dict[str, dict],
    directory: Path,
    objective: Objective,
) -> int:
    """Restore the newest checkpoint in place, if there is one.

    Returns
    -------
    int
        Steps already done; 0 without a checkpoint.

    Raises
    ------
    CheckpointError
        If the checkpoint is damaged or belongs to a run with other settings. Nothing is changed then.
    """
    from safetensors.torch import load

    found = _folders(directory)
    if not found:
        return 0
    files = read_folder(found[-1], CHECKPOINT_KIND)
    progress = json.loads(files["progress.json"])
    changed = {
        f"{part}.{key}": (progress.get(part, {}).get(key), value)
        for part, fields in identity.items()
        for key, value in fields.items()
        if progress.get(part, {}).get(key) != value
    }
    if changed:
        raise CheckpointError(
            f"{found[-1]} belongs to another run; (stored, asked for) differ: {changed}. "
            "Give another directory, or delete this one."
        )
    weights, moments = load(files["model.safetensors"]), load(files["optimizer.safetensors"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
            if not weight.requires_grad:
                continue
            optimizer.state[weight] = {
                "step": torch.tensor(float(progress["step"])),
                **{moment: moments[f"{moment}.{name}"] for moment in MOMENTS},
            }
    objective.load_state_dict(progress.get("state", {}))
    log.extend(progress["log"])
    return progress["step"]


def write_log(log: list[dict[str, float]], path: Path) -> None:
    """Write a training log as CSV, atomically: one row per logged step, the keys of the last row as columns.

    That row is from this run; the order of keys in rows that were read back from a checkpoint means nothing.
    """
    columns = list(log[-1]) if log else []
    rows = [",".join(columns), *(",".join(f"{row[column]:.6g}" for column in columns) for row in log)]
    write_atomically(path, ("\n".join(rows) + "\n").encode())


def _folders(directory: Path) -> list[Path]:
    return sorted(directory.glob("checkpoint-*"))
