"""The code of a new chapter: graders for the exercises of the skeleton, and tests that try them out."""

GRADERS = '''"""Graders of chapter {number}. Each one runs the answer; none compares it with a stored solution."""

from __future__ import annotations

from collections.abc import Callable

from ..editing import cut_edges
from ..grading import Wrong, grader
from ..planted import PlantedCircuit, planted_bracket_circuit, planted_quote_circuit


@grader("{number}.1")
def nodes_of_the_quote_circuit(answer: int) -> str:
    """Count the nodes again."""
    return _same_count(answer, planted_quote_circuit().circuit.count_nodes(), "A node is in the circuit or not.")


@grader("{number}.2")
def edges_of_a_circuit(count: Callable[[PlantedCircuit], int]) -> str:
    """Run the reader's function on both planted circuits."""
    for planted in (planted_quote_circuit(), planted_bracket_circuit()):
        _same_count(count(planted), planted.circuit.count_edges(), "The graph has edges outside the circuit too.")
    return "Right on both planted circuits."


@grader("{number}.3")
def an_edge_that_matters(edge: str) -> str:
    """Cut the reader's edge and ask every prompt."""
    planted = planted_quote_circuit()
    try:
        accuracy = planted.accuracy(cut_edges(planted.model, [edge]))
    except ValueError as error:
        raise Wrong(str(error)) from error
    if accuracy == 1:
        raise Wrong(f"Without {{edge}} every prompt stays right. Look for an edge that carries something.")
    return f"Without it {{accuracy:.0%}} of the prompts are right."


@grader("{number}.4")
def edges_of_the_bracket_circuit(answer: int) -> str:
    """Count the edges again."""
    return _same_count(answer, planted_bracket_circuit().circuit.count_edges(), "Count the bracket circuit.")


def _same_count(answer: object, expected: int, advice: str) -> str:
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise Wrong(f"Give a whole number, not {{answer!r}}.")
    if answer != expected:
        raise Wrong(f"{{answer}} is not the number. {{advice}}")
    return f"{{answer}} it is."
'''

GRADER_TESTS = '''"""Every grader of chapter {number} passes right answers and fails plausible wrong ones."""

import pytest
from helpers import assert_grader
from sparse_circuits.grading import exercises_of
from sparse_circuits.planted import planted_bracket_circuit, planted_quote_circuit

QUOTES, BRACKETS = planted_quote_circuit(), planted_bracket_circuit()
UNUSED = next(edge for edge in QUOTES.carries if edge not in QUOTES.circuit.edges())

# exercise -> (right answers, plausible wrong answers: at least three)
ANSWERS = {{
    "{number}.1": (
        [QUOTES.circuit.count_nodes()],
        [QUOTES.circuit.count_edges(), QUOTES.graph.count_nodes(), "many"],
    ),
    "{number}.2": (
        [lambda planted: planted.circuit.count_edges()],
        [
            lambda planted: planted.graph.count_edges(),
            lambda planted: planted.circuit.count_nodes(),
            lambda planted: QUOTES.circuit.count_edges(),
        ],
    ),
    "{number}.3": (
        [QUOTES.circuit.edges()[0]],
        [UNUSED, "W_in[0, 0]", BRACKETS.circuit.edges()[0]],
    ),
    "{number}.4": (
        [BRACKETS.circuit.count_edges()],
        [QUOTES.circuit.count_edges(), BRACKETS.graph.count_nodes(), 1.5],
    ),
}}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_right_answers_pass_and_plausible_wrong_ones_do_not(exercise):
    assert_grader(exercise, *ANSWERS[exercise])


def test_every_exercise_is_tested():
    assert exercises_of("{number}") == list(ANSWERS)
'''
