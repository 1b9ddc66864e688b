"""Check notebooks and prose against the rules of the book.

python -m book_tools.linters               check everything
python -m book_tools.linters --only NAME   check one rule, by the name of its function
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from book_tools.project import Book
from book_tools.rules import Finding, chapter, glossary, ledger, links, outputs, prose, routes, teaching

BOOK_RULES = tuple(rule for module in (outputs, prose, ledger, links, routes, glossary) for rule in module.BOOK_RULES)
NOTEBOOK_RULES = (*outputs.NOTEBOOK_RULES, *chapter.NOTEBOOK_RULES, *teaching.NOTEBOOK_RULES)


def findings(book: Book, only: str = "") -> Iterator[Finding]:
    """Yield what the rules have to say about a book.

    Parameters
    ----------
    book : Book
        The book.
    only : str
        Name of one rule; all when empty.
    """
    for notebook in book.notebooks():
        for rule in NOTEBOOK_RULES:
            if only in ("", rule.__name__):
                yield from rule(book, notebook)
    for rule in BOOK_RULES:
        if only in ("", rule.__name__):
            yield from rule(book)


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    names = [rule.__name__ for rule in (*NOTEBOOK_RULES, *BOOK_RULES)]
    parser = argparse.ArgumentParser(prog="python -m book_tools.linters", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", choices=names, metavar="NAME", help=f"one rule of: {', '.join(names)}")
    only = parser.parse_args(arguments).only
    book = Book()
    found = list(findings(book, only))
    for finding in found:
        print(finding, file=sys.stderr)
    chapters, pages = len(book.notebooks()), len(book.pages())
    print(f"{1 if only else len(names)} rules, {chapters} notebooks, {pages} pages: {len(found)} findings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
