"""Receipts: what a reader has passed, written down so that a teacher can collect it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from sparse_circuits.checkpoints import canonical_json, write_atomically
from sparse_circuits.display import emit
from sparse_circuits.grading import OPEN, exercises_of, session

FORMAT = "sparse-circuits receipt 1"


def receipt(name: str, path: str | Path | None = None) -> Path:
    """Write the results of this session to a JSON file.

    Parameters
    ----------
    name : str
        Who the receipt is for.
    path : str or Path, optional
        The file; by default `receipt-NAME.json` in the working folder.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the name is empty or no exercise was graded in this session.

    Notes
    -----
    The receipt lists every exercise of each chapter that was started, whether it was passed, after how many attempts,
    and whether the book's solution was run. It carries the SHA-256 of its content. The hash shows that a file was
    damaged or edited by hand. It does not prove who did the work: whoever has this library can compute the hash of any
    content. A teacher who must be sure runs the student's notebook again.
    """
    if not name.strip():
        raise ValueError(f"the name is {name!r}; give the name that the receipt is for.")
    if not session:
        raise ValueError("no exercise was graded in this session; run the cells that call sc.grade first.")
    body = _body(name.strip())
    body["sha256"] = _digest(body)
    path = Path(path or f"receipt-{_slug(name)}.json")
    write_atomically(path, canonical_json(body))
    passed = sum(entry["score"] for entry in body["exercises"])
    line = f"{passed} of {len(body['exercises'])} exercises passed; the receipt is in {path.name}"
    emit(line, f'<div class="sc-receipt">{line}</div>')
    return path


def verify_receipt(source: str | Path | Mapping) -> dict:
    """Return the content of a receipt after checking its form and its hash.

    Parameters
    ----------
    source : str, Path or mapping
        The file, or its content.

    Raises
    ------
    ValueError
        If the file is not a receipt, or its content does not match its hash.
    """
    if isinstance(source, Mapping):
        label, content = "the receipt", dict(source)
    else:
        label = Path(source).name
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{label} is not a receipt ({error}); ask for the file that sc.receipt wrote.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{label} is not of the format {FORMAT!r}; ask for the file that sc.receipt wrote.")
    stated = content.get("sha256")
    body = {key: value for key, value in content.items() if key != "sha256"}
    if stated != _digest(body):
        raise ValueError(
            f"{label} does not match its own SHA-256: it was damaged or edited. Ask for the original file."
        )
    return body


def _body(name: str) -> dict:
    torch = sys.modules.get("torch")
    from sparse_circuits import __version__

    return {
        "format": FORMAT,
        "name": name,
        "issued": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "sparse_circuits": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__) if torch else "not loaded",
        },
        "exercises": [_entry(exercise) for exercise in _exercises()],
    }


def _exercises() -> list[str]:
    """Return every exercise of each chapter that was started."""
    chapters = sorted({exercise.split(".")[0] for exercise in session})
    return [exercise for chapter in chapters for exercise in exercises_of(chapter)]


def _entry(exercise: str) -> dict:
    progress = session.get(exercise)
    return {
        "exercise": exercise,
        "status": progress.result.status if progress else OPEN,
        "score": int(progress.result.passed) if progress else 0,
        "attempts": progress.attempts if progress else 0,
        "note": progress.result.note if progress else "",
        "solution_run": bool(progress and progress.solution_run),
    }


def _digest(body: dict) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "reader"
