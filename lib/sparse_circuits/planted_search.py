"""A planted circuit as a search meets it: prompts, means, a target and a configuration.

First used in chapter 5, where each search is run on circuits that are known before it is run on a trained model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .ablation_values import AblationValues, mean_values
from .mask_learning import PruningConfig
from .model import Transformer
from .planted import PlantedCircuit
from .two_way import TwoWayPrompts, two_way_loss

# What a circuit may lose on the selection prompts, in nats per prompt, above the loss of the whole model.
ALLOWANCE = 0.05


@dataclass(frozen=True, eq=False)
class PlantedSearch:
    """A planted model with the prompts and the values of one search.

    Parameters
    ----------
    planted : PlantedCircuit
        The model and its circuit.
    learning, selection, fresh : TwoWayPrompts
        On which a mask is learned, on which nodes are chosen, and on which the circuit is measured.
    means : AblationValues
        Means over the tokens of the fresh prompts, padding left out.
    """

    planted: PlantedCircuit
    learning: TwoWayPrompts
    selection: TwoWayPrompts
    fresh: TwoWayPrompts
    means: AblationValues

    @classmethod
    def of(cls, planted: PlantedCircuit, seed: int = 0) -> PlantedSearch:
        """Draw the prompts of a search in a planted model; those of the means do not depend on the seed."""
        learning, selection, fresh = (
            TwoWayPrompts.of(planted.sample(n, seed=draw)) for n, draw in ((128, 10 + seed), (64, 20 + seed), (256, 30))
        )
        seen = torch.arange(fresh.tokens.shape[1]) <= fresh.position[:, None]
        means = mean_values(planted.model, fresh.tokens, "prompts of the task", where=seen)
        return cls(planted, learning, selection, fresh, means)

    @property
    def model(self) -> Transformer:
        """The planted model."""
        return self.planted.model

    def config(self, selection: TwoWayPrompts | None = None, **changes) -> PruningConfig:
        """Return a short search whose target is the model's own loss on the selection prompts and `ALLOWANCE`.

        The planted models lose almost nothing while their circuit is whole, so the loss has no gradient then. The first
        taus are spread widely, or they would all cross 0 in the same step.
        """
        target = two_way_loss(self.model, self.selection if selection is None else selection) + ALLOWANCE
        return PruningConfig(**{"target_loss": target, "steps": 25, "start": 0.5, "noise": 0.3} | changes)
