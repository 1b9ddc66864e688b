"""Seeded choices that come out the same on every platform and Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draw:
    """A stream of random choices.

    Only `random.Random.random` is used: the standard library promises that its sequence for a given seed does not
    change between versions, and makes no such promise for `choice`, `sample` or `shuffle`.

    Parameters
    ----------
    *seed : int or str
        What identifies the stream; `Draw("quotes", 3)` and `Draw("quotes", 4)` are independent.

    Raises
    ------
    TypeError
        If a part of the seed is neither an integer nor a string.
    """

    def __init__(self, *seed: int | str) -> None:
        for part in seed:
            if isinstance(part, bool) or not isinstance(part, int | str):
                raise TypeError(f"The seed contains {part!r}; give integers or strings.")
        self._random = random.Random(":".join(map(str, seed))).random

    def below(self, n: int) -> int:
        """Return an integer from 0 to `n - 1`."""
        return int(self._random() * n)

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of `items`."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], k: int) -> list[Item]:
        """Return `k` different entries of `items` in random order.

        Raises
        ------
        ValueError
            If there are fewer than `k` items.
        """
        if k > len(items):
            raise ValueError(f"{k} different items were asked of {len(items)}; ask for fewer.")
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(k)]


def pool(text: str) -> tuple[str, ...]:
    """Return the words of `text`, to be drawn from."""
    return tuple(text.split())
