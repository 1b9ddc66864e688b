"""A controller that makes something small while a loss stays where it was.

First used in chapter 8. GECO (arXiv 1810.00597): minimise a penalty subject to loss <= limit, by gradient steps on the
Lagrangian and multiplicative steps of its multiplier. The multiplier grows while the moving average of the loss is
above the limit and shrinks while it is below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class ConstraintController:
    """Weighs a penalty against a loss that must not exceed a limit.

    Parameters
    ----------
    limit : float
        What the loss may be, in its own unit; above 0.
    rate : float
        Step of the logarithm of the multiplier per unit of violation.
    decay : float
        Of the moving average of the violation: the share of the average that stays at each update.
    log_bounds : tuple of float
        Smallest and largest logarithm of the multiplier.
    log_start : float
        Its logarithm at the start. A low one lets the penalty fall first and the loss come back after.
    relative : bool
        Measure the violation as loss / limit - 1, so that `rate` means the same for large and small losses; else as
        loss - limit.

    Attributes
    ----------
    log_multiplier : float
        Natural logarithm of the weight of the loss against the penalty.
    average : float or None
        Moving average of the violation; None before the first update.

    Raises
    ------
    ValueError
        If a setting cannot be used.
    """

    limit: float
    rate: float = 0.1
    decay: float = 0.9
    log_bounds: tuple[float, float] = (-5.0, 5.0)
    relative: bool = True
    log_start: float = 0.0
    log_multiplier: float = field(default=0.0, init=False)
    average: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.log_bounds = tuple(self.log_bounds)
        if not 0 < self.limit < math.inf:
            raise ValueError(f"limit is {self.limit!r}; give what the loss may be, a finite number above 0.")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate is {self.rate!r}; give a finite number above 0.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay!r}; give a share from 0 to below 1.")
        low, high = self.log_bounds
        if not low <= self.log_start <= high:
            raise ValueError(
                f"log_bounds are {self.log_bounds!r}; give two between which log_start, {self.log_start!r}, lies."
            )
        self.log_multiplier = self.log_start

    @property
    def multiplier(self) -> float:
        """The weight of the loss against the penalty."""
        return math.exp(self.log_multiplier)

    def objective(self, penalty: Tensor, loss: Tensor) -> Tensor:
        """Return (penalty + multiplier * loss) / max(1, multiplier), so that neither part is weighted above 1."""
        return (penalty + self.multiplier * loss) / max(1.0, self.multiplier)

    def update(self, loss: float) -> None:
        """Move the multiplier by what the loss of one step says.

        Raises
        ------
        FloatingPointError
            If the loss is not finite; the controller is left as it was.
        """
        if not math.isfinite(loss):
            raise FloatingPointError(f"The loss is {loss}; lower learning_rate or the controller's rate.")
        violation = loss / self.limit - 1 if self.relative else loss - self.limit
        self.average = violation if self.average is None else self.decay * self.average + (1 - self.decay) * violation
        low, high = self.log_bounds
        self.log_multiplier = min(high, max(low, self.log_multiplier + self.rate * self.average))

    def state_dict(self) -> dict[str, float | None]:
        """Return what changes from step to step, as JSON values."""
        return {"log_multiplier": self.log_multiplier, "average": self.average}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Go on from a state that `state_dict` returned."""
        self.log_multiplier, self.average = state["log_multiplier"], state["average"]
