"""How good a circuit is: does it suffice, is it needed, is anything in it superfluous?

First used in chapter 3. F(C) is a metric of the model when everything outside the circuit C is ablated. M is the whole
model. The same words mean different things in different papers; each function here says whose meaning it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from .ablation import ablated
from .ablation_masks import edges_outside, nodes_outside
from .ablation_values import AblationValues, norm_scales
from .circuit import Circuit, listed
from .graph import Graph

LEVELS = ("nodes", "edges")


@dataclass(frozen=True, eq=False)
class CircuitScore:
    """F: maps a circuit to a metric of the model with everything outside the circuit ablated.

    Parameters
    ----------
    model : HookedRootModule
        The model M.
    tokens : int tensor, shape (batch, pos)
        The prompts.
    metric : callable
        Maps logits, float tensor (batch, pos, d_vocab), to one number.
    values : AblationValues, optional
        What ablated nodes are set to; zero if not given.
    level : {"nodes", "edges"}
        Ablate the nodes that the circuit leaves out, or the edges that it leaves out.
    positions : iterable of int, or bool tensor, optional
        Where, as in `ablated`.
    share, seed : float, int
        Ablate only a random subset of what is outside, as in `ablated`.
    frozen_norms : bool
        Keep what every norm divides by as it is in the intact model. It is taken once: after a change of the weights
        or the tokens, make a new score.

    Raises
    ------
    TypeError, ValueError
        If `level` is unknown; when called, if the circuit is none or of another model, if the metric gives no finite
        number, and as `ablated` does.
    """

    model: HookedRootModule
    tokens: Int[Tensor, "batch pos"]
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], float | Tensor]
    values: AblationValues | None = None
    level: str = "nodes"
    positions: Iterable[int] | Bool[Tensor, ...] | None = None
    share: float = 1.0
    seed: int = 0
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level!r}; choose one of {LEVELS}.")
        if self.positions is not None and not isinstance(self.positions, Tensor):
            object.__setattr__(self, "positions", listed(self.positions, "positions"))

    def __call__(self, circuit: Circuit) -> float:
        """Return F(circuit)."""
        return self.of_subset(circuit, self.share, self.seed)

    @torch.no_grad()
    def of_subset(self, circuit: Circuit, share: float, seed: int) -> float:
        """Return the metric with a random subset of what is outside the circuit ablated."""
        if not isinstance(circuit, Circuit):
            raise TypeError(f"{circuit!r} is no Circuit; give one, for example Circuit.from_names(graph, edges).")
        outside = {"nodes": nodes_outside(circuit)} if self.level == "nodes" else {"edges": edges_outside(circuit)}
        options = {"values": self.values, "positions": self.positions, "norm_scales": self._scales}
        with ablated(self.model, **outside, **options, share=share, seed=seed):
            return _finite_number(self.metric(self.model(self.tokens)))

    def without(self, circuit: Circuit, names: Iterable[str]) -> Circuit:
        """Return the circuit less some of its nodes, or of its edges, as `level` says."""
        return circuit.without(**{self.level: names})

    def rest(self, circuit: Circuit) -> Circuit:
        """Return M less the circuit: all other nodes, or all other edges."""
        if self.level == "edges":
            return ~circuit
        return Circuit.induced(circuit.graph, nodes_outside(circuit))

    def names(self, circuit: Circuit) -> list[str]:
        """Return the names of the circuit's nodes, or of its edges."""
        return circuit.nodes() if self.level == "nodes" else circuit.edges()

    @cached_property
    def _scales(self) -> dict[str, Tensor] | None:
        return norm_scales(self.model, self.tokens) if self.frozen_norms else None


def faithfulness(score: CircuitScore, circuit: Circuit) -> float:
    """Return (F(C) - F(empty)) / (F(M) - F(empty)): 1 if the circuit does all that the model does, 0 if nothing.

    The normalised faithfulness of Marks et al. 2024 (arXiv 2403.19647, section 3.3) and of MIB (arXiv 2504.13151).
    It can leave [0, 1].

    Raises
    ------
    ValueError
        If the metric of the whole model equals that of the empty circuit, so that there is nothing to explain.
    """
    return relative_score(score, circuit.graph)(score(circuit))


def relative_score(score: Callable[[Circuit], float], graph: Graph) -> Callable[[float], float]:
    """Return the map from a metric to the faithfulness, which sends the empty circuit to 0 and the whole model to 1.

    Raises
    ------
    ValueError
        If the metric of the whole model equals that of the empty circuit, so that there is nothing to explain.
    """
    nothing, everything = score(Circuit.from_names(graph)), score(Circuit.full(graph))
    if math.isclose(nothing, everything, rel_tol=1e-9, abs_tol=1e-12):
        raise ValueError(
            f"The metric is {everything!r} for the whole model and for the empty circuit; choose a metric, prompts or "
            "values under which ablating everything makes a difference."
        )
    return lambda metric: (metric - nothing) / (everything - nothing)


def completeness(score: CircuitScore, circuit: Circuit) -> float:
    """Return the faithfulness of everything but the circuit: low where the circuit leaves nothing out that suffices.

    Marks et al. 2024 (arXiv 2403.19647, section 3.3). Wang et al. mean something else: see `completeness_gaps`.
    """
    return faithfulness(score, score.rest(circuit))


def completeness_gaps(score: CircuitScore, circuit: Circuit, subsets: Iterable[Sequence[str]]) -> list[float]:
    """Return |F(C without K) - F(M without K)| for each subset K of the circuit.

    Wang et al. 2022 (arXiv 2211.00593, section 4.1): a complete circuit reacts to every knock-out as the model does.
    The empty subset gives their faithfulness |F(M) - F(C)|.

    Parameters
    ----------
    score : CircuitScore
        F.
    circuit : Circuit
        C.
    subsets : iterable of sequences of str
        Names of nodes, or of edges if the score has that level.
    """
    whole = Circuit.full(circuit.graph)
    listed_subsets = [listed(names, "a subset") for names in subsets]
    return [abs(score(score.without(circuit, names)) - score(score.without(whole, names))) for names in listed_subsets]


def minimality(score: CircuitScore, circuit: Circuit, subsets: Iterable[Sequence[str]] = ((),)) -> dict[str, float]:
    """Return for each member v of the circuit the largest |F(C without K and v) - F(C without K)| over the subsets K.

    Wang et al. 2022 (arXiv 2211.00593, section 4.2): a member for which no K makes this large is superfluous. Subsets
    that hold v themselves are passed over.

    Parameters
    ----------
    score : CircuitScore
        F.
    circuit : Circuit
        C.
    subsets : iterable of sequences of str
        The K to try; only the empty set if not given, which is single-node (or single-edge) ablation inside C.
    """
    largest = dict.fromkeys(score.names(circuit), 0.0)
    for names in subsets:
        smaller = score.without(circuit, names)
        base = score(smaller)
        for member in score.names(smaller):
            change = abs(score(score.without(smaller, [member])) - base)
            largest[member] = max(largest[member], change)
    return largest


def stochastic_scores(
    score: CircuitScore, circuit: Circuit, share: float = 0.5, n_subsets: int = 20, seed: int = 0
) -> list[float]:
    """Return the metric under `n_subsets` random subsets of what is outside the circuit.

    Ablating everything outside at once lets errors cancel; a circuit that holds only then shows itself here.

    Parameters
    ----------
    score : CircuitScore
        F; its own `share` and `seed` are not used.
    circuit : Circuit
        C.
    share : float
        Probability that a node (or edge) outside is ablated.
    n_subsets : int
        Number of subsets, with the seeds `seed`, `seed + 1`, ...

    Raises
    ------
    ValueError
        If `n_subsets` is below 1.
    """
    if n_subsets < 1:
        raise ValueError(f"n_subsets is {n_subsets}; draw at least 1.")
    return [score.of_subset(circuit, share, seed + i) for i in range(n_subsets)]


def _finite_number(measured: float | Tensor) -> float:
    if isinstance(measured, Tensor) and measured.numel() != 1:
        raise ValueError(
            f"The metric gives a tensor of shape {tuple(measured.shape)}; give one that returns one number for all "
            "prompts, for example their mean."
        )
    if not isinstance(measured, Tensor | int | float) or not math.isfinite(measured):
        raise ValueError(f"The metric gives {measured!r}; give one that returns a finite number.")
    return float(measured)
