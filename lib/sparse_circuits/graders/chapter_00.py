"""Graders of chapter 00. Each one runs the answer; none compares it with a stored solution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from ..editing import cut_edges, keep_edges, set_edge
from ..grading import Wrong, grader
from ..planted import PlantedCircuit, planted_bracket_circuit, planted_quote_circuit

POSITION_EDGE = "blocks.1.ln1.hook_normalized[7] -> blocks.1.attn.hook_k[0]"
THRESHOLD_EDGE = "blocks.0.ln2.hook_normalized[2] -> blocks.0.mlp.hook_post[0]"
WEAKENED = 0.7
CLOSE_WITH = 11
PAR_EDGES = 6
SHORT = 13
TOLERANCE = 1e-4


@cache
def quotes() -> PlantedCircuit:
    return planted_quote_circuit()


@cache
def brackets() -> PlantedCircuit:
    return planted_bracket_circuit()


@grader("00.1")
def head_by_hand(head: Callable[[torch.Tensor], float]) -> str:
    """Compare the reader's head with the model's, on what attention reads and on random vectors."""
    attention = quotes().model.blocks[1].attn
    prompts = quotes().sample(40, seed=1)
    reads = [torch.randn(length, len(quotes().channels)) for length in range(2, 9)]
    reads += [_attention_read(prompt.tokens) for prompt in prompts]
    for x in reads:
        with torch.no_grad():
            expected = attention(x[None])[0, -1, CLOSE_WITH].item()
        got = head(x)
        value = got.item() if isinstance(got, torch.Tensor) and got.numel() == 1 else got
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Wrong(f"The function returned {type(got).__name__}; return one number.")
        if not math.isclose(value, expected, abs_tol=TOLERANCE):
            raise Wrong(
                f"On an input of {len(x)} tokens the model's head writes {expected:.4f}, yours {value:.4f}. "
                + _likely_mistake(x, value)
            )
    return f"Equal to the model's head on {len(reads)} inputs."


def _attention_read(tokens: tuple[int, ...]) -> torch.Tensor:
    name = "blocks.1.ln1.hook_normalized"
    _, cache = quotes().model.run_with_cache(torch.tensor([tokens]), names_filter=name)
    return cache[name][0]


def _likely_mistake(x: torch.Tensor, value: float) -> str:
    """Say which step is missing if leaving it out gives the reader's value."""
    score = 4 * (2 * x[:, 9] + 1.25 * x[:, 7])
    values = 0.5 * x[:, 10]
    weights = score.softmax(0)
    attempts = {
        "Multiply the key by the query, which is 4, before the softmax.": (score / 4).softmax(0) @ values,
        "The value is half of channel 10.": weights @ x[:, 10],
        "The key reads the position (channel 7) too.": (8 * x[:, 9]).softmax(0) @ values,
        "The weights have to sum to 1: apply the softmax.": score @ values,
        "A softmax is not a maximum: every token has its share.": values[score.argmax()],
        "This is a plain average; the attention weights are missing.": values.mean(),
    }
    for message, attempt in attempts.items():
        if math.isclose(attempt.item(), value, abs_tol=TOLERANCE):
            return message
    return "Compare score, softmax and value with the equations, one after the other."


@grader("00.2")
def smallest_half(edges: list[str]) -> str:
    """Keep only the reader's edges and close strings with double quotes."""
    planted = quotes()
    if isinstance(edges, str) or not all(isinstance(edge, str) for edge in edges):
        raise Wrong("Give a list of edge names, as quotes.circuit.edges() returns them.")
    try:
        kept = planted.circuit.from_names(planted.graph, edges)
    except ValueError as error:
        raise Wrong(str(error)) from error
    prompts = [prompt for prompt in planted.every_prompt() if prompt.group == "double"]
    accuracy = planted.accuracy(keep_edges(planted.model, kept), prompts)
    if accuracy < 1:
        raise Wrong(
            f"With your {kept.count_edges()} edges the model is right on {accuracy:.0%} of these prompts. "
            "Follow the kind from the opening token to the end, and look for the step that is missing."
        )
    if kept.count_edges() > PAR_EDGES:
        raise Wrong(
            f"All of these prompts are right, with {kept.count_edges()} edges. Fewer will do: which edges only speak "
            "when a single quote is there, or when two kinds compete?"
        )
    return f"{kept.count_edges()} edges and {kept.count_nodes()} nodes are enough, for {len(prompts)} prompts."


@grader("00.3")
def one_cut_at_a_time(accuracies: Callable[[PlantedCircuit], dict[str, float]]) -> str:
    """Run the reader's measurement on fresh models and compare it with one cut at a time."""
    for planted in (_short(planted_quote_circuit()), _short(planted_bracket_circuit())):
        weights = [parameter.clone() for parameter in planted.model.parameters()]
        found = accuracies(planted)
        if not isinstance(found, dict) or set(found) != set(planted.carries):
            raise Wrong("Return a dictionary with one accuracy for every edge in planted.carries.")
        if not all(map(torch.equal, weights, planted.model.parameters())):
            raise Wrong("The function changed the model it was given; cut edges in a copy.")
        for edge in planted.carries:
            expected = _accuracy_without(planted.name, edge)
            if not math.isclose(found[edge], expected, abs_tol=1e-9):
                raise Wrong(_measurement_mistake(planted, edge, found, expected))
    return "Each edge was cut alone, and every valid prompt was asked."


def _short(planted: PlantedCircuit) -> PlantedCircuit:
    """Return the same circuit with fewer prompts, which still hold three calls: so that grading is quick."""
    return replace(planted, exhaustive_tokens=SHORT)


@cache
def _accuracy_without(name: str, edge: str) -> float:
    planted = _short({"quotes": quotes, "brackets": brackets}[name]())
    return planted.accuracy(cut_edges(planted.model, [edge]))


def _measurement_mistake(planted: PlantedCircuit, edge: str, found: dict[str, float], expected: float) -> str:
    cause = (
        "Is anything left over from the edges cut before?"
        if found[edge] < expected
        else "Do your prompts contain the case that this edge is for?"
    )
    return (
        f"Cutting {edge} leaves {expected:.3f} of all {planted.name} prompts right; you have {found[edge]:.3f}. {cause}"
    )


@grader("00.4")
def fooled_by_a_weak_edge(text: str) -> str:
    """Check that the prompt is valid, and that only the weakened model gets it wrong."""
    planted = quotes()
    if not isinstance(text, str):
        raise Wrong(f"Give the prompt as one string, not as {type(text).__name__}.")
    try:
        prompt = planted.prompt(text)
    except ValueError as error:
        raise Wrong(str(error)) from error
    (answer,) = planted.answers([prompt], set_edge(planted.model, POSITION_EDGE, WEAKENED))
    if answer == prompt.right:
        raise Wrong(
            f"The weakened model answers {planted.vocabulary[answer]!r}, which is right. The prompt is of the group "
            f"{prompt.group!r}. What would draw attention away from the last opening token?"
        )
    return f"The weakened model answers {planted.vocabulary[answer]!r} instead of {planted.vocabulary[prompt.right]!r}."


@grader("00.5")
def threshold_that_lasts(weight: int) -> str:
    """Run the bracket model with the reader's weight, and with one less, on a prompt of every length and depth."""
    if isinstance(weight, bool) or not isinstance(weight, int):
        raise Wrong(f"Give a whole number, not {weight!r}.")
    planted = brackets()
    prompts = [planted.prompt(f"x = {start}" + ", 1" * n) for start in ("[1", "[[1") for n in range(15)]

    def shortest_wrong(candidate: int) -> int:
        answers = planted.answers(prompts, set_edge(planted.model, THRESHOLD_EDGE, candidate))
        failed = [len(p.tokens) for p, answer in zip(prompts, answers, strict=True) if answer != p.right]
        return min(failed, default=0)

    if length := shortest_wrong(weight):
        raise Wrong(
            f"With weight {weight} a prompt of {length} tokens gets the wrong answer. What does the neuron say there?"
        )
    if not shortest_wrong(weight - 1):
        raise Wrong(f"{weight} works, but so does {weight - 1}. Look for the smallest.")
    return f"{weight} is right at every length, {weight - 1} is not."
