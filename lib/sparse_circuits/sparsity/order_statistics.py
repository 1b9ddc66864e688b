"""How much energy pruning must lose, from the law of the entries alone: no model is run.

First used in chapter 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from .patterns import Pattern

FAMILIES = ("Gaussian", "Laplace", "Student t")
# Student's t has a variance only above 2 degrees of freedom; bounds of the logarithm of what there is above 2.
FREEDOM = (-5.0, 6.0)
STEPS = 60
# Where the integrals over x = sinh(s) end, and at how many points they are evaluated; a multiple of 4, and one.
LARGEST_S, POINTS = 14.0, 8001


@dataclass(frozen=True)
class Law:
    """A law of independent entries, symmetric about zero; its scale does not matter for a share of energy.

    Parameters
    ----------
    family : {"Gaussian", "Laplace", "Student t"}
        Which law.
    freedom : float, optional
        Degrees of freedom of Student's t, above 2.

    Raises
    ------
    ValueError
        If there is no such family, or the degrees of freedom are missing, not above 2, or given for another family.
    """

    family: str
    freedom: float | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"There is no family {self.family!r}; choose one of {list(FAMILIES)}.")
        if (self.family == "Student t") != (self.freedom is not None):
            raise ValueError(
                f"freedom is {self.freedom!r} for a {self.family} law; only Student's t has, and needs it."
            )
        if self.freedom is not None and not self.freedom > 2:
            raise ValueError(f"freedom is {self.freedom!r}; give more than 2, so that the entries have a variance.")

    def __str__(self) -> str:
        return self.family if self.freedom is None else f"{self.family}, {self.freedom:.3g} degrees of freedom"

    @property
    def variance(self) -> float:
        """Variance of the entries at scale 1."""
        return {"Gaussian": 1.0, "Laplace": 2.0}.get(self.family) or self.freedom / (self.freedom - 2)

    def distribution(self, scale: float | Tensor = 1.0) -> torch.distributions.Distribution:
        """Return the law as PyTorch has it, in float64 if the scale is a Python number."""
        zero = torch.zeros((), dtype=torch.float64)
        if self.family == "Student t":
            return torch.distributions.StudentT(zero + self.freedom, zero, zero + scale)
        kind = torch.distributions.Normal if self.family == "Gaussian" else torch.distributions.Laplace
        return kind(zero, zero + scale)


@cache
def energy_lost(law: Law, pattern: Pattern, width: int) -> float:
    """Return the share of the sum of squares that is expected to go when the smaller entries of each group go.

    Parameters
    ----------
    law : Law
        Of the independent entries.
    pattern : Pattern
        How many of each group stay.
    width : int
        Entries of a row; an unstructured pattern has them all in one group.

    Returns
    -------
    float
        Between 0 and 1: the expected sum of squares of what goes, over the expected sum of squares.

    Raises
    ------
    ValueError
        If the pattern does not fit the width.

    Notes
    -----
    An entry of magnitude x goes if at least N of the M - 1 others are larger. Each is with the probability p(x) =
    2 (1 - F(x)), so the share is the integral over x > 0 of 2 x² f(x) P(Binomial(M - 1, p(x)) >= N), over the
    variance (order statistics: David and Nagaraja, 2003, section 2.1). Simpson's rule on x = sinh(s).
    """
    keep, group = pattern.sizes(width)
    s = torch.linspace(0, LARGEST_S, POINTS, dtype=torch.float64)
    x, step = s.sinh(), LARGEST_S / (POINTS - 1)
    mass = 2 * law.distribution().log_prob(x).exp() * s.cosh()  # of the magnitude, per unit of s
    # Simpson's rule needs three points, so the larger ones are counted at every second point.
    below = torch.cat([x.new_zeros(1), ((mass[:-2:2] + 4 * mass[1:-1:2] + mass[2::2]) * step / 3).cumsum(0)])
    goes = at_least(keep, group - 1, (1 - below).clamp(0, 1))
    lost = (x**2 * mass)[::2] * goes
    return float((lost[:-2:2] + 4 * lost[1:-1:2] + lost[2::2]).sum() * 2 * step / 3 / law.variance)


def at_least(successes: int, trials: int, chance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the probability of at least so many successes in independent trials, float64, shape of `chance`."""
    count = torch.arange(successes, trials + 1, dtype=torch.float64)
    n = torch.tensor(trials, dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(count + 1) - torch.lgamma(n - count + 1)
    chance = chance.double()[..., None]
    return (ways + torch.xlogy(count, chance) + torch.xlogy(n - count, 1 - chance)).exp().sum(-1)


def energy_lost_by(x: Float[Tensor, "*rows width"], pruned: Float[Tensor, "*rows width"]) -> float:
    """Return the share of the sum of squares that is measured to be lost, ||x - pruned||² / ||x||².

    Raises
    ------
    ValueError
        If the shapes differ, or `x` is zero.
    """
    if x.shape != pruned.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, pruned {tuple(pruned.shape)}; give the same entries.")
    energy = x.double().square().sum()
    if not energy > 0:
        raise ValueError("All entries of x are zero, so there is no energy to lose; give activations of a run.")
    return ((x.double() - pruned.double()).square().sum() / energy).item()


def fitted_law(x: Float[Tensor, " n"], family: str) -> tuple[Law, float]:
    """Return the law of a family under which entries are most likely, and how likely they are.

    The scale, and for Student's t the degrees of freedom, are chosen. The centre is zero, as pruning has it.

    Parameters
    ----------
    x : float tensor
        The entries; more than some 20,000 take time and change little.
    family : str
        One of `FAMILIES`.

    Returns
    -------
    law : Law
        The law.
    likelihood : float
        Mean logarithm of the density, in nats per entry: the family with the highest fits best.

    Raises
    ------
    ValueError
        If there is no such family, or an entry is not finite, or all are zero.
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no family {family!r}; choose one of {list(FAMILIES)}.")
    entries = x.detach().flatten().double()
    if not torch.isfinite(entries).all() or not entries.any():
        raise ValueError("x holds an entry that is not finite, or only zeros; give activations of a run.")
    size = entries.square().mean().sqrt() if family == "Gaussian" else entries.abs().mean()
    if family != "Student t":
        law = Law(family)
        return law, law.distribution(size).log_prob(entries).mean().item()
    free = torch.stack([size.log(), size.new_tensor(1.0)]).requires_grad_()  # logarithms of scale and freedom - 2
    optimiser = torch.optim.LBFGS([free], max_iter=STEPS, line_search_fn="strong_wolfe")

    def unlikelihood() -> Float[Tensor, ""]:
        scale, freedom = free[0].exp(), 2 + free[1].clamp(*FREEDOM).exp()
        return -torch.distributions.StudentT(freedom, 0.0, scale).log_prob(entries).mean()

    def closure() -> Float[Tensor, ""]:
        optimiser.zero_grad()
        value = unlikelihood()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    law = Law(family, 2 + free[1].clamp(*FREEDOM).exp().item())
    return law, -unlikelihood().item()
