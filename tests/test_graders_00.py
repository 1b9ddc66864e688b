"""Every grader of chapter 00 passes right answers and fails plausible wrong ones, with a word on what to look at."""

import itertools

import pytest
import torch
from helpers import assert_grader
from sparse_circuits.circuit import Circuit
from sparse_circuits.editing import cut_edges, keep_edges, set_edge
from sparse_circuits.graders.chapter_00 import PAR_EDGES, POSITION_EDGE, WEAKENED
from sparse_circuits.grading import check_answer, exercises_of
from sparse_circuits.graph import as_weight
from sparse_circuits.planted import planted_quote_circuit

QUOTES = planted_quote_circuit()
EDGES = QUOTES.circuit.edges()
DOUBLE_ONLY = [
    edge for edge in EDGES if edge != POSITION_EDGE and "hook_normalized[1]" not in edge and "post[1]" not in edge
]


def head(x):
    weights = (4 * (2 * x[:, 9] + 1.25 * x[:, 7])).softmax(0)
    return weights @ (0.5 * x[:, 10])


def without_position(x):
    return (8 * x[:, 9]).softmax(0) @ (0.5 * x[:, 10])


def without_query(x):
    return (2 * x[:, 9] + 1.25 * x[:, 7]).softmax(0) @ (0.5 * x[:, 10])


def without_value_weight(x):
    return (4 * (2 * x[:, 9] + 1.25 * x[:, 7])).softmax(0) @ x[:, 10]


def latest_kind(x):
    return 0.5 * x[(4 * (2 * x[:, 9] + 1.25 * x[:, 7])).argmax(), 10]


def one_at_a_time(planted):
    return {edge: planted.accuracy(cut_edges(planted.model, [edge])) for edge in planted.carries}


def cumulative(planted):
    model, result = planted.model, {}
    for edge in planted.carries:
        model = cut_edges(model, [edge])
        result[edge] = planted.accuracy(model)
    return result


def short_prompts(planted):
    prompts = planted.every_prompt(7)
    return {edge: planted.accuracy(cut_edges(planted.model, [edge]), prompts) for edge in planted.carries}


def circuit_only(planted):
    return {edge: planted.accuracy(cut_edges(planted.model, [edge])) for edge in planted.circuit.edges()}


def in_place(planted):
    result = {}
    for edge in planted.carries:
        result[edge] = planted.accuracy(cut_edges(planted.model, [edge]))
    with torch.no_grad():
        planted.model.W_U.zero_()
    return result


def plain(answer):
    return list(answer) if isinstance(answer, tuple) else answer


ANSWERS = {
    "00.1": (
        [head, lambda x: head(x).item()],
        {
            without_position: "reads the position",
            without_query: "Multiply the key by the query",
            without_value_weight: "half of channel 10",
            latest_kind: "A softmax is not a maximum",
            lambda x: x[:, 10].mean() / 2: "plain average",
            lambda x: head(x)[None, None].expand(2, 1): "return one number",
            lambda x: head(x) + 1: "one after the other",
        },
    ),
    "00.2": (
        [DOUBLE_ONLY],
        {
            tuple(EDGES): "Fewer will do",
            tuple(edge for edge in EDGES if edge != POSITION_EDGE): "Fewer will do",
            tuple(DOUBLE_ONLY[:-1]): "right on 0%",
            tuple(DOUBLE_ONLY[1:]): "the step that is missing",
            DOUBLE_ONLY[0]: "Give a list",
            ("W_in[0, 0]",): "is no name of an edge",
        },
    ),
    "00.3": (
        [one_at_a_time],
        {
            cumulative: "left over from the edges cut before",
            short_prompts: "contain the case",
            circuit_only: "for every edge",
            in_place: "cut edges in a copy",
        },
    ),
    "00.4": (
        ['log("bye")\nlog("bye")\nlog(\'bye', "print('hello')\nlog('bye')\nprint(\"hello world"],
        {
            'print("hello")\nprint(\'hello': "which is right",
            'print("hello")\nprint("hello")\nprint("hello': "the group 'double'",
            "print('hello world moon and')\nprint('hello world": "the group 'single'",
            'print("")\nprint("")\nprint(\'hello': "not a valid prompt",
            'print("hello world moon and")\nprint("hello world moon and")\nprint(\'hello': "tokens; the model reads 16",
            'say("hello': "No token begins",
        },
    ),
    "00.5": (
        [34],
        {
            8: "a prompt of 8 tokens",
            33: "a prompt of 32 tokens",
            64: "so does 63",
            35: "so does 34",
            33.06: "Give a whole number",
        },
    ),
}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_right_answers_pass_and_plausible_wrong_ones_do_not(exercise):
    right, wrong = ANSWERS[exercise]
    assert_grader(exercise, right, [plain(answer) for answer in wrong])


@pytest.mark.parametrize(
    ("exercise", "answer", "note"), [(e, a, n) for e, (_, wrong) in ANSWERS.items() for a, n in wrong.items()]
)
def test_a_wrong_answer_hears_what_to_look_at(exercise, answer, note):
    assert note in check_answer(exercise, plain(answer)).note


def test_every_exercise_is_tested():
    assert exercises_of("00") == list(ANSWERS)


@torch.no_grad()
def test_no_smaller_set_of_edges_closes_double_quotes():
    """All sets of fewer than six edges at once: one model per set, side by side."""
    prompt = QUOTES.prompt('print("hello")\nlog("bye moon')
    subsets = [set(edges) for size in range(PAR_EDGES) for edges in itertools.combinations(EDGES, size)]
    weights = dict(QUOTES.model.named_parameters())
    for name, weight in keep_edges(QUOTES.model, QUOTES.circuit).named_parameters():
        if name in QUOTES.graph.ends:
            weights[name] = weight.expand(len(subsets), *weight.shape).clone()
    for edge in EDGES:
        matrix, i, j = QUOTES.graph.find_edge(edge)
        without = torch.tensor([edge not in subset for subset in subsets])
        weights[matrix][without] = as_weight(matrix, masked_entry(matrix, i, j), 2) * weights[matrix][without]
    many = {name: 0 if name in QUOTES.graph.ends else None for name in weights}
    run = torch.vmap(
        lambda w: torch.func.functional_call(QUOTES.model, w, torch.tensor([prompt.tokens])), in_dims=(many,)
    )
    answers = run(weights)[:, 0, -1].argmax(-1)
    assert len(answers) == len(subsets) == 638
    assert (answers != prompt.right).all()
    assert QUOTES.answers([prompt], keep_edges(QUOTES.model, Circuit.from_names(QUOTES.graph, DOUBLE_ONLY))) == [
        prompt.right
    ]


def masked_entry(matrix, i, j):
    """Ones in the shape of a (source, target) matrix, with a zero at one entry."""
    ones = torch.ones(QUOTES.graph.edge_masks[matrix].shape)
    ones[i, j] = 0
    return ones


def test_few_prompts_fool_the_weakened_model():
    fooled = 1 - QUOTES.accuracy(set_edge(QUOTES.model, POSITION_EDGE, WEAKENED))
    assert 0 < fooled < 0.1
