"""Sphinx extension of the site: links that follow `repository.url`, and the list of the chapters that stand.

In a page, `[text](repository:README.md)` links to a file of the repository, `[text](colab:00_name)` opens a chapter in
Colab, and `[text](student:00_name)` opens the students' edition of it. The directive `{chapters}` makes the table of
chapters from the metadata of the notebooks; with the option `:students:` its links open the students' edition.
"""

import re
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math
from sphinx.util.docutils import SphinxDirective

from book_tools.address import colab_address
from book_tools.project import Book, Notebook
from book_tools.student import StudentBook

# Names, punctuation and white space have the colour of all code, in the light and in the dark.
SPAN_WITHOUT_COLOUR = re.compile(r'<span class="[npw]">([^<]*)</span>')
DESIGN = re.compile(r"\b(sphinx-design\.min\.css|design-tabs\.js)")


def set_link_schemes(app, config) -> None:
    """Tell MyST the schemes of this book; double braces are MyST's own template."""
    book = Book(Path(app.srcdir))
    config.myst_url_schemes = {
        "http": None,
        "https": None,
        "mailto": None,
        "repository": f"{book.repository}/blob/{book.branch}/{{{{path}}}}",
        "colab": colab_address(book, "{{path}}"),
        "student": colab_address(StudentBook(book.root), "{{path}}"),
    }


def chapter_row(notebook: Notebook, scheme: str = "colab") -> str:
    """Return the row of one chapter in the table of chapters, in Markdown; the scheme says what its link opens."""
    card = notebook.chapter
    return (
        f"| {card['number']} | [{card['title']}](/notebooks/{notebook.path.name}) | {card['read_minutes']} min "
        f"| {card['do_minutes']} min | [Colab]({scheme}:{notebook.name}) |"
    )


def mend_roles(app, page: str, template: str, context: dict, doctree) -> None:
    """Take off the roles that docutils gives a bibliography: deprecated ones, in a list that is none."""
    body = context.get("body", "").replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    context["body"] = body.replace(' role="doc-biblioentry"', "")


def lighten_code(app, page: str, template: str, context: dict, doctree) -> None:
    """Take off the marks of Pygments that change no colour: about a third of a chapter."""
    context["body"] = SPAN_WITHOUT_COLOUR.sub(r"\1", context.get("body", ""))


def drop_unused_design(app, page: str, template: str, context: dict, doctree) -> None:
    """Take the styles and the script of sphinx-design off a page that has no cards, grids or tabs."""
    if 'class="sd-' in context.get("body", ""):
        return
    for kind in ("css_files", "script_files"):
        kept = [file for file in context.get(kind, []) if not DESIGN.search(str(getattr(file, "filename", file)))]
        context[kind] = kept


class Chapters(SphinxDirective):
    """The table of the chapters that stand."""

    option_spec: ClassVar[dict] = {"students": directives.flag}

    def run(self) -> list[nodes.Node]:
        notebooks = Book(Path(self.env.srcdir)).notebooks()
        for notebook in notebooks:
            self.env.note_dependency(str(notebook.path))
        header = ["| number | chapter | read | exercises | run |", "| --- | --- | --- | --- | --- |"]
        scheme = "student" if "students" in self.options else "colab"
        chapters = [chapter_row(notebook, scheme) for notebook in notebooks]
        rows = StringList([*header, *chapters], source=self.env.doc2path(self.env.docname))
        table = nodes.container()
        self.state.nested_parse(rows, self.content_offset, table)
        return table.children


def setup(app) -> dict:
    """Register the extension with Sphinx."""
    app.connect("config-inited", set_link_schemes)
    app.connect("html-page-context", mend_roles)
    app.connect("html-page-context", lighten_code)
    app.connect("html-page-context", drop_unused_design)
    app.add_directive("chapters", Chapters)
    # The page gets the TeX between the delimiters of MathJax, but not MathJax: `mathematics.js` sets it.
    app.add_html_math_renderer("in_page", (html_visit_math, None), (html_visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
