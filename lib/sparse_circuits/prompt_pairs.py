"""Pairs of prompts that differ in what matters: the clean one, and the corrupted one whose activations are put in.

First used in chapter 9.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .planted.base import Prompt
from .tasks.contrast import ContrastBatch
from .two_way import TwoWayPrompts

# Maps prompts and their logits at the answer positions, (n, d_vocab), to one number for each prompt, (n,).
Metric = Callable[[TwoWayPrompts, Float[Tensor, "n d_vocab"]], Float[Tensor, " n"]]


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Clean prompts with their answers, and a corrupted prompt of the same length for each.

    Parameters
    ----------
    clean : TwoWayPrompts
        The prompts that the model is asked.
    corrupted : int tensor, shape (n, pos)
        Where the values of ablated edges come from; padded as the clean ones are.

    Raises
    ------
    ValueError
        If the two sides do not have the same number of prompts and positions.

    Examples
    --------
    >>> pairs = PromptPairs.of(contrast_pairs("single_double_quote", 64, seed=0))
    >>> len(pairs)    # each half once as the clean prompt, once as the corrupted one
    128
    """

    clean: TwoWayPrompts
    corrupted: Int[Tensor, "n pos"]

    def __post_init__(self) -> None:
        if self.corrupted.shape != self.clean.tokens.shape:
            raise ValueError(
                f"The corrupted prompts have shape {tuple(self.corrupted.shape)}, the clean ones "
                f"{tuple(self.clean.tokens.shape)}; give one corrupted prompt of the same length for each clean one."
            )

    @classmethod
    def of(cls, clean: ContrastBatch | Sequence[Prompt], corrupted: Sequence[Prompt] | None = None) -> PromptPairs:
        """Return both halves of contrast pairs, each corrupted by the other, or two lists of planted prompts.

        Raises
        ------
        ValueError
            If a planted prompt and its partner have different lengths, or the lists have.
        """
        prompts = TwoWayPrompts.of(clean)
        if isinstance(clean, ContrastBatch):
            return cls(prompts, torch.stack([clean.negative, clean.positive], dim=1).flatten(0, 1))
        n_corrupted = 0 if corrupted is None else len(corrupted)
        if n_corrupted != len(clean):
            raise ValueError(
                f"There are {len(clean)} clean prompts and {n_corrupted} corrupted ones; give one for each."
            )
        for i, (one, other) in enumerate(zip(clean, corrupted, strict=True)):
            if len(one.tokens) != len(other.tokens):
                raise ValueError(
                    f"Pair {i} has {len(one.tokens)} clean tokens and {len(other.tokens)} corrupted ones; give prompts "
                    "of the same length, so that each position has a counterpart."
                )
        return cls(prompts, TwoWayPrompts.of(corrupted).tokens)

    @property
    def corrupted_prompts(self) -> TwoWayPrompts:
        """The corrupted tokens as prompts, with the answers and answer positions of the clean ones."""
        return replace(self.clean, tokens=self.corrupted)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: Int[Tensor, " m"] | slice) -> PromptPairs:
        """Return some of the pairs."""
        return PromptPairs(self.clean[rows], self.corrupted[rows])

    def batches(self, bytes_each: int, memory: int) -> Iterator[PromptPairs]:
        """Yield the pairs in batches of which each needs at most `memory` bytes, and of one pair at least.

        Parameters
        ----------
        bytes_each : int
            What one pair needs.
        memory : int
            What a batch may need.
        """
        size = max(1, memory // bytes_each)
        return (self[start : start + size] for start in range(0, len(self), size))
