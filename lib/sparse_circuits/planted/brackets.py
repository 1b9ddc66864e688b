"""The planted bracket circuit: close a list with `]` or `]]`, by how deep it is nested."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from math import sqrt

from ..circuit import Circuit
from ..graph import weight_graph
from ..model import TransformerConfig
from .base import PlantedCircuit, Prompt, compiled

N_CTX, EXHAUSTIVE_TOKENS = 32, 16
VOCABULARY = ("x = ", "[", "]", "]]", ", ", "1", "2", "3")
START, OPEN, CLOSE, CLOSE_BOTH, COMMA, ONE, TWO, THREE = range(8)
NUMBERS = (ONE, TWO, THREE)
CHANNELS = ("bracket", "ballast", "depth", "nested")
BRACKET, BALLAST, DEPTH, NESTED = range(4)


RULE = "Write x = [1, [2, 3], [1 and the like: end after an item, with one or two brackets open."
# One letter per token, so that a regular expression can say what a valid prompt is.
LETTERS = "s[]?,111"
LIST = r"\[1(,1)*"
VALID = re.compile(rf"s\[((1|{LIST}\]),)*(1|{LIST}\]?)")


def planted_bracket_circuit() -> PlantedCircuit:
    """Return a one-layer model that tells `]` from `]]`, with the circuit that does it: 6 nodes, 4 edges.

    The model reads an unfinished list such as `x = [[1, 2], [3` and answers with the token that closes all of it, `]]`.
    The mechanism follows section 4 of arXiv 2511.13653 (7 nodes, 4 edges there): attention without query and key
    averages over all tokens, so its value counts brackets per token, and a threshold decides between two depths.
    Unlike the paper's model, this one is compiled by hand, not trained, and its threshold does not drift with length.

    A valid prompt is `x = ` and a list of numbers and of lists of numbers, cut off after an item when one or two
    brackets are open; at most 32 tokens, which is as many as the model reads. `group` is `"depth 1"` or `"depth 2"`.

    Notes
    -----
    Why no valid prompt can fail. All numbers share one row of `W_E`, so 65 534 prompts stand for all; the tests run
    each. The reason behind it: the value is +1 for `[`, -1 for `]` and -1.5 for `x = `, so over n tokens the average
    is (depth - 1.5) / n: negative at depth 1, positive at depth 2, whatever n is. Every row of `W_E` has length 2, so
    with 4 channels RMSNorm divides by 1 and cannot weigh tokens differently; later norms divide by positive numbers,
    which keep the sign. The neuron has no bias: it is 0 at depth 1 and 64 * 0.5 / n, so at least 1, at depth 2. Float32
    errors of the average are below 1e-6, its smallest size is 0.5 / 32. With the neuron at 0 the bias of `]` wins by 4;
    with the neuron at 1 or more, `]]` has a logit of at least 7.
    """
    cfg = TransformerConfig(
        len(VOCABULARY), N_CTX, n_layers=1, d_model=4, n_heads=1, d_head=1, d_mlp=1, act_fn="relu", positions=False
    )
    brackets = dict.fromkeys(range(len(VOCABULARY)), 0.0) | {START: -1.5, OPEN: 1.0, CLOSE: -1.0}
    model = compiled(
        cfg,
        {
            "W_E": {(token, BRACKET): x for token, x in brackets.items()}
            | {(token, BALLAST): sqrt(4 - x * x) for token, x in brackets.items()},
            "blocks.0.attn.W_V": {(BRACKET, 0): 1},
            "blocks.0.attn.W_O": {(0, DEPTH): 1},
            "blocks.0.mlp.W_in": {(DEPTH, 0): 64},
            "blocks.0.mlp.W_out": {(0, NESTED): 1},
            "W_U": {(NESTED, CLOSE_BOTH): 8},
            "b_U": {(CLOSE,): 4},
        },
    )
    carries = {
        f"blocks.0.ln1.hook_normalized[{BRACKET}] -> blocks.0.attn.hook_v[0]": "+1 at `[`, -1 at `]`, -1.5 at `x = `",
        f"blocks.0.attn.hook_v[0] -> blocks.0.hook_attn_out[{DEPTH}]": "the average over all tokens: (depth - 1.5) / n",
        f"blocks.0.ln2.hook_normalized[{DEPTH}] -> blocks.0.mlp.hook_post[0]": "the threshold: fires above zero",
        f"blocks.0.mlp.hook_post[0] -> blocks.0.hook_mlp_out[{NESTED}]": "two brackets are open: say `]]`",
    }
    circuit = Circuit.from_names(weight_graph(model), carries)
    return PlantedCircuit(
        "brackets", model, circuit, VOCABULARY, CHANNELS, carries, EXHAUSTIVE_TOKENS, _draw, _shapes, _read, RULE
    )


def _prompt(tokens: tuple[int, ...], depth: int) -> Prompt:
    right, wrong = (CLOSE, CLOSE_BOTH) if depth == 1 else (CLOSE_BOTH, CLOSE)
    return Prompt(tokens, right, wrong, f"depth {depth}")


def _read(tokens: tuple[int, ...]) -> Prompt | None:
    valid = VALID.fullmatch("".join(LETTERS[token] for token in tokens))
    return _prompt(tokens, tokens.count(OPEN) - tokens.count(CLOSE)) if valid else None


def _next(last: int, depth: int) -> tuple[int, ...]:
    """The kinds of token that may follow inside the list; a number stands for all numbers."""
    if last in (OPEN, COMMA):
        return (ONE, OPEN) if depth == 1 else (ONE,)
    return (COMMA, CLOSE) if depth == 2 else (COMMA,)


def _shapes(limit: int) -> Iterator[Prompt]:
    unfinished = [((START, OPEN), 1)] if limit >= 3 else []
    while unfinished:
        tokens, depth = unfinished.pop()
        if tokens[-1] in (ONE, CLOSE):
            yield _prompt(tokens, depth)
        if len(tokens) < limit:
            unfinished += [(*_step(tokens, depth, token),) for token in _next(tokens[-1], depth)]


def _step(tokens: tuple[int, ...], depth: int, token: int) -> tuple[tuple[int, ...], int]:
    return (*tokens, token), depth + (token == OPEN) - (token == CLOSE)


def _draw(generator: random.Random) -> Prompt:
    length = generator.randint(3, N_CTX)
    tokens, depth = (START, OPEN), 1
    while len(tokens) < length:
        choices = _next(tokens[-1], depth)
        if len(tokens) == length - 1:
            choices = tuple(token for token in choices if token in (ONE, CLOSE))
        if not choices:
            break
        tokens, depth = _step(tokens, depth, generator.choice(choices))
    return _prompt(tuple(generator.choice(NUMBERS) if token == ONE else token for token in tokens), depth)
