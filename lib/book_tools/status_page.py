"""Make `book/status.md`: what each chapter costs, the versions it was measured with, and when all was last tested."""

from __future__ import annotations

import re
from collections.abc import Iterator

from book_tools.cells import duration, memory
from book_tools.markdown import table
from book_tools.project import Book, Notebook
from book_tools.verification import Revision, Verification

INTRODUCTION = """\
# Status

What it takes to run each chapter, what it was run with, and whether this very build was tested.
"""

CHAPTERS = """\
## Chapters

Time and memory are measured whenever a chapter is executed and its outputs are stored: the time of all cells together,
and the largest memory of the process that ran them. A chapter that takes over 1.2 times its budget fails the tests.
"""

PACKAGES = """\
## Versions

The tests run with these versions; [requirements.lock](repository:requirements.lock) names all of them. The library
itself asks for lower bounds only.
"""

NO_BREAK = "\N{NO-BREAK SPACE}"
NOT_TESTED = "This build was not preceded by a complete test run of the same commit."
COSTS = ("chapter", "run time", "time budget", "peak memory", "memory budget", "claims verified")
MEASURED = ("chapter", "measured on", "Python", "machine")
MAIN_PACKAGES = (
    "torch", "transformer-lens", "accelerate", "safetensors", "tokenizers", "numpy", "pandas", "matplotlib",
    "circuitsvis", "jupyter-book", "nbval", "pytest", "playwright",
)  # fmt: skip


def page(book: Book) -> str:
    """Return the page as markdown."""
    sections = [INTRODUCTION, "## Last verified\n", f"{verified(book)}\n", CHAPTERS]
    tables = ((COSTS, costs(book)), (MEASURED, measurements(book)))
    for header, rows in tables:
        sections += [*table(header, rows), ""]
    return "\n".join([*sections, PACKAGES, *table(("package", "version"), versions(book)), ""])


def verified(book: Book) -> str:
    """Say whether what is built here was tested, and when."""
    last, revision = Verification.last(book.root), Revision.of(book.root)
    if last is None:
        return NOT_TESTED
    counts = f"{last.passed} passed, {last.failed} failed, {last.skipped} skipped in {duration(last.seconds)}"
    tested = f"commit `{last.commit[:12]}`" if last.commit else "a copy without a repository"
    changed = " with changes on top" if last.changed else ""
    if last.speaks_of(revision):
        return f"This build is of {tested}, which was tested in full on {last.finished}: {counts}."
    return f"{NOT_TESTED} The last complete run here was of {tested}{changed}, on {last.finished}: {counts}."


def costs(book: Book) -> Iterator[list[str]]:
    """Yield one row for each chapter: what it takes, beside what it may take."""
    budgets, ledger = book.measurements("budgets"), book.ledger()
    for notebook in book.notebooks():
        card, measured = notebook.chapter, budgets.get(notebook.name, {})
        figures = [
            duration(measured.get("run_seconds")),
            duration(card.get("run_budget_seconds")),
            memory(measured.get("peak_memory_mb")),
            memory(card.get("memory_budget_mb")),
            str(sum(claim.notebook == notebook.name for claim in ledger)),
        ]
        yield [_link(notebook), *(figure.replace(" ", NO_BREAK) for figure in figures)]


def measurements(book: Book) -> Iterator[list[str]]:
    """Yield one row for each chapter: when and on what it was measured."""
    budgets = book.measurements("budgets")
    for notebook in book.notebooks():
        measured = budgets.get(notebook.name, {})
        processors = measured.get("processors")
        machine = f"CPU, {processors} processors" if processors else "–"
        yield [_link(notebook), measured.get("measured", "–"), measured.get("python", "–"), machine]


def _link(notebook: Notebook) -> str:
    return f"[{notebook.chapter['number']} · {notebook.chapter['title']}](../notebooks/{notebook.path.name})"


def versions(book: Book) -> Iterator[list[str]]:
    """Yield name and locked version of the main packages."""
    lock = book.root / "requirements.lock"
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)) if lock.exists() else {}
    yield from ([name, locked[name]] for name in MAIN_PACKAGES if name in locked)
