"""Links between the files of the book lead somewhere."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from book_tools.project import GENERATED_PAGES, Book, Notebook
from book_tools.rules import Finding, line_of, without_code
from book_tools.rules.prose import texts

LINK = re.compile(r"\]\(\s*<?(?P<markdown>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|\b(?:href|src)\s*=\s*\"(?P<html>[^\"]+)\"")
EXTERNAL = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
TARGET = re.compile(
    r"^\((?P<label>[^)\n]+)\)=|\b(?:id|name)\s*=\s*\"(?P<id>[^\"]+)\"|\{#(?P<attribute>[\w-]+)", re.MULTILINE
)
# Made when the site is built.
GENERATED = {*GENERATED_PAGES, "genindex.html", "search.html", "index.html"}
SOURCES = (".md", ".ipynb")


def links_lead_somewhere(book: Book) -> Iterator[Finding]:
    """Every relative link names a file that exists, and every anchor a heading or id in it."""
    for file, place, source in texts(book):
        path = book.root / file if not place else book.root / "notebooks" / file
        prose = without_code(source)
        for link in LINK.finditer(prose):
            target = link["markdown"] or link["html"]
            if EXTERNAL.match(target):
                continue
            # A link that starts with a slash is taken from the root of the book, as Sphinx does.
            page = book.root / "root" if target.startswith("/") else path
            fault = _fault(page, unquote(target).lstrip("/"))
            if fault:
                yield Finding(file, place or line_of(prose, link.start()), f"link {target!r}: {fault}", "mend the link")


def _fault(page: Path, target: str) -> str:
    """Say what is wrong with a link on `page`; an empty text when it leads somewhere."""
    name, _, fragment = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if file.name in GENERATED or (file.suffix == ".html" and file.with_suffix(".md").name in GENERATED):
        return ""
    if file.suffix == ".html":
        file = next((file.with_suffix(suffix) for suffix in SOURCES if file.with_suffix(suffix).exists()), file)
    if not file.exists():
        return "there is no such file"
    if fragment and file.suffix in SOURCES and fragment not in _anchors(file, file.stat().st_mtime_ns):
        return f"{file.name} has no heading or id {fragment!r}"
    return ""


@cache
def _anchors(file: Path, _modified: int) -> frozenset[str]:
    """Return the anchors of a page: ids written out, labels, and the slugs of headings as GitHub makes them."""
    if file.suffix == ".ipynb":
        notebook = Notebook.read(file)
        claims = {f"claim-{name}" for name, _ in notebook.claims()}
        source = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    else:
        claims, source = set(), file.read_text(encoding="utf-8")
    prose = without_code(source)
    named = {match["label"] or match["id"] or match["attribute"] for match in TARGET.finditer(prose)}
    slugs: dict[str, int] = {}
    for heading in HEADING.findall(prose):
        slug = _slug(heading)
        slugs[slug] = slugs.get(slug, -1) + 1
    numbered = {f"{slug}-{count}" for slug, repeats in slugs.items() for count in range(1, repeats + 1)}
    return frozenset({*claims, *named, *slugs, *numbered})


def _slug(heading: str) -> str:
    plain = re.sub(r"<[^>]+>|[*_`]|\]\([^)]*\)|\[", "", heading)
    kept = "".join(c for c in plain.lower() if c in " -_" or unicodedata.category(c)[0] in "LNM")
    return kept.strip().replace(" ", "-")


BOOK_RULES = (links_lead_somewhere,)
