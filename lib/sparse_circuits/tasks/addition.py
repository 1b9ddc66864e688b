"""Two-digit addition, all answer digits at once: the toy of arXiv 2512.05865, with the truth about its carries.

First used in chapter 8. A problem is `3 6 + 2 8 = ? ? ? ? ?`, 11 tokens; a model with bidirectional attention writes
the sum, `0 0 0 6 4`, at the five question marks in one run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

VOCABULARY = (*"0123456789", "+", "=", "?")
PLUS, EQUALS, BLANK = 10, 11, 12
N_DIGITS = 5
LENGTH = 6 + N_DIGITS
# Where the digits of the two numbers stand, tens first, and where those of the sum are read.
TENS, UNITS = (0, 3), (1, 4)
SLOTS = tuple(range(6, LENGTH))
N_PROBLEMS, N_HELD_OUT, SPLIT_SEED = 10_000, 1_000, 0


def addition_problems(split: str = "train") -> Int[Tensor, "n 12"]:
    """Return all problems of a split, each with its sum.

    Parameters
    ----------
    split : {"train", "held_out", "all"}
        A fixed thousand of the ten thousand problems is held out.

    Returns
    -------
    int tensor, shape (n, 12)
        The 11 tokens of a problem, and last the sum itself, 0 to 198: a row as the training loop passes it on, whose
        last column is for the loss alone.

    Raises
    ------
    ValueError
        If there is no such split.
    """
    order = torch.randperm(N_PROBLEMS, generator=torch.Generator().manual_seed(SPLIT_SEED))
    rows = {"train": order[N_HELD_OUT:], "held_out": order[:N_HELD_OUT], "all": torch.arange(N_PROBLEMS)}
    if split not in rows:
        raise ValueError(f"There is no split {split!r} of additions; choose one of {list(rows)}.")
    one, other = rows[split] // 100, rows[split] % 100
    constant = torch.ones_like(one)
    problem = [one // 10, one % 10, PLUS * constant, other // 10, other % 10, EQUALS * constant]
    return torch.stack([*problem, *[BLANK * constant] * N_DIGITS, one + other], dim=1)


def sum_digits(sums: Int[Tensor, " n"]) -> Int[Tensor, "n 5"]:
    """Return the five digits of each sum, zeros in front."""
    powers = 10 ** torch.arange(N_DIGITS - 1, -1, -1, device=sums.device)
    return sums[:, None] // powers % 10


def addition_loss(logits: Float[Tensor, "n 11 d_vocab"], problems: Int[Tensor, "n 12"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the five digits of the sum, in nats per digit."""
    return F.cross_entropy(logits[:, SLOTS].flatten(0, 1), sum_digits(problems[:, -1]).flatten())


def solved(logits: Float[Tensor, "n 11 d_vocab"], problems: Int[Tensor, "n 12"]) -> Bool[Tensor, " n"]:
    """Return for each problem whether all five digits are right."""
    return (logits[:, SLOTS].argmax(-1) == sum_digits(problems[:, -1])).all(-1)


def carries(problems: Int[Tensor, "n 12"]) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return for each problem whether the units carry into the tens, and the tens into the hundreds."""
    units = problems[:, UNITS].sum(1) > 9
    return units, problems[:, -1] > 99
