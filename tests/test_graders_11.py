"""Every grader of chapter 11 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import grader_tests


def row(
    scaled=True, per_unit=False, later=False, bias_scaled=False, order=("token", "features", "error", "b_dec", "b_enc")
):
    """The row of a feature, or one with some mistakes."""

    def answer(w_enc, b_enc, scale, embedding, activations, decoders, error, b_dec):
        read = w_enc / scale if scaled else w_enc
        written = decoders.sum(1) if later else decoders[:, 0]
        each = written @ read
        found = {"token": embedding @ read, "features": each if per_unit else activations * each}
        found |= {"error": error @ read, "b_dec": b_dec @ read, "b_enc": b_enc / scale if bias_scaled else b_enc}
        return {name: found[name] for name in order}

    return answer


def row_in_a_loop(w_enc, b_enc, scale, embedding, activations, decoders, error, b_dec):
    def adds(vector):
        return sum(float(a * b) for a, b in zip(w_enc, vector, strict=True)) / scale

    features = [adds(a * decoder[0]) for a, decoder in zip(activations, decoders, strict=True)]
    return {"token": adds(embedding), "features": features, "error": adds(error), "b_dec": adds(b_dec), "b_enc": b_enc}


def influence(absolute=True, axis=1, divide=True, steps=None, itself=False):
    def answer(adjacency, weights):
        matrix = adjacency.abs() if absolute else adjacency
        if divide:
            matrix = matrix / adjacency.abs().sum(axis, keepdim=True).clamp_min(1e-20)
        reached, total = weights, weights if itself else torch.zeros_like(weights)
        for _ in range(steps or len(weights)):
            reached = reached @ matrix
            total = total + reached
        return total

    return answer


def by_inverse(adjacency, weights):
    shares = torch.nn.functional.normalize(adjacency.abs(), p=1, dim=1)
    eye = torch.eye(len(weights))
    return weights @ (torch.linalg.inv(eye - shares) - eye)


def terms_to(absolute=True, falling=True, more=1):
    def answer(loadings, share):
        sizes = loadings.flatten().abs() if absolute else loadings.flatten()
        reached = sizes.sort(descending=falling).values.cumsum(0)
        return int((reached < share * reached[-1]).sum()) + more

    return answer


def terms_in_a_loop(loadings, share):
    sizes = sorted(loadings.abs().flatten().tolist(), reverse=True)
    reached, count = 0.0, 0
    while reached < share * sum(sizes) - 1e-9:
        reached += sizes[count]
        count += 1
    return count


def graph(n, edges):
    matrix = [[0.0] * n for _ in range(n)]
    for (source, target), weight in edges.items():
        matrix[target][source] = weight
    return matrix


CANCELLING = {(0, 1): 1, (1, 2): 1, (1, 3): 1, (2, 4): 1, (3, 4): -1}


def keys(axis=0, threshold=True, positive=False):
    def answer(terms, names, bias):
        parts = terms.sum(axis)
        if positive:
            return [name for name, part in zip(names, parts, strict=False) if part > 0]
        left = terms.sum() - parts
        return [name for name, score in zip(names, left, strict=False) if score <= (-bias if threshold else 0)]

    return answer


ANSWERS = {
    "11.1": (
        [row(), row_in_a_loop],
        {
            "scale forgotten": (row(scaled=False), "the norm divides"),
            "per unit": (row(per_unit=True), "on this prompt"),
            "later layers too": (row(later=True), "has not been written yet"),
            "bias divided": (row(bias_scaled=True), "no norm divides it"),
            "bias forgotten": (row(order=("token", "features", "error", "b_dec")), "Return a dict"),
            "one number": (lambda **given: 0.0, "Return a dict"),
        },
    ),
    "11.2": (
        [influence(), by_inverse],
        {
            "one step": (influence(steps=1), "Paths go on"),
            "with the logits": (influence(itself=True), "begins with one step"),
            "not divided": (influence(divide=False), "Divide each row"),
            "signs": (influence(absolute=False), "keep the signs"),
            "columns": (influence(axis=0), "sums of columns"),
            "a number": (lambda adjacency, weights: 1.0, "one number for each node"),
        },
    ),
    "11.3": (
        [terms_to(), terms_in_a_loop],
        {
            "as given": (terms_to(absolute=False, falling=False, more=0), "begin with the smallest"),
            "signs": (terms_to(absolute=False), "takes away"),
            "smallest first": (terms_to(falling=False), "begin with the smallest"),
            "one too few": (terms_to(more=0), "has to be counted"),
            "a float": (lambda loadings, share: 3.0, "whole number"),
        },
    ),
    "11.4": (
        [graph(5, CANCELLING), graph(5, CANCELLING | {(0, 4): 0.5}), tuple(map(tuple, graph(5, CANCELLING)))],
        {
            "no second path": (graph(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1}), "two paths that cancel"),
            "little influence": (graph(5, CANCELLING | {(0, 4): 20}), "Let more of what enters"),
            "a loop": (graph(5, CANCELLING | {(3, 2): 1}), "nodes before it"),
            "not active": (graph(4, {(0, 1): -1, (1, 2): -1, (2, 3): 1}), "No feature is active"),
            "too small": (graph(3, {(0, 1): 1, (1, 2): 1}), "square matrix"),
            "words": ("f0.1", "list of rows"),
        },
    ),
    "11.5": (
        [keys(), lambda terms, names, bias: set(keys()(terms, names, bias))],
        {
            "threshold of 0": (keys(threshold=False), "not above 0"),
            "at the query": (keys(axis=1), "at the query"),
            "all that raise it": (keys(positive=True), "does not mean"),
            "none": (lambda terms, names, bias: [], "Take a whole column"),
            "a number": (lambda terms, names, bias: 2, "list of names"),
        },
    ),
}

(
    test_right_answers_pass_and_plausible_wrong_ones_do_not,
    test_a_wrong_answer_hears_what_to_look_at,
    test_every_exercise_is_tested,
) = grader_tests("11", ANSWERS)
