"""Planted errors in the shape of a chapter and in its measurements: parts, exercises, ledger, budgets."""

import json

import pytest
from example_book import copy_book
from planting import add_markdown, assert_caught, drop, edit, first, found, replace_in, without_predictions


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("parts_in_order", drop("lies")),
        ("parts_in_order", lambda notebook: notebook.cells.reverse()),
        ("hook_is_short", add_markdown("word " * 121)),
        ("objectives_name_exercises", replace_in("objectives", "Exercise", "Exercise 55.5 and")),
        ("objectives_name_exercises", replace_in("objectives", "- ", "")),
        ("predictions_precede_results", without_predictions),
        ("recap_and_reading", replace_in("recap", ".", ",")),
        ("recap_and_reading", drop("reading")),
        ("exercises_are_numbered", replace_in("exercise-card", "### Exercise", "### Example")),
        ("exercises_are_numbered", drop("exercise-card")),
        ("exercises_are_complete", drop("exercise")),
        ("exercises_are_complete", drop("solution")),
        ("exercises_are_complete", replace_in("hints", "Hint 2", "Hint")),
        ("exercises_are_complete", replace_in("solution", "sc.grade", "print")),
        ("exercises_are_complete", replace_in("exercise-card", "minutes", "hours")),
        ("exercises_have_graders", replace_in("solution", '.1"', '.99"')),
        ("quiz_gives_feedback", drop("quiz")),
        ("quiz_gives_feedback", replace_in("quiz", "<details>", "<div>")),
    ],
)
def test_an_incomplete_chapter_is_caught(planted, rule, change):
    assert_caught(*planted, rule, change)


def test_a_solution_that_does_not_pass_is_caught(planted):
    def fail(notebook):
        next(notebook.tagged("solution"))["outputs"] = []

    assert_caught(*planted, "exercises_are_complete", fail)


def test_a_tolerance_narrower_than_its_spread_is_caught(planted):
    book, name = planted
    claims = json.loads((book.root / "data" / "claims.json").read_text())
    spreads = book.measurements("spreads")
    own = [key for key, claim in claims.items() if claim["notebook"] == name]
    moving = max(own, key=lambda key: claims[key]["high"] - claims[key]["low"])
    spreads[moving] |= {"max": claims[moving]["high"] + abs(claims[moving]["high"]) * 1e-3 + 1e-9}
    assert not found(book, "tolerances_are_measured")
    book.write_measurements("spreads", spreads)
    assert [finding.where for finding in found(book, "tolerances_are_measured")] == [moving]


def test_an_exact_claim_that_moves_is_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    spreads = book.measurements("spreads")
    spreads["example.edges"] |= {"min": 2}
    book.write_measurements("spreads", spreads)
    assert [finding.where for finding in found(book, "tolerances_are_measured")] == ["example.edges"]


def test_a_spread_that_was_never_measured_is_caught(planted):
    book, _ = planted
    book.write_measurements("spreads", {})
    assert len(found(book, "tolerances_are_measured")) == len(book.ledger())


def test_a_ledger_that_differs_from_the_stored_output_is_caught(planted):
    book, name = planted
    path = book.root / "data" / "claims.json"
    claims = json.loads(path.read_text())
    changed = next(key for key, claim in claims.items() if claim["notebook"] == name)
    claims[changed] |= {key: claims[changed][key] + 1 for key in ("value", "low", "high")}
    path.write_text(json.dumps(claims))
    assert [finding.where for finding in found(book, "entries_have_cells")] == [changed]


def test_a_claim_that_left_its_cell_is_caught(planted):
    book, name = planted
    claim = next(claim for claim in book.ledger() if claim.notebook == name)
    edit(book, name, lambda notebook: first(notebook, lambda cell: cell.id == claim.cell).update(id="renamed"))
    assert claim.id in [finding.where for finding in found(book, "entries_have_cells")]


def test_a_shown_claim_that_is_not_recorded_is_caught(planted):
    book, name = planted
    (book.root / "data" / "claims.json").write_text("{}")
    assert found(book, "outputs_are_recorded", name)


def test_a_result_that_does_not_clear_its_control_is_caught(executed_book, tmp_path):
    book = copy_book(executed_book, tmp_path / "copy")
    ledger = book.ledger()
    assert ledger["example.noise"].control == "example.flat"
    assert not found(book, "results_clear_their_controls")
    path = book.root / "data" / "claims.json"
    claims = json.loads(path.read_text())
    claims["example.flat"]["high"] = 0.95
    path.write_text(json.dumps(claims))
    assert [finding.where for finding in found(book, "results_clear_their_controls")] == ["example.noise"]


@pytest.mark.parametrize("measure", ["run_seconds", "peak_memory_mb"])
def test_a_broken_budget_is_caught(planted, measure):
    book, name = planted
    budgets = book.measurements("budgets")
    budgets[name][measure] = 1e6
    assert not found(book, "budgets_are_kept", name)
    book.write_measurements("budgets", budgets)
    assert found(book, "budgets_are_kept", name)
