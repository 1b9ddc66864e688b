"""What the tests of several chapters share."""

from __future__ import annotations

from collections.abc import Iterable

from sparse_circuits.grading import OPEN, PASSED, WRONG, check_answer
from sparse_circuits.model import Transformer
from sparse_circuits.sparsity import sparse_weights

MIN_WRONG_ANSWERS = 3


def assert_grader(exercise: str, right: Iterable[object], wrong: Iterable[object]) -> None:
    """Assert that a grader passes every right answer and explains every wrong one, and knows an empty stub.

    Parameters
    ----------
    exercise : str
        Id of the exercise, such as `00.1`.
    right : iterable
        At least one answer that must pass.
    wrong : iterable
        At least three answers that a reader could plausibly give, none of which may pass or crash the grader.
    """
    right, wrong = list(right), list(wrong)
    assert right, f"exercise {exercise}: give at least one right answer"
    assert len(wrong) >= MIN_WRONG_ANSWERS, f"exercise {exercise}: give at least {MIN_WRONG_ANSWERS} wrong answers"
    assert check_answer(exercise, ...).status == OPEN
    for answer in right:
        result = check_answer(exercise, answer)
        assert result.status == PASSED, f"right answer {answer!r}: {result}"
    for answer in wrong:
        result = check_answer(exercise, answer)
        assert result.status == WRONG, f"wrong answer {answer!r}: {result}"
        assert len(result.note.split()) >= 3, f"wrong answer {answer!r} gets no explanation: {result}"
        assert "Your answer ended with" not in result.note, f"wrong answer {answer!r} crashes the grader: {result}"


def nonzeros(model: Transformer) -> dict[str, int]:
    """Return the number of non-zero entries of each weight that weight sparsity acts on."""
    return {name: int(weight.count_nonzero()) for name, weight in sparse_weights(model)}
