"""Graders of chapter 5: each runs the reader's answer, on tensors written out, on toys, or on planted circuits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ablation_values import AblationValues
from ..circuit import Circuit
from ..grading import Wrong, grader
from ..mask_learning import PruningConfig
from ..model import Transformer
from ..planted import planted_bracket_circuit, planted_quote_circuit
from ..planted_search import PlantedSearch
from ..pruning import circuit_loss, prune
from ..two_way import TwoWayPrompts

TOLERANCE = 1e-5
TEMPERATURES = (0.5, 1.0, 2.0)
TOY_NODES, TOY_NEEDED, TOY_SPARE, TOY_TARGET, TOY_SEEDS = 24, (2.0, 1.5, 1.0), 1, 0.02, 3
FEWEST_PROMPTS, MOST_PROMPTS = 8, 64
MISLED = 0.3
# For each curve: the nodes that the mask kept, and from each number of nodes on, the loss. The first has the shape that
# the quote circuit of a dense model has.
CURVES = (
    (86, ((0, 0.71), (74, 0.17), (79, 0.14), (106, 0.2), (201, 0.97), (640, 0.17), (900, 0.04))),
    (310, ((0, 0.69), (23, 0.12), (1300, 0.05))),
    (40, ((0, 0.9), (61, 0.1), (400, 0.6), (1000, 0.01))),
    (12, ((0, 0.02),)),
)
ALL_NODES, CURVE_TARGET, CALLS = 1408, 0.15, 40


@grader("05.1")
def grade_masked(answer: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> str:
    """Compare value and gradients with the formulas, written out for each node."""
    generator = torch.Generator().manual_seed(0)
    for temperature in TEMPERATURES:
        activation, upstream = (torch.randn(3, 4, 6, generator=generator) for _ in range(2))
        mean = torch.randn(6, generator=generator)
        tau = torch.tensor([-0.9, -0.2, 0.0, 0.1, 0.5, 1.0])
        found, of_tau, of_activation = _with_gradients(answer, activation, mean, tau, temperature, upstream)
        kept = torch.tensor([False, False, False, True, True, True])
        _check_values(found, torch.where(kept, activation, mean), activation, mean, kept)
        if of_tau is None or not of_tau.any():
            raise Wrong("The values are right, but no gradient reaches tau. A comparison has none; what stands in?")
        slope = (tau / temperature).sigmoid() * (-tau / temperature).sigmoid() / temperature
        chord = (upstream * (activation - mean)).sum((0, 1))
        if not torch.allclose(of_tau, chord * slope, atol=TOLERANCE):
            raise Wrong(_what_the_gradient_is(of_tau, chord, tau, temperature, slope))
        if of_activation is None or not torch.allclose(of_activation, upstream * kept, atol=TOLERANCE):
            raise Wrong(
                "What reaches tau is right. The gradient of the activation has to pass where the node is kept, "
                "unchanged, and nowhere else; yours does not."
            )
    return f"Values and gradients are right at {len(TEMPERATURES)} temperatures."


def _with_gradients(
    answer: Callable, activation: Tensor, mean: Tensor, tau: Tensor, temperature: float, upstream: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    activation, tau = activation.clone().requires_grad_(), tau.clone().requires_grad_()
    with torch.enable_grad():
        found = answer(activation, mean, tau, temperature)
        if not isinstance(found, Tensor) or found.shape != activation.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Wrong(f"Return a tensor of the activation's shape {tuple(activation.shape)}; yours is {shape}.")
        gradients = (
            torch.autograd.grad(found, (tau, activation), upstream, allow_unused=True)
            if found.requires_grad
            else (None, None)
        )
    return found.detach(), *gradients


def _check_values(found: Tensor, expected: Tensor, activation: Tensor, mean: Tensor, kept: Tensor) -> None:
    if torch.allclose(found, expected, atol=TOLERANCE):
        return
    if torch.allclose(found, torch.where(kept, activation, torch.zeros(())), atol=TOLERANCE):
        raise Wrong("A node that is masked out carries zero in your function. What should it carry?")
    if torch.allclose(found, torch.where(kept, mean, activation), atol=TOLERANCE):
        raise Wrong("It is the wrong way round: a node with tau above 0 is kept.")
    at_zero = found[..., 2]
    if torch.allclose(found[..., kept], expected[..., kept], atol=TOLERANCE) and torch.allclose(
        at_zero, activation[..., 2], atol=TOLERANCE
    ):
        raise Wrong("At tau = 0 your node is kept. It stays only where tau is above 0.")
    raise Wrong(
        "The values are neither the activation nor the mean. Forwards the mask has to be 0 or 1; the sigmoid belongs "
        "to the way back alone."
    )


def _what_the_gradient_is(found: Tensor, chord: Tensor, tau: Tensor, temperature: float, slope: Tensor) -> str:
    others = {
        "You let the gradient pass as if the mask were tau itself. Multiply by the derivative of the sigmoid.": 1.0,
        "The chain rule lacks a factor: tau is divided by the temperature.": slope * temperature,
        "The sigmoid has to be taken of tau divided by the temperature.": tau.sigmoid() * (-tau).sigmoid(),
        "You multiplied by the sigmoid. Its derivative is wanted.": (tau / temperature).sigmoid(),
    }
    for message, factor in others.items():
        if torch.allclose(found, chord * factor, atol=TOLERANCE):
            return message
    if torch.allclose(found, -chord * slope, atol=TOLERANCE):
        return "The sign of what reaches tau is wrong: a larger tau is more activation and less mean."
    return (
        "A gradient reaches tau, but not this one: over all prompts and positions, the sum of the upstream gradient "
        "times (activation - mean), times the derivative of sigmoid(tau / temperature)."
    )


@grader("05.2")
def grade_mended_loop(answer: Callable[[Callable[[Tensor], Tensor], int, float], Tensor]) -> str:
    """Learn masks of toys in which three nodes answer and each of the rest helps a little."""
    most = len(TOY_NEEDED) + TOY_SPARE
    for seed in range(TOY_SEEDS):
        loss_of = _toy(seed)
        torch.manual_seed(seed)
        with torch.enable_grad():
            mask = answer(loss_of, TOY_NODES, TOY_TARGET)
        if not isinstance(mask, Tensor) or mask.shape != (TOY_NODES,) or mask.dtype != torch.bool:
            raise Wrong(f"Return a boolean tensor with {TOY_NODES} entries, True where a node stays.")
        with torch.no_grad():
            loss, kept = loss_of(mask.float()).item(), int(mask.sum())
        if kept == TOY_NODES:
            raise Wrong(
                "After all steps every node is still there. Follow the price: when does it grow, and how large does "
                "it become? And does any gradient reach tau?"
            )
        if loss > TOY_TARGET:
            raise Wrong(
                f"Your mask of {kept} nodes has a loss of {loss:.3f}, the target is {TOY_TARGET}. Should the price "
                "grow while the loss is above the target? And is the mask after the last step one that meets it?"
            )
        if kept > most:
            raise Wrong(
                f"Your mask meets the target with {kept} nodes, and {len(TOY_NEEDED)} are enough; {most} would pass. "
                "When does the price grow, and which of the masks that met the target do you return?"
            )
    return f"At most {most} of {TOY_NODES} nodes, and the target met, in {TOY_SEEDS} toys."


def _toy(seed: int) -> Callable[[Tensor], Tensor]:
    """Return the loss of 64 answers to which three nodes add much, and the others so little that all may go."""
    generator = torch.Generator().manual_seed(seed)
    adds = 0.05 * torch.rand(64, TOY_NODES, generator=generator)
    places = torch.randperm(TOY_NODES, generator=generator)[: len(TOY_NEEDED)]
    adds[:, places] = torch.tensor(TOY_NEEDED)
    return lambda mask: F.softplus(-(adds @ mask)).mean()


@cache
def _question(name: str) -> PlantedSearch:
    return PlantedSearch.of({"quotes": planted_quote_circuit, "brackets": planted_bracket_circuit}[name]())


@grader("05.3")
def grade_budget(
    answer: Callable[[Transformer, TwoWayPrompts, TwoWayPrompts, AblationValues, PruningConfig, int], Circuit],
) -> str:
    """Prune planted models under budgets of edges, and measure the circuits on fresh prompts."""
    notes = []
    for name, budget, limit in (("brackets", 4, 0.1), ("quotes", 10, 0.1), ("quotes", 4, 0.6)):
        question = _question(name)
        circuit = answer(
            question.model, question.learning, question.selection, question.means, question.config(), budget
        )
        if not isinstance(circuit, Circuit):
            raise Wrong(f"Your function returned {type(circuit).__name__}; return a Circuit.")
        if not circuit.graph.same_as(question.planted.graph):
            raise Wrong("Your circuit is of another model. Prune the one that the function is given.")
        if circuit != Circuit.induced(circuit.graph, circuit.node_masks):
            raise Wrong(
                "Your circuit leaves out edges between nodes that it keeps. When its nodes run, so do these edges, so "
                "they count: leave out nodes instead."
            )
        edges = circuit.count_edges()
        if edges > budget:
            raise Wrong(f"On the planted {name} the budget is {budget} edges and your circuit has {edges}.")
        loss = circuit_loss(question.model, circuit, question.fresh, question.means)
        if loss > limit:
            raise Wrong(
                f"On the planted {name}, {budget} edges are enough for a loss below {limit} on fresh prompts; yours, "
                f"with {edges} edges, has {loss:.2f}. A circuit that is found for a looser target has fewer edges."
            )
        notes.append(f"{edges} of {budget} edges at {loss:.2f} nats")
    return f"Within each budget: {', '.join(notes)}."


@grader("05.4")
def grade_misleading_prompts(answer: Iterable[str]) -> str:
    """Search on the reader's prompts, and ask the circuit about all prompts."""
    question = _question("quotes")
    planted = question.planted
    if isinstance(answer, str) or not all(isinstance(text, str) for text in answer):
        raise Wrong('Give a list of prompts as text, such as ["print(\\"hello world", "log(\'bye"].')
    texts = list(dict.fromkeys(answer))
    if not FEWEST_PROMPTS <= len(texts) <= MOST_PROMPTS:
        raise Wrong(f"You gave {len(texts)} different prompts; give {FEWEST_PROMPTS} to {MOST_PROMPTS}.")
    try:
        asked = [planted.prompt(text) for text in texts]
    except ValueError as error:
        raise Wrong(str(error)) from error
    double = sum(planted.vocabulary[prompt.right] == '")' for prompt in asked)
    if 2 * double != len(asked):
        raise Wrong(f"{double} of your {len(asked)} prompts want a double quote; it has to be half of them.")
    prompts = TwoWayPrompts.of(asked)
    config = question.config(prompts)
    found = prune(question.model, prompts, prompts, question.means, config)
    every = TwoWayPrompts.of(planted.every_prompt())
    loss = circuit_loss(question.model, found.circuit, every, question.means)
    size = f"{found.circuit.count_nodes()} nodes, {found.loss:.2f} nats on your prompts and {loss:.2f} on all"
    if loss < MISLED:
        raise Wrong(
            f"The circuit that is found has {size}; it takes {MISLED} on all, so it is not misled enough. What "
            "happens in other prompts that never happens in yours?"
        )
    return f"The circuit that is found has {size} {len(every):,}."


@grader("05.5")
def grade_smallest_prefix(answer: Callable[[Callable[[int], float], int, int, float], int]) -> str:
    """Run the reader's search on curves that rise and fall, and count how often it looks."""
    for learned, steps in CURVES:
        seen: list[int] = []

        def loss_of(k: int, steps=steps, seen=seen) -> float:
            if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= ALL_NODES:
                raise Wrong(f"You asked for the loss of {k!r} nodes; ask for a whole number from 0 to {ALL_NODES}.")
            seen.append(k)
            return _on_curve(steps, k)

        k = answer(loss_of, learned, ALL_NODES, CURVE_TARGET)
        case = f"Where the mask kept {learned} nodes, with a loss of {_on_curve(steps, learned)},"
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= ALL_NODES:
            raise Wrong(f"{case} you returned {k!r}; return a number of nodes.")
        if len(seen) > CALLS:
            raise Wrong(f"{case} you looked at the loss {len(seen)} times; {CALLS} are allowed. Stride, then halve.")
        if (loss := _on_curve(steps, k)) > CURVE_TARGET:
            raise Wrong(f"{case} you returned {k} nodes, which have {loss}; the target is {CURVE_TARGET}.")
        if k and _on_curve(steps, k - 1) <= CURVE_TARGET:
            raise Wrong(f"{case} you returned {k} nodes, and {k - 1} meet the target too.")
        if k > (most := max(learned, _first_good(steps, learned))):
            raise Wrong(
                f"{case} you returned {k} nodes. One fewer misses the target, true, but at most {most} were needed: "
                "the curve crosses the target several times. Where is the search to begin?"
            )
    return f"Right on {len(CURVES)} curves, with at most {CALLS} looks at each."


def _on_curve(steps: tuple[tuple[int, float], ...], k: int) -> float:
    return [loss for start, loss in steps if start <= k][-1]


def _first_good(steps: tuple[tuple[int, float], ...], learned: int) -> int:
    """Return the smallest number of nodes, from `learned` on, that meets the target."""
    return next(k for k in range(learned, ALL_NODES + 1) if _on_curve(steps, k) <= CURVE_TARGET)
