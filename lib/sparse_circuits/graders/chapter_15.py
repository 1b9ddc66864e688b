"""Graders of chapter 15: each runs the reader's function on small inputs, or prunes the reader's input itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..grading import Wrong, grader
from ..sparsity import InputPruning, Pattern, energy_lost_by, pattern_mask, prune_input

SIZES = ((2, 4), (4, 8), (1, 3), (5, 5))
CLOSE = 1e-5
BREAK_WIDTH, LOST_AT_LEAST, LOST_AT_MOST = 16, 0.45, 0.01
LEAK_SHAPE = (2, 8)


def by_rank(row: list[float], n: int, m: int) -> list[float]:
    """Keep the n of largest magnitude in every m, the first of equals: the definition, one group at a time."""
    kept = [0.0] * len(row)
    for start in range(0, len(row), m):
        for i in sorted(range(start, start + m), key=lambda i: -abs(row[i]))[:n]:
            kept[i] = row[i]
    return kept


def _tensor(found: object, shape: Sequence[int], what: str) -> Tensor:
    if not isinstance(found, Tensor) or tuple(found.shape) != tuple(shape):
        shown = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
        raise Wrong(f"{what} is {shown}; it has to be a tensor of shape {tuple(shape)}.")
    return found.detach()


def _inputs(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) + 0.7


@grader("15.1")
def grade_keep_n_of_m(answer: Callable[[Tensor, int, int], Tensor]) -> str:
    """Compare the reader's function with a sort of each group, with and without ties."""
    for n, m in SIZES:
        x = _inputs(6, 4 * m)
        given = x.clone()
        found = _tensor(answer(x, n, m), x.shape, "What your function returns")
        if not torch.equal(x, given):
            raise Wrong("Your function changes its input. Return a new tensor, and leave x as it is.")
        counts = found.view(6, -1, m).count_nonzero(-1)
        if (counts != n).any():
            raise Wrong(
                f"For {n}:{m} some groups keep {counts[counts != n][0]} entries. A group is {m} consecutive channels "
                "of one token, and exactly n stay in each."
            )
        if not torch.equal(found, torch.tensor([by_rank(row, n, m) for row in x.tolist()])):
            raise Wrong(f"For {n}:{m} every group keeps {n}, but not the ones of largest magnitude, with their values.")
    tied = torch.tensor([[1.0, -1.0, 1.0, 2.0, -3.0, 3.0, 3.0, 3.0]])
    found = _tensor(answer(tied, 2, 4), tied.shape, "What your function returns")
    if found.tolist() != [by_rank(tied[0].tolist(), 2, 4)]:
        raise Wrong(
            f"From {tied[0].tolist()} your function keeps {found[0].tolist()}. Of equal magnitudes the first stays, "
            "and never more than two: a threshold alone does not settle ties."
        )
    return f"Equal to a sort of each group for {len(SIZES)} patterns, and with ties."


@grader("15.2")
def grade_cheap_shift(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> str:
    """Check that the first tensor is sparse, and that the second is the output of the shifted layer."""
    for seed in range(3):
        x, weight = _inputs(5, 12, seed), torch.randn(12, 7, generator=torch.Generator().manual_seed(seed))
        pair = answer(x.clone(), weight.clone())
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise Wrong(f"Your function returned {type(pair).__name__}; return two tensors, what is multiplied and y.")
        kept = _tensor(pair[0], x.shape, "The first of the two")
        found = _tensor(pair[1], (5, 7), "The second of the two")
        centred = x - x.mean(-1, keepdim=True)
        if (kept.view(5, -1, 4).count_nonzero(-1) > 2).any():
            raise Wrong(
                "What you multiply with W has more than two entries in some group of four. The shift must not be put "
                "back before the product."
            )
        if not torch.allclose(kept, prune_input(centred, weight, InputPruning(Pattern(2, 4))), atol=CLOSE):
            raise Wrong("What you multiply is 2:4 sparse, but it is not prune(x - mean), with one mean for each token.")
        expected = prune_input(x, weight, InputPruning(Pattern(2, 4), shift="mean")) @ weight
        if not torch.allclose(found, expected, atol=1e-4):
            raise Wrong(
                "The first tensor is right, and y is not x' @ W. What does the shift s of a token, the same for all "
                "channels, add to each output?"
            )
    return "Sparse times dense plus one number per token gives the output of the shifted layer."


@grader("15.3")
def grade_mended_variance(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Compare the reader's correction with the definition on tokens of different sizes."""
    x = _inputs(6, 16) * torch.tensor([0.1, 1.0, 10.0, 1.0, 3.0, 0.5])[:, None]
    kept = x * pattern_mask(x, Pattern(2, 4))
    found = _tensor(answer(x.clone(), kept.clone()), x.shape, "What your function returns")
    if ((found != 0) & (kept == 0)).any():
        raise Wrong("Entries that were pruned are no longer zero. Multiply what is left, and add nothing.")
    before, after = x.var(-1), found.var(-1)
    if not torch.allclose(after, before, rtol=1e-4):
        token = int(((after - before).abs() / before).argmax())
        raise Wrong(
            f"Token {token} has variance {before[token]:.3g} before and {after[token]:.3g} after. Each token has its "
            "own factor, and a variance grows with the square of it."
        )
    if (found * kept < 0).any():
        raise Wrong("The variances are right, but some entries changed their sign. The factor is positive.")
    nothing = answer(torch.ones(1, 4), torch.ones(1, 4))
    if not isinstance(nothing, Tensor) or not torch.isfinite(nothing).all():
        raise Wrong("A token whose kept entries are all equal has no variance, and your function divides by it.")
    return "Every token has its variance back, and one without variance does no harm."


@grader("15.4")
def grade_cruel_input(answer: Sequence[float]) -> str:
    """Prune the reader's token with 2:4 and without structure."""
    try:
        x = torch.tensor([float(value) for value in answer], dtype=torch.float64)
    except (TypeError, ValueError):
        raise Wrong(f"Your answer is {answer!r}; give a list of {BREAK_WIDTH} numbers.") from None
    if len(x) != BREAK_WIDTH or not torch.isfinite(x).all() or not x.any():
        raise Wrong(f"Give {BREAK_WIDTH} finite numbers, not all zero; yours are {x.tolist()}.")
    lost = {name: energy_lost_by(x, x * pattern_mask(x, Pattern.parse(name))) for name in ("2:4", "unstructured")}
    if lost["unstructured"] > LOST_AT_MOST:
        raise Wrong(
            f"Half of your entries carry {1 - lost['unstructured']:.1%} of the energy; they have to carry 99 %. Make "
            "half of them small."
        )
    if lost["2:4"] < LOST_AT_LEAST:
        raise Wrong(
            f"2:4 loses {lost['2:4']:.1%} of the energy, and should lose 45 %. Where do your large entries stand?"
        )
    return f"2:4 loses {lost['2:4']:.1%} of the energy, and half without structure {lost['unstructured']:.1%}."


@grader("15.5")
def grade_leak(answer: tuple[Tensor, Tensor]) -> str:
    """Prune both of the reader's inputs with CLACT, and look at what is kept of the first token."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"Your answer is {type(answer).__name__}; give two inputs, each of shape {LEAK_SHAPE}.")
    first, second = (
        _tensor(x if isinstance(x, Tensor) else torch.as_tensor(x), LEAK_SHAPE, f"Input {place}").double()
        for place, x in enumerate(answer, 1)
    )
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise Wrong("Some entries are not finite; give numbers.")
    if not torch.equal(first[0], second[0]):
        raise Wrong("The first tokens differ. Only the second token, which comes later, may.")
    weight = torch.ones(LEAK_SHAPE[1], 3, dtype=torch.float64)
    kept = [prune_input(x, weight, InputPruning(Pattern(2, 4), "CLACT"))[0] != 0 for x in (first, second)]
    if torch.equal(*kept):
        raise Wrong(
            f"Of the first token the same channels stay: {kept[0].nonzero().flatten().tolist()}. CLACT multiplies each "
            "magnitude with the length of its channel over all tokens; make the later token large in one channel."
        )
    return (
        f"Of the same first token, channels {kept[0].nonzero().flatten().tolist()} stay before one future and "
        f"{kept[1].nonzero().flatten().tolist()} before the other."
    )
