"""Every grader of chapter 9 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import grader_tests

KEYS = ("universe", "length", "ablation", "recovery", "task")


def by_layer(n_layers, n_heads, mlps=True, parallel=False):
    sources, edges = 1, 0
    for _ in range(n_layers):
        edges += 3 * n_heads * sources
        if mlps:
            edges += sources if parallel else sources + n_heads
        sources += n_heads + mlps
    return edges + sources


def by_formula(n_layers, n_heads, mlps=True, parallel=False):
    pairs = n_layers * (n_layers - 1) // 2
    if not mlps:
        return 3 * n_heads * n_layers + 3 * n_heads**2 * pairs + 1 + n_layers * n_heads
    serial = n_layers * (5 * n_heads + 2) + 1 + (n_heads + 1) * (3 * n_heads + 1) * pairs
    return serial - n_layers * n_heads * parallel


def one_reader_for_each_head(n_layers, n_heads, mlps=True, parallel=False):
    into_heads = sum(2 * n_heads * (1 + layer * (n_heads + mlps)) for layer in range(n_layers))
    return by_layer(n_layers, n_heads, mlps, parallel) - into_heads


def scores_of(sign=1, last=False, of_all=False, masked=True, absolute=False):
    """EAP, or one with some mistakes."""

    def scores(clean, corrupted, gradients, is_edge):
        change = sign * (corrupted - clean)
        if absolute:
            change, gradients = change.abs(), gradients.abs()
        if last:
            change, gradients = change[:, :, -1:], gradients[:, :, -1:]
        every = torch.einsum("sbpd,rbpd->sr", change, gradients)
        every = every / (change[0].numel() if of_all else change.shape[1])
        return torch.where(is_edge, every, torch.zeros(())) if masked else every

    return scores


def in_a_loop(clean, corrupted, gradients, is_edge):
    found = torch.zeros(is_edge.shape)
    for s, r in is_edge.nonzero().tolist():
        found[s, r] = ((corrupted[s] - clean[s]) * gradients[r]).sum((1, 2)).mean()
    return found


def by_reachability(edges):
    ends = {edge: edge.partition("<")[0].split("->") for edge in edges}
    reached, useful = {"input"}, {"logits"}
    for _ in ends:
        reached |= {v for u, v in ends.values() if u in reached}
        useful |= {u for u, v in ends.values() if v in useful}
    return {edge for edge, (u, v) in ends.items() if u in reached and v in useful}


def by_taking_away(edges, one_pass=False):
    left = set(edges)
    while True:
        written = {edge.partition("->")[0] for edge in left}
        read = {edge.partition("->")[2].partition("<")[0] for edge in left}
        stays = {
            edge
            for edge in left
            if edge.partition("->")[0] in read | {"input"}
            and edge.partition("->")[2].partition("<")[0] in written | {"logits"}
        }
        if one_pass or stays == left:
            return stays
        left = stays


def from_input_alone(edges):
    ends = {edge: edge.partition("<")[0].split("->") for edge in edges}
    reached = {"input"}
    for _ in ends:
        reached |= {v for u, v in ends.values() if u in reached}
    return {edge for edge, (u, v) in ends.items() if u in reached}


def with_readers_apart(edges):
    """Takes a head's query and the head itself for two things, so no path leads through a head."""
    ends = {edge: edge.split("->") for edge in edges}
    reached = {"input"}
    for _ in ends:
        reached |= {v for u, v in ends.values() if u in reached}
    return {edge for edge, (u, v) in ends.items() if u in reached and (v == "logits" or v.startswith("m"))}


def calls(strings, pair=("print", "log")):
    """The same strings in one call and in the other."""
    return [(f"{a}({text}", f"{b}({text}") for a, b in (pair, pair[::-1]) for text in strings]


SINGLE, DOUBLE = ("'hello world", "'bye moon and"), ('"hello world', '"bye moon and')


def ratio(control, sparse, top="left", bottom="left", checked=KEYS, zero=True, named=True):
    for key in checked:
        if control[key] != sparse[key]:
            raise ValueError(f"{key} differs" if named else "these cannot be compared")
    if zero and not sparse["left"]:
        raise ValueError("no edge is left")
    return control[top] / sparse[bottom]


ANSWERS = {
    "09.1": (
        [by_layer, by_formula],
        {
            "parallel ignored": (lambda n, h, mlps=True, parallel=False: by_layer(n, h, mlps), "the other way"),
            "logits forgotten": (
                lambda n, h, mlps=True, parallel=False: by_layer(n, h, mlps, parallel) - 1 - n * (h + mlps),
                "the logits read every source",
            ),
            "one reader for each head": (one_reader_for_each_head, "its query, its key and its value"),
            "no mlps ignored": (
                lambda n, h, mlps=True, parallel=False: by_layer(n, h, True, parallel),
                "Which sources",
            ),
            "a float": (lambda n, h, mlps=True, parallel=False: by_layer(n, h, mlps, parallel) / 1, "whole number"),
        },
    ),
    "09.2": (
        [scores_of(), in_a_loop],
        {
            "as given": (scores_of(sign=-1, last=True), "the last position alone"),
            "sign left": (scores_of(sign=-1), "the sign"),
            "position left": (scores_of(last=True), "the last position alone"),
            "mean over everything": (scores_of(of_all=True), "times what they should be"),
            "not masked": (scores_of(masked=False), "has to be 0"),
            "magnitudes": (scores_of(absolute=True), "with their signs"),
            "no tensor": (lambda *given: 0.0, "Return a tensor"),
        },
    ),
    "09.3": (
        [by_reachability, by_taking_away, lambda edges: list(by_taking_away(edges))],
        {
            "one pass": (lambda edges: by_taking_away(edges, one_pass=True), "should not be"),
            "from the input alone": (from_input_alone, "Nobody reads"),
            "readers apart": (with_readers_apart, "any of its three inputs"),
            "nothing": (lambda edges: set(edges), "should not be"),
            "a number": (lambda edges: len(edges), "return a set"),
        },
    ),
    "09.4": (
        [calls([*SINGLE, *DOUBLE]), [list(pair) for pair in calls([SINGLE[0], DOUBLE[0]])]],
        {
            "the answer changed": (
                [("print('hello", 'print("hello'), ('print("hello', "print('hello")],
                "Something does happen",
            ),
            "a word changed": ([("print('hello", "print('bye"), ('print("hello', 'print("bye')], "EAP agrees"),
            "another length": ([("print('hello", "print('hello world"), ("log('bye", "log('bye moon")], "same length"),
            "one pair": (calls([SINGLE[0]])[:1] * 4, "different pairs"),
            "no pairs": (["print('hello", "log('hello"], "list of pairs"),
            "not valid": ([("print('hello", "log(hello"), ("log('bye", "print(bye")], "token"),
        },
    ),
    "09.5": (
        [ratio, lambda control, sparse: float(ratio(control, sparse))],
        {
            "asked": (lambda c, s: ratio(c, s, "asked", "asked"), "asked for"),
            "asked over left": (lambda c, s: ratio(c, s, "asked"), "asked for"),
            "upside down": (lambda c, s: 1 / ratio(c, s), "upside down"),
            "shares": (lambda c, s: ratio(c, s) * s["total"] / c["total"], "the totals"),
            "nothing checked": (lambda c, s: ratio(c, s, checked=()), "Raise a ValueError"),
            "length not checked": (lambda c, s: ratio(c, s, checked=KEYS[:1] + KEYS[2:]), "'length'"),
            "not named": (lambda c, s: ratio(c, s, named=False), "Name the key"),
            "nothing left": (lambda c, s: ratio(c, s, zero=False), "before you divide"),
            "no number": (lambda c, s: f"{ratio(c, s)}", "return a number"),
        },
    ),
}


(
    test_right_answers_pass_and_plausible_wrong_ones_do_not,
    test_a_wrong_answer_hears_what_to_look_at,
    test_every_exercise_is_tested,
) = grader_tests("09", ANSWERS)
