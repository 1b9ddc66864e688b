"""Weight sparsity: after every optimiser step each matrix keeps only its largest entries.

Gradients and the optimiser's moments stay dense, so a weight that was set to zero is still pushed, and comes back when
it grows past the smallest one kept (arXiv 2511.13653, section 2.1 and appendix A.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .selection import largest_mask, zero_outside

if TYPE_CHECKING:
    from ..model import Transformer

# The dimension of a weight along which the connections of one neuron, or of one channel of a head, lie.
CONNECTIONS = {"W_Q": 1, "W_K": 1, "W_V": 1, "W_O": 2, "W_gate": 0, "W_in": 0, "W_out": 1}
EMBEDDINGS = ("W_E", "W_pos", "W_U")


@dataclass(frozen=True)
class WeightSparsity:
    """How sparse the weights of a model become, and when.

    Parameters
    ----------
    density : float
        Share of the entries of W_Q, W_K, W_V, W_O, W_gate, W_in and W_out that are kept at the end, of each weight on
        its own. The heads of a layer share one budget.
    expansion : float
        How many times denser the embeddings W_E, W_pos and W_U are, never above 1. The paper's rule: a model that is
        `expansion` times wider than its smallest sibling has density `budget / expansion**2`, embeddings
        `budget / expansion`, so that width leaves the number of non-zeros as it is.
    floor : int
        Entries that every neuron (its column of W_in, its row of W_out) and every channel of a head (W_Q, W_K, W_V,
        W_O) keeps at least. They are taken out of the same budget, not added to it.
    anneal_from, anneal_to : float
        Shares of the training between which the kept share falls from 1 to its last value, in a straight line.

    Biases, the attention sink and the bigram table stay dense, as in the authors' training script.

    Raises
    ------
    ValueError
        If `density` is outside (0, 1], `expansion` is below 1, `floor` is negative or annealing is not within the run.
    """

    density: float
    expansion: float = 1.0
    floor: int = 0
    anneal_from: float = 0.01
    anneal_to: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"density is {self.density!r}; give a share above 0 and at most 1.")
        if not self.expansion >= 1:
            raise ValueError(f"expansion is {self.expansion!r}; give 1 or more: width over that of the smallest model.")
        if not isinstance(self.floor, int) or self.floor < 0:
            raise ValueError(f"floor is {self.floor!r}; give a number of connections, 0 or more.")
        if not 0 <= self.anneal_from <= self.anneal_to <= 1:
            raise ValueError(
                f"Annealing goes from {self.anneal_from!r} to {self.anneal_to!r}; "
                "give shares of the training, 0 <= anneal_from <= anneal_to <= 1."
            )

    @property
    def embedding_density(self) -> float:
        """Share of the entries of W_E, W_pos and W_U that are kept at the end."""
        return min(1.0, self.density * self.expansion)

    def progress(self, step: int, steps: int) -> float:
        """Return how far annealing has come after optimiser step `step` of `steps`, counted from 0: 0 to 1."""
        share = (step + 1) / steps
        if share >= self.anneal_to:
            return 1.0
        if share <= self.anneal_from:
            return 0.0
        return (share - self.anneal_from) / (self.anneal_to - self.anneal_from)

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """Return the factor on the learning rate of a step: the square root of last density over present density.

        It is small while the model is dense and 1 once it is sparse (the "sharkfin" schedule of appendix A.2).
        """
        return math.sqrt(self.density / _annealed(self.density, self.progress(step, steps)))

    def counts(self, model: Transformer, progress: float = 1.0) -> dict[str, int]:
        """Return how many entries of each sparse weight are kept: the nearest whole number, and at least one.

        Parameters
        ----------
        model : Transformer
            Gives names and shapes.
        progress : float
            How far annealing has come, 0 to 1.

        Raises
        ------
        ValueError
            If the floor asks for more connections than a neuron has, or for more than the budget of a weight.
        """
        counts = {}
        for name, weight in sparse_weights(model):
            kind = _kind(name)
            density = _annealed(self.embedding_density if kind in EMBEDDINGS else self.density, progress)
            counts[name] = max(1, round(density * weight.numel()))
            if kind in CONNECTIONS:
                self._check_floor(name, weight, counts[name])
        return counts

    def _check_floor(self, name: str, weight: Tensor, count: int) -> None:
        connections = weight.shape[CONNECTIONS[_kind(name)]]
        neurons = weight.numel() // connections
        if self.floor > connections or self.floor * neurons > count:
            raise ValueError(
                f"floor is {self.floor}, but {name} has {connections} connections for each of {neurons} neurons or "
                f"channels and keeps {count} in all (density {self.density}); lower floor or raise density."
            )


@torch.no_grad()
def sparsify(model: Transformer, sparsity: WeightSparsity, progress: float = 1.0) -> None:
    """Set to zero, in place, all but the largest entries of every sparse weight.

    Parameters
    ----------
    model : Transformer
        Changed in place.
    sparsity : WeightSparsity
        How many entries are kept, and how many of each neuron at least.
    progress : float
        How far annealing has come: 0 keeps everything, 1 keeps the densities of `sparsity`.

    Raises
    ------
    ValueError
        As `WeightSparsity.counts`; nothing is changed then.
    FloatingPointError
        If a weight holds a NaN.
    """
    if progress == 0:
        return
    counts = sparsity.counts(model, progress)
    for name, weight in sparse_weights(model):
        if weight.isnan().any():
            raise FloatingPointError(f"{name} holds a NaN; lower learning_rate or warm up longer.")
        weight.copy_(zero_outside(weight, _kept(name, weight, counts[name], sparsity.floor)))


def sparse_weights(model: Transformer) -> Iterable[tuple[str, Tensor]]:
    """Yield name and weight of the matrices and embeddings that weight sparsity acts on."""
    return ((name, weight) for name, weight in model.named_parameters() if _kind(name) in (*CONNECTIONS, *EMBEDDINGS))


def _kept(name: str, weight: Float[Tensor, "*shape"], count: int, floor: int) -> Bool[Tensor, "*shape"]:
    if not floor or _kind(name) not in CONNECTIONS:
        return largest_mask(weight, count)
    first = largest_mask(weight, floor, CONNECTIONS[_kind(name)])
    return largest_mask(weight.masked_fill(first, torch.inf), count)


def _annealed(density: float, progress: float) -> float:
    return 1 + (density - 1) * progress


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
