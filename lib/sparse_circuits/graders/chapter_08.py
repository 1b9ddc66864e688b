"""Graders of chapter 8: each runs the reader's gate, count or controller beside one that is written out here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..grading import Wrong, grader

CLOSE = 1e-9
BIAS, MOST_KEYS, IN_TRAINING = 3.0, 32, 0.45
BOUND = 5.0


@grader("08.1")
def grade_gate(answer: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> str:
    """Compare values with 0 or the weight, and slopes with the formula of the chapter, in float64."""
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.float64)
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    noise = torch.rand(scores.shape, generator=generator, dtype=torch.float64).logit()
    values, arriving = (torch.randn(2, 3, 6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    scores.requires_grad_()
    pattern = scores.softmax(-1)
    gated = answer(pattern, scores, 1.0, noise)
    if not isinstance(gated, Tensor) or gated.shape != pattern.shape:
        raise Wrong("Return the gated pattern: a tensor of the shape of `pattern`.")
    noisy = (scores + 1.0 + noise).detach()
    hard = (noisy > 0).double()
    if gated.detach().isnan().any():
        raise Wrong("Some of your weights are nan. What does your code do with a score of minus infinity?")
    weights = pattern.detach()
    if not torch.equal(gated.detach(), weights * hard):
        _explain_values(gated.detach(), weights, noisy, (scores.detach() + 1.0))
    if not gated.requires_grad:
        raise Wrong("The values are right, and no gradient can go back through them. What did you detach?")
    (torch.einsum("bhqk,bhkd->bhqd", gated, values) * arriving).sum().backward()
    slope = noisy.sigmoid() * (1 - noisy.sigmoid())
    to_values = torch.einsum("bhqd,bhkd->bhqk", arriving, values)
    output = torch.einsum("bhqk,bhkd->bhqd", hard * weights, values)
    from_softmax = weights * (hard * to_values - (arriving * output).sum(-1, keepdim=True))
    from_gate = weights * slope * to_values
    found = scores.grad
    if not found.isfinite().all():
        raise Wrong("The values are right; some slopes are not finite. Check what happens at masked scores.")
    if torch.allclose(found, from_softmax + from_gate, atol=CLOSE):
        return "Values are exactly 0 or the weight, and slopes are those of softmax and gate together."
    if torch.allclose(found, from_softmax, atol=CLOSE):
        raise Wrong("The values are right, but the gate has no slope: a comparison passes none. Lend it the sigmoid's.")
    if torch.allclose(found, from_gate, atol=CLOSE):
        raise Wrong("The gate has its slope, but the pattern has lost its own. Detach the gate's parts alone.")
    raise Wrong(
        "The values are right, but the slopes are not those of the sigmoid of score plus bias plus noise, times the "
        "weight, added to what the softmax passes."
    )


def _explain_values(gated: Tensor, weights: Tensor, noisy: Tensor, quiet: Tensor) -> None:
    hard = (noisy > 0).double()
    kept = weights * hard
    if torch.allclose(gated, kept, atol=1e-6):
        raise Wrong(
            "Some values are off by a rounding error. Take the sigmoid away from itself before you add 0 or 1, and the "
            "value is exact."
        )
    if torch.allclose(gated, kept / kept.sum(-1, keepdim=True).clamp_min(1e-30)):
        raise Wrong("You scale the open weights up to a sum of 1. What is left of a row stays as it is.")
    if torch.allclose(gated, weights * noisy.sigmoid()):
        raise Wrong("Your gates are sigmoids, between 0 and 1. Forwards a gate is 0 or 1.")
    if torch.allclose(gated, weights * (quiet > 0)):
        raise Wrong("Your gates ignore the noise.")
    if torch.allclose(gated, hard):
        raise Wrong("You return the gates. Multiply the weights by them.")
    raise Wrong("An edge is open where score plus bias plus noise is above 0, and an open one keeps its weight.")


@grader("08.2")
def grade_shares(answer: Callable[[Tensor], tuple[float, float, float]]) -> str:
    """Count by loops over small random gates, some of them open above the diagonal."""
    for n, layers, heads, length in ((1, 1, 1, 2), (3, 2, 4, 5), (2, 3, 1, 8)):
        generator = torch.Generator().manual_seed(length)
        gates = (torch.rand(n, layers, heads, length, length, generator=generator) < 0.4).float()
        gates[..., 0, 0] = 1
        pairs = [(query, key) for query in range(length) for key in range(query + 1)]
        opened = sum(gates[..., query, key].sum().item() for query, key in pairs)
        patterns = n * layers * heads
        expected = (
            100 * opened / (patterns * len(pairs)),
            100 * opened / (patterns * length**2),
            opened / (n * length),
        )
        try:
            found = tuple(float(part) for part in answer(gates))
        except TypeError as error:
            raise Wrong("Return a tuple of three numbers.") from error
        if len(found) != len(expected):
            raise Wrong(f"You returned {len(found)} numbers; three are asked for.")
        case = f"for {n} prompts, {layers} layers, {heads} heads and T = {length}"
        everything = 100 * gates.mean().item()
        for name, mine, yours in zip(
            ("percent of causal pairs", "percent of T squared", "edges per token"), expected, found, strict=True
        ):
            if math.isclose(mine, yours, rel_tol=1e-5):
                continue
            if math.isclose(yours, everything, rel_tol=1e-5):
                raise Wrong(f"The {name} {case}: you count gates above the diagonal, which the mask forbids.")
            raise Wrong(f"The {name} {case} is {mine:.4g}, and yours is {yours:.4g}. Over how many is each one taken?")
    return "Right for models of three shapes."


def reference_update(
    log_multiplier: float, average: float | None, loss: float, limit: float, rate: float, decay: float
) -> tuple[float, float]:
    """Return the logarithm of the multiplier and the average after one update, by the rule of the chapter."""
    violation = loss / limit - 1
    average = violation if average is None else decay * average + (1 - decay) * violation
    return min(BOUND, max(-BOUND, log_multiplier + rate * average)), average


@grader("08.3")
def grade_controller(answer: Callable[..., tuple[float, float]]) -> str:
    """Compare single updates with the rule, then let the controller solve a problem whose optimum is known."""
    up, _ = _updated(answer, 0.0, None, 2.0, 1.0, 0.1, 0.9)
    if up < 0:
        raise Wrong("With a loss of twice the limit the multiplier falls. It is the weight of the loss.")
    for average, loss, decay in itertools.product((None, 0.5, -0.3), (0.2, 1.0, 3.0), (0.9, 0.5, 0.99)):
        log, expected = reference_update(0.2, average, loss, 0.8, 0.05, decay)
        found_log, found = _updated(answer, 0.2, average, loss, 0.8, 0.05, decay)
        if not math.isclose(found, expected, abs_tol=CLOSE):
            raise Wrong(
                f"The average was {average}, the violation is {loss / 0.8 - 1:.3g} and decay is {decay}: the new "
                f"average should be {expected:.4g}, and yours is {found:.4g}. Which part of it is old?"
            )
        if not math.isclose(found_log, log, abs_tol=CLOSE):
            raise Wrong(f"The logarithm should go from 0.2 to {log:.4g}, and yours goes to {found_log:.4g}.")
    for start, loss in ((4.99, 9.0), (-4.99, 0.01)):
        log, _ = _updated(answer, start, None, loss, 1.0, 1.0, 0.9)
        if abs(log) > BOUND:
            raise Wrong(f"The logarithm went to {log:.3g}. The rule keeps it between -5 and 5.")
    x = _solved(answer)
    if not abs(x - 2.5) < 0.05:
        raise Wrong(f"On the problem of the chapter it ends at x = {x:.3g}; the optimum is 2.5.")
    return f"Right in every single update, and on the problem of the chapter it ends at x = {x:.2f}."


def _updated(answer: Callable, *arguments: float | None) -> tuple[float, float]:
    try:
        log, average = answer(*arguments)
        return float(log), float(average)
    except (TypeError, ValueError) as error:
        raise Wrong(
            "Return two numbers: the new logarithm of the multiplier and the new average, also when `average` is None."
        ) from error


def _solved(answer: Callable) -> float:
    """Minimise x squared subject to (x - 3) squared <= 0.25 with the reader's controller."""
    x, log, average = 0.0, 0.0, None
    for _ in range(900):
        price = math.exp(log)
        x -= 0.02 * (2 * x + price * 2 * (x - 3)) / max(1.0, price)
        log, average = _updated(answer, log, average, (x - 3) ** 2, 0.25, 0.03, 0.9)
        if not math.isfinite(x):
            raise Wrong("On the problem of the chapter x runs away.")
    return x


@grader("08.4")
def grade_noise_alone(answer: object) -> str:
    """Compute what the head says without noise and, exactly, on average with it."""
    try:
        scores = torch.as_tensor(answer).detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Wrong(f"Your answer cannot be read as a tensor of scores ({error}).") from error
    if scores.ndim != 1 or not 2 <= len(scores) <= MOST_KEYS:
        raise Wrong(f"Your scores have shape {tuple(scores.shape)}; give one for each of 2 to {MOST_KEYS} keys.")
    if not scores.isfinite().all():
        raise Wrong("All scores must be finite: no key is masked here.")
    weights, logits = scores.softmax(0), scores + BIAS
    quiet = weights[logits > 0].sum().item()
    drawn = (weights * logits.sigmoid()).sum().item()
    if quiet > 0:
        raise Wrong(
            f"Without noise the head says {quiet:.3g}: {int((logits > 0).sum())} edges are open. Close them all."
        )
    if drawn < IN_TRAINING:
        raise Wrong(
            f"Without noise the head is silent, and in training it says {drawn:.3g} on average; make it "
            f"{IN_TRAINING} or more. How far below zero are your logits?"
        )
    return f"Without noise the head says 0, in training {drawn:.3f} on average. The log of the training looks fine."


@grader("08.5")
def grade_slack(answer: Callable[[float, float, float], float]) -> str:
    """Compare with the mean over tokens, found by losing answers one by one."""
    cases = [(0.01, 0.032, math.log(16)), (0.01, 0.3, 3.0), (0.0, 0.1, 1.0), (0.05, 0.01, math.log(8)), (0.2, 0.5, 0.4)]
    for slack, share, cost in cases:
        expected = min(1.0, slack / (share * cost))
        found = answer(slack, share, cost)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise Wrong(f"Your function returned {found!r}; return a number.")
        case = f"With slack {slack}, share {share} and cost {cost:.3g}"
        if found > 1:
            raise Wrong(f"{case} you lose {found:.3g} of the answers, which is more than there are.")
        if not math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-9):
            rise = found * share * cost
            raise Wrong(
                f"{case} you lose {found:.4g} of the answers, and the loss rises by {rise:.3g}, not by {slack}."
            )
    return "Right. A task with few tokens can vanish inside a slack that looks small."
