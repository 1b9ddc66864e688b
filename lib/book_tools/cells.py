"""The generated parts of a notebook: set-up cell, card, cell ids and metadata."""

from __future__ import annotations

import re
import unicodedata

import nbformat

from book_tools.address import colab_address
from book_tools.plan import Need
from book_tools.project import KERNEL, LANGUAGE, Book, Notebook, tags

SETUP = """\
import sys

if "google.colab" in sys.modules:
    %pip install -q "git+{repository}"

import sparse_circuits as sc

sc.setup_notebook()"""

# Ids that nbformat and jupytext draw at random: eight hexadecimal digits, or a UUID.
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")
HEADING = re.compile(r"^#{1,6}\s+(Exercise \d\d\.\d+|.+)", re.MULTILINE)
# Cells of an exercise are named after the exercise, all other tagged cells after their tag.
EXERCISE_LABELS = {"exercise-card": "card", "exercise": "stub", "hints": "hints", "solution": "solution"}
MAX_ID = 48


def setup_cell_source(book: Book | None = None) -> str:
    """Return the source of the set-up cell, the same in every notebook."""
    return SETUP.format(repository=(book or Book()).repository)


def card_source(book: Book, notebook: Notebook, links: dict[str, str] | None = None) -> str:
    """Return the heading and the card of a chapter, from its metadata and from what was measured.

    Parameters
    ----------
    book, notebook : Book, Notebook
        The book and its chapter.
    links : dict of str to str, optional
        Label and address of the ways to run or get the notebook; by default those of `launch_links`.

    Raises
    ------
    ValueError
        If the notebook's metadata lacks a field of the card.
    """
    chapter = notebook.chapter
    missing = [key for key in ("number", "title", "needs", "read_minutes", "do_minutes") if key not in chapter]
    if missing:
        raise ValueError(f"{notebook.path.name}: metadata sparse_circuits lacks {missing}; see another chapter.")
    budget = book.measurements("budgets").get(notebook.name, {})
    claims = sum(claim.notebook == notebook.name for claim in book.ledger())
    row = {
        "needs": ", ".join(Need.parse(need).words() for need in chapter["needs"]) or "no other chapter",
        "read": f"{chapter['read_minutes']} min",
        "do": f"{chapter['do_minutes']} min",
        "run": duration(budget.get("run_seconds")),
        "peak memory": memory(budget.get("peak_memory_mb")),
        "claims verified": str(claims),
    }
    links = launch_links(book, notebook) if links is None else links
    launch = " · ".join(f"[{label}]({address})" for label, address in links.items())
    lines = (" | ".join(row), " | ".join("---" for _ in row), " | ".join(row.values()))
    table = "\n".join(f"| {line} |" for line in lines)
    return f"# {chapter['number']} · {chapter['title']}\n\n{table}\n\n{launch}"


def launch_links(book: Book, notebook: Notebook) -> dict[str, str]:
    """Return label -> address of the ways to run or get a notebook."""
    owner = book.repository.removeprefix("https://github.com/")
    path = f"notebooks/{notebook.path.name}"
    return {
        "Open in Colab": colab_address(book, notebook.name),
        "Open in Binder": f"https://mybinder.org/v2/gh/{owner}/{book.branch}?labpath={path.replace('/', '%2F')}",
        "Download": f"{book.repository}/raw/{book.branch}/{path}",
    }


def duration(seconds: float | None) -> str:
    """Write a measured time as `41 s` or `2 min 5 s`."""
    if seconds is None:
        return "not yet measured"
    minutes, rest = divmod(max(1, round(seconds)), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def memory(megabytes: float | None) -> str:
    """Write a measured amount of memory as `0.8 GB`."""
    return "not yet measured" if megabytes is None else f"{megabytes / 1000:.1f} GB"


def synchronise(book: Book, notebook: Notebook) -> None:
    """Rewrite every generated part of a notebook in place; what people typed is left alone.

    Raises
    ------
    ValueError
        If the notebook has no cell tagged `setup`.
    """
    if not any(notebook.tagged("setup")):
        raise ValueError(f"{notebook.path.name} has no cell tagged 'setup'; add an empty code cell with that tag.")
    if not any(notebook.tagged("card")):
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(metadata={"tags": ["card"]}))
    next(notebook.tagged("card"))["source"] = card_source(book, notebook)
    next(notebook.tagged("setup"))["source"] = setup_cell_source(book)
    for cell in notebook.tagged("solution"):
        cell.metadata.update(cellView="form", jupyter={"source_hidden": True})
        cell.metadata["tags"] = list(dict.fromkeys([*tags(cell), "hide-cell"]))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        _copy_alt(cell)
    name_cells(notebook)
    notebook.node.metadata = nbformat.NotebookNode(
        kernelspec=KERNEL, language_info=LANGUAGE, sparse_circuits=notebook.chapter
    )


def _copy_alt(cell: nbformat.NotebookNode) -> None:
    """Give Jupyter Book the text alternative that `plots.show` stored beside the picture."""
    for output in cell.get("outputs", []):
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        if alt:
            cell.metadata.setdefault("mystnb", {}).setdefault("image", {})["alt"] = alt


def name_cells(notebook: Notebook) -> None:
    """Replace ids that were drawn at random by readable ones; ids that people chose stay."""
    chosen = {cell.id for cell in notebook.cells if not RANDOM_ID.fullmatch(cell.id)}
    section = "start"
    for cell in notebook.cells:
        heading = HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        section = _slug(heading[1]) if heading else section
        if RANDOM_ID.fullmatch(cell.id):
            stem = _stem(cell, section)
            cell["id"] = _unused(stem[:MAX_ID], chosen)
            chosen.add(cell.id)


def _stem(cell: nbformat.NotebookNode, section: str) -> str:
    """Return what a cell is called: the part it opens, or its section and kind."""
    for tag in tags(cell):
        return f"{section}-{EXERCISE_LABELS[tag]}" if tag in EXERCISE_LABELS else tag
    return f"{section}-{'text' if cell.cell_type == 'markdown' else 'code'}"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:32].strip("-") or "part"


def _unused(stem: str, taken: set[str]) -> str:
    if stem not in taken:
        return stem
    return next(name for number in range(2, 1000) if (name := f"{stem}-{number}") not in taken)
