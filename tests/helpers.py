"""What the tests of several chapters share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from sparse_circuits.grading import OPEN, PASSED, WRONG, check_answer, exercises_of
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


def grader_tests(chapter: str, answers: dict[str, tuple[list, dict[str, tuple[object, str]]]]) -> tuple:
    """Return the three tests that the graders of a chapter have in common.

    Parameters
    ----------
    chapter : str
        Number of the chapter, such as `05`.
    answers : dict
        For each exercise the right answers, and the wrong ones: by the name of the mistake, the answer and a part of
        the note that its author gets.
    """

    @pytest.mark.parametrize("exercise", answers)
    def right_and_wrong(exercise):
        right, wrong = answers[exercise]
        assert_grader(exercise, right, [answer for answer, _ in wrong.values()])

    @pytest.mark.parametrize(
        ("exercise", "mistake"), [(e, name) for e, (_, wrong) in answers.items() for name in wrong]
    )
    def notes(exercise, mistake):
        answer, note = answers[exercise][1][mistake]
        assert note in check_answer(exercise, answer).note

    def all_exercises():
        assert exercises_of(chapter) == list(answers)

    return right_and_wrong, notes, all_exercises


def widened(model: Transformer, d_mlp: int) -> Transformer:
    """Return a copy with more neurons in each layer, whose weights are all zero."""
    wide = Transformer(replace(model.cfg, d_mlp=d_mlp))
    with torch.no_grad():
        for name, weight in wide.named_parameters():
            original = model.get_parameter(name)
            weight.zero_()[tuple(slice(n) for n in original.shape)].copy_(original)
    return wide


def nonzeros(model: Transformer) -> dict[str, int]:
    """Return the number of non-zero entries of each weight that weight sparsity acts on."""
    return {name: int(weight.count_nonzero()) for name, weight in sparse_weights(model)}
