"""Real code: the Python standard library's own source, read from the running interpreter.

Files are split by name, not by text, so every Python version holds out the same modules,
and a model trained on one version has never seen the held-out files of another.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .tokenizer import load_tokenizer

SPLITS = ("train", "held_out")
HELD_OUT_SHARE = 1 / 16
STDLIB_VARIABLE = "SPARSE_CIRCUITS_STDLIB"

# Tests repeat themselves and many systems do not install them; the other names are tables, not code.
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled", "encodings", "pydoc_data"}
LEFT_OUT_PREFIXES = ("_sysconfigdata", "config-", "__phello__")


def stdlib_directory() -> Path:
    """Return the folder of the standard library's source.

    The environment variable `SPARSE_CIRCUITS_STDLIB` may name the library of another interpreter.

    Raises
    ------
    FileNotFoundError
        If the folder holds no Python source, as in zipped installations.
    """
    directory = Path(os.environ.get(STDLIB_VARIABLE) or sysconfig.get_path("stdlib"))
    if not (directory / "ast.py").exists():
        raise FileNotFoundError(
            f"{directory} holds no standard-library source. Install Python with its source files, "
            f"or set {STDLIB_VARIABLE} to a folder that has them (the one with ast.py in it)."
        )
    return directory


def is_held_out(name: str) -> bool:
    """Tell whether the module file `name` (relative, with forward slashes) belongs to the held-out split."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < HELD_OUT_SHARE * 2**64


def source_files(split: str, directory: Path | None = None) -> dict[str, str]:
    """Return the source files of a split.

    Parameters
    ----------
    split : {"train", "held_out"}
        One file in sixteen is held out, chosen by the hash of its name.
    directory : Path, optional
        The library's folder; that of the running interpreter if not given.

    Returns
    -------
    dict of str to str
        Relative file name to text, in the order of the names.

    Raises
    ------
    ValueError
        If the split is unknown.
    FileNotFoundError
        If the interpreter comes without source files.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {SPLITS}.")
    directory = directory or stdlib_directory()
    files = {}
    for path in sorted(directory.rglob("*.py")):
        name = path.relative_to(directory).as_posix()
        parts = name.split("/")
        if LEFT_OUT.intersection(parts) or any(part.startswith(LEFT_OUT_PREFIXES) for part in parts):
            continue
        if is_held_out(name) == (split == "held_out"):
            files[name] = path.read_text(encoding="utf-8", errors="replace")
    return files


def code_tokens(split: str) -> Int[Tensor, " n_tokens"]:
    """Return a split as one stream of tokens, each file led by the start token.

    Raises
    ------
    ValueError, FileNotFoundError
        As `source_files`.
    """
    return _encoded(split, stdlib_directory())


@lru_cache
def _encoded(split: str, directory: Path) -> Int[Tensor, " n_tokens"]:
    tokenizer = load_tokenizer()
    encoded = tokenizer.encode_batch(list(source_files(split, directory).values()))
    return torch.tensor([i for ids in encoded for i in (tokenizer.start_id, *ids)], dtype=torch.int64)
