"""The prompts that a page offers: read as token numbers and checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparse_circuits.circuit import listed

if TYPE_CHECKING:
    from sparse_circuits.two_way import TwoWayPrompts

VISIBLE = {" ": "␣", "\n": "⏎", "\t": "⇥"}
UNDECODED = "\ufffd"
OPEN_STRINGS = ('print("hello', "print('hello")


@dataclass(frozen=True)
class Prompt:
    """A prompt as token numbers, and the right next token if one is known."""

    tokens: list[int]
    answer: int | None


def visible(token: str) -> str:
    """Return a token with signs for its white space; of a long run of spaces, one and how many."""
    short = re.sub(" {5,}", lambda run: f"␣×{len(run[0])}", token)
    return "".join(VISIBLE.get(letter, letter) for letter in short)


def read_vocabulary(vocabulary: Sequence[str] | None, d_vocab: int) -> list[str]:
    """Return the tokens by number: those given, or the book's own; raise if they do not fit the model."""
    if vocabulary is None:
        vocabulary = _own_vocabulary(d_vocab)
    vocabulary = listed(vocabulary, "vocabulary")
    if len(vocabulary) != d_vocab:
        raise ValueError(f"vocabulary has {len(vocabulary)} tokens, the model {d_vocab}; name each row of W_E once.")
    twice = sorted(token for token, times in Counter(vocabulary).items() if times > 1 or not token)
    if twice:
        raise ValueError(f"vocabulary has {twice[0]!r} twice or empty; give each token a name of its own.")
    return vocabulary


def _own_vocabulary(d_vocab: int) -> list[str]:
    from sparse_circuits.tasks.tokenizer import load_tokenizer

    tokenizer = load_tokenizer()
    if tokenizer.d_vocab != d_vocab:
        raise ValueError(
            f"The model has {d_vocab} tokens and the book's tokenizer {tokenizer.d_vocab}; give vocabulary, the token "
            "of each row of W_E."
        )
    names = [tokenizer.token(number) for number in range(d_vocab)]
    # Parts of a letter of several bytes have no text of their own.
    return [f"<token {number}>" if UNDECODED in name else name for number, name in enumerate(names)]


def default_prompts(vocabulary: list[str]) -> list[list[int]]:
    """Return an open double and an open single quote, if the vocabulary is the book's; raise if it is another."""
    from sparse_circuits.tasks.tokenizer import load_tokenizer

    tokenizer = load_tokenizer()
    if len(vocabulary) != tokenizer.d_vocab or vocabulary != _own_vocabulary(len(vocabulary)):
        raise ValueError("prompts is not given and the vocabulary is not the book's; give at least one prompt.")
    return [[tokenizer.start_id, *tokenizer.encode(text)] for text in OPEN_STRINGS]


def read_prompts(
    prompts: Sequence[Sequence[str | int]] | TwoWayPrompts,
    answers: Sequence[str | int] | None,
    vocabulary: list[str],
    n_ctx: int,
) -> list[Prompt]:
    """Return prompts and answers as token numbers; raise if one is empty, too long or not in the vocabulary."""
    if hasattr(prompts, "right") and hasattr(prompts, "position"):
        answers = prompts.right.tolist() if answers is None else answers
        rows = zip(prompts.tokens.tolist(), prompts.position.tolist(), strict=True)
        prompts = [tokens[: last + 1] for tokens, last in rows]
    prompts = listed(prompts, "prompts")
    if not prompts:
        raise ValueError("prompts is empty; give at least one prompt, a list of tokens.")
    answers = [None] * len(prompts) if answers is None else listed(answers, "answers")
    if len(answers) != len(prompts):
        raise ValueError(f"There are {len(answers)} answers for {len(prompts)} prompts; give one for each.")
    ids = {token: number for number, token in enumerate(vocabulary)}
    known = vocabulary if len(vocabulary) <= 20 else f"of {len(vocabulary)} tokens"

    def read(token: str | int, where: str) -> int:
        if isinstance(token, int) and 0 <= token < len(vocabulary):
            return token
        if token not in ids:
            raise ValueError(f"{where} has the token {token!r}, which is not in the vocabulary {known}.")
        return ids[token]

    found = []
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        prompt = listed(prompt, f"prompts[{number}]")
        if not 1 <= len(prompt) <= n_ctx:
            raise ValueError(f"prompts[{number}] has {len(prompt)} tokens; the model reads 1 to {n_ctx}.")
        tokens = [read(token, f"prompts[{number}]") for token in prompt]
        found.append(Prompt(tokens, None if answer is None else read(answer, f"answers[{number}]")))
    return found
