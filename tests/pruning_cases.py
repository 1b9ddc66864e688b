"""Planted circuits, plain and hidden, as pruning meets them: prompts, means, targets and a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from sparse_circuits.ablation_values import AblationValues, mean_values
from sparse_circuits.mask_learning import PruningConfig
from sparse_circuits.model import Transformer
from sparse_circuits.planted import (
    PlantedCircuit,
    hidden_circuit,
    planted_bracket_circuit,
    planted_quote_circuit,
)
from sparse_circuits.two_way import TwoWayPrompts, two_way_loss

QUERY = "blocks.1.attn.hook_q[0]"
# What a circuit may lose on the selection prompts, in nats per prompt, above the loss of the whole model.
ALLOWANCE = 0.05
NAMES = ("quotes", "brackets", "hidden quotes", "hidden brackets")


@dataclass(frozen=True)
class Case:
    """A planted model with the prompts of one pruning."""

    planted: PlantedCircuit
    learning: TwoWayPrompts
    selection: TwoWayPrompts
    means: AblationValues

    @property
    def model(self) -> Transformer:
        return self.planted.model

    def config(self, **changes) -> PruningConfig:
        """Return a short search: the target is the model's own loss and a twentieth of a nat.

        The planted models lose almost nothing while their circuit is whole, so the loss has no gradient then. The first
        taus are spread widely, or they would all cross 0 in the same step.
        """
        target = two_way_loss(self.model, self.selection) + ALLOWANCE
        return PruningConfig(**{"target_loss": target, "steps": 25, "start": 0.5, "noise": 0.3} | changes)


@cache
def case(name: str, seed: int = 0) -> Case:
    """Return a case; hidden ones are hidden anew for each seed."""
    planted = planted_quote_circuit() if name.endswith("quotes") else planted_bracket_circuit()
    if name.startswith("hidden"):
        planted = hidden_circuit(planted, seed)
    learning, selection, reference = (
        TwoWayPrompts.of(planted.sample(n, seed=draw)) for n, draw in ((128, 10 + seed), (64, 20 + seed), (256, 30))
    )
    seen = torch.arange(reference.tokens.shape[1]) <= reference.position[:, None]
    means = mean_values(planted.model, reference.tokens, "prompts of the task", where=seen)
    return Case(planted, learning, selection, means)
