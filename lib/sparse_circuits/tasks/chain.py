"""Filler words: a Markov chain of which only the last word matters, and what the synthetic languages have in common.

First used in chapter 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

START = 0
# With which chance each successor follows a word; which words they are is drawn once, from `CHAIN_SEED`.
CHANCES = (1 / 2, 1 / 4, 1 / 8, 1 / 8)
CHAIN_SEED = 0


@dataclass(frozen=True, eq=False)
class KnownSequences:
    """Sequences of a language whose every chance is known.

    Parameters
    ----------
    tokens : int tensor, shape (n, length)
        Token ids; the first is `START`.
    log_chances : float32 tensor, shape (n, length - 1)
        Natural logarithm of the chance of token i + 1 given all before it: what the best possible model would assign.
    answers : dict of str to bool tensor, shape (n, length)
        For each task, the tokens that only a model which does the task can know.
    """

    tokens: Int[Tensor, "n length"]
    log_chances: Float[Tensor, "n length_less_one"]
    answers: dict[str, Bool[Tensor, "n length"]]

    @property
    def floor(self) -> float:
        """The least possible loss on these sequences, in nats per token."""
        return -self.log_chances.mean().item()


@dataclass(frozen=True)
class FillerChain:
    """Words of which each has four successors.

    Parameters
    ----------
    n : int
        Number of words, counted from 0.

    Raises
    ------
    ValueError
        If there are fewer words than successors.
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < len(CHANCES):
            raise ValueError(f"There are {self.n} filler words; give at least {len(CHANCES)}.")

    @cached_property
    def successors(self) -> Int[Tensor, "word successor"]:
        """Which words may follow each, likeliest first."""
        generator = torch.Generator().manual_seed(CHAIN_SEED)
        orders = [torch.randperm(self.n, generator=generator) for _ in range(self.n)]
        return torch.stack(orders)[:, : len(CHANCES)]

    def walks(self, n: int, length: int, generator: torch.Generator) -> Int[Tensor, "n length"]:
        """Draw walks along the chain, each from a random word on; of length 0 if nothing is to be drawn."""
        if length == 0:
            return torch.empty(n, 0, dtype=torch.long)
        words = torch.randint(self.n, (n, 1), generator=generator)
        steps = self.steps(n * (length - 1), generator).view(n, length - 1)
        for step in steps.T:
            words = torch.cat([words, self.successors[words[:, -1], step][:, None]], dim=1)
        return words

    @staticmethod
    def steps(n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Draw which successor follows, `n` times."""
        if n == 0:
            return torch.empty(0, dtype=torch.long)
        return torch.multinomial(torch.tensor(CHANCES), n, replacement=True, generator=generator)
