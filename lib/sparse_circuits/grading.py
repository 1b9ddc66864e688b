"""Exercises that check themselves: a grader runs the reader's answer and says what to look at.

Graders live in `sparse_circuits.graders.chapter_NN` and are loaded when the first exercise of that chapter is graded.
`sparse_circuits.receipts` writes the results down.
"""

from __future__ import annotations

import html
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from sparse_circuits.display import emit

EXERCISE_PATTERN = re.compile(r"(?P<chapter>\d\d|C)\.(?P<number>\d+)")
SOLUTION_TITLE = "# @title Solution"
PASSED, WRONG, OPEN = "passed", "not yet", "not answered yet"
_PACKAGE = Path(__file__).parent
_graders: dict[str, Callable] = {}


class Wrong(Exception):
    """Raised by a grader: the answer is not right, and the message says what to look at."""


@dataclass(frozen=True)
class Result:
    """What a grader found.

    Parameters
    ----------
    exercise : str
        Id of the exercise, such as `00.1`.
    status : {"passed", "not yet", "not answered yet"}
        The verdict.
    note : str
        What the grader has to say.
    """

    exercise: str
    status: str
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.status == PASSED

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {self.status}." + (f" {self.note}" if self.note else "")


@dataclass
class Progress:
    """What happened with one exercise in this session."""

    result: Result
    attempts: int = 0
    solution_run: bool = False


# Progress by exercise id, in the order of the first attempt.
session: dict[str, Progress] = {}


def grader(exercise: str) -> Callable[[Callable], Callable]:
    """Register a function as the grader of one exercise.

    The function takes the reader's answer and runs it. It raises `Wrong` for a wrong answer and returns a note, or
    None, for a right one.

    Raises
    ------
    ValueError
        If the id is not of the form `00.1`, or already has a grader.
    """
    _chapter_of(exercise)

    def register(function: Callable) -> Callable:
        known = _graders.get(exercise)
        if known and (known.__module__, known.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"exercise {exercise} already has the grader {known.__qualname__}; give each its own id.")
        _graders[exercise] = function
        return function

    return register


def exercises_of(chapter: str) -> list[str]:
    """Return the ids of the exercises of a chapter (`"00"`) that have a grader, in order."""
    _load_graders(chapter)
    ids = [exercise for exercise in _graders if _chapter_of(exercise) == chapter]
    return sorted(ids, key=lambda exercise: int(exercise.split(".")[1]))


def check_answer(exercise: str, answer: object) -> Result:
    """Run the grader of `exercise` on `answer` and return what it found; nothing is shown or kept.

    Parameters
    ----------
    exercise : str
        Id of the exercise, such as `00.1`.
    answer : object
        What the exercise asks for: a circuit, a mask, a function, a number, a list of edges.

    Returns
    -------
    Result
        Also when the answer makes the grader fail: the note then gives the error and the line it came from.

    Raises
    ------
    ValueError
        If no exercise has that id.
    """
    chapter = _chapter_of(exercise)
    _load_graders(chapter)
    if exercise not in _graders:
        raise ValueError(
            f"no exercise {exercise!r}; chapter {chapter} has {', '.join(exercises_of(chapter)) or 'none'}."
        )
    if _is_open(answer):
        return Result(exercise, OPEN, "Put your answer in place of ... and run the cell again.")
    try:
        with _fixed_random_state():
            note = _graders[exercise](answer)
    except Wrong as wrong:
        return Result(exercise, WRONG, str(wrong))
    except NotImplementedError:
        return Result(exercise, OPEN, "Write the function, then run the cell again.")
    except (Exception, SystemExit) as error:
        return Result(exercise, WRONG, _explain(error))
    return Result(exercise, PASSED, note or "")


def grade(exercise: str, answer: object) -> None:
    """Check an answer and show the verdict; a wrong or missing answer raises nothing.

    Parameters
    ----------
    exercise, answer
        As for `check_answer`.

    Raises
    ------
    ValueError
        If no exercise has that id.

    Notes
    -----
    Grading leaves the random number generators as they were, so it does not change what later cells measure. A
    verdict on the book's own solution is shown, but does not count as yours in the receipt.
    """
    result = check_answer(exercise, answer)
    progress = session.setdefault(exercise, Progress(Result(exercise, OPEN)))
    if _in_solution_cell():
        progress.solution_run = True
    elif result.status != OPEN:
        progress.attempts += 1
        progress.result = result
    mark = {PASSED: "✓", WRONG: "✗", OPEN: "○"}[result.status]
    note = html.escape(result.note).replace("\n", "<br>")
    emit(
        f"{mark} {result}",
        f'<div class="sc-grade"><strong>{mark} Exercise {exercise}: {result.status}.</strong> {note}</div>',
    )


def _chapter_of(exercise: str) -> str:
    parts = EXERCISE_PATTERN.fullmatch(exercise) if isinstance(exercise, str) else None
    if not parts:
        raise ValueError(f"{exercise!r} is not the id of an exercise; give one such as '00.1'.")
    return parts["chapter"]


def _load_graders(chapter: str) -> None:
    module = f"sparse_circuits.graders.chapter_{chapter}"
    if find_spec("sparse_circuits.graders") and find_spec(module):
        import_module(module)


def _is_open(answer: object) -> bool:
    """Tell whether the answer, or a part of it, still is the dots of the stub."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, tuple | list):
        return any(part is ... for part in answer)
    return answer is None or answer is ...


def _in_solution_cell() -> bool:
    """Tell whether the cell that is running is the book's solution."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    cells = shell.user_ns.get("In") if shell else None
    return bool(cells) and cells[-1].lstrip().startswith(SOLUTION_TITLE)


@contextmanager
def _fixed_random_state() -> Iterator[None]:
    """Seed every generator for the time of one grading, then put back the states they had."""
    python_state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state() if torch else None
    random.seed(0)
    if numpy:
        numpy.random.seed(0)
    if torch:
        torch.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)


def _explain(error: BaseException) -> str:
    """Say what error the answer ended with, and on which of the reader's own lines."""
    installed = ("site-packages", "dist-packages", sys.base_prefix)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not Path(frame.filename).is_relative_to(_PACKAGE) and not any(part in frame.filename for part in installed)
    ]
    where = f", on line {frames[-1].lineno}: {frames[-1].line}" if frames and frames[-1].line else ""
    message = f": {error}" if str(error) else ""
    return (
        f"Your answer ended with {type(error).__name__}{message}{where}. "
        "Call it yourself in a new cell to see the whole error, and check that it is of the kind the exercise asks for."
    )
