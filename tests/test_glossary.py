"""Orphans of the glossary, planted: a term that nothing uses, and a use that nothing defines."""

import pytest
from book_tools.project import Book
from book_tools.rules.glossary import entries
from example_book import copy_book
from planting import add_markdown, edit, found

ORPHAN = "```{glossary}\nzygotic gate\n  A gate that no chapter has.\n```\n"


@pytest.fixture
def book(tmp_path) -> Book:
    """A copy of the real book."""
    return copy_book(Book(), tmp_path / "copy")


def append(book: Book, page: str, text: str) -> None:
    path = book.root / "book" / page
    path.write_text(f"{path.read_text()}\n{text}")


def test_an_entry_is_read_with_its_text(book):
    append(book, "glossary.md", ORPHAN)
    assert entries(book)["zygotic gate"].strip() == "A gate that no chapter has."


def test_a_term_that_nothing_uses_is_caught(book):
    assert not found(book, "terms_are_used")
    append(book, "glossary.md", ORPHAN)
    assert [finding.where for finding in found(book, "terms_are_used")] == ["zygotic gate"]


@pytest.mark.parametrize("use", ["A zygotic gate opens.", "Two **zygotic** gates.", "A Zygotic\ngate."])
def test_a_use_in_a_chapter_counts(book, use):
    append(book, "glossary.md", ORPHAN)
    edit(book, "00", add_markdown(use))
    assert not found(book, "terms_are_used")


@pytest.mark.parametrize("use", ["A non-zygotic gate.", "The zygotic gatekeeper.", "zygotic, gate"])
def test_another_word_does_not_count(book, use):
    append(book, "glossary.md", ORPHAN)
    edit(book, "00", add_markdown(use))
    assert found(book, "terms_are_used")


@pytest.mark.parametrize("reference", ["{term}`zygotic gate`", "{term}`gates <zygotic gate>`"])
def test_a_reference_that_nothing_defines_is_caught(book, reference):
    assert not found(book, "references_are_defined")
    append(book, "teaching.md", f"See {reference}.")
    assert "'zygotic gate' is not in the glossary" in str(found(book, "references_are_defined")[0])
    append(book, "glossary.md", ORPHAN)
    assert not found(book, "references_are_defined")
