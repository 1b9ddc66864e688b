"""What must hold of the built site, read off its HTML: links resolve, outputs show no error, headings are in order."""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

from book_tools.project import ROOT

SITE = ROOT / "_build" / "html"
LINKS = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src", "source": "src"}
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
ICON = re.compile(r"\.(fa-[a-z0-9-]+) \{")
ICON_STYLES = {"fa-solid", "fa-regular", "fa-brands", "fa-lg"}
# What Python, IPython and myst-nb print when a cell has failed.
ERROR_SIGNS = ("Traceback (most recent call last)", "ModuleNotFoundError:", "NameError:")


def pages_of(site: Path) -> list[Path]:
    """Return the pages of a built site; what the theme ships under `_static` is not one of them."""
    return [page for page in sorted(site.rglob("*.html")) if "_static" not in page.relative_to(site).parts]


@lru_cache(maxsize=256)
def parse(page: Path) -> BeautifulSoup:
    """Return the parsed page."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@lru_cache(maxsize=256)
def anchors_of(page: Path) -> frozenset[str]:
    """Return the names that a link into the page may end with."""
    tags = parse(page).find_all(lambda tag: tag.has_attr("id") or tag.has_attr("name"))
    return frozenset(tag[key] for tag in tags for key in ("id", "name") if tag.has_attr(key))


def broken_links(site: Path) -> Iterator[str]:
    """Yield one sentence for each link or asset inside the site that leads nowhere, anchors included."""
    site = site.resolve()
    for page in pages_of(site):
        for tag, attribute in LINKS.items():
            for element in parse(page).find_all(tag, attrs={attribute: True}):
                reason = _why_broken(site, page, element[attribute])
                if reason:
                    yield f"{page.relative_to(site)}: {element[attribute]!r} {reason}"


def _why_broken(site: Path, page: Path, link: str) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(site):
        return "leaves the site"
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "is not in the site"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in anchors_of(target):
        return "names no anchor of that page"
    return None


def shown_errors(site: Path) -> Iterator[str]:
    """Yield one sentence for each page whose outputs show a Python error."""
    for page in pages_of(site):
        for output in parse(page).select(".cell_output"):
            for sign in ERROR_SIGNS:
                if sign in output.get_text():
                    yield f"{page.relative_to(site)}: an output shows {sign!r}"


def disordered_headings(site: Path) -> Iterator[str]:
    """Yield one sentence for each article without exactly one first-level heading, or with a level left out."""
    for page in pages_of(site):
        article = parse(page).find("article")
        if article is None:
            continue
        levels = [int(heading.name[1]) for heading in article.find_all(HEADINGS)]
        if levels.count(1) != 1:
            yield f"{page.relative_to(site)}: {levels.count(1)} first-level headings instead of one"
        for heading, above, level in zip(article.find_all(HEADINGS)[1:], levels, levels[1:], strict=False):
            if level > above + 1:
                yield f"{page.relative_to(site)}: h{level} {heading.get_text(strip=True)!r} follows h{above}"


def images_without_alt(site: Path) -> Iterator[str]:
    """Yield one sentence for each image of an article that has no alternative text."""
    for page in pages_of(site):
        for image in parse(page).select("article img"):
            if not image.get("alt", "").strip():
                yield f"{page.relative_to(site)}: image {image.get('src', '')[:80]!r} has no alt text"


def figures_without_data(site: Path) -> Iterator[str]:
    """Yield one sentence for each picture of a cell whose output holds no table of the numbers behind it."""
    for page in pages_of(site):
        for output in parse(page).select(".cell_output"):
            tables = output.select("details.sc-data table")
            if output.find("img") and not any(table.select("tbody tr") for table in tables):
                alt = output.find("img").get("alt", "")
                yield f"{page.relative_to(site)}: the figure {alt[:60]!r} has no table of its data"


def icons_without_form(site: Path) -> Iterator[str]:
    """Yield one sentence for each icon that the style sheet of the icons does not draw."""
    sheet = site / "_static" / "vendor" / "icons.css"
    drawn = set(ICON.findall(sheet.read_text(encoding="utf-8"))) if sheet.exists() else set()
    for page in pages_of(site):
        names = {name for icon in parse(page).select("i[class*=fa-]") for name in icon["class"]}
        for name in sorted(names - drawn - ICON_STYLES):
            if name.startswith("fa-"):
                yield f"{page.relative_to(site)}: icon {name!r} has no form; add it to ICONS of book_tools.assets"


RULES = (
    broken_links,
    shown_errors,
    disordered_headings,
    images_without_alt,
    figures_without_data,
    icons_without_form,
)


def findings(site: Path = SITE) -> list[str]:
    """Return what every rule has to say about the site."""
    return [finding for rule in RULES for finding in rule(site)]
