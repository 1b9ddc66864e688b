"""Learn which nodes a task needs: one number tau per node, kept where tau > 0.

First used in chapter 5. A re-implementation of the published description (arXiv 2511.13653, section 2 and appendix
A.5): a node that is masked out carries its mean over the pretraining distribution, and backwards the step at 0 has the
derivative of a sigmoid. One thing is ours: the node penalty is not searched for by a tuner. It grows while the task
loss is below its target and shrinks while it is above.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .ablation import ablated
from .ablation_values import AblationValues
from .calibration import LARGEST_SCALE, reachable_loss, scaled_losses
from .graph import Graph
from .model import Transformer
from .two_way import TwoWayPrompts


@dataclass(frozen=True)
class PruningConfig:
    """How a mask is learned and how large a loss its circuit may have.

    Parameters
    ----------
    target_loss : float
        Two-way task loss that the circuit may have on the selection prompts, in nats per prompt.
    steps : int
        Optimiser steps on tau.
    check_every : int
        Steps between two looks at the selection prompts.
    prompts_per_step : int
        Prompts in each step, drawn without replacement.
    learning_rate : float
        Of AdamW on tau (betas 0.9 and 0.95, decay 0.001); warmed up over the first 5 %, then brought to 0 linearly.
    penalty : float
        First value of the node penalty, in nats per kept node.
    penalty_growth, penalty_decay : float
        Factors on the penalty after a step whose task loss was below, or above, the target.
    temperature : float
        Of the sigmoid whose derivative stands in for that of the step.
    start, noise : float
        Mean and standard deviation of the first tau.
    calibrate : bool
        Whether scale and offset of the margins are learned with the mask, at the same learning rate and without decay,
        and the target is one of the calibrated loss.
    seed : int
        Of the first tau and of the prompts drawn.

    Raises
    ------
    ValueError
        If a field is outside its range.
    """

    target_loss: float = 0.15
    steps: int = 300
    check_every: int = 10
    prompts_per_step: int = 32
    learning_rate: float = 0.03
    penalty: float = 1e-3
    penalty_growth: float = 1.03
    penalty_decay: float = 0.94
    temperature: float = 1.0
    start: float = 0.1
    noise: float = 0.01
    calibrate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "check_every", "prompts_per_step"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a whole number from 1 on.")
        for name in ("target_loss", "learning_rate", "penalty", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number above 0.")
        if not -1 <= self.start <= 1:
            raise ValueError(f"start is {self.start!r}; give a number from -1 to 1, between which tau is kept.")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise is {self.noise!r}; give 0 or a number above it.")
        if not 0 < self.penalty_decay <= 1 <= self.penalty_growth:
            raise ValueError(
                f"penalty_decay is {self.penalty_decay!r} and penalty_growth {self.penalty_growth!r}; give one of at "
                "most 1 and one of at least 1, where two ones keep the penalty as it is."
            )


@dataclass(frozen=True, eq=False)
class LearnedMask:
    """What the learning leaves behind.

    Parameters
    ----------
    tau : float tensor, shape (node,)
        The learned numbers, nodes in the order of the graph's locations: of the checked steps that met the target on
        the selection prompts the one that kept the fewest nodes; if none did, the last.
    losses, penalties : list of float
        Task loss and penalty at each step.
    counts : list of int
        Kept nodes at each step.
    """

    tau: Float[Tensor, " node"]
    losses: list[float]
    penalties: list[float]
    counts: list[int]


class StepWithSigmoidGradient(torch.autograd.Function):
    """1 where tau > 0, else 0; backwards the derivative of sigmoid(tau / temperature)."""

    @staticmethod
    def forward(ctx, tau: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(tau)
        ctx.temperature = temperature
        return (tau > 0).to(tau)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (tau,) = ctx.saved_tensors
        sigmoid = (tau / ctx.temperature).sigmoid()
        return gradient * sigmoid * (1 - sigmoid) / ctx.temperature, None


def learn_mask(
    model: Transformer,
    graph: Graph,
    prompts: TwoWayPrompts,
    selection: TwoWayPrompts,
    values: AblationValues,
    config: PruningConfig,
) -> LearnedMask:
    """Learn tau for every node of a graph; the model is left as it is.

    The loss climbs a cliff where one node too many is gone, and the penalty swings about it. So the mask is looked at
    on the selection prompts every few steps, and the smallest one that meets the target there is what is returned.
    """
    generator = torch.Generator().manual_seed(config.seed)
    first = config.start + config.noise * torch.randn(graph.count_nodes(), generator=generator)
    tau = nn.Parameter(first.clamp(-1, 1))
    log_scale, offset = (nn.Parameter(torch.zeros(()), requires_grad=config.calibrate) for _ in range(2))
    groups = [{"params": [tau], "weight_decay": 1e-3}, {"params": [log_scale, offset], "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))
    learned = LearnedMask(tau.detach().clone(), [], [], [])
    penalty, fewest = config.penalty, graph.count_nodes() + 1
    with _frozen(model):
        for step in range(config.steps):
            batch = prompts[torch.randperm(len(prompts), generator=generator)[: config.prompts_per_step]]
            mask = StepWithSigmoidGradient.apply(tau, config.temperature)
            with ablated(model, by_location(1 - mask, graph), values=values):
                margins = batch.margins(batch.answer_logits(model))
            loss = scaled_losses(margins, batch, log_scale.exp(), offset).mean()
            optimiser.zero_grad()
            (loss + penalty * mask.sum()).backward()
            nn.utils.clip_grad_norm_([tau], 1.0)
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * _schedule(step, config.steps)
            optimiser.step()
            with torch.no_grad():
                tau.clamp_(-1, 1)
                log_scale.clamp_(max=math.log(LARGEST_SCALE))
            learned.losses.append(loss.item())
            learned.penalties.append(penalty)
            learned.counts.append(int(mask.sum()))
            penalty *= config.penalty_growth if loss < config.target_loss else config.penalty_decay
            kept = tau.detach() > 0
            if (step + 1) % config.check_every or kept.sum() >= fewest:
                continue
            with ablated(model, by_location(~kept, graph), values=values):
                if reachable_loss(model, selection, config.calibrate) <= config.target_loss:
                    learned.tau.copy_(tau.detach())
                    fewest = int(kept.sum())
    if fewest > graph.count_nodes():
        learned.tau.copy_(tau.detach())
    return learned


def by_location(flat: Float[Tensor, " node"], graph: Graph) -> dict[str, Tensor]:
    """Return one number per node as tensors by location."""
    return dict(zip(graph.sizes, flat.split(list(graph.sizes.values())), strict=True))


def _schedule(step: int, steps: int) -> float:
    warmup = max(1, math.ceil(0.05 * steps))
    return min(1.0, (step + 1) / warmup) * (1 - step / steps)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Compute no gradients for the weights."""
    required = {weight: weight.requires_grad for weight in model.parameters()}
    try:
        for weight in required:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, was in required.items():
            weight.requires_grad_(was)
