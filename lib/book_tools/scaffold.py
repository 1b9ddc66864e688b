"""Start a chapter: a notebook with every part in it, its graders, and their tests. Nothing is overwritten.

    python -m book_tools.scaffold NN "Title" [--needs NN ...]

What the chapter needs is read from `book/routes.yml` unless it is given. The skeleton runs as it is:
`python -m book_tools.notebooks --execute NN` executes it, and the linters then name what is left to be written.
"""

from __future__ import annotations

import argparse
import re
import sys
import unicodedata
from pathlib import Path

import nbformat
from sparse_circuits.checkpoints import write_atomically

from book_tools.cells import synchronise
from book_tools.plan import Plan
from book_tools.project import Book, Notebook
from book_tools.skeleton import cells_of
from book_tools.skeleton_graders import GRADER_TESTS, GRADERS

NUMBER = re.compile(r"\d\d|C")
MAX_NAME = 40


def file_name(number: str, title: str) -> str:
    """Return the name of a chapter's notebook: its number and the words of its title, cut at a word."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if len(name) > MAX_NAME:
        name = name[: MAX_NAME + 1].rpartition("_")[0] or name[:MAX_NAME]
    return f"{number}_{name}.ipynb"


def planned_needs(book: Book, number: str) -> list[str]:
    """Return what the plan of the book says that a chapter needs; nothing for a chapter that is not planned."""
    return list(Plan.of(book).needs.get(number, ()))


def scaffold(book: Book, number: str, title: str, needs: list[str]) -> list[Path]:
    """Write the files of a new chapter and return their paths.

    Raises
    ------
    ValueError
        If the number or the title is not one, or a chapter of that number has begun.
    """
    if not NUMBER.fullmatch(number):
        raise ValueError(f"{number!r} is not the number of a chapter; give two digits, such as 04, or C.")
    if not re.search(r"[a-zA-Z]", title):
        raise ValueError(f"the title is {title!r}; give the title as it shall stand in the book.")
    graders = book.root / "lib" / "sparse_circuits" / "graders" / f"chapter_{number}.py"
    tests = book.root / "tests" / f"test_graders_{number}.py"
    begun = [
        *(book.root / "notebooks").glob(f"{number}_*.ipynb"),
        *(path for path in (graders, tests) if path.exists()),
    ]
    if begun:
        names = ", ".join(path.relative_to(book.root).as_posix() for path in begun)
        raise ValueError(f"chapter {number} has begun: {names}. Nothing was written; delete it or take another number.")
    notebook = Notebook(book.root / "notebooks" / file_name(number, title), nbformat.v4.new_notebook())
    notebook.node.cells = cells_of(number)
    notebook.node.metadata["sparse_circuits"] = {
        "number": number,
        "title": title,
        "needs": needs,
        "read_minutes": 30,
        "do_minutes": 60,
        "run_budget_seconds": 120,
        "memory_budget_mb": 2000,
    }
    synchronise(book, notebook)
    notebook.write()
    write_atomically(graders, GRADERS.format(number=number).encode())
    write_atomically(tests, GRADER_TESTS.format(number=number).encode())
    return [notebook.path, graders, tests]


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m book_tools.scaffold", description=__doc__.split("\n")[0])
    parser.add_argument("number", metavar="NN", help="number of the chapter: two digits")
    parser.add_argument("title", metavar="TITLE", help="title of the chapter, in quotes")
    parser.add_argument("--needs", nargs="+", metavar="NN", help="chapters that a reader needs first")
    given = parser.parse_args(arguments)
    book = Book()
    try:
        needs = planned_needs(book, given.number) if given.needs is None else given.needs
        written = scaffold(book, given.number, given.title, needs)
    except ValueError as error:
        print(f"scaffold: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(f"scaffold: wrote {path.relative_to(book.root)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
