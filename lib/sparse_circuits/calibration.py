"""Scale and offset of a circuit's answers: is it wrong, or right but timid?

First used in chapter 5. Ablation shrinks margins, and a constant that it adds tips both halves of a pair to one side.
The paper fits a scale and a shift of the logits after pruning, with 16 steps of LBFGS (arXiv 2511.13653, appendix A.5),
and calls this not principled; so read every loss with and without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .model import Transformer
from .two_way import TwoWayPrompts, two_way_loss

STEPS = 16
# Without a bound, margins of 1e-6 that happen to have the right signs would count as answers.
LARGEST_SCALE = 10.0


@dataclass(frozen=True)
class Calibration:
    """A scale and an offset of the margin between the right and the wrong answer.

    Parameters
    ----------
    scale, offset : float
        The calibrated margin of a prompt is `scale * margin + offset * side`, with the side of `TwoWayPrompts.sides`.
    loss_before, loss_after : float
        Task loss on the prompts of the fit, in nats per prompt.
    """

    scale: float
    offset: float
    loss_before: float
    loss_after: float

    def losses(self, margins: Float[Tensor, " n"], prompts: TwoWayPrompts) -> Float[Tensor, " n"]:
        """Return the two-way cross-entropy of each prompt after scale and offset, in nats."""
        return scaled_losses(margins, prompts, self.scale, self.offset)


UNCALIBRATED = Calibration(1.0, 0.0, math.nan, math.nan)


def scaled_losses(
    margins: Float[Tensor, " n"], prompts: TwoWayPrompts, scale: float | Tensor, offset: float | Tensor
) -> Float[Tensor, " n"]:
    """Return the two-way cross-entropy of scaled and shifted margins, in nats."""
    return F.softplus(-(scale * margins + offset * prompts.sides.to(margins)))


@torch.no_grad()
def task_loss(model: Transformer, prompts: TwoWayPrompts, calibration: Calibration) -> float:
    """Return the loss of the model as it is, with the hooks that it carries and a given calibration, in nats."""
    margins = prompts.margins(prompts.answer_logits(model))
    return float(calibration.losses(margins, prompts).mean())


@torch.no_grad()
def fitted_calibration(model: Transformer, prompts: TwoWayPrompts, steps: int = STEPS) -> Calibration:
    """Fit scale and offset to the model as it is, with the hooks that it carries; see `fit`."""
    return fit(prompts.margins(prompts.answer_logits(model)), prompts, steps)


def reachable_loss(model: Transformer, prompts: TwoWayPrompts, calibrate: bool) -> float:
    """Return the loss of the model as it is, on request with the best scale and offset for these prompts, in nats."""
    return fitted_calibration(model, prompts).loss_after if calibrate else two_way_loss(model, prompts)


@torch.enable_grad()
def fit(margins: Float[Tensor, " n"], prompts: TwoWayPrompts, steps: int = STEPS) -> Calibration:
    """Return the scale, between 0 and `LARGEST_SCALE`, and the offset with the least loss.

    Raises
    ------
    ValueError
        If `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1.")
    margins = margins.detach().double()
    at_scale_1 = -math.log(LARGEST_SCALE - 1)
    free = torch.tensor([at_scale_1, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Float[Tensor, ""]:
        return scaled_losses(margins, prompts, LARGEST_SCALE * free[0].sigmoid(), free[1]).mean()

    def closure() -> Float[Tensor, ""]:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    before = loss().item()
    optimiser.step(closure)
    return Calibration(LARGEST_SCALE * free[0].sigmoid().item(), free[1].item(), before, loss().item())
