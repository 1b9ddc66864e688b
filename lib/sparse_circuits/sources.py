"""Where a recipe's tokens come from: windows of a long text, sequences of a small language, or sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .metrics import next_token_loss
from .objectives import Loss
from .tasks.addition import VOCABULARY, addition_loss, addition_problems
from .tasks.code import code_tokens
from .tasks.mini_python import mini_python_tokens
from .tasks.mixed import MixedLanguage
from .tasks.recall import KeyValueRecall
from .tasks.tokenizer import load_tokenizer
from .training import BatchSource, random_windows

# Mini-Python has no end; this is what a recipe takes of it, from one seed for each split.
MINI_PYTHON_TOKENS = {"train": 4_000_000, "held_out": 200_000}
# Training draws with even seeds, so no training sequence meets the held-out ones.
HELD_OUT_SEED = 1


@dataclass(frozen=True)
class Source:
    """What a model is trained on and measured on.

    Parameters
    ----------
    d_vocab : callable
        Returns the number of tokens.
    batches : callable
        Maps (tokens per window, windows per batch, seed) to a `BatchSource`; a window has one token more than the model
        reads.
    held_out : callable
        Maps (tokens per window, windows) to held-out windows, shape (window, token).
    loss : callable
        Maps logits (batch, pos, d_vocab) and windows (batch, pos + 1) to nats per token.
    """

    d_vocab: Callable[[], int]
    batches: Callable[[int, int, int], BatchSource]
    held_out: Callable[[int, int], Int[Tensor, "window token"]]
    loss: Loss = next_token_loss


def _text(stream: Callable[[str], Int[Tensor, " n_tokens"]]) -> Source:
    def held_out(length: int, n: int) -> Tensor:
        # Windows share a token at each seam, so that every token but the first is predicted once.
        return stream("held_out")[: n * (length - 1) + 1].unfold(0, length, length - 1)

    return Source(
        d_vocab=lambda: load_tokenizer().d_vocab,
        batches=lambda length, n, seed: random_windows(stream("train"), length, n, seed),
        held_out=held_out,
    )


def _language(language: KeyValueRecall | MixedLanguage) -> Source:
    def batches(length: int, n: int, seed: int) -> BatchSource:
        return lambda step: language.draw(n, length, seed=2 * (seed * 1_000_003 + step)).tokens

    return Source(
        d_vocab=lambda: language.d_vocab,
        batches=batches,
        held_out=lambda length, n: language.draw(n, length, seed=HELD_OUT_SEED).tokens,
    )


def _sums() -> Source:
    def batches(length: int, n: int, seed: int) -> BatchSource:
        problems = _fitting(addition_problems("train"), length)

        def draw(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
            return problems[torch.randint(len(problems), (n,), generator=generator)]

        return draw

    return Source(
        d_vocab=lambda: len(VOCABULARY),
        batches=batches,
        held_out=lambda length, n: _fitting(addition_problems("held_out"), length)[:n],
        loss=addition_loss,
    )


def _fitting(problems: Int[Tensor, "n 12"], length: int) -> Int[Tensor, "n 12"]:
    if length != problems.shape[1]:
        raise ValueError(f"n_ctx is {length - 1}; a model of additions reads {problems.shape[1] - 1} tokens.")
    return problems


def _mini_python(split: str) -> Int[Tensor, " n_tokens"]:
    return mini_python_tokens(MINI_PYTHON_TOKENS[split], seed=list(MINI_PYTHON_TOKENS).index(split))


SOURCES = {
    "stdlib": _text(code_tokens),
    "mini_python": _text(_mini_python),
    "recall": _language(KeyValueRecall(n_keys=8, share=0.5)),
    "mixed": _language(MixedLanguage()),
    "addition": _sums(),
}
