"""The planted quote circuit: close a string with the quote that opened it."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from math import sqrt

from ..circuit import Circuit
from ..graph import weight_graph
from ..model import TransformerConfig
from .base import PlantedCircuit, Prompt, compiled

N_CTX = 16
VOCABULARY = ("print", "log", '("', "('", '")', "')", "\n", "hello", "bye", " world", " moon", " and")
PRINT, LOG, OPEN_DOUBLE, OPEN_SINGLE, CLOSE_DOUBLE, CLOSE_SINGLE, NEWLINE, HELLO, BYE, WORLD, MOON, AND = range(12)
FIRST_WORDS, LATER_WORDS = (HELLO, BYE), (WORLD, MOON, AND)
OPENERS, CLOSERS, KINDS = (OPEN_DOUBLE, OPEN_SINGLE), (CLOSE_DOUBLE, CLOSE_SINGLE), ("double", "single")

CHANNELS = (
    "double opener",
    "single opener",
    "closer",
    "newline",
    "name",
    "which name",
    "word",
    "position",
    "balance",
    "a string opens here",
    "kind of quote",
    "close with",
    "call next",
    "end the line",
)
DOUBLE, SINGLE, CLOSER, LINE, NAME, WHICH, WORD, POSITION, BALANCE, HERE, KIND, CLOSE, CALL, END = range(14)


RULE = (
    'Write calls such as print("hello world"), one per line, with hello or bye first in each string, '
    "and end inside the last string, after a word."
)
# One letter per token, so that a regular expression can say what a valid prompt is.
LETTERS = "nndsDSlffwww"
VALID = re.compile("(n(dfw*D|sfw*S)l)*n[ds]fw*")


def planted_quote_circuit() -> PlantedCircuit:
    """Return a two-layer model that closes strings, with the circuit that does it: 13 nodes, 10 edges.

    The model reads little programs such as `print("hello world")`, newline, `log('bye` and answers with the fused token
    that closes the open string, `')`. The mechanism follows figure 4 of arXiv 2511.13653 (9 edges there): two neurons
    of layer 0 detect an opening token; they write that a string opens here, and of which kind; head 0 of layer 1 has
    a constant query, keys that find the opening token and values that carry the kind, and copies the kind to the end.
    The tenth edge is ours: the key reads the position too, so that the latest string wins over earlier, closed ones.
    Unlike the paper's model, this one is compiled by hand, not trained.

    A valid prompt is up to three calls, each a name (`print` or `log`), an opening token, one or more words and, but
    for the last call, a closing token and a newline; at most 16 tokens, which is as many as the model reads. `group`
    says which quote is open and whether a string of the other kind came before.

    Six more edges do other jobs, so that the circuit is not the whole model: head 1 of layer 1 begins a line with the
    name that was called last, and a neuron of layer 1 ends the line after a closing token.

    Notes
    -----
    Why no valid prompt can fail. All words share one row of `W_E`, so 2 056 prompts stand for all; the tests run each.
    The reason behind it: the two position channels have length 1 together, so RMSNorm divides all opening tokens by the
    same number, and the head's score at an opening token is 16.9 + 0.53 p at position p, against at most 13.3 at any
    other token. Openings are at least five tokens apart, so an earlier one gets at most exp(-2.66) = 0.07 of the
    latest one's attention and the kind that arrives has at least 0.8 of its full size. The closing token's logit then
    exceeds 10, the bias of ` and`, which is what the model says when no kind arrives: it goes on with the string.
    """
    shape = {"n_layers": 2, "d_model": len(CHANNELS), "n_heads": 2, "d_head": 1, "d_mlp": 2}
    model = compiled(TransformerConfig(len(VOCABULARY), N_CTX, **shape, act_fn="relu"), _weights())
    carries = _edges()
    inside = list(carries)[:10]
    circuit = Circuit.from_names(weight_graph(model), inside, nodes=["blocks.1.attn.hook_q[0]"])
    return PlantedCircuit("quotes", model, circuit, VOCABULARY, CHANNELS, carries, N_CTX, _draw, _shapes, _read, RULE)


def _weights() -> dict[str, dict[tuple[int, ...], float]]:
    embeddings = {(PRINT, NAME): 1, (LOG, NAME): 1, (PRINT, WHICH): 1, (LOG, WHICH): -1}
    embeddings |= {(OPEN_DOUBLE, DOUBLE): 1, (OPEN_SINGLE, SINGLE): 1, (NEWLINE, LINE): 1}
    embeddings |= {(token, CLOSER): 1 for token in CLOSERS} | {(token, WORD): 1 for token in FIRST_WORDS + LATER_WORDS}
    places = [p / (N_CTX - 1) for p in range(N_CTX)]
    return {
        "W_E": embeddings,
        "W_pos": {(p, POSITION): x for p, x in enumerate(places)}
        | {(p, BALANCE): sqrt(1 - x * x) for p, x in enumerate(places)},
        "blocks.0.mlp.W_in": {(DOUBLE, 0): 1, (SINGLE, 1): 1},
        "blocks.0.mlp.W_out": {(0, HERE): 0.5, (1, HERE): 0.5, (0, KIND): 0.5, (1, KIND): -0.5},
        "blocks.1.attn.b_Q": {(0, 0): 4, (1, 0): 4},
        "blocks.1.attn.W_K": {(HERE, 0): 2, (POSITION, 0): 1.25, (NAME, 1): 2, (POSITION, 1): 1.25},
        "blocks.1.attn.W_V": {(KIND, 0): 0.5, (WHICH, 1): 0.5},
        "blocks.1.attn.W_O": {(0, CLOSE): 1, (1, CALL): 1},
        "blocks.1.mlp.W_in": {(CLOSER, 0): 1},
        "blocks.1.mlp.W_out": {(0, END): 2},
        "W_U": {(CLOSE, CLOSE_DOUBLE): 8, (CLOSE, CLOSE_SINGLE): -8, (CALL, PRINT): 2, (CALL, LOG): -2}
        | {(LINE, PRINT): 16, (LINE, LOG): 16, (END, NEWLINE): 8, (NAME, OPEN_DOUBLE): 16}
        | {(DOUBLE, HELLO): 16, (SINGLE, HELLO): 16},
        "b_U": {(AND,): 10, (PRINT,): 3},
    }


def _edges() -> dict[str, str]:
    """Name the model's 16 edges; the first ten are the circuit's."""
    detect, write = (
        "blocks.0.ln2.hook_normalized[{}] -> blocks.0.mlp.hook_post[{}]",
        "blocks.0.mlp.hook_post[{}] -> blocks.0.hook_mlp_out[{}]",
    )
    read = "blocks.1.ln1.hook_normalized[{}] -> blocks.1.attn.hook_{}[{}]"
    copy = "blocks.1.attn.hook_v[{}] -> blocks.1.hook_attn_out[{}]"
    return {
        detect.format(DOUBLE, 0): 'neuron 0 fires on `("`',
        detect.format(SINGLE, 1): "neuron 1 fires on `('`",
        write.format(0, HERE): "a string opens here (double)",
        write.format(0, KIND): "its kind is double: positive",
        write.format(1, HERE): "a string opens here (single)",
        write.format(1, KIND): "its kind is single: negative",
        read.format(POSITION, "k", 0): "the later the token, the larger its key",
        read.format(HERE, "k", 0): "tokens that open a string have a large key",
        read.format(KIND, "v", 0): "the kind of quote is the value",
        copy.format(0, CLOSE): "the kind arrives at the last token",
        read.format(POSITION, "k", 1): "the later the token, the larger its key (names)",
        read.format(NAME, "k", 1): "names have a large key",
        read.format(WHICH, "v", 1): "which name it is, is the value",
        copy.format(1, CALL): "the name that was called last arrives",
        f"blocks.1.ln2.hook_normalized[{CLOSER}] -> blocks.1.mlp.hook_post[0]": "a neuron fires on closing tokens",
        f"blocks.1.mlp.hook_post[0] -> blocks.1.hook_mlp_out[{END}]": "the line ends here",
    }


def _prompt(kinds: Sequence[int], names: Sequence[int], words: Sequence[Sequence[int]]) -> Prompt:
    calls = zip(kinds, names, words, strict=True)
    tokens = [t for kind, name, text in calls for t in (name, OPENERS[kind], *text, CLOSERS[kind], NEWLINE)]
    return _answered(tuple(tokens[:-2]))


def _answered(tokens: tuple[int, ...]) -> Prompt:
    kinds = [OPENERS.index(token) for token in tokens if token in OPENERS]
    last = kinds[-1]
    group = KINDS[last] + (f" after {KINDS[1 - last]}" if 1 - last in kinds else "")
    return Prompt(tokens, CLOSERS[last], CLOSERS[1 - last], group)


def _read(tokens: tuple[int, ...]) -> Prompt | None:
    valid = VALID.fullmatch("".join(LETTERS[token] for token in tokens))
    return _answered(tokens) if valid else None


def _spare(calls: int, limit: int) -> int:
    """How many words beyond one per call fit: a call has 5 tokens with one word, and the last lacks 2 of them."""
    return limit - (5 * calls - 2)


def _shapes(limit: int) -> Iterator[Prompt]:
    for calls in itertools.takewhile(lambda n: _spare(n, limit) >= 0, itertools.count(1)):
        spare = _spare(calls, limit)
        extras = [e for e in itertools.product(range(spare + 1), repeat=calls) if sum(e) <= spare]
        pairs = itertools.product(
            itertools.product((0, 1), repeat=calls), itertools.product((PRINT, LOG), repeat=calls)
        )
        for (kinds, names), extra in itertools.product(pairs, extras):
            yield _prompt(kinds, names, [[HELLO] + [WORLD] * n for n in extra])


def _draw(generator: random.Random) -> Prompt:
    calls = generator.randint(1, 3)
    extras = [0] * calls
    for _ in range(generator.randint(0, _spare(calls, N_CTX))):
        extras[generator.randrange(calls)] += 1
    words = [[generator.choice(FIRST_WORDS)] + [generator.choice(LATER_WORDS) for _ in range(n)] for n in extras]
    return _prompt([generator.randrange(2) for _ in words], [generator.choice((PRINT, LOG)) for _ in words], words)
