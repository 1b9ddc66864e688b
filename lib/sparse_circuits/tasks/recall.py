"""Key-value recall: sequences that state pairs and ask for them again, with the exact chance of every token.

First used in chapter 8. Between filler words of a Markov chain, a key is followed by its value. The first time a key
comes in a sequence its value is drawn; after that it is the same. Filler needs the last token alone, and a value that
comes again needs attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..prompt_pairs import PromptPairs
from ..two_way import TwoWayPrompts
from .chain import CHANCES, START, FillerChain, KnownSequences


@dataclass(frozen=True)
class KeyValueRecall:
    """The language of key-value recall.

    Parameters
    ----------
    n_keys, n_values, n_filler : int
        Tokens of each kind; ids are `START`, then keys, values and filler words, in this order.
    share : float
        Chance that a key comes where a key or a filler word may come.

    Raises
    ------
    ValueError
        If there are fewer than 2 keys or values, or fewer filler words than successors, or if the share is not within
        (0, 1).
    """

    n_keys: int = 16
    n_values: int = 16
    n_filler: int = 31
    share: float = 0.3

    def __post_init__(self) -> None:
        for name in ("n_keys", "n_values"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 2.")
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; give a chance between 0 and 1.")
        _ = self.chain

    @property
    def d_vocab(self) -> int:
        """Number of tokens."""
        return 1 + self.n_keys + self.n_values + self.n_filler

    @property
    def vocabulary(self) -> list[str]:
        """The tokens in words: `k3`, `v0`, `w17`."""
        kinds = (("k", self.n_keys), ("v", self.n_values), ("w", self.n_filler))
        return ["<start>", *(f"{kind}{i}" for kind, n in kinds for i in range(n))]

    @cached_property
    def chain(self) -> FillerChain:
        """The filler words."""
        return FillerChain(self.n_filler)

    def draw(self, n: int, length: int, seed: int) -> KnownSequences:
        """Draw sequences.

        Parameters
        ----------
        n, length : int
            Sequences, and tokens in each, `START` included.
        seed : int
            The same seed draws the same sequences.

        Raises
        ------
        ValueError
            If `n` is below 1 or `length` below 2.
        """
        if n < 1 or length < 2:
            raise ValueError(f"{n} sequences of {length} tokens were asked for; give 1 or more, of 2 tokens or more.")
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(2, length, n, generator=generator)
        keys = torch.randint(self.n_keys, (length, n), generator=generator)
        values = torch.randint(self.n_values, (length, n), generator=generator)
        steps, words = self.chain.steps(length * n, generator).view(length, n), (uniform[1] * self.n_filler).long()
        chances = torch.tensor(CHANCES)
        first_value = 1 + self.n_keys
        first_filler = first_value + self.n_values

        rows = torch.arange(n)
        stated = torch.full((n, self.n_keys), -1)
        tokens = torch.full((n, length), START)
        log_chances, recalled = torch.zeros(n, length), torch.zeros(n, length, dtype=torch.bool)
        for i in range(1, length):
            last = tokens[:, i - 1]
            after_key = (last > START) & (last < first_value)
            key = (last - 1).clamp(0, self.n_keys - 1)
            known = stated[rows, key]
            recalled[:, i] = after_key & (known >= 0)
            value = torch.where(known >= 0, known, values[i])
            stated[rows[after_key], key[after_key]] = value[after_key]

            after_filler = last >= first_filler
            followed = self.chain.successors[(last - first_filler).clamp(min=0), steps[i]]
            filler = torch.where(after_filler, followed, words[i])
            is_key = uniform[0, i] < self.share
            tokens[:, i] = torch.where(
                after_key, first_value + value, torch.where(is_key, 1 + keys[i], first_filler + filler)
            )
            of_filler = torch.where(after_filler, chances[steps[i]], torch.tensor(1 / self.n_filler))
            chance = torch.where(is_key, torch.tensor(self.share / self.n_keys), (1 - self.share) * of_filler)
            of_value = torch.where(known >= 0, 1.0, 1 / self.n_values)
            log_chances[:, i] = torch.where(after_key, of_value, chance).log()
        return KnownSequences(tokens, log_chances[:, 1:], {"recall": recalled})

    def questions(self, n: int, seed: int, stated: int = 6) -> PromptPairs:
        """Return prompts that state some pairs and ask for one of them, with the same kind of token at each position.

        Parameters
        ----------
        n : int
            Couples of prompts. Prompt 2i asks for the second pair, prompt 2i + 1 for the last but one, and each is the
            corrupted prompt of the other.
        seed : int
            The same seed draws the same prompts.
        stated : int
            Pairs in a prompt, each followed by two filler words, after `START`; the key that is asked for ends it.

        Returns
        -------
        PromptPairs
            2n prompts of 2 + 4 `stated` tokens. The two keys of a couple have different values; the value of the one is
            the wrong answer to the other.

        Raises
        ------
        ValueError
            If there are fewer than 4 pairs, or more than keys.
        """
        if not 4 <= stated <= self.n_keys:
            raise ValueError(f"{stated} pairs cannot be stated; give 4 to {self.n_keys}, the number of keys.")
        generator = torch.Generator().manual_seed(seed)
        keys = torch.rand(n, self.n_keys, generator=generator).argsort(1)[:, :stated]
        values = torch.randint(self.n_values, (n, stated), generator=generator)
        asked, other = 1, stated - 2
        apart = torch.randint(1, self.n_values, (n,), generator=generator)
        values[:, other] = (values[:, asked] + apart) % self.n_values
        words = self.chain.walks(n * stated, 2, generator).view(n, stated, 2)
        first_value, first_filler = 1 + self.n_keys, 1 + self.n_keys + self.n_values
        blocks = torch.cat([torch.stack([1 + keys, first_value + values], dim=2), first_filler + words], dim=2)
        context = torch.cat([torch.full((n, 1), START), blocks.flatten(1)], dim=1)
        context = context.repeat_interleave(2, dim=0)
        both = [asked, other]
        question, right = blocks[:, both, 0].flatten(), blocks[:, both, 1].flatten()
        swapped, wrong = blocks[:, both[::-1], 0].flatten(), blocks[:, both[::-1], 1].flatten()
        last = torch.full((2 * n,), context.shape[1])
        clean = TwoWayPrompts(torch.cat([context, question[:, None]], dim=1), last, right, wrong)
        return PromptPairs(clean, torch.cat([context, swapped[:, None]], dim=1))
