"""Every page of the built site, as a reader's browser sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from book_tools.address import colab_address
from book_tools.project import ROOT, Book
from playwright.sync_api import Page

pytestmark = pytest.mark.browser

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
MODES = ("light", "dark")
# What is asked of a page is asked of how it ends up, not of a colour on its way there on a busy machine.
NO_TRANSITIONS = "*, ::before, ::after { transition: none !important }"


def listed_pages() -> list[str]:
    """Return the address of each page that the table of contents lists, and of the search page."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    files = [toc["root"], *(entry["file"] for entry in entries if "file" in entry)]
    globs = [path for entry in entries if "glob" in entry for path in sorted(ROOT.glob(f"{entry['glob']}.ipynb"))]
    names = [*files, *(path.relative_to(ROOT).with_suffix("").as_posix() for path in globs), "search"]
    return [f"/{name}.html" for name in names]


PAGES = listed_pages()
CHAPTERS = [page for page in PAGES if page.startswith("/notebooks/")]


def open_settled(page: Page, address: str) -> None:
    """Open a page and wait until its scripts are done, its mathematics is set and its colours are at rest."""
    response = page.goto(address, wait_until="networkidle")
    assert response is not None and response.status == 200
    page.wait_for_function("[...document.querySelectorAll('.math')].every((place) => place.querySelector('math'))")
    page.add_style_tag(content=NO_TRANSITIONS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("address", PAGES)
def test_page(open_context, address: str, mode: str) -> None:
    """It loads from this site alone without an error, its mathematics is set, and its text can be read.

    Contrast is that of WCAG 2.1, success criterion 1.4.3: 4.5 : 1, or 3 : 1 for large text.
    """
    context, watch = open_context(color_scheme=mode)
    page = context.new_page()
    open_settled(page, address)
    assert watch.problems == []
    assert page.title()
    assert page.locator("html").get_attribute("data-theme") == mode
    assert page.locator("article .katex-error, article merror").all_inner_texts() == []
    assert page.evaluate(CONTRAST) == []


def test_the_front_door_leads_to_the_landing_page(page: Page) -> None:
    page.goto("/")
    page.wait_for_url("**/book/index.html")
    assert page.get_by_role("heading", level=1).inner_text().startswith("Sparse Circuits")


def test_mathematics_is_there_to_be_set(page: Page) -> None:
    open_settled(page, "/book/glossary.html")
    formula = page.locator("article .math", has_text="ϵ").first
    assert formula.locator("math msqrt msubsup").count() == 1
    assert page.evaluate("document.fonts.check('16px \"Sparse Circuits Mathematics\"')")


@pytest.mark.parametrize("address", CHAPTERS)
def test_launch_buttons_open_this_chapter(page: Page, address: str) -> None:
    book, name = Book(), Path(address).stem
    open_settled(page, address)
    links = page.locator(".dropdown-launch-buttons a").evaluate_all("links => links.map(link => link.href)")
    owner_and_name = book.repository.removeprefix("https://github.com/")
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/{book.branch}?urlpath=lab/tree/notebooks/{name}.ipynb"
    assert sorted(links) == sorted([colab_address(book, name), binder])


def test_a_page_that_misbehaves_is_noticed(open_context, tmp_path: Path, served_folder) -> None:
    """The watch that all tests here rely on sees each kind of trouble."""
    (tmp_path / "index.html").write_text(
        "<link rel=icon href=data:,><script src=gone.js></script><script src=https://example.org/far.js></script>"
        "<script>console.error('planted'); throw new Error('thrown')</script>"
    )
    context, watch = open_context(address=served_folder(tmp_path))
    context.new_page().goto("/index.html", wait_until="networkidle")
    found = "\n".join(watch.problems)
    for trouble in ("404", "request to another host: https://example.org/far.js", "planted", "script error: thrown"):
        assert trouble in found


@pytest.mark.parametrize(("last", "complaints"), [("#000", 0), ("#eee", 1)])
def test_contrast_is_that_of_colours_at_rest(
    open_context, tmp_path: Path, served_folder, last: str, complaints: int
) -> None:
    (tmp_path / "index.html").write_text(
        "<link rel=icon href=data:,><p style='color: #888; transition: color 600s'>text</p>"
        f"<script>const p = document.querySelector('p'); p.clientTop; p.style.color = '{last}'</script>"
    )
    context, _ = open_context(address=served_folder(tmp_path))
    page = context.new_page()
    open_settled(page, "/index.html")
    assert len(page.evaluate(CONTRAST)) == complaints


def test_search_finds_a_term(page: Page) -> None:
    page.goto("/search.html?q=ablation", wait_until="networkidle")
    page.locator("#search-results li a").first.wait_for()
    assert page.locator("#search-results a", has_text="Glossary").count() > 0
