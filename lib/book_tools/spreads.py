"""Measure how far each claim moves between seeds, thread counts and interpreters.

    python -m book_tools.spreads [--stdlib DIR ...] [NAME ...]

Runs each notebook in memory under seeds 0 to 4 with one thread, under seed 0 with two threads, and once more for each
`--stdlib`: the folder of another interpreter's standard library, which the real-code task then reads. The ranges go to
`data/spreads.json`; the linters ask that each tolerance covers its range. The committed notebooks are not touched.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterable
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from book_tools.execution import Conditions, run_notebook
from book_tools.project import Book, Notebook

SEEDS = range(5)


def conditions(seeds: Iterable[int] = SEEDS, stdlibs: Iterable[str] = ()) -> list[Conditions]:
    """Return the conditions to run under: every seed with one thread, then seed 0 otherwise changed.

    Raises
    ------
    ValueError
        If a standard library is not a folder.
    """
    for folder in stdlibs:
        if not (Path(folder) / "ast.py").is_file():
            raise ValueError(f"{folder!r} holds no standard library; give the folder that has ast.py in it.")
    return [
        *(Conditions(seed=seed) for seed in seeds),
        Conditions(threads=2),
        *(Conditions(stdlib=str(Path(folder).resolve())) for folder in stdlibs),
    ]


def label(case: Conditions) -> str:
    """Return conditions in words; of a standard library only the folder's name, the same on every machine."""
    threads = "1 thread" if case.threads == 1 else f"{case.threads} threads"
    return f"seed {case.seed}, {threads}" + (f", library of {Path(case.stdlib).name}" if case.stdlib else "")


def measure(notebook: Notebook, cases: Iterable[Conditions]) -> dict[str, dict]:
    """Run a notebook under each condition and return claim id -> min, max, runs and how it is measured.

    An exact claim may depend on the seed, so only the runs with seed 0 count for it.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails under one of the conditions.
    """
    values: dict[str, dict[str, float]] = {}
    hows = {}
    for case in cases:
        copied = Notebook(notebook.path, copy.deepcopy(notebook.node))
        for claim in run_notebook(copied, case).claims:
            if case.seed == 0 or not claim.exact:
                values.setdefault(claim.id, {})[label(case)] = claim.value
                hows[claim.id] = claim.how
        print(f"{notebook.name}: {label(case)} done", flush=True)
    return {
        name: {"min": min(runs.values()), "max": max(runs.values()), "runs": runs, "how": hows[name]}
        for name, runs in values.items()
    }


def update(book: Book, notebook: Notebook, measured: dict[str, dict]) -> None:
    """Store what was measured for one notebook, and drop what the ledger no longer has."""
    ledger = book.ledger()
    kept = {
        name: spread
        for name, spread in book.measurements("spreads").items()
        if name in ledger and ledger[name].notebook != notebook.name
    }
    book.write_measurements("spreads", kept | measured)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.spreads", description=__doc__.split("\n")[0])
    parser.add_argument("--stdlib", action="append", default=[], metavar="DIR", help="another interpreter's library")
    parser.add_argument("names", nargs="*", metavar="NAME", help="start of a notebook's file name; all when left out")
    given = parser.parse_args(arguments)
    book = Book()
    failed = 0
    for notebook in book.notebooks(given.names):
        try:
            update(book, notebook, measure(notebook, conditions(stdlibs=given.stdlib)))
        except CellExecutionError as error:
            failed += 1
            print(f"{notebook.name}: {error}", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
