"""The card of each chapter, as the built page shows it: from metadata, from measurements and from the ledger."""

import json

import nbformat
import pytest
from book_tools.cells import card_source
from book_tools.project import ROOT, Book
from book_tools.site_rules import SITE
from bs4 import BeautifulSoup
from example_book import copy_book
from planting import edit

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIELDS = ["needs", "read", "do", "run", "peak memory", "claims verified"]


def read_json(name: str) -> dict:
    return json.loads((ROOT / "data" / name).read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_built_card_holds_what_was_stated_and_measured(path):
    chapter = nbformat.read(path, as_version=4).metadata["sparse_circuits"]
    measured = read_json("budgets.json")[path.stem]
    article = BeautifulSoup((SITE / "notebooks" / f"{path.stem}.html").read_text(), "html.parser").find("article")
    table = article.find("table")
    assert [cell.get_text(strip=True) for cell in table.select("thead th")] == FIELDS
    needs, read, do, run, peak, claims = (cell.get_text(strip=True) for cell in table.select("tbody td"))
    assert all(need in needs for need in chapter["needs"])
    assert (read, do) == (f"{chapter['read_minutes']} min", f"{chapter['do_minutes']} min")
    minutes, seconds = divmod(round(measured["run_seconds"]), 60)
    assert run == (f"{minutes} min {seconds} s" if minutes else f"{seconds} s")
    assert peak == f"{measured['peak_memory_mb'] / 1000:.1f} GB"
    assert int(claims) == sum(claim["notebook"] == path.stem for claim in read_json("claims.json").values())
    paragraph = table.find_next("a", string="Open in Colab").parent
    links = {link.get_text(strip=True): link["href"] for link in paragraph.find_all("a")}
    assert list(links) == ["Open in Colab", "Open in Binder", "Download"]
    assert all(address.endswith(path.name) for address in links.values())


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"read_minutes": 77}, "77 min"),
        ({"do_minutes": 78}, "78 min"),
        ({"needs": ["05 or 11"]}, "chapter 05 or 11"),
        ({"needs": ["3 of 05 to 13", "01"]}, "any 3 of the chapters 05 to 13, chapter 01"),
        ({"title": "Another"}, "# 90 · Another"),
    ],
)
def test_a_card_follows_the_metadata(executed_book, tmp_path, change, shown):
    book = copy_book(executed_book, tmp_path / "copy")
    assert shown not in card_source(book, book.notebooks()[0])
    edit(book, "90", lambda notebook: notebook.chapter.update(change))
    assert shown in card_source(book, book.notebooks()[0])


def test_a_card_follows_the_measurements(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    name = book.notebooks()[0].name
    book.write_measurements("budgets", {name: {"run_seconds": 125.2, "peak_memory_mb": 4321}})
    (book.root / "data" / "claims.json").write_text("{}")
    card = card_source(Book(book.root), book.notebooks()[0])
    assert "| 2 min 5 s | 4.3 GB | 0 |" in card
    book.write_measurements("budgets", {})
    assert card_source(book, book.notebooks()[0]).count("not yet measured") == 2
