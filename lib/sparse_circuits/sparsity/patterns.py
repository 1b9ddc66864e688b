"""Patterns of zeros: N of every M consecutive entries stay, or the largest of a whole row.

First used in chapter 15.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .selection import BITS, largest_mask

# Groups of these sizes are sorted all at once by comparators; above them a selection in each group takes less time.
COMPARED = (2, 4, 8)
COMPARED_ENTRIES = 2**18


@dataclass(frozen=True)
class Pattern:
    """How many entries of each group of consecutive ones stay.

    Parameters
    ----------
    keep : int
        Entries that stay in every group, N.
    group : int, optional
        Consecutive entries in a group, M. If not given, a whole row is one group ("unstructured", per token), and
        `keep` is a share of it in percent.

    Raises
    ------
    TypeError, ValueError
        If a number is no integer, or `keep` is not between 1 and `group` (or 100 percent).

    Notes
    -----
    N:M of activations: arXiv 2509.22166, section 3; of weights: arXiv 2104.08378. Only 2:4, of weights, runs faster on
    hardware that can be bought.
    """

    keep: int
    group: int | None = None

    def __post_init__(self) -> None:
        for name, number in (("keep", self.keep), ("group", self.group)):
            if not (isinstance(number, int) and not isinstance(number, bool)) and (name, number) != ("group", None):
                raise TypeError(f"{name} is {number!r}; give an integer.")
        largest = 100 if self.group is None else self.group
        if not 1 <= self.keep <= largest:
            raise ValueError(f"keep is {self.keep}; give 1 to {largest}" + (" percent." if self.group is None else "."))

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern that a text names: `"8:16"`, `"unstructured"` (half of a row), or `"unstructured 30 %"`.

        Raises
        ------
        ValueError
            If the text names none.
        """
        if match := re.fullmatch(r"(\d+):(\d+)", text):
            return cls(int(match[1]), int(match[2]))
        if match := re.fullmatch(r"unstructured(?: (\d+) ?%)?", text):
            return cls(int(match[1] or 50))
        raise ValueError(f"{text!r} is no pattern; write '8:16', 'unstructured' or 'unstructured 30 %'.")

    def __str__(self) -> str:
        if self.group is not None:
            return f"{self.keep}:{self.group}"
        return "unstructured" if self.keep == 50 else f"unstructured {self.keep} %"

    def sizes(self, width: int) -> tuple[int, int]:
        """Return N and M for rows of `width` entries; an unstructured pattern keeps the whole number below its share.

        Raises
        ------
        ValueError
            If M does not divide the width, or nothing would stay.
        """
        if self.group is None:
            if self.keep * width < 100:
                raise ValueError(f"{self.keep} % of {width} entries are none; give a larger share or a wider row.")
            return self.keep * width // 100, width
        if width % self.group:
            raise ValueError(f"The pattern {self} does not divide {width} entries; choose an M that divides the width.")
        return self.keep, self.group

    def index_bits(self, width: int) -> float:
        """Return the bits per entry that say which entries stayed, log2(M choose N) / M, in rows of `width` entries.

        This is the least that any format needs. The 2:4 format in use takes 2 bits for each kept entry: 1 per entry.
        """
        keep, group = self.sizes(width)
        return math.log2(math.comb(group, keep)) / group


PATTERNS = tuple(Pattern.parse(text) for text in ("2:4", "4:8", "8:16", "16:32", "unstructured"))


@torch.no_grad()
def pattern_mask(scores: Float[Tensor, "*rows width"], pattern: Pattern) -> Bool[Tensor, "*rows width"]:
    """Return where the entries of largest magnitude of each group stand.

    Parameters
    ----------
    scores : float tensor, shape (..., width)
        The last dimension is cut into groups. Only magnitudes count.
    pattern : Pattern
        How many entries of each group stay.

    Returns
    -------
    bool tensor, shape (..., width)
        True for exactly N of every M entries. Of equal scores the one that stands first stays.

    Raises
    ------
    TypeError
        If the scores are no floating-point numbers.
    ValueError
        If the pattern does not divide the width, or a score is NaN.
    """
    if scores.dtype not in BITS:
        raise TypeError(f"scores have dtype {scores.dtype}; give a floating-point tensor.")
    keep, group = pattern.sizes(scores.shape[-1])
    groups = scores.detach().reshape(-1, group)
    select = _sorted_by_comparators if group in COMPARED else partial(largest_mask, dim=-1)
    mask = select(groups, keep)
    return mask.view(scores.shape)


def _sorted_by_comparators(groups: Float[Tensor, "row group"], keep: int) -> Bool[Tensor, "row group"]:
    """As `largest_mask(groups, keep, -1)`, in less time where groups are small.

    The columns of the groups are sorted with a fixed list of comparators, all rows at once. What is as large as the
    smallest entry to keep stays; only rows with a tie there are looked at again.
    """
    size, bits = groups.shape[1], BITS[groups.dtype]
    infinity = torch.tensor(torch.inf, dtype=groups.dtype).view(bits)
    mask = torch.empty(groups.shape, dtype=torch.bool, device=groups.device)
    at_once = COMPARED_ENTRIES // size
    for part, found in zip(groups.split(at_once), mask.split(at_once), strict=True):
        magnitude = part.view(bits) & torch.iinfo(bits).max
        unsorted = [column.contiguous() for column in magnitude.unbind(1)]
        columns = list(unsorted)
        for low, high in comparators(size):
            pair = columns[low], columns[high]
            columns[low], columns[high] = torch.minimum(*pair), torch.maximum(*pair)
        if len(part) and columns[-1].max() > infinity:
            raise ValueError("scores hold a NaN, which has no magnitude; look for the step that made it.")
        for place, column in enumerate(unsorted):
            torch.ge(column, columns[size - keep], out=found[:, place])
        if found.count_nonzero() != keep * len(part):
            tied = found.sum(1) != keep
            found[tied] = largest_mask(part[tied], keep, 1)
    return mask


@cache
def comparators(size: int) -> tuple[tuple[int, int], ...]:
    """Return which pairs of places to put in order, one after another, so that any list of `size` entries is sorted.

    Parameters
    ----------
    size : int
        A power of two.

    Notes
    -----
    Batcher's odd-even merge sort; 5 comparators for 4 entries, 19 for 8.
    """
    if size == 1:
        return ()
    half = size // 2
    first = comparators(half)
    second = tuple((low + half, high + half) for low, high in first)
    return first + second + tuple(_merging(0, size, 1))


def _merging(start: int, size: int, distance: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs that merge two sorted halves of the entries that stand `distance` apart."""
    if 2 * distance >= size:
        yield start, start + distance
        return
    yield from _merging(start, size, 2 * distance)
    yield from _merging(start + distance, size, 2 * distance)
    for low in range(start + distance, start + size - distance, 2 * distance):
        yield low, low + distance
