"""The shape of a chapter: its parts in order, short opening, checked objectives, predictions before results."""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat

from book_tools.project import Book, Notebook, output_texts, tags
from book_tools.rules import Finding, line_of
from book_tools.skeleton import CLOSE, OPEN

PARTS = (
    "card", "hook", "objectives", "setup", "build", "predict", "result", "lies", "exercises", "compare", "recap",
    "quiz", "reading",
)  # fmt: skip
MAX_HOOK_WORDS = 120
RECAP_SENTENCES = 5
OBJECTIVES, EXERCISES, READINGS = (3, 5), (4, 6), (3, 6)
MIN_READING_WORDS = 8
# A run may take this much of what the chapter promises before the promise has to be changed.
BUDGET_SLACK = 1.2
LIST_ITEM = re.compile(r"^(?:[-*+]|\d+[.)])\s+(.+(?:\n[ \t]+\S.*)*)", re.MULTILINE)
EXERCISE_ID = re.compile(r"\b(?:\d\d|C)\.\d+\b")
EXERCISE_TITLE = re.compile(r"^### Exercise (?P<id>\S+) · \S.*$", re.MULTILINE)
SENTENCE_END = re.compile(r"[.!?…](?=[\"')\]*_]*(?:\s|$))")
PREDICT = re.compile(r"""\bpredict\(\s*["']([^"']+)["']""")
REVEAL = re.compile(r"""\breveal\(\s*["']([^"']+)["']""")


def part(notebook: Notebook, name: str) -> list[nbformat.NotebookNode]:
    """Return the cells from the first one tagged `name` up to the next part that the notebook has."""
    first = {}
    for index, cell in enumerate(notebook.cells):
        for tag in tags(cell):
            first.setdefault(tag, index)
    if name not in first:
        return []
    later = (first[tag] for tag in PARTS[PARTS.index(name) + 1 :] if tag in first)
    return notebook.cells[first[name] : min((index for index in later if index > first[name]), default=None)]


def markdown_of(cells: list[nbformat.NotebookNode]) -> str:
    """Return the text of the markdown cells, without headings."""
    source = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"^#{1,6} .*$", "", source, flags=re.MULTILINE)


def exercise_ids(notebook: Notebook) -> list[str]:
    """Return the ids of the exercise cards, in order."""
    return [title["id"] for cell in notebook.tagged("exercise-card") if (title := EXERCISE_TITLE.search(cell.source))]


def parts_in_order(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Every part is there, and the first cells of the parts follow in order."""
    first = {}
    for index, cell in enumerate(notebook.cells):
        for tag in tags(cell):
            first.setdefault(tag, index)
    previous, place = "", -1
    for name in PARTS:
        if name not in first:
            yield Finding(notebook.path.name, name, "the part is missing", f"tag its first cell {name!r}")
            continue
        if first[name] < place:
            yield Finding(
                notebook.path.name, name, f"the part stands before {previous!r}", f"order them {', '.join(PARTS)}"
            )
        previous, place = name, first[name]


def hook_is_short(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The hook fits on one screen."""
    words = len(re.sub(r"<[^>]+>", " ", markdown_of(part(notebook, "hook"))).split())
    if words > MAX_HOOK_WORDS:
        yield Finding(notebook.path.name, "hook", f"the hook has {words} words", f"cut it to {MAX_HOOK_WORDS}")


def objectives_name_exercises(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Each of three to five objectives names an exercise that exists."""
    objectives = LIST_ITEM.findall(markdown_of(part(notebook, "objectives")))
    yield from _count(notebook, "objectives", len(objectives), OBJECTIVES)
    known = exercise_ids(notebook)
    for objective in objectives:
        named = EXERCISE_ID.findall(objective)
        if not named or not set(named) <= set(known):
            message = f"objective {objective[:60]!r} names {named or 'no exercise'}"
            yield Finding(notebook.path.name, "objectives", message, f"name one of {known}")


def predictions_precede_results(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Each reveal has a prediction in an earlier cell, and each prediction is revealed."""
    open_predictions: dict[str, str] = {}
    revealed = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for name in REVEAL.findall(cell.source):
            revealed.add(name)
            if name not in open_predictions:
                message = f"{name!r} is revealed without a prediction in an earlier cell"
                yield Finding(notebook.path.name, cell.id, message, f'ask with sc.predict("{name}", ...) first')
        open_predictions |= dict.fromkeys(PREDICT.findall(cell.source), cell.id)
    for name in open_predictions.keys() - revealed:
        message = f"prediction {name!r} is never revealed"
        yield Finding(notebook.path.name, open_predictions[name], message, f'show it with sc.reveal("{name}", ...)')


def result_has_figure_and_table(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The result shows a figure and a table, and makes a claim."""
    cells = part(notebook, "result")
    pages = [page for cell in cells for page in output_texts(cell, "text/html")]
    shown = {
        "a figure": any(True for cell in cells for _ in output_texts(cell, "image/png")),
        "a table": any(page.startswith('<table class="sc-table"') for page in pages),
        "a claim": any('class="sc-claim"' in page for page in pages),
    }
    for what, there in shown.items():
        if not there:
            yield Finding(
                notebook.path.name, "result", f"the result shows no {what[2:]}", f"show {what} with its control"
            )


def lies_are_runnable(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The counter-example of "Where this lies to you" can be run."""
    if not any(cell.cell_type == "code" for cell in part(notebook, "lies")):
        yield Finding(notebook.path.name, "lies", "the counter-example has no code", "add a cell that shows it")


def recap_and_reading(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The recap has five sentences, and each reading says why to read it."""
    sentences = len(SENTENCE_END.findall(markdown_of(part(notebook, "recap"))))
    if sentences != RECAP_SENTENCES:
        yield Finding(notebook.path.name, "recap", f"the recap has {sentences} sentences", f"make it {RECAP_SENTENCES}")
    readings = LIST_ITEM.findall(markdown_of(part(notebook, "reading")))
    yield from _count(notebook, "reading", len(readings), READINGS)
    for reading in readings:
        if len(reading.split()) < MIN_READING_WORDS:
            message = f"the reading {reading[:60]!r} is not annotated"
            yield Finding(notebook.path.name, "reading", message, "say in a sentence what a reader finds there")


def budgets_are_kept(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The last measured run stayed within the time and memory that the chapter promises."""
    measured = book.measurements("budgets").get(notebook.name)
    if measured is None:
        yield Finding(
            notebook.path.name, "card", "its time and memory were never measured",
            "run `python -m book_tools.notebooks --execute`",
        )  # fmt: skip
        return
    limits = {"run_seconds": "run_budget_seconds", "peak_memory_mb": "memory_budget_mb"}
    for measure, limit in limits.items():
        allowed = notebook.chapter.get(limit)
        if allowed is None:
            message = f"metadata sparse_circuits lacks {limit!r}"
            yield Finding(notebook.path.name, "metadata", message, "state what the chapter may take")
        elif measured[measure] and measured[measure] > BUDGET_SLACK * allowed:
            message = f"{measure} was {measured[measure]}, but {limit} is {allowed}"
            yield Finding(notebook.path.name, "card", message, "make the chapter lighter, or state the true budget")


def nothing_is_left_of_the_scaffold(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """What `book_tools.scaffold` left to be written has been written."""
    for cell in notebook.cells:
        for left in re.finditer(rf"{OPEN}[^{CLOSE}]*{CLOSE}", cell.source):
            message = f"{line_of(cell.source, left.start())} still has the scaffold's {left[0][:60]!r}"
            yield Finding(notebook.path.name, cell.id, message, "write what it asks for in its place")


def _count(notebook: Notebook, where: str, found: int, allowed: tuple[int, int]) -> Iterator[Finding]:
    low, high = allowed
    if not low <= found <= high:
        message = f"there are {found} entries in {where!r}"
        yield Finding(notebook.path.name, where, message, f"write {low} to {high}, each as a list item")


NOTEBOOK_RULES = (
    parts_in_order,
    hook_is_short,
    objectives_name_exercises,
    predictions_precede_results,
    result_has_figure_and_table,
    lies_are_runnable,
    recap_and_reading,
    budgets_are_kept,
    nothing_is_left_of_the_scaffold,
)
