"""The objective of post-training: the expected share of open attention edges, while the loss stays within a limit.

First used in chapter 8.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .low_rank import LowRank
from .metrics import kl_divergence, next_token_loss
from .model import Transformer
from .objectives import Forward, Loss
from .sparsity.attention import expected_density, kept_scores
from .sparsity.constraint import ConstraintController


@dataclass(frozen=True)
class AttentionSparsity:
    """How attention is post-trained; stored in every checkpoint.

    Parameters
    ----------
    limit : float
        What the loss may be in training, in nats per token: for example that of the dense model plus a little.
    held_out_limit : float, optional
        What the loss may be on held-out windows for a state to count as the best; `limit` if not given. Give it for a
        text that training goes over more than once, whose held-out part is harder.
    bias : float
        Of the gates at the start and at the end, see `sparsity.attention.AttentionGate`.
    rate, decay, log_bounds, relative, log_start
        Of the controller, see `sparsity.constraint.ConstraintController`.
    distillation : float
        Weight of KL(dense model || this model), in nats per token, added to what is minimised; 0 does without the
        dense model.
    multiplier : float, optional
        Keep the weight of the loss against the penalty at this number instead of controlling it: the control that a
        claim about the controller needs.
    low_rank : LowRank, optional
        Train adapters of low rank and nothing else, for a model that is too large to train whole.
    seed : int
        Of the gates' noise; step s draws from `seed * 1_000_003 + s`.

    Raises
    ------
    ValueError
        If a setting cannot be used.
    """

    limit: float
    bias: float = 3.0
    rate: float = 0.1
    decay: float = 0.9
    log_bounds: tuple[float, float] = (-5.0, 5.0)
    relative: bool = True
    distillation: float = 0.0
    multiplier: float | None = None
    seed: int = 0
    held_out_limit: float | None = None
    log_start: float = 0.0
    low_rank: LowRank | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_bounds", tuple(self.log_bounds))
        if not 0 <= self.distillation < math.inf:
            raise ValueError(f"distillation is {self.distillation!r}; give a weight of 0 or more.")
        if self.multiplier is not None and not 0 < self.multiplier < math.inf:
            raise ValueError(f"multiplier is {self.multiplier!r}; give a weight above 0, or None to control it.")
        if self.held_out_limit is not None and not 0 < self.held_out_limit < math.inf:
            raise ValueError(f"held_out_limit is {self.held_out_limit!r}; give a finite number above 0, or None.")
        self.controller()

    @property
    def best_limit(self) -> float:
        """What the held-out loss of the best state may be."""
        return self.limit if self.held_out_limit is None else self.held_out_limit

    def controller(self) -> ConstraintController:
        """Return a new controller with these settings."""
        controller = ConstraintController(
            self.limit, self.rate, self.decay, self.log_bounds, self.relative, self.log_start
        )
        if self.multiplier is not None:
            controller.log_multiplier = math.log(self.multiplier)
        return controller


class SparseAttention:
    """The objective: the expected share of open edges, mean over layers, while the loss stays within its limit.

    Parameters
    ----------
    model : Transformer
        A model with gates, the one that is trained.
    config : AttentionSparsity
        Limit, controller, distillation.
    teacher : Transformer, optional
        The dense model, for distillation.
    loss : callable
        Maps logits (batch, pos, d_vocab) and tokens (batch, pos + 1) to the constrained loss; the mean cross-entropy of
        the next token if not given.
    """

    def __init__(
        self,
        model: Transformer,
        config: AttentionSparsity,
        teacher: Transformer | None = None,
        loss: Loss = next_token_loss,
    ) -> None:
        if config.distillation and teacher is None:
            raise ValueError(f"distillation is {config.distillation} and there is no teacher; give the dense model.")
        self.model, self.config, self.teacher, self.loss = model, config, teacher, loss
        self.controller = config.controller()

    def __call__(
        self, forward: Forward, tokens: Int[Tensor, "batch pos_and_one"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return what is minimised, and loss, expected density, multiplier and divergence for the log."""
        from accelerate.utils import reduce

        with torch.random.fork_rng(), kept_scores(self.model) as scores:
            torch.manual_seed(self.config.seed * 1_000_003 + step)
            logits = forward(tokens[:, :-1])
        loss, density = self.loss(logits.float(), tokens), expected_density(self.model, scores).mean()
        minimised = self.controller.objective(density, loss)
        measures = {"loss": loss, "expected_density": density, "multiplier": torch.tensor(self.controller.multiplier)}
        if self.config.distillation:
            with torch.no_grad():
                dense = self.teacher(tokens[:, :-1])
            measures["divergence"] = kl_divergence(dense, logits.float()).mean()
            minimised = minimised + self.config.distillation * measures["divergence"]
        if self.config.multiplier is None:
            self.controller.update(float(reduce(loss.detach(), reduction="mean")))
        return minimised, {name: measure.detach() for name, measure in measures.items()}

    def identity(self) -> dict[str, dict]:
        """Return the settings, as JSON values."""
        return json.loads(json.dumps({"attention": asdict(self.config)}))

    def state_dict(self) -> dict:
        """Return the controller's state."""
        return self.controller.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore the controller's state."""
        self.controller.load_state_dict(state)
