"""A small book with one complete chapter, made on the spot: the tests of the tools plant their errors in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import yaml
from book_tools.project import ROOT, Book, Notebook
from book_tools.rules.routes import READERS
from sparse_circuits.grading import Wrong, grader

NAME = "90_example"
EXERCISES = ("90.1", "90.2", "90.3", "90.4")
KINDS = ("count", "debug", "break it", "measure")
LABELS = {"90.1": 2, "90.2": 3, "90.3": 4, "90.4": 5}

GRADERS = """
@sc.grader("90.1")
@sc.grader("90.2")
@sc.grader("90.3")
@sc.grader("90.4")
def at_least_two(answer):
    if answer < 2:
        raise sc.Wrong("Count both ends.")
"""

LIBRARY = """
def count_edges(weights):
    return int((weights != 0).sum())
"""

RESULT = """
import matplotlib.pyplot as plt
import pandas as pd
import torch
from example_library import count_edges

weights = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
edges = sc.claim("example.edges", count_edges(weights), how="non-zero weights")
noise = sc.claim("example.noise", float(torch.randn(4000).std()), tolerance=0.1, how="standard deviation of 4000 draws",
                 control="example.flat")
sc.claim("example.flat", float(torch.zeros(4).sum()), tolerance=0.01, how="sum of four zeros")
data = pd.DataFrame({"matrix": ["sparse", "dense"], "edges": [edges, weights.numel()], "noise": [noise, noise]})
sc.plots.table(data, "Edges of two matrices", measured=["noise"])
fig, ax = plt.subplots()
ax.bar(data["matrix"], data["edges"])
alt = "Bar chart of the edges of two matrices: the sparse one has half as many"
sc.plots.show(fig, alt=alt, data=data, measured=True)
"""


def text(tag: str | None, source: str) -> nbformat.NotebookNode:
    """Return a markdown cell."""
    return nbformat.v4.new_markdown_cell(source.strip(), metadata={"tags": [tag]} if tag else {})


def code(tag: str | None, source: str) -> nbformat.NotebookNode:
    """Return a code cell."""
    return nbformat.v4.new_code_cell(source.strip(), metadata={"tags": [tag]} if tag else {})


def exercise(number: str, kind: str) -> list[nbformat.NotebookNode]:
    """Return the four cells of an exercise."""
    hints = "\n".join(f"<details><summary>Hint {n}</summary>\n\nLook at row {n}.\n\n</details>" for n in (1, 2, 3))
    card = f"### Exercise {number} · A case to {kind}\n\nDifficulty ●●○○○ · Importance ●●●○○ · 10 minutes\n\nDo it."
    solution = code("solution", f'# @title Solution {number}\nsc.grade("{number}", {LABELS[number]})')
    return [
        text("exercise-card", card),
        code("exercise", f'answer = ...\nsc.grade("{number}", answer)'),
        text("hints", hints),
        solution,
    ]


def question(number: int) -> nbformat.NotebookNode:
    """Return one quiz question with three choices."""
    choices = {
        "One": "Not quite: count both rows.",
        "Three": "Right: one and two make three.",
        "Six": "No: zeros do not count.",
    }
    blocks = "\n".join(
        f"<details><summary>{choice}</summary>\n\n{feedback}\n\n</details>" for choice, feedback in choices.items()
    )
    return text("quiz" if number == 1 else None, f"### Question {number}\n\nHow many edges?\n\n{blocks}")


def chapter() -> nbformat.NotebookNode:
    """Return the chapter before it is executed."""
    objectives = "\n".join(f"- count edges (Exercise {number})" for number in EXERCISES)
    reading = "\n".join(f"- Author {n}, *Title {n}*: says what an edge is." for n in range(3))
    node = nbformat.v4.new_notebook()
    node.cells = [
        text("hook", "## One matrix\n\nA matrix with six places and few weights."),
        text("objectives", f"## By the end you can\n\n{objectives}"),
        code("setup", "import sparse_circuits as sc"),
        text("build", "## Build it\n\nAn edge is a weight that is not zero."),
        code(None, GRADERS),
        code("predict", 'sc.predict("90.a", ...)'),
        text("result", "## The result\n\nThe matrix has **3**<!-- claim:example.edges --> edges."),
        code(None, RESULT),
        code(None, 'sc.reveal("90.a", edges)'),
        text("lies", "## Where this lies to you\n\nA weight may be small and still count."),
        code(None, "print(torch.count_nonzero(weights * 1e-30).item())"),
        text("exercises", "## Check yourself"),
        *(cell for number, kind in zip(EXERCISES, KINDS, strict=True) for cell in exercise(number, kind)),
        text("compare", "## Try your own\n\nPut your matrix in place of `weights`."),
        text("recap", "## Recap\n\nOne. Two. Three. Four. Five."),
        *(question(number) for number in range(1, 6)),
        text("reading", f"## Further reading\n\n{reading}"),
    ]
    node.metadata["sparse_circuits"] = {
        "number": "90",
        "title": "An example",
        "needs": [],
        "read_minutes": 5,
        "do_minutes": 5,
        "run_budget_seconds": 120,
        "memory_budget_mb": 2000,
    }
    return node


def plan() -> dict:
    """Return a plan of one chapter, with a route for each kind of reader."""
    route = {"title": "A route", "who": "You count edges.", "chapters": ["90"]}
    return {
        "chapters": {"90": {"title": "An example", "needs": []}},
        "routes": dict.fromkeys(READERS, route),
    }


def make_book(root: Path) -> Book:
    """Make the book in `root`, not yet executed; its prose is one page."""
    for folder in ("notebooks", "book", "data"):
        (root / folder).mkdir(parents=True)
    settings = {"repository": {"url": "https://github.com/someone/a-book", "branch": "main"}}
    (root / "_config.yml").write_text(yaml.safe_dump(settings))
    (root / "book" / "index.md").write_text(
        "# A book\n\nStart at [the chapter](../notebooks/90_example.ipynb): **3**<!-- claim:example.edges --> edges.\n"
    )
    (root / "book" / "routes.yml").write_text(yaml.safe_dump(plan()))
    (root / "notebooks" / "example_library.py").write_text(LIBRARY)
    notebook = Notebook(root / "notebooks" / f"{NAME}.ipynb", chapter())
    notebook.write()
    return Book(root)


def copy_book(book: Book, root: Path) -> Book:
    """Return a copy to plant an error in: notebooks, prose, settings and measurements, no models."""
    for folder in ("notebooks", "book"):
        ignore = shutil.ignore_patterns("vendor", ".ipynb_checkpoints", "__pycache__")
        shutil.copytree(book.root / folder, root / folder, ignore=ignore)
    (root / "data").mkdir()
    in_root = ("_config.yml", "*.md", "LICENSE*", "CITATION.cff", "data/*.json")
    for file in (path for pattern in in_root for path in book.root.glob(pattern)):
        shutil.copy(file, root / file.relative_to(book.root))
    return Book(root)


def register_graders() -> None:
    """Give the exercises of the example their graders in this process, as a chapter's module would."""

    def at_least_two(answer: int) -> None:
        if answer < 2:
            raise Wrong("Count both ends.")

    for number in EXERCISES:
        grader(number)(at_least_two)


SANITIZER = ROOT / "tests" / "nbval_sanitize.cfg"
