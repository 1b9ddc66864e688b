"""Execute the notebooks, keep their generated parts up to date, and check that they are.

python -m book_tools.notebooks --execute [NAME ...]   run, store outputs, record claims, time and memory
python -m book_tools.notebooks --sync [NAME ...]      rewrite set-up cells, cards, ids and metadata
python -m book_tools.notebooks --check [NAME ...]     fail where --sync would change something
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime

import nbformat
from nbclient.exceptions import CellExecutionError

from book_tools.cells import synchronise
from book_tools.execution import Run, run_notebook
from book_tools.project import Book, Notebook


def execute(book: Book, notebook: Notebook) -> Run:
    """Run one notebook and store what it gave: outputs, claims, budget and card.

    Nothing is written when a cell fails.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    ValueError
        If a claim was made without being shown, or belongs to another notebook.
    """
    synchronise(book, notebook)
    run = run_notebook(notebook)
    ledger = merge_claims(book, notebook, run)
    budgets = book.measurements("budgets")
    budgets[notebook.name] = {
        "run_seconds": round(run.seconds, 1),
        "peak_memory_mb": run.peak_memory_mb and round(run.peak_memory_mb),
        "measured": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    ledger.save()
    book.write_measurements("budgets", budgets)
    synchronise(book, notebook)
    notebook.write()
    return run


def merge_claims(book: Book, notebook: Notebook, run: Run):
    """Return the book's ledger with the claims of `notebook` replaced by those of its new run.

    Raises
    ------
    ValueError
        If a claim was made without being shown, or belongs to another notebook.
    """
    ledger = book.ledger()
    ledger.claims = {name: claim for name, claim in ledger.claims.items() if claim.notebook != notebook.name}
    cells = {name: cell.id for name, cell in reversed(list(notebook.claims()))}
    for claim in run.claims:
        if claim.id in ledger:
            raise ValueError(f"claim {claim.id!r} is made in {ledger[claim.id].notebook} too; give it another id.")
        if claim.id not in cells:
            raise ValueError(f"claim {claim.id!r} of {notebook.name} shows no line; do not capture the cell's output.")
        ledger.put(replace(claim, notebook=notebook.name, cell=cells[claim.id]))
    return ledger


def differs(book: Book, notebook: Notebook) -> bool:
    """Tell whether `synchronise` would change the notebook."""
    fresh = Notebook(notebook.path, copy.deepcopy(notebook.node))
    synchronise(book, fresh)
    return nbformat.writes(fresh.node) != nbformat.writes(notebook.node)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.notebooks", description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--execute", action="store_true", help="run, store outputs, record claims, time and memory")
    action.add_argument("--sync", action="store_true", help="rewrite set-up cells, cards, ids and metadata")
    action.add_argument("--check", action="store_true", help="fail where --sync would change something")
    parser.add_argument("names", nargs="*", metavar="NAME", help="start of a notebook's file name; all when left out")
    given = parser.parse_args(arguments)
    book = Book()
    failed = 0
    for notebook in book.notebooks(given.names):
        try:
            failed += _act(given, book, notebook)
        except (CellExecutionError, ValueError) as error:
            failed += 1
            print(f"{notebook.name}: {error}", file=sys.stderr)
    return int(failed > 0)


def _act(given: argparse.Namespace, book: Book, notebook: Notebook) -> bool:
    """Do to one notebook what the command line asks; return whether it fails the check."""
    if given.execute:
        run = execute(book, notebook)
        peak = f"{run.peak_memory_mb:.0f} MB at most" if run.peak_memory_mb else "memory not measured"
        print(f"{notebook.name}: {run.seconds:.1f} s, {peak}, {len(run.claims)} claims recorded")
    elif given.sync:
        synchronise(book, notebook)
        notebook.write()
    elif differs(book, notebook):
        print(f"{notebook.path.name} is out of date; run `python -m book_tools.notebooks --sync`.", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
