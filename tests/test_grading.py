"""Graders, receipts, predictions and the set-up of a notebook."""

import json
import random
import sys

import numpy as np
import pytest
import sparse_circuits as sc
import torch
from helpers import assert_grader
from sparse_circuits import grading, predictions


@pytest.fixture(autouse=True)
def empty_session(monkeypatch):
    """Each test starts with no graders and no progress of its own."""
    monkeypatch.setattr(grading, "session", {})
    monkeypatch.setattr(grading, "_graders", dict(grading._graders))
    monkeypatch.setattr("sparse_circuits.receipts.session", grading.session)
    monkeypatch.setattr(predictions, "_guesses", {})


@pytest.fixture
def square():
    """Exercise 99.1 asks for a function that squares."""

    @sc.grader("99.1")
    def squares(function):
        if [function(x) for x in range(4)] != [0, 1, 4, 9]:
            raise sc.Wrong("Look at what happens to three.")
        return "Four numbers were tried."

    return "99.1"


def stub(x):
    """Leave the answer to the reader."""
    raise NotImplementedError


def test_a_grader_runs_the_answer(square, capsys):
    sc.grade(square, lambda x: x * x)
    sc.grade(square, lambda x: 2 * x)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "✓ Exercise 99.1: passed. Four numbers were tried."
    assert wrong == "✗ Exercise 99.1: not yet. Look at what happens to three."


@pytest.mark.parametrize("answer", [None, ..., stub, (1, ...), {"edge": ...}])
def test_an_open_answer_is_no_wrong_answer(square, answer):
    result = grading.check_answer(square, answer)
    assert result.status == grading.OPEN


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda x: x / 0, "ZeroDivisionError"),
        (lambda: 1, "TypeError"),
        (5, "TypeError"),
        (lambda x: sys.exit(), "SystemExit"),
    ],
)
def test_an_answer_that_crashes_is_explained(square, answer, error):
    result = grading.check_answer(square, answer)
    assert result.status == grading.WRONG
    assert f"Your answer ended with {error}" in result.note


def test_the_explanation_names_the_readers_own_line(square):
    def broken(x):
        return x.no_such_attribute

    assert "return x.no_such_attribute" in grading.check_answer(square, broken).note


def test_grading_changes_no_random_numbers(square):
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002

    def noisy(x):
        draw()
        return x * x

    sc.setup_notebook()
    expected = draw()
    sc.setup_notebook()
    sc.grade(square, noisy)
    assert draw() == expected


@pytest.mark.parametrize("exercise", ["99.2", "98.1"])
def test_an_unknown_exercise_is_named(square, exercise):
    with pytest.raises(ValueError, match=f"no exercise '{exercise}'"):
        sc.grade(exercise, 1)


@pytest.mark.parametrize("exercise", ["1", "first", "00.", "000.1", 0.1])
def test_an_exercise_id_has_one_form(exercise):
    with pytest.raises(ValueError, match="not the id of an exercise"):
        sc.grade(exercise, 1)


def test_an_exercise_has_one_grader(square):
    with pytest.raises(ValueError, match="already has the grader"):
        sc.grader(square)(lambda answer: None)


def test_the_helper_wants_three_wrong_answers(square):
    assert_grader(square, right=[lambda x: x**2], wrong=[lambda x: x, lambda x: -x * x, lambda x: x**3])
    with pytest.raises(AssertionError, match="at least 3 wrong"):
        assert_grader(square, right=[lambda x: x**2], wrong=[lambda x: x])
    with pytest.raises(AssertionError, match="crashes the grader"):
        assert_grader(square, right=[lambda x: x**2], wrong=[lambda x: x, lambda x: -x, lambda x: x / 0])


def test_a_receipt_lists_every_exercise_of_a_started_chapter(square, tmp_path):
    sc.grader("99.2")(lambda answer: None)
    sc.grade(square, lambda x: x)
    sc.grade(square, lambda x: x * x)
    content = sc.verify_receipt(sc.receipt("Ada", tmp_path / "ada.json"))
    first, second = content["exercises"]
    assert (first["exercise"], first["score"], first["attempts"]) == ("99.1", 1, 2)
    assert (second["exercise"], second["score"], second["status"]) == ("99.2", 0, grading.OPEN)
    assert content["name"] == "Ada"
    assert set(content["versions"]) == {"python", "sparse_circuits", "torch"}


def test_running_the_solution_earns_nothing(square, tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "_in_solution_cell", lambda: True)
    sc.grade(square, lambda x: x * x)
    entry = sc.verify_receipt(sc.receipt("Ada", tmp_path / "ada.json"))["exercises"][0]
    assert (entry["score"], entry["solution_run"]) == (0, True)


EDITS = [
    lambda content: content.update(name="Eve"),
    lambda content: content["exercises"][0].update(score=1),
    lambda content: content["exercises"][0].update(attempts=7),
    lambda content: content["exercises"].pop(),
    lambda content: content.update(issued="2000-01-01T00:00:00+00:00"),
    lambda content: content.update(extra=1),
    lambda content: content.update(sha256="0" * 64),
    lambda content: content.pop("sha256"),
    lambda content: content.pop("format"),
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_receipt_does_not_verify(square, tmp_path, edit):
    sc.grade(square, lambda x: x)
    path = sc.receipt("Ada", tmp_path / "ada.json")
    content = json.loads(path.read_text())
    sc.verify_receipt(content)
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"ada\.json"):
        sc.verify_receipt(path)


def test_a_receipt_with_other_spaces_still_verifies(square, tmp_path):
    sc.grade(square, lambda x: x)
    path = sc.receipt("Ada", tmp_path / "ada.json")
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert sc.verify_receipt(path)["name"] == "Ada"


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": "other"}'])
def test_another_file_is_no_receipt(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=r"other\.json"):
        sc.verify_receipt(tmp_path / "other.json")


def test_a_receipt_needs_a_name_and_something_graded(square, tmp_path):
    with pytest.raises(ValueError, match="no exercise was graded"):
        sc.receipt("Ada", tmp_path / "ada.json")
    sc.grade(square, lambda x: x)
    with pytest.raises(ValueError, match="the name is"):
        sc.receipt(" ", tmp_path / "ada.json")


@pytest.mark.parametrize(
    ("guess", "actual", "verdict"),
    [
        (3, 3, "exactly right"),
        (4, 3, "1 away, 33% of the result"),
        ((2, 4), 3, "inside your interval"),
        ((4, 5), 3, "outside your interval"),
        ("Yes", "yes", "right"),
        ("no", "yes", "not what happened"),
        (0.5, torch.tensor(0.25), "0.2500 away, 100% of the result"),
        (1, 0, "1 away"),
    ],
)
def test_a_prediction_is_compared_with_the_result(capsys, guess, actual, verdict):
    sc.predict("99.a", guess)
    sc.reveal("99.a", actual)
    assert verdict in capsys.readouterr().out


def test_a_prediction_may_stay_open(capsys):
    sc.predict("99.a")
    sc.reveal("99.a", 0.5, measured=True, unit="nats")
    assert "the result is ≈0.5000 nats. You made no guess" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("guess", "error"), [((1, 2, 3), TypeError), ((2, 1), ValueError), (True, TypeError), ({}, TypeError)]
)
def test_a_guess_of_another_kind_is_refused(guess, error):
    with pytest.raises(error, match=r"prediction 99\.a"):
        sc.predict("99.a", guess)


@pytest.mark.parametrize("seed", ["-1", "one", "1.5", str(2**32), ""])
def test_a_bad_seed_is_refused(monkeypatch, seed):
    monkeypatch.setenv("SPARSE_CIRCUITS_SEED", seed)
    with pytest.raises(ValueError, match="SPARSE_CIRCUITS_SEED"):
        sc.setup_notebook()


def test_the_set_up_says_its_seed_and_keeps_it(monkeypatch, capsys):
    monkeypatch.setenv("SPARSE_CIRCUITS_SEED", "3")
    sc.setup_notebook()
    assert capsys.readouterr().out == f"Sparse Circuits {sc.__version__} is ready: seed 3\n"
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
