"""Graders of chapter 11: each runs the reader's answer on graphs, loadings and scores of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..grading import Wrong, grader

TOLERANCE = 1e-4
ENOUGH_INFLUENCE, NO_EFFECT, FEWEST_NODES, MOST_NODES = 0.3, 1e-6, 4, 12


@grader("11.1")
def grade_row_of_a_feature(answer: Callable[..., tuple]) -> str:
    """Compare the row with products written out, and see that it closes."""
    generator = torch.Generator().manual_seed(0)
    for d_model, n_features in ((6, 4), (9, 7)):
        w_enc, embedding, error, b_dec = (torch.randn(d_model, generator=generator) for _ in range(4))
        activations = torch.rand(n_features, generator=generator) + 0.5
        decoders = torch.randn(n_features, 2, d_model, generator=generator)
        bias, scale = float(torch.randn((), generator=generator)), 1.7
        given = {"w_enc": w_enc, "b_enc": bias, "scale": scale, "embedding": embedding}
        given |= {"activations": activations, "decoders": decoders, "error": error, "b_dec": b_dec}
        found = answer(**{name: part.clone() if isinstance(part, Tensor) else part for name, part in given.items()})
        keys = {"token", "features", "error", "b_dec", "b_enc"}
        if not isinstance(found, dict) or set(found) != keys:
            raise Wrong(f"Return a dict with the keys {sorted(keys)}; you returned {_shown(found)}.")
        read = w_enc / scale
        each = activations * (decoders[:, 0] @ read)
        right = {"token": embedding @ read, "features": each, "error": error @ read, "b_dec": b_dec @ read}
        right["b_enc"] = torch.tensor(bias)
        for name, part in right.items():
            _same(name, torch.as_tensor(found[name], dtype=torch.float32), part, given, right)
    return "Every part is right, and the row adds up to the pre-activation."


def _same(name: str, found: Tensor, right: Tensor, given: dict, parts: dict) -> None:
    if found.shape != right.shape:
        raise Wrong(f"{name!r} has shape {tuple(found.shape)}; it should be {tuple(right.shape)}.")
    if torch.allclose(found, right, atol=TOLERANCE):
        return
    if torch.allclose(found, right * given["scale"], atol=TOLERANCE):
        raise Wrong(f"{name!r} is {given['scale']} times too large: the norm divides what is read by its scale.")
    if name == "features":
        later = given["decoders"] @ (given["w_enc"] / given["scale"])
        unit = later[:, 0]
        if torch.allclose(found, unit, atol=TOLERANCE):
            raise Wrong("Your edges are per unit of activation. An edge is what the feature adds on this prompt.")
        if torch.allclose(found, given["activations"] * later.sum(1), atol=TOLERANCE):
            raise Wrong(
                "You count what a feature writes to layer 1 as well. The reader is in layer 1 and reads in front of "
                "that layer's MLP, so it has not been written yet."
            )
    if name == "b_enc" and torch.allclose(found, right / given["scale"], atol=TOLERANCE):
        raise Wrong("`b_enc` is added behind the product: no norm divides it.")
    raise Wrong(f"{name!r} is not what that node adds: the dot product of what it writes with what is read.")


@grader("11.2")
def grade_influence(answer: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Compare the influence with sums over all paths, on random graphs without cycles."""
    generator = torch.Generator().manual_seed(1)
    for n in (5, 8, 8):
        adjacency = torch.randn(n, n, generator=generator).tril(-1)
        adjacency[:2] = 0
        weights = torch.zeros(n)
        weights[-2:] = torch.tensor([0.7, 0.2])
        adjacency[-1, -2] = 0
        found = answer(adjacency.clone(), weights.clone())
        if not isinstance(found, Tensor) or found.shape != (n,):
            raise Wrong(f"Return a tensor of shape ({n},), one number for each node; you returned {_shown(found)}.")
        absolute = adjacency.abs()
        shares = absolute / absolute.sum(1, keepdim=True).clamp_min(1e-30)
        right = _paths(shares, weights)
        if torch.allclose(found, right, atol=TOLERANCE):
            continue
        if torch.allclose(found, weights @ shares, atol=TOLERANCE):
            raise Wrong(
                "You count edges straight into the logits alone. Paths go on: multiply again until nothing is left."
            )
        if torch.allclose(found, right + weights, atol=TOLERANCE):
            raise Wrong("You count the logits themselves. Influence begins with one step: p (A + A² + ...).")
        if torch.allclose(found, _paths(absolute, weights), atol=TOLERANCE):
            raise Wrong("Divide each row by its sum first: a node passes on shares.")
        signed = adjacency / absolute.sum(1, keepdim=True).clamp_min(1e-30)
        if torch.allclose(found, _paths(signed, weights), atol=TOLERANCE):
            raise Wrong("You keep the signs. Influence is taken of absolute values, for better or worse.")
        by_column = absolute / absolute.sum(0, keepdim=True).clamp_min(1e-30)
        if torch.allclose(found, _paths(by_column, weights), atol=TOLERANCE):
            raise Wrong(
                "You divide by the sums of columns. A row holds what enters a target, and a row is to sum to 1."
            )
        raise Wrong("This is not p (A + A² + ...) yet, with A the absolute values and each row divided by its sum.")
    return "Right on three random graphs."


def _paths(shares: Tensor, weights: Tensor) -> Tensor:
    total, reached = torch.zeros_like(weights), weights
    for _ in range(len(weights)):
        reached = reached @ shares
        total = total + reached
    return total


@grader("11.3")
def grade_terms_to(answer: Callable[[Tensor, float], int]) -> str:
    """Count terms of loadings whose order is known, with both signs."""
    cases = [
        (torch.tensor([[4.0, -3.0], [2.0, 1.0]]), 0.8, 3),
        (torch.tensor([[-4.0, 3.0], [-2.0, -1.0]]), 0.7, 2),
        (torch.tensor([[5.0, 0.0], [0.0, -5.0]]), 1.0, 2),
        (torch.tensor([[1.0, 1.0], [1.0, -9.0]]), 0.75, 1),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), 0.5, 2),
    ]
    for loadings, share, right in cases:
        found = answer(loadings.clone(), share)
        if isinstance(found, bool) or not isinstance(found, int):
            raise Wrong(f"Return a whole number; you returned {_shown(found)}.")
        if found == right:
            continue
        given = f"Of {loadings.flatten().tolist()} the fewest terms with {share:.0%} are {right}, and you say {found}."
        sizes, order = loadings.flatten().abs(), loadings.flatten().abs().sort().values
        if found == int((order.cumsum(0) < share * order.sum()).sum()) + 1 and found > right:
            raise Wrong(f"{given} You begin with the smallest.")
        falling = sizes.sort(descending=True).values
        if found == int((falling.cumsum(0) < share * falling.sum()).sum()):
            raise Wrong(f"{given} The term that reaches the share has to be counted too.")
        raise Wrong(f"{given} A term that takes away carries as much as one that adds.")
    return f"Right on {len(cases)} sets of loadings."


@grader("11.4")
def grade_influence_without_effect(answer: object) -> str:
    """Measure influence and total effect of every node in the reader's graph."""
    if not isinstance(answer, list | tuple) or not all(isinstance(row, list | tuple) for row in answer):
        raise Wrong("Give the matrix as a list of rows, each a list of numbers: row t holds what enters node t.")
    n = len(answer)
    if not FEWEST_NODES <= n <= MOST_NODES or any(len(row) != n for row in answer):
        raise Wrong(f"Give a square matrix of {FEWEST_NODES} to {MOST_NODES} nodes.")
    try:
        adjacency = torch.tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise Wrong("Every entry has to be a number.") from error
    if not adjacency.isfinite().all() or adjacency.triu().any():
        raise Wrong(
            "A node may only be entered by nodes before it, with finite numbers: zeros on and above the diagonal."
        )
    absolute = adjacency.abs()
    weights = torch.zeros(n, dtype=torch.float64)
    weights[-1] = 1
    shares = _paths(absolute / absolute.sum(1, keepdim=True).clamp_min(1e-30), weights)
    # Node s falls away; what it adds to a feature changes that feature by its share of the feature's own value.
    values = adjacency.sum(1)
    inner = [s for s in range(1, n - 1) if values[s] > 0]
    passing = torch.where(values[:, None] > 0, adjacency / values[:, None].clamp_min(1e-30), torch.zeros(()).double())
    passing[-1] = adjacency[-1]
    effects = _total_effects(passing, n)
    quiet = [s for s in inner if abs(float(effects[s])) < NO_EFFECT]
    loud = [s for s in inner if shares[s] >= ENOUGH_INFLUENCE]
    both = [s for s in quiet if s in loud]
    if both:
        s = both[0]
        return f"Node {s} holds {float(shares[s]):.0%} of the influence, and without it the logit stays as it is."
    if not inner:
        raise Wrong("No feature is active: between the first node and the logit no row has a sum above 0.")
    if not loud:
        best = max(inner, key=lambda s: float(shares[s]))
        raise Wrong(
            f"The most influential feature, node {best}, holds {float(shares[best]):.0%}; it takes "
            f"{ENOUGH_INFLUENCE:.0%}. Let more of what enters the logit pass through it."
        )
    s = loud[0]
    raise Wrong(
        f"Node {s} holds {float(shares[s]):.0%} of the influence, and without it the logit changes by "
        f"{float(effects[s]):.3g}. Give it two paths that cancel."
    )


def _total_effects(passing: Tensor, n: int) -> Tensor:
    """Return what each node adds to the last one over all paths."""
    to_last = torch.zeros(n, dtype=torch.float64)
    to_last[-1] = 1
    for s in reversed(range(n - 1)):
        to_last[s] = (passing[s + 1 :, s] * to_last[s + 1 :]).sum()
    return to_last


@grader("11.5")
def grade_keys_that_hold_the_gate(answer: Callable[[Tensor, list, float], Iterable[str]]) -> str:
    """Take the key nodes out one at a time, for random terms."""
    generator = torch.Generator().manual_seed(2)
    names = ["token@3", "position@3", "f0.7@3", "error0@3", "b_K"]
    checked = 0
    for bias in (3.0, 3.0, 1.0, 0.5, 3.0, 2.0):
        terms = torch.randn(4, len(names), generator=generator)
        terms += (0.8 - bias - terms.sum()) / terms.numel()
        found = answer(terms.clone(), list(names), bias)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise Wrong(f"Return a list of names; you returned {_shown(found)}.")
        found, without = set(found), terms.sum() - terms.sum(0)
        right = {name for name, score in zip(names, without.tolist(), strict=True) if score + bias <= 0}
        checked += len(right)
        if found == right:
            continue
        given = f"With bias {bias:g} the nodes that hold the gate open are {sorted(right)}; you say {sorted(found)}."
        no_bias = {name for name, score in zip(names, without.tolist(), strict=True) if score <= 0}
        if found == no_bias:
            raise Wrong(f"{given} The gate opens at a score above minus the bias, not above 0.")
        rows = terms.sum() - terms.sum(1)
        if found == {name for name, score in zip(names, rows.tolist(), strict=False) if score + bias <= 0}:
            raise Wrong(f"{given} You take out nodes at the query; the columns are the key's.")
        if found == {name for name, part in zip(names, terms.sum(0).tolist(), strict=True) if part > 0}:
            raise Wrong(f"{given} That a node raises the score does not mean that the gate needs it.")
        raise Wrong(f"{given} Take a whole column out of the sum and compare with the threshold.")
    return f"Right for six edges, with {checked} nodes that hold a gate open."


def _shown(found: object) -> str:
    return repr(found) if len(repr(found)) < 60 else type(found).__name__
