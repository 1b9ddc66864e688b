"""The ledger: each entry is made in a cell, shown there as recorded, and no wider or narrower than measured."""

from __future__ import annotations

import re
from collections.abc import Iterator

from book_tools.project import Book, output_texts
from book_tools.rules import Finding

FILE = "claims.json"
RECORD = "run `python -m book_tools.notebooks --execute`"
MEASURE = "run `python -m book_tools.spreads`"


def entries_have_cells(book: Book) -> Iterator[Finding]:
    """Every entry names a notebook and a cell that exist, and the cell's stored output shows the recorded value."""
    cells = {(notebook.name, cell.id): cell for notebook in book.notebooks() for cell in notebook.cells}
    for claim in book.ledger():
        cell = cells.get((claim.notebook, claim.cell))
        if cell is None:
            where = f"{claim.notebook or 'no notebook'}, cell {claim.cell or 'none'}"
            yield Finding(FILE, claim.id, f"there is no {where}", RECORD)
        elif not any(claim.line(claim.value) in text for text in output_texts(cell, "text/plain")):
            message = f"the output of cell {claim.cell} of {claim.notebook} does not say {claim.line(claim.value)!r}"
            yield Finding(FILE, claim.id, message, RECORD)


def outputs_are_recorded(book: Book) -> Iterator[Finding]:
    """Every claim that a notebook shows is in the ledger, and is made once."""
    ledger = book.ledger()
    for notebook in book.notebooks():
        seen = set()
        for name, cell in notebook.claims():
            if name not in ledger:
                yield Finding(notebook.path.name, cell.id, f"claim {name!r} is not in the ledger", RECORD)
            if name in seen:
                yield Finding(
                    notebook.path.name, cell.id, f"claim {name!r} is made twice", "make each claim in one cell"
                )
            seen.add(name)


def tolerances_are_measured(book: Book) -> Iterator[Finding]:
    """Every tolerance covers the range measured over seeds, threads and interpreters; exact claims did not move."""
    spreads = book.measurements("spreads")
    for claim in book.ledger():
        spread = spreads.get(claim.id)
        if spread is None:
            yield Finding(FILE, claim.id, "its spread was never measured", MEASURE)
            continue
        low, high = spread["min"], spread["max"]
        if not (claim.holds(low) and claim.holds(high)):
            message = f"the band {claim.low!r} to {claim.high!r} does not cover the measured range {low!r} to {high!r}"
            widen = "give it a measured tolerance" if claim.exact else "widen the tolerance to what was measured"
            yield Finding(FILE, claim.id, message, f"{widen}, or find out why the result moves")
        if spread["how"] != claim.how:
            yield Finding(FILE, claim.id, "it is measured in another way since its spread was taken", MEASURE)


def results_clear_their_controls(book: Book) -> Iterator[Finding]:
    """The band of a result does not overlap the band of its control."""
    ledger = book.ledger()
    for claim in ledger:
        if not claim.control:
            continue
        if claim.control not in ledger:
            yield Finding(
                FILE, claim.id, f"its control {claim.control!r} is not in the ledger", "name an existing claim"
            )
            continue
        control = ledger[claim.control]
        if claim.low <= control.high and control.low <= claim.high:
            message = f"its {claim.band()} overlaps that of its control {control.id!r} ({control.band()})"
            yield Finding(FILE, claim.id, message, "measure more precisely, or say that there is no difference")


def claims_say_how(book: Book) -> Iterator[Finding]:
    """A claim says how it is measured."""
    for claim in book.ledger():
        if not re.search(r"\w", claim.how):
            yield Finding(FILE, claim.id, "it does not say how it is measured", 'add how="..." to sc.claim')


BOOK_RULES = (
    entries_have_cells,
    outputs_are_recorded,
    tolerances_are_measured,
    results_clear_their_controls,
    claims_say_how,
)
