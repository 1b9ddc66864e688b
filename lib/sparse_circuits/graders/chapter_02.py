"""Graders of chapter 2: each runs the reader's answer on new matrices, or measures what the answer does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..grading import Wrong, grader

DENSITY = 0.05
# The model of exercise 02.4: a pentagon whose features stand around the circle in this order.
ORDER, LENGTH, BIAS = (0, 3, 1, 4, 2), 1.13, -0.25
GHOST = 0.4
MAX_WEIGHTS, MAX_WIDTH, MAX_LOSS = 5, 3, 0.2


def _matrix(answer: object, rows: int | None, columns: int) -> Tensor:
    """Return the answer as a float matrix, or say what is wrong with its shape."""
    try:
        W = torch.as_tensor(answer).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"Your answer cannot be read as a matrix of numbers ({error}); give a tensor.") from error
    if W.ndim != 2 or W.shape[1] != columns or rows not in (None, W.shape[0]):
        expected = f"({'dimensions' if rows is None else rows}, {columns})"
        raise Wrong(f"Your matrix has shape {tuple(W.shape)}; it should have {expected}, one column for each feature.")
    if not W.isfinite().all():
        raise Wrong("Your matrix holds an infinity or a NaN. Give finite numbers.")
    return W


def shares_by_loops(W: Tensor) -> Tensor:
    """Return the share of each feature in what goes on along each direction, from the definition and in float64."""
    W = W.double()
    n = W.shape[1]
    S = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        unit = W[:, i] / W[:, i].norm()
        parts = [float(unit @ W[:, j]) ** 2 for j in range(n)]
        for j in range(n):
            S[i, j] = parts[j] / sum(parts)
    return S


@grader("02.1")
def grade_shares(answer: Callable[[Tensor], Tensor]) -> str:
    """Compare the answer with loops over every pair of features."""
    W = torch.randn(3, 6)
    expected = shares_by_loops(W)
    found = answer(W)
    if not isinstance(found, Tensor):
        raise Wrong(f"Your function returned {type(found).__name__}; return a tensor.")
    if found.shape != expected.shape:
        raise Wrong(f"Your result has shape {tuple(found.shape)}; for W of shape (3, 6) it should have (6, 6).")
    if torch.allclose(found.double(), expected, atol=1e-4):
        return "It agrees with loops over every pair of features, and its diagonal is D."
    if torch.allclose(found.double(), expected.T, atol=1e-4):
        raise Wrong("Rows and columns are exchanged: S[i, j] belongs to the direction of feature i.")
    sums = found.double().sum(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        raise Wrong("The shares along one direction should add up to 1: divide each row by its own sum.")
    if (found < 0).any():
        raise Wrong("A share cannot be negative. What does the equation do with the dot products?")
    raise Wrong(
        "Each row adds up to 1, but the shares are others. Are the dot products squared before they are divided?"
    )


@grader("02.2")
def grade_layout(answer: object) -> str:
    """Compute the dimensionality of each of the seven features."""
    W = _matrix(answer, 3, 7)
    D = shares_by_loops(W).diagonal() if (W.norm(dim=0) > 0).all() else None
    if D is None:
        raise Wrong("At least one column is zero: that feature has no direction, so its D is 0.")
    found = D.sort().values
    wanted = torch.tensor([0.4] * 5 + [0.5] * 2, dtype=torch.float64)
    if torch.allclose(found, wanted, atol=1e-3):
        return (
            "Five features at 2/5 and two at 1/2. Do the two of the pair point in opposite directions? D cannot tell."
        )
    listed = ", ".join(f"{value:.2f}" for value in found)
    raise Wrong(f"The seven values of D are {listed}. Wanted are five of 0.40 and two of 0.50.")


@grader("02.3")
def grade_budget(answer: Callable[[Tensor, int], Tensor]) -> str:
    """Prune a batch of models of very different scales, and look at each."""
    W = torch.randn(4, 3, 5) * torch.tensor([0.1, 1.0, 10.0, 0.5])[:, None, None]
    for k in (1, 4, 15):
        before = W.clone()
        found = answer(W, k)
        if not torch.equal(before, W):
            raise Wrong("Your function changes the W that it is given. Return a new tensor.")
        if not isinstance(found, Tensor) or found.shape != W.shape:
            raise Wrong(f"Return a tensor of the shape of W, {tuple(W.shape)}.")
        left = found.flatten(1).count_nonzero(1).tolist()
        if left != [k] * len(W):
            raise Wrong(f"Each of the four models should keep {k} of its weights; yours keep {left}.")
        order = W.flatten(1).abs().argsort(dim=1, descending=True)[:, :k]
        expected = torch.zeros_like(W).flatten(1).scatter(1, order, W.flatten(1).gather(1, order)).view_as(W)
        if not torch.equal(found.sign(), expected.sign()):
            raise Wrong(
                "The number is right, the choice is not: keep the weights of largest magnitude, of either sign."
            )
        if not torch.allclose(found, expected):
            raise Wrong("The right weights are kept, but their values changed.")
    return "Each model keeps exactly its own k largest weights, whatever the scale of the others."


@grader("02.4")
def grade_confusing_input(answer: object) -> str:
    """Run the planted model on the input."""
    from ..superposition import ToyModels, planted_pentagon

    try:
        x = torch.as_tensor(answer).detach().float().flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"Your answer cannot be read as five numbers ({error}); give a list.") from error
    if x.shape != (5,):
        raise Wrong(f"Your input has {x.numel()} numbers; the model has five features.")
    if not ((x >= 0) & (x <= 1)).all():
        raise Wrong("The model never meets such an input: every feature lies between 0 and 1.")
    on = x > 0
    if on.sum() != 2:
        raise Wrong(f"{int(on.sum())} features are on in your input; it should be exactly two.")
    model = ToyModels(planted_pentagon(LENGTH, ORDER), torch.full((5,), BIAS))
    returned = model(x[:, None])[:, 0]
    ghost = int(returned.masked_fill(on, -1.0).argmax())
    if returned[ghost] <= GHOST:
        raise Wrong(
            f"Of the features that are off, feature {ghost} comes back strongest, with {returned[ghost]:.2f}; it takes "
            f"more than {GHOST}. Which feature do both push up?"
        )
    return f"Feature {ghost} is off, and the model returns it with {returned[ghost]:.2f}."


@grader("02.5")
def grade_cheap_weights(answer: object) -> str:
    """Measure the loss of the toy with these weights and no bias."""
    from ..superposition import ToyModels, toy_loss

    W = _matrix(answer, None, 5).float()
    n_weights = int(W.count_nonzero())
    if len(W) > MAX_WIDTH:
        raise Wrong(f"Your matrix has {len(W)} dimensions; use at most {MAX_WIDTH}.")
    if n_weights > MAX_WEIGHTS:
        raise Wrong(f"Your matrix has {n_weights} weights that are not zero; use at most {MAX_WEIGHTS}.")
    loss = toy_loss(ToyModels(W, torch.zeros(5))[None, None], [DENSITY]).item() / (DENSITY / 3)
    if loss >= MAX_LOSS:
        raise Wrong(f"The loss is {loss:.2f} features; it should be below {MAX_LOSS}. Which features come back wrong?")
    return f"{n_weights} weights in {len(W)} dimensions lose {loss:.2f} features."
