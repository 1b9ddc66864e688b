"""Make `book/claims.md`: every claim with its band, its measured range, and a link to the cell that makes it."""

from __future__ import annotations

import html
from collections.abc import Iterator

from sparse_circuits.claims import Claim, anchor
from sparse_circuits.display import format_number

from book_tools.markdown import table
from book_tools.project import Book, Notebook

INTRODUCTION = """\
# The claims ledger

Every bold number in the chapters is a claim: a cell measures it each time the chapter runs, and fails when the result
leaves the band given here. A chapter is run again, in full, before any change to the book is accepted.

- *value* is what was measured when the chapter was last recorded, with seed 0 and one thread.
- *allowed* is the band that a new measurement must lie in. An exact claim may not move at all.
- *measured range* is the smallest and largest value found over several seeds, thread counts and interpreters. The
  allowed band must cover it.
"""

EMPTY = "No chapter has recorded a claim yet.\n"
COLUMNS = ("claim and how it is measured", "value", "allowed", "measured range")


def page(book: Book) -> str:
    """Return the page as markdown."""
    return "\n".join([INTRODUCTION, *(_sections(book) if len(book.ledger()) else [EMPTY])])


def _sections(book: Book) -> Iterator[str]:
    spreads = book.measurements("spreads")
    for notebook in book.notebooks():
        claims = [claim for claim in book.ledger() if claim.notebook == notebook.name]
        if claims:
            source = f"{book.repository}/blob/{book.branch}/notebooks/{notebook.path.name}"
            yield f"## {notebook.chapter['number']} · {notebook.chapter['title']}\n"
            yield f"Each name leads to the cell that makes the claim. [The notebook]({source}) holds them all.\n"
            yield from table(COLUMNS, (_cells(notebook, claim, spreads.get(claim.id)) for claim in claims))
            yield ""


def _cells(notebook: Notebook, claim: Claim, spread: dict | None) -> list[str]:
    unit = f" {claim.unit}" if claim.unit else ""
    control = f"; compared with <code>{claim.control}</code>" if claim.control else ""
    how = html.escape(claim.how or "not said") + control
    # Plain HTML: the target is an id inside a stored output, which the cross-references of MyST do not know.
    cell = f"../notebooks/{notebook.name}.html#{anchor(claim.id)}"
    return [
        f'<a id="{anchor(claim.id)}" href="{cell}"><code>{claim.id}</code></a><br>{how}',
        format_number(claim.value) + unit,
        "exact" if claim.exact else f"{format_number(claim.low)} to {format_number(claim.high)}",
        _range(spread),
    ]


def _range(spread: dict | None) -> str:
    if spread is None:
        return "not measured"
    low, high = format_number(spread["min"]), format_number(spread["max"])
    runs = f"{len(spread['runs'])} run{'s' if len(spread['runs']) > 1 else ''}"
    return f"{low} in {runs}" if low == high else f"{low} to {high} in {runs}"
