"""Fixtures that several test files share."""

import pytest
from book_tools.notebooks import execute
from book_tools.project import Book
from book_tools.spreads import update
from example_book import copy_book, make_book, register_graders

REAL_CHAPTERS = [notebook.name for notebook in Book().notebooks()]


@pytest.fixture(scope="session")
def executed_book(tmp_path_factory) -> Book:
    """The example book after a real run, with spreads as if measured; copy it before you change it."""
    book = make_book(tmp_path_factory.mktemp("books") / "example")
    register_graders()
    notebook = book.notebooks()[0]
    claims = execute(book, notebook).claims
    update(
        book,
        notebook,
        {
            claim.id: {
                "min": claim.value,
                "max": claim.value,
                "runs": {"seed 0, 1 thread": claim.value},
                "how": claim.how,
            }
            for claim in claims
        },
    )
    return book


@pytest.fixture(params=["example", *REAL_CHAPTERS])
def planted(request, tmp_path, executed_book):
    """A copy of a book, and the name of the chapter in it to plant an error in."""
    if request.param == "example":
        register_graders()
        book = copy_book(executed_book, tmp_path / "copy")
        return book, book.notebooks()[0].name
    return copy_book(Book(), tmp_path / "copy"), request.param
