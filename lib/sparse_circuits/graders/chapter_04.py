"""Graders of chapter 4: each runs the reader's step or training on small problems, or counts by building models."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..grading import Wrong, grader
from ..model import Transformer, TransformerConfig
from ..sparsity import WeightSparsity

ROUNDS, KEPT = 24, 7
WIDTHS = ((2, 8), (4, 8), (3, 16))
FLOORS = (1, 3)
UNITS = (0.003, 0.01, 1.0)
CLOSE = 0.05
MAX_EXAMPLES, MAX_COLUMNS, ALLOWED = 100, 8, 2
EXPLAINED_BY_BEST, EXPLAINED_BY_PROJECTION = 0.95, 0.5
STEPS_OF_DESCENT = 400


def by_rank(weight: Tensor, k: int) -> Tensor:
    """Return where the `k` entries of largest magnitude stand, by sorting a list; ties to the lower index."""
    flat = weight.detach().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda place: (-abs(flat[place]), place))
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[order[:k]] = True
    return mask.view_as(weight)


@grader("04.1")
def grade_sparse_step(answer: Callable[[torch.optim.Optimizer, nn.Parameter, int], None]) -> str:
    """Run the reader's step beside a step written out here, with ties and with weights that come back."""
    _check_ties(answer)
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 6, generator=generator))
    reference = copy.deepcopy(weight)
    mine, theirs = (torch.optim.Adam([w], lr=0.3, eps=0.1) for w in (reference, weight))
    pushes = torch.randn(2, 4, 6, generator=generator)
    returned = torch.zeros_like(weight, dtype=torch.bool)
    for round_ in range(ROUNDS):
        gradient = pushes[2 * round_ // ROUNDS] + 0.5 * torch.randn(4, 6, generator=generator)
        before, zero = weight.data_ptr(), reference == 0
        reference.grad, weight.grad = gradient.clone(), gradient.clone()
        mine.step()
        with torch.no_grad():
            reference[~by_rank(reference, KEPT)] = 0
        answer(theirs, weight, KEPT)
        returned |= zero & (reference != 0)
        _check_step(weight, reference, gradient, theirs.state[weight], mine.state[reference], before)
    return f"Equal to {ROUNDS} steps written out, in which {int(returned.sum())} weights went to zero and came back."


def _check_ties(answer: Callable[[torch.optim.Optimizer, nn.Parameter, int], None]) -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -1.0, 3.0], [1.0, -2.0, -1.0]]))
    weight.grad = torch.zeros_like(weight)
    answer(torch.optim.SGD([weight], lr=0.1), weight, 3)
    left = int(weight.count_nonzero())
    if left != 3:
        raise Wrong(
            f"Of six weights, four of which have the magnitude 1, three may stay; {left} are left. Is it exactly k, "
            "over the whole matrix, and also when magnitudes are equal?"
        )
    if not torch.equal(weight.detach(), torch.tensor([[1.0, 0.0, 3.0], [0.0, -2.0, 0.0]])):
        raise Wrong(
            "Three weights are left, but not the right ones: the largest magnitudes, of either sign, and among equal "
            "ones the lower index in row-major order. A stable sort keeps that order."
        )


def _check_step(
    weight: nn.Parameter, reference: Tensor, gradient: Tensor, state: dict, expected: dict, address: int
) -> None:
    if weight.data_ptr() != address:
        raise Wrong(
            "The weight got new memory, so the optimiser would go on with the old one. Change the values in place."
        )
    if weight.grad is None or not torch.equal(weight.grad, gradient):
        raise Wrong("Your step changes the gradient. It stays dense; only the weight gets zeros.")
    if not state:
        raise Wrong("The optimiser has taken no step. Call its step before you project.")
    if any(not torch.equal(state[moment], expected[moment]) for moment in ("exp_avg", "exp_avg_sq")):
        raise Wrong(
            "The optimiser's moments are not those of a step with the dense gradient. Leave them as they are: a weight "
            "at zero comes back because they remember how it was pushed."
        )
    left = int(weight.count_nonzero())
    if left > KEPT:
        raise Wrong(f"After a step {left} weights are not zero, and {KEPT} may be. Which comes first, step or zeros?")
    if torch.allclose(weight, reference, atol=1e-6):
        return
    if ((weight == 0) & (reference != 0)).any():
        raise Wrong("A weight that grew past the smallest one kept is still zero. Choose anew after every step.")
    raise Wrong("The number of weights is right, but their values are not those of the optimiser's step.")


@grader("04.2")
def grade_smallest_budget(answer: Callable[[int, int, int], float]) -> str:
    """Build models, and ask the library whether the budget is legal and a smaller one is not."""
    for (expansion, narrow), floor in itertools.product(WIDTHS, FLOORS):
        budget = answer(expansion, floor, narrow)
        if isinstance(budget, bool) or not isinstance(budget, int | float):
            raise Wrong(f"Your function returned {budget!r}; return a number.")
        case = f"With expansion {expansion}, floor {floor} and a narrow width of {narrow}"
        if not 0 < budget <= expansion**2:
            raise Wrong(f"{case} your budget is {budget:.4g}, which gives no density above 0 and at most 1.")
        if not _legal(budget, expansion, floor, narrow):
            raise Wrong(f"{case} your budget of {budget:.4g} is too small: the library refuses the floor.")
        if _legal(0.97 * budget, expansion, floor, narrow):
            raise Wrong(f"{case} a budget smaller than your {budget:.4g} is still legal.")
    return f"Legal in {len(WIDTHS) * len(FLOORS)} models, and 3 % less is refused in each."


def _legal(budget: float, expansion: int, floor: int, narrow: int) -> bool:
    width = narrow * expansion
    shape = {"n_layers": 1, "d_model": width, "n_heads": width // 4, "d_head": 4, "d_mlp": 4 * width}
    model = Transformer(TransformerConfig(d_vocab=5, n_ctx=4, **shape))
    try:
        WeightSparsity(budget / expansion**2, expansion=expansion, floor=floor).counts(model)
    except ValueError:
        return False
    return True


@grader("04.3")
def grade_mended_training(answer: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """Train on planted problems whose numbers are in other units."""
    for units, seed in itertools.product(UNITS, range(2)):
        generator = torch.Generator().manual_seed(seed)
        X = torch.randn(60, 12, generator=generator, dtype=torch.float64)
        planted = torch.zeros(12, dtype=torch.float64)
        planted[torch.randperm(12, generator=generator)[:3]] = torch.tensor([2.0, -1.5, 1.0], dtype=torch.float64)
        found = answer(units * X, units * (X @ planted), 3)
        if not isinstance(found, Tensor) or found.shape != planted.shape:
            raise Wrong("Return the weights: a tensor with one number for each column of X.")
        left = int(found.count_nonzero())
        if left != 3:
            raise Wrong(f"{left} weights are not zero at the end, and k is 3. Leave the projection as it was.")
        error = (found.detach() - planted).abs().max().item()
        if not error < CLOSE:
            raise Wrong(
                f"With X and y multiplied by {units:g}, one weight is still off by {error:.2g}. The best weights do "
                "not depend on that factor. Which number in the loop does?"
            )
    return f"It finds the planted weights in all units that were tried: {', '.join(f'{units:g}' for units in UNITS)}."


def projected_support(X: Tensor, y: Tensor, k: int) -> list[int]:
    """Return the columns that gradient descent with annealed AbsTopK keeps, started from the dense solution."""
    weight = torch.linalg.lstsq(X, y[:, None], driver="gelsd").solution[:, 0]
    rate = 1 / torch.linalg.matrix_norm(X, 2).square()
    for step in range(STEPS_OF_DESCENT):
        weight = weight - rate * (X.T @ (X @ weight - y))
        progress = min(1.0, 2 * (step + 1) / STEPS_OF_DESCENT)
        kept = round(len(weight) - (len(weight) - k) * progress)
        weight = weight * by_rank(weight, kept)
    return by_rank(weight, k).nonzero()[:, 0].tolist()


def explained(X: Tensor, y: Tensor, columns: list[int]) -> float:
    """Return the share of the sum of squares of `y` that the best weights on these columns explain."""
    part = X[:, columns]
    left = y - part @ torch.linalg.lstsq(part, y[:, None], driver="gelsd").solution[:, 0]
    return 1 - (left.square().sum() / y.square().sum()).item()


@grader("04.4")
def grade_trap(answer: object) -> str:
    """Compare the support that the projection keeps with the best of all supports."""
    X, y = _problem(answer)
    kept = projected_support(X, y, ALLOWED)
    shares = {pair: explained(X, y, list(pair)) for pair in itertools.combinations(range(X.shape[1]), ALLOWED)}
    best = max(shares, key=shares.get)
    if shares[best] < EXPLAINED_BY_BEST:
        raise Wrong(
            f"The best two columns, {list(best)}, explain {shares[best]:.0%} of y; it takes {EXPLAINED_BY_BEST:.0%}, "
            "so that two weights are enough for whoever picks the right ones."
        )
    if shares[tuple(kept)] > EXPLAINED_BY_PROJECTION:
        raise Wrong(
            f"The projection keeps columns {kept}, which explain {shares[tuple(kept)]:.0%} of y; it should be at most "
            f"{EXPLAINED_BY_PROJECTION:.0%}. What makes a weight small although its column matters?"
        )
    return (
        f"The projection keeps columns {kept}, which explain {shares[tuple(kept)]:.0%} of y; columns {list(best)} "
        f"explain {shares[best]:.0%}."
    )


def _problem(answer: object) -> tuple[Tensor, Tensor]:
    try:
        X, y = (torch.as_tensor(part).detach().double() for part in answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"Your answer cannot be read as a pair of tensors X, y ({error}).") from error
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise Wrong(f"X has shape {tuple(X.shape)} and y {tuple(y.shape)}; give (example, column) and (example,).")
    examples, columns = X.shape
    if not columns <= examples <= MAX_EXAMPLES or not ALLOWED < columns <= MAX_COLUMNS:
        raise Wrong(
            f"X has {examples} examples and {columns} columns; give 3 to {MAX_COLUMNS} columns, and at least as many "
            f"examples as columns, at most {MAX_EXAMPLES}."
        )
    if not (X.isfinite().all() and y.isfinite().all()) or not y.any():
        raise Wrong("Your numbers must be finite, and y must not be zero everywhere.")
    return X, y
