"""Prune a model to a circuit for one task: learn a mask over all nodes, make it discrete, take out what can go.

First used in chapter 5. After arXiv 2511.13653, section 2 and appendix A.5; `mask_learning` and `mask_search` say where
this departs from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .ablation import ablated
from .ablation_masks import nodes_outside
from .ablation_values import AblationValues
from .calibration import STEPS, UNCALIBRATED, Calibration, fitted_calibration, reachable_loss, task_loss
from .circuit import Circuit
from .graph import node_sizes, weight_graph
from .mask_learning import LearnedMask, PruningConfig, by_location, learn_mask
from .mask_search import MaskSearch
from .model import Transformer
from .two_way import TwoWayPrompts, two_way_loss


@dataclass(frozen=True, eq=False)
class Pruned:
    """A circuit that was found, and how.

    Parameters
    ----------
    circuit : Circuit
        The nodes that were kept, with every edge between two of them.
    loss : float
        Task loss of the circuit on the selection prompts, in nats per prompt; with calibration, if the search had one.
    calibration : Calibration
        Scale and offset, fitted on the selection prompts; 1 and 0 if the search had none.
    nodes_by_stage : dict of str to int
        Nodes after `"mask"`, `"bisection"` and `"removal"`.
    learned : LearnedMask
        Tau of each node, and the course of the learning.
    tried : tuple of (int, int)
        Nodes and edges of the circuit of every restart, in their order.
    """

    circuit: Circuit
    loss: float
    calibration: Calibration
    nodes_by_stage: dict[str, int]
    learned: LearnedMask
    tried: tuple[tuple[int, int], ...]


def prune(
    model: Transformer,
    prompts: TwoWayPrompts,
    selection: TwoWayPrompts,
    values: AblationValues,
    config: PruningConfig | None = None,
    restarts: int = 1,
) -> Pruned:
    """Find a small circuit that solves a task at the target loss when every other node is ablated.

    Parameters
    ----------
    model : Transformer
        Left as it is.
    prompts : TwoWayPrompts
        On which the mask is learned.
    selection : TwoWayPrompts
        On which the nodes are chosen that stay. Other prompts than `prompts`, or the circuit misses its target on new
        ones.
    values : AblationValues
        What a node outside the circuit carries; the paper takes `mean_values` over the pretraining distribution.
    config : PruningConfig, optional
        How the mask is learned.
    restarts : int
        Masks that are learned, with seeds counted up from `config.seed`. The circuit with the fewest edges is
        returned, of those with as many edges the one with fewer nodes.

    Returns
    -------
    Pruned
        Equal for equal arguments on one machine.

    Raises
    ------
    ValueError
        If the intact model, judged as its circuits are, misses the target on the selection prompts, the values were
        made for another model or for single prompts, or `restarts` is below 1.
    """
    config = PruningConfig() if config is None else config
    if not isinstance(restarts, int) or restarts < 1:
        raise ValueError(f"restarts is {restarts!r}; give a whole number from 1 on.")
    check_values(model, values)
    whole = reachable_loss(model, selection, config.calibrate)
    if not whole <= config.target_loss:
        scaled = " after scale and offset" if config.calibrate else ""
        raise ValueError(
            f"The whole model has a task loss of {whole:.4f} nats{scaled} on the selection prompts and the target is "
            f"{config.target_loss}; choose a task that the model solves, or a target above {whole:.4f}."
        )
    found = [attempt(model, prompts, selection, values, replace(config, seed=config.seed + i)) for i in range(restarts)]
    sizes = tuple(size for pruned in found for size in pruned.tried)
    best = min(range(restarts), key=lambda i: sizes[i][::-1])
    return replace(found[best], tried=sizes)


def circuit_loss(
    model: Transformer,
    circuit: Circuit,
    prompts: TwoWayPrompts,
    values: AblationValues,
    calibration: Calibration = UNCALIBRATED,
) -> float:
    """Return the task loss with every node outside the circuit ablated, in nats per prompt: is it sufficient?

    Parameters
    ----------
    model, circuit, prompts, values
        Of one model; the values are what the ablated nodes carry.
    calibration : Calibration, optional
        Scale and offset, fitted on other prompts than these.

    Raises
    ------
    ValueError
        If the circuit is not one of this model, or the values do not fit it.
    """
    check_circuit(model, circuit)
    with ablated(model, nodes_outside(circuit), values=values):
        return task_loss(model, prompts, calibration)


def necessity_loss(model: Transformer, circuit: Circuit, prompts: TwoWayPrompts, values: AblationValues) -> float:
    """Return the task loss with the nodes of the circuit ablated and no others, in nats per prompt: is it necessary?

    Raises
    ------
    ValueError
        As in `circuit_loss`.
    """
    check_circuit(model, circuit)
    with ablated(model, circuit, values=values):
        return two_way_loss(model, prompts)


def calibrated(
    model: Transformer, circuit: Circuit, prompts: TwoWayPrompts, values: AblationValues, steps: int = STEPS
) -> Calibration:
    """Fit scale and offset of a circuit's answers, so that one that is right but timid is told from a wrong one.

    Parameters
    ----------
    model, circuit, prompts, values
        As in `circuit_loss`.
    steps : int
        Steps of LBFGS.

    Raises
    ------
    ValueError
        If `steps` is below 1, or as in `circuit_loss`.
    """
    check_circuit(model, circuit)
    with ablated(model, nodes_outside(circuit), values=values):
        return fitted_calibration(model, prompts, steps)


def attempt(
    model: Transformer,
    prompts: TwoWayPrompts,
    selection: TwoWayPrompts,
    values: AblationValues,
    config: PruningConfig,
    keep_missed: bool = False,
) -> Pruned:
    """Learn one mask and make a circuit of it; parameters as in `prune`.

    A mask that misses the target gets nodes back until it meets it. With `keep_missed` it stays as it was learned, and
    `nodes_by_stage` ends with it.
    """
    graph = weight_graph(model)
    learned = learn_mask(model, graph, prompts, selection, values, config)
    search = MaskSearch(model, graph, selection, values, config.target_loss, config.calibrate)
    kept = learned.tau > 0
    stages = {"mask": int(kept.sum())}
    if not keep_missed or search.meets_target(kept):
        kept = search.bisected(learned.tau)
        stages["bisection"] = int(kept.sum())
        kept = search.thinned(kept)
        stages["removal"] = int(kept.sum())
    circuit = Circuit.induced(graph, by_location(kept, graph))
    calibration = calibrated(model, circuit, selection, values) if config.calibrate else UNCALIBRATED
    sizes = (circuit.count_nodes(), circuit.count_edges())
    return Pruned(circuit, search.loss(kept), calibration, stages, learned, (sizes,))


def check_circuit(model: Transformer, circuit: Circuit) -> None:
    """Raise ValueError if a circuit is not a subset of the model's weight graph."""
    graph = weight_graph(model)
    if not graph.same_as(circuit.graph):
        raise ValueError(
            f"{circuit!r} is of another model, this one has {graph!r}; prune this model, or carry the nodes over with "
            "Circuit.induced(weight_graph(model), circuit.node_masks)."
        )


def check_values(model: Transformer, values: AblationValues) -> None:
    """Raise ValueError unless the values have one number for each node of the model, or one for each position."""
    if values.kind == "zero":
        return
    for location, n in node_sizes(model.cfg).items():
        shape = tuple(values.activations[location].shape) if location in values.activations else None
        if shape is None or shape[-1] != n:
            raise ValueError(
                f"{values!r} has {'nothing' if shape is None else shape} for {location}, the model has {n} nodes "
                "there; make the values with mean_values and this model."
            )
        if len(shape) > 2:
            raise ValueError(
                f"{values!r} belongs to {shape[0]} single prompts, and pruning runs others; give mean_values or "
                "zero_values."
            )
