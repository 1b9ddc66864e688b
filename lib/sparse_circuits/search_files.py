"""Files of searches in one model: records as JSON, bound to its weights, and the command lines that go on with them.

First used in chapter 5, by `found_circuits`, `nesting` and `pruning_controls`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

import torch

from .checkpoints import canonical_json, write_atomically
from .circuit import Circuit
from .mask_learning import PruningConfig
from .model import Transformer


def weights_digest(model: Transformer) -> str:
    """Return the SHA-256 of a model's weights: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_records(path: str | os.PathLike, kind: str, weights: str, records: list[dict]) -> None:
    """Write records of a kind, such as "found circuits", and the digest of the weights, atomically."""
    content = {"format": _format(kind), "weights": weights, "records": records}
    write_atomically(Path(path), canonical_json(content))


def read_records(path: str | os.PathLike, kind: str, weights: str) -> list[dict]:
    """Return the records of a file that `write_records` made.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no records of this kind, or those of a model with other weights.
    """
    stored, records = stored_records(path, kind)
    if stored != weights:
        raise ValueError(
            f"{path} belongs to a model with other weights (SHA-256 {stored[:12]}, this one has {weights[:12]}); load "
            "the model that it was made from, or search again."
        )
    return records


def stored_records(path: str | os.PathLike, kind: str) -> tuple[str, list[dict]]:
    """Return the digest of the weights and the records of a file, whatever the model; raises as `read_records`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != _format(kind):
            raise ValueError(f"its format is {content['format']!r}, this library reads {_format(kind)!r}")
        return content["weights"], list(content["records"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no {kind} ({error}); make it again, see `search_files`.") from error


def node_lists(circuit: Circuit) -> dict[str, list[int]]:
    """Return the kept coordinates of each location that has any."""
    masks = circuit.node_masks.items()
    return {place: mask.nonzero().flatten().tolist() for place, mask in masks if mask.any()}


def search_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return the command line of a search: model, output, and the settings of the learning that all searches have."""
    parser = argparse.ArgumentParser(prog=f"python -m sparse_circuits.{module}", description=description)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file; what it holds already is kept")
    parser.add_argument("--steps", type=int, default=PruningConfig.steps, help="steps of the learning")
    parser.add_argument("--calibrate", action="store_true", help="judge circuits after scale and offset of the margin")
    return parser


def config_of(options: argparse.Namespace) -> PruningConfig:
    """Return the settings that `search_parser` has read."""
    return PruningConfig(steps=options.steps, calibrate=options.calibrate)


def _format(kind: str) -> str:
    return f"sparse-circuits {kind} 1"
