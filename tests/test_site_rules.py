"""The rules for the built site: each catches an error planted in a small site, and the book itself keeps them all."""

import re
import subprocess
from pathlib import Path

import pytest
from book_tools.project import ROOT
from book_tools.site_rules import (
    SITE,
    broken_links,
    disordered_headings,
    figures_without_data,
    findings,
    icons_without_form,
    images_without_alt,
    shown_errors,
)
from book_tools.sphinx_site import lighten_code

CLEAN = """<html><body><article><h1 id="top">Title</h1><h2>Part</h2><p><a href="#top">up</a>
<a href="two.html#there">two</a> <a href="https://example.org/">out</a> <img src="a%20b.svg" alt="two wires"></p>
<i class="fa-solid fa-moon theme-switch"></i>
<div class="cell_output"><pre>loss 1.2</pre><img src="a%20b.svg" alt="a line that falls"><details class="sc-data">
<table><tbody><tr><td>1</td></tr></tbody></table></details></div></article></body></html>"""

PLANTED = [
    (broken_links, 'href="#top"', 'href="#gone"', "'#gone' names no anchor"),
    (broken_links, "two.html#there", "two.html#elsewhere", "'two.html#elsewhere' names no anchor"),
    (broken_links, "two.html#there", "three.html", "'three.html' is not in the site"),
    (broken_links, "a%20b.svg", "b.svg", "'b.svg' is not in the site"),
    (broken_links, "two.html#there", "../two.html", "'../two.html' leaves the site"),
    (shown_errors, "loss 1.2", "Traceback (most recent call last)\n  ...", "an output shows 'Traceback"),
    (disordered_headings, "h2>", "h3>", "h3 'Part' follows h1"),
    (disordered_headings, "h2>", "h1>", "2 first-level headings"),
    (images_without_alt, 'alt="two wires"', "", "has no alt text"),
    (images_without_alt, "two wires", " ", "has no alt text"),
    (figures_without_data, "<tr><td>1</td></tr>", "", "the figure 'a line that falls' has no table"),
    (figures_without_data, 'class="sc-data"', "", "the figure 'a line that falls' has no table"),
    (icons_without_form, "fa-moon", "fa-star", "icon 'fa-star' has no form"),
]

INDEX = "# Start\n\n[next](next.md)\n"
NEXT = "# Next\n\n(known)=\n\n## Part\n"
BROKEN_SOURCES = {
    "page": "[gone](gone.md)",
    "label": "[gone](#gone)",
    "reference": "{ref}`gone`",
    "term": "{term}`gone`",
    "citation": "{cite:p}`gone`",
}


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text(CLEAN)
    (tmp_path / "two.html").write_text("<article><h1 id='there'>Two</h1></article>")
    (tmp_path / "a b.svg").write_text("<svg/>")
    (tmp_path / "_static" / "vendor").mkdir(parents=True)
    (tmp_path / "_static" / "vendor" / "icons.css").write_text(".fa-moon { --sc-icon: none; }")
    return tmp_path


def test_a_clean_site_has_no_findings(small_site: Path) -> None:
    assert findings(small_site) == []


@pytest.mark.parametrize(("rule", "old", "new", "message"), PLANTED)
def test_a_planted_error_is_found(small_site: Path, rule, old: str, new: str, message: str) -> None:
    assert old in CLEAN
    (small_site / "index.html").write_text(CLEAN.replace(old, new))
    assert message in "\n".join(rule(small_site))
    assert [line for other in {case[0] for case in PLANTED} - {rule} for line in other(small_site)] == []


def test_the_book_keeps_every_rule() -> None:
    if not (SITE / "index.html").exists():
        pytest.fail("there is no built site; run 'make book' first, as 'make test' does.")
    assert findings() == []


@pytest.mark.slow
def test_the_marks_that_code_loses_have_no_colour_of_their_own() -> None:
    context = {"body": '<pre><span class="k">if</span><span class="w"> </span><span class="n">a</span></pre>'}
    lighten_code(None, "page", "template", context, None)
    assert context["body"] == '<pre><span class="k">if</span> a</pre>'
    style = (SITE / "_static" / "pygments.css").read_text(encoding="utf-8")
    for theme in ("light", "dark"):
        prefix = rf'html\[data-theme="{theme}"\] \.highlight '
        (own,) = re.findall(prefix + r"{[^}]*[^-]color: (#\w+)", style)
        assert re.findall(prefix + r"\.[npw] {[^}]*color: (#\w+)", style) == [own] * 3


def test_the_strict_build_refuses_what_leads_nowhere(tmp_path: Path) -> None:
    """Every kind of broken reference in one book, each reported once, and nothing else reported."""
    settings = "title: Small\nsphinx:\n  extra_extensions: [sphinxcontrib.bibtex]\nbibtex_bibfiles: [references.bib]\n"
    (tmp_path / "_config.yml").write_text(settings)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: next\n")
    (tmp_path / "references.bib").write_text("")
    (tmp_path / "index.md").write_text(INDEX)
    planted = "\n\n".join(f"{text} planted as {kind}" for kind, text in BROKEN_SOURCES.items())
    (tmp_path / "next.md").write_text(f"{NEXT}\n{planted}\n")
    command = [ROOT / ".venv" / "bin" / "jupyter-book", "build", ".", "--toc", "_toc.yml", "-W", "-n", "--keep-going"]
    broken = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert broken.returncode != 0
    warnings = [line for line in broken.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == len(BROKEN_SOURCES), broken.stderr
    assert all("gone" in line for line in warnings)
