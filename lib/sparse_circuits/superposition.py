"""Toy models of superposition: more features than dimensions, and what a budget of weights does to them.

Many models are trained at once: the first axis of `W` is the setting, the second the seed, and everything is a matrix
product over both. A column of an input is one example, so the code reads as the equation x' = ReLU(Wᵀ W x + b).
Introduced in chapter 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse_circuits.sparsity import keep_largest

# From the weights of all models and the share of the training that is done to the weights that are allowed.
Constraint = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class ToyConfig:
    """Shape and training of a toy.

    Parameters
    ----------
    n_features, n_hidden : int
        Length of the input, and dimensions between input and output.
    neurons : bool
        Whether a ReLU follows each hidden dimension. Features then lie between -1 and 1, and the model is to return
        their positive part.
    steps, batch, lr : int, int, float
        Steps of Adam, examples in each, and the learning rate, which falls linearly to zero over the second half.

    Raises
    ------
    ValueError
        If a number is not positive.
    """

    n_features: int = 5
    n_hidden: int = 2
    neurons: bool = False
    steps: int = 1500
    batch: int = 256
    lr: float = 0.015

    def __post_init__(self) -> None:
        for name in ("n_features", "n_hidden", "steps", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a positive number.")


@dataclass(frozen=True, eq=False)
class ToyModels:
    """A batch of toy models x' = ReLU(Wᵀ W x + b) (Elhage et al. 2022, "Demonstrating Superposition").

    Parameters
    ----------
    W, b : float tensors, shapes (..., hidden, feature) and (..., feature)
        Column i of `W` is the direction of feature i.
    neurons : bool
        Whether a ReLU follows each hidden dimension: x' = ReLU(Wᵀ ReLU(W x) + b).
    """

    W: Float[Tensor, "*model hidden feature"]
    b: Float[Tensor, "*model feature"]
    neurons: bool = False

    def hidden(self, x: Float[Tensor, "*model feature batch"]) -> Float[Tensor, "*model hidden batch"]:
        """Return the hidden values; a column of `x` is one example."""
        h = self.W @ x
        return h.relu() if self.neurons else h

    def __call__(self, x: Float[Tensor, "*model feature batch"]) -> Float[Tensor, "*model feature batch"]:
        """Return the output x'."""
        return (self.W.mT @ self.hidden(x) + self.b[..., None]).relu()

    def __getitem__(self, index) -> Self:
        """Return the models at an index of the leading axes, such as `toys[setting, seed]`."""
        return ToyModels(self.W[index], self.b[index], self.neurons)


def sample_features(
    densities: Float[Tensor, " setting"],
    n_features: int,
    batch: int,
    generators: Sequence[torch.Generator],
    signed: bool = False,
) -> Float[Tensor, "setting seed feature batch"]:
    """Draw examples: each feature is zero, or, with the probability `densities`, uniform between 0 and 1.

    Parameters
    ----------
    densities : float tensor, shape (setting,)
        Probability that a feature is on.
    generators : sequence of torch.Generator
        One for each seed. All settings see the same draws, so that they differ in their density alone.
    signed : bool
        Draw between -1 and 1 instead.
    """
    draws = [torch.rand(2, n_features, batch, generator=g) for g in generators]
    values, gates = torch.stack(draws, dim=1)
    values = 2 * values - 1 if signed else values
    return values * (gates < densities[:, None, None, None])


def untrained_toys(cfg: ToyConfig, n_settings: int, generators: Sequence[torch.Generator]) -> ToyModels:
    """Return models with random weights of variance 1 / `n_features` and no bias; all settings start alike."""
    shape = cfg.n_hidden, cfg.n_features
    W = torch.stack([torch.randn(shape, generator=g) for g in generators])
    W = W.expand(n_settings, *W.shape) / math.sqrt(cfg.n_features)
    return ToyModels(W, torch.zeros(*W.shape[:2], cfg.n_features), cfg.neurons)


def train_toys(
    cfg: ToyConfig,
    densities: Sequence[float],
    seeds: Sequence[int],
    importance: Tensor | float = 1.0,
    constraint: Constraint | None = None,
) -> ToyModels:
    """Train one model for each density and seed at the same time; `W` has shape (setting, seed, hidden, feature).

    Parameters
    ----------
    densities, seeds : sequence of float, sequence of int
        One density for each setting. Each seed starts a stream of random numbers for the first weights and the data.
    importance : float tensor, broadcast against (setting, seed, feature)
        Weight of each feature in the loss.
    constraint : callable, optional
        Gets `W` of shape (setting, seed, hidden, feature) and the share of the training that is done; returns the
        weights that are allowed. It is applied at the start and after every step.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    start = untrained_toys(cfg, len(densities), generators)
    constraint = constraint or (lambda W, progress: W)
    W, b = constraint(start.W, 0.0).clone().requires_grad_(), start.b.requires_grad_()
    toys = ToyModels(W, b, cfg.neurons)
    density = torch.tensor(densities)
    weight = torch.as_tensor(importance)[..., None]
    optimizer = torch.optim.Adam([W, b], lr=cfg.lr)
    for step in range(cfg.steps):
        progress = step / cfg.steps
        optimizer.param_groups[0]["lr"] = cfg.lr * min(1.0, 2 * (1 - progress))
        x = sample_features(density, cfg.n_features, cfg.batch, generators, cfg.neurons)
        error = weight * (toys(x) - x.relu()) ** 2
        optimizer.zero_grad()
        (error.sum() / cfg.batch).backward()
        optimizer.step()
        with torch.no_grad():
            W.copy_(constraint(W, (step + 1) / cfg.steps))
    return ToyModels(W.detach(), b.detach(), cfg.neurons)


@torch.no_grad()
def toy_loss(
    toys: ToyModels, densities: Sequence[float], importance: Tensor | float = 1.0, seed: int = 0, batches: int = 20
) -> Float[Tensor, "setting seed"]:
    """Return the mean loss of each model on fresh examples, `batches` times 5,000, the same for all.

    Densities and importance are those of `train_toys`; `seed` is that of the examples.
    """
    # A stream of its own: the seeds of the training are small numbers.
    generator = torch.Generator().manual_seed(2**32 + seed)
    weight, losses = torch.as_tensor(importance)[..., None], []
    for _ in range(batches):
        x = sample_features(torch.tensor(densities), toys.W.shape[-1], 5000, [generator], toys.neurons)
        losses.append((weight * (toys(x) - x.relu()) ** 2).sum(-2).mean(-1))
    return torch.stack(losses).mean(0)


def feature_dimensionality(W: Float[Tensor, "*model hidden feature"]) -> Float[Tensor, "*model feature"]:
    """Return the share of a dimension that each feature has: D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)².

    The sum over features is at most the rank of `W`. A feature with no direction has D = 0. Source: Elhage et al. 2022,
    "The Geometry of Superposition".
    """
    gram = W.mT @ W
    own = gram.diagonal(dim1=-2, dim2=-1) ** 2
    shared = (gram**2).sum(-1)
    return torch.where(shared > 0, own / shared.clamp_min(1e-30), 0.0)


def features_represented(toys: ToyModels) -> Bool[Tensor, "*model feature"]:
    """Return which features a model returns: one that goes from 0 to 1 alone moves its own output by more than half."""
    alone = torch.eye(toys.W.shape[-1])
    moved = toys(alone) - toys(torch.zeros_like(alone))
    return moved.diagonal(dim1=-2, dim2=-1) > 0.5


def features_per_dimension(W: Float[Tensor, "*model hidden feature"]) -> Int[Tensor, "*model hidden"]:
    """Count the features that move a hidden dimension by more than half of what its strongest feature does.

    A dimension that nothing moves by more than 0.1 counts none.
    """
    strength = W.abs()
    strongest = strength.amax(-1, keepdim=True)
    return ((strength > strongest / 2) & (strongest > 0.1)).sum(-1)


def keep_weights(widths: Sequence[int], n_weights: Sequence[int], anneal: float = 0.5) -> Constraint:
    """Return the constraint that a model uses `width` hidden dimensions and `n_weights` non-zero weights.

    The weights of largest magnitude are kept, in each model by itself. Their number falls linearly from all to
    `n_weights` over the share `anneal` of the training; in arXiv 2511.13653 the fall begins after its first hundredth.

    Parameters
    ----------
    widths, n_weights : sequence of int
        One for each setting; a ValueError is raised if a number of weights is more than its width has.
    anneal : float
        Above 0, at most 1.
    """

    def constraint(W: Tensor, progress: float) -> Tensor:
        kept = torch.zeros_like(W)
        for setting, (width, n) in enumerate(zip(widths, n_weights, strict=True)):
            rows = W[setting, :, :width].flatten(-2)
            full = rows.shape[-1]
            k = full - round((full - n) * min(1.0, progress / anneal))
            kept[setting, :, :width] = keep_largest(rows, k, dim=-1).unflatten(-1, (width, -1))
        return kept

    return constraint


def random_support(widths: Sequence[int], n_weights: Sequence[int], cfg: ToyConfig, seeds: Sequence[int]) -> Constraint:
    """Return the control of `keep_weights`: the non-zero weights stand at random places from the start."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    places = untrained_toys(cfg, len(widths), generators).W
    mask = keep_weights(widths, n_weights)(places, 1.0) != 0
    return lambda W, progress: W * mask


def planted_pentagon(length: float = 1.0, order: Sequence[int] = range(5)) -> Float[Tensor, "hidden feature"]:
    """Return five features of equal length at equal angles in two dimensions: every dimensionality is exactly 2/5.

    Parameters
    ----------
    length, order : float, sequence of int
        Length of each column, and the features in the order in which they stand around the circle.
    """
    angles = torch.empty(5, dtype=torch.float64)
    angles[list(order)] = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5
    return (length * torch.stack([angles.cos(), angles.sin()])).float()
