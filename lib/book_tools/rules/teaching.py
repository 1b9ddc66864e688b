"""Exercises and quiz: complete, graded, with hints and feedback."""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat
from sparse_circuits.grading import EXERCISE_PATTERN, PASSED, SOLUTION_TITLE, exercises_of

from book_tools.project import Book, Notebook, output_texts, tags
from book_tools.rules import Finding
from book_tools.rules.chapter import EXERCISE_TITLE, EXERCISES, exercise_ids, part

RATING = re.compile(r"^Difficulty [●○]{5} · Importance [●○]{5} · \d+ minutes$", re.MULTILINE)
ORDER = ("exercise", "hints", "solution")
DETAILS = re.compile(r"<details>\s*<summary>(?P<summary>.*?)</summary>(?P<body>.*?)</details>", re.DOTALL)
KINDS = ("debug", "break it")
QUESTIONS = 5
QUESTION = re.compile(r"^(?:#{2,6} |\*\*)?Question \d+\b.*$", re.MULTILINE)
RIGHT = re.compile(r"\W*(Right|Correct|Yes)\b")
MIN_FEEDBACK_WORDS = 3


def exercises_are_numbered(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """There are four to six exercises, numbered from 1 within the chapter; one is a debug, one a break-it exercise."""
    cards = list(notebook.tagged("exercise-card"))
    found = exercise_ids(notebook)
    low, high = EXERCISES
    if not low <= len(cards) <= high:
        yield Finding(notebook.path.name, "exercises", f"there are {len(cards)} exercises", f"write {low} to {high}")
    expected = [f"{notebook.chapter.get('number')}.{place}" for place in range(1, len(cards) + 1)]
    if found != expected:
        message = f"the exercise cards are titled {found}"
        remedy = f"title them '### Exercise {expected[0] if expected else '00.1'} · title' and so on"
        yield Finding(notebook.path.name, "exercises", message, remedy)
    text = " ".join(cell.source.lower().replace("-", " ") for cell in cards)
    for kind in KINDS:
        if not re.search(rf"\b{kind}\b", text):
            message = f"no exercise card has the words {kind!r}"
            yield Finding(notebook.path.name, "exercises", message, f"write one {kind} exercise and call it that")


def exercises_are_complete(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Each exercise has a rating, a stub, three hints and a solution that passes, in this order."""
    for number, cells in _exercises(notebook):
        rating = RATING.search(cells[0].source)
        if rating is None:
            remedy = "write 'Difficulty ●●○○○ · Importance ●●●○○ · 10 minutes'"
            yield Finding(notebook.path.name, cells[0].id, "the rating line is missing or of another form", remedy)
        kinds = [tag for cell in cells[1:] for tag in tags(cell) if tag in ORDER]
        if tuple(kinds) != ORDER:
            message = f"exercise {number} has the cells {kinds}"
            yield Finding(notebook.path.name, cells[0].id, message, f"give it one cell of each tag: {', '.join(ORDER)}")
            continue
        stub, hints, solution = (next(cell for cell in cells if tag in tags(cell)) for tag in ORDER)
        for message, remedy in _faults(number, stub, hints, solution):
            yield Finding(notebook.path.name, cells[0].id, f"exercise {number}: {message}", remedy)


def exercises_have_graders(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """Every exercise has a grader and every grader an exercise."""
    number = str(notebook.chapter.get("number"))
    shown, graded = exercise_ids(notebook), exercises_of(number)
    for exercise in sorted(set(shown) ^ set(graded)):
        what = "has no grader" if exercise in shown else "has a grader but no card"
        remedy = f"give sparse_circuits/graders/chapter_{number}.py one grader for each exercise"
        yield Finding(notebook.path.name, "exercises", f"exercise {exercise} {what}", remedy)
    for cell in notebook.cells:
        for exercise in (
            re.findall(r"""\bgrade\(\s*["']([^"']*)["']""", cell.source) if cell.cell_type == "code" else ()
        ):
            if not EXERCISE_PATTERN.fullmatch(exercise) or exercise not in graded:
                yield Finding(notebook.path.name, cell.id, f"{exercise!r} is graded but has no grader", "mend the id")


def quiz_gives_feedback(book: Book, notebook: Notebook) -> Iterator[Finding]:
    """The quiz has five questions; each choice has feedback and exactly one is right."""
    source = "\n\n".join(cell.source for cell in part(notebook, "quiz") if cell.cell_type == "markdown")
    starts = [match.start() for match in QUESTION.finditer(source)]
    if len(starts) != QUESTIONS:
        remedy = f"write {QUESTIONS} questions headed '### Question 1' and so on"
        yield Finding(notebook.path.name, "quiz", f"the quiz has {len(starts)} questions", remedy)
    for number, (start, end) in enumerate(zip(starts, [*starts, len(source)][1:], strict=True), start=1):
        choices = list(DETAILS.finditer(source[start:end]))
        right = [choice for choice in choices if RIGHT.match(_plain(choice["body"]))]
        if len(choices) < 2 or len(right) != 1:
            message = f"question {number} has {len(choices)} choices, of which {len(right)} begin with 'Right'"
            remedy = "give it two choices or more, one <details> each; begin the right one's feedback with 'Right'"
            yield Finding(notebook.path.name, "quiz", message, remedy)
        for choice in choices:
            if len(_plain(choice["body"]).split()) < MIN_FEEDBACK_WORDS:
                message = f"choice {choice['summary']!r} of question {number} has no feedback"
                yield Finding(notebook.path.name, "quiz", message, "say why it is right or wrong")


def _exercises(notebook: Notebook) -> Iterator[tuple[str, list[nbformat.NotebookNode]]]:
    """Yield (id, cells) for each exercise card and the cells up to the next one."""
    cells = part(notebook, "exercises")
    starts = [index for index, cell in enumerate(cells) if "exercise-card" in tags(cell)]
    for start, end in zip(starts, [*starts, len(cells)][1:], strict=True):
        title = EXERCISE_TITLE.search(cells[start].source)
        yield (title["id"] if title else "?"), cells[start:end]


def _faults(number: str, stub, hints, solution) -> Iterator[tuple[str, str]]:
    """Yield (message, remedy) for what is wrong with the cells of one exercise."""
    call = re.compile(rf"""\bgrade\(\s*["']{re.escape(number)}["']""")
    for name, cell in (("stub", stub), ("solution", solution)):
        if not call.search(cell.source):
            yield f"the {name} does not call sc.grade", f'end the cell with sc.grade("{number}", answer)'
    if _passed(stub, number):
        yield "the stub passes", "leave the answer to the reader"
    if not _passed(solution, number):
        yield "the stored output of the solution does not pass", "mend it and execute the notebook"
    if not solution.source.startswith(f"{SOLUTION_TITLE} {number}"):
        yield "the solution has no title", f"begin the cell with '{SOLUTION_TITLE} {number}'"
    summaries = [match["summary"] for match in DETAILS.finditer(hints.source) if _plain(match["body"])]
    if summaries != ["Hint 1", "Hint 2", "Hint 3"]:
        yield f"the hints are {summaries}", "write three <details> with the summaries Hint 1, Hint 2 and Hint 3"


def _passed(cell: nbformat.NotebookNode, number: str) -> bool:
    return any(f"Exercise {number}: {PASSED}." in text for text in output_texts(cell, "text/plain"))


def _plain(source: str) -> str:
    return re.sub(r"<[^>]+>", " ", source).strip()


NOTEBOOK_RULES = (
    exercises_are_numbered,
    exercises_are_complete,
    exercises_have_graders,
    quiz_gives_feedback,
)
