"""The glossary: every term is used somewhere, and every term that a page refers to is defined."""

from __future__ import annotations

import re
from collections.abc import Iterator

from book_tools.project import Book
from book_tools.rules import Finding, line_of
from book_tools.rules.prose import texts

FILE = "glossary.md"
BLOCK = re.compile(r"^```\{glossary\}\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^(?P<term>\S.*)\n(?P<text>(?:[ \t]+\S.*\n|[ \t]*\n)*)", re.MULTILINE)
REFERENCE = re.compile(r"\{term\}`(?:[^`<]*<(?P<target>[^`>]+)>|(?P<plain>[^`]+))`")


def entries(book: Book) -> dict[str, str]:
    """Return the text of each term of the glossary."""
    page = book.root / "book" / FILE
    source = page.read_text(encoding="utf-8") if page.exists() else ""
    blocks = "".join(block["body"] for block in BLOCK.finditer(source))
    return {entry["term"].strip(): entry["text"] for entry in ENTRY.finditer(blocks)}


def terms_are_used(book: Book) -> Iterator[Finding]:
    """Each term stands in a chapter, on a page, or in the entry of another term."""
    defined = entries(book)
    elsewhere = [re.sub(r"[*_]+", "", source) for file, _, source in texts(book) if file != f"book/{FILE}"]
    for term in defined:
        others = [text for other, text in defined.items() if other != term]
        if not any(_mention(term).search(source) for source in (*elsewhere, *others)):
            message = f"the term {term!r} is used nowhere in the book"
            yield Finding(FILE, term, message, "use the term where it belongs, or take the entry out")


def references_are_defined(book: Book) -> Iterator[Finding]:
    """Each `{term}` names an entry of the glossary."""
    known = {term.lower() for term in entries(book)}
    for file, place, source in texts(book):
        for reference in REFERENCE.finditer(source):
            term = (reference["target"] or reference["plain"]).strip()
            if term.lower() not in known:
                where = place or line_of(source, reference.start())
                yield Finding(file, where, f"the term {term!r} is not in the glossary", "define it there, or mend it")


def _mention(term: str) -> re.Pattern:
    """Return what a use of the term looks like: the words, whatever their case and spacing, also in the plural."""
    words = r"\s+".join(map(re.escape, term.split()))
    return re.compile(rf"(?<![\w-]){words}(?:s|es)?(?![\w-])", re.IGNORECASE)


BOOK_RULES = (terms_are_used, references_are_defined)
