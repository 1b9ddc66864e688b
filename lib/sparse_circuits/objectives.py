"""What the training loop minimises: the loss of the next token, or something with a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from .metrics import next_token_loss

Forward = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]
Loss = Callable[[Float[Tensor, "batch pos d_vocab"], Int[Tensor, "batch pos_and_one"]], Float[Tensor, ""]]


class Objective(Protocol):
    """What is minimised, called once for each step of `training.train`."""

    def __call__(
        self, forward: Forward, tokens: Int[Tensor, "batch pos_and_one"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return what is minimised, and what is logged: `loss` and, if wanted, more, each a tensor without gradient.

        Parameters
        ----------
        forward : callable
            The model, as the loop has wrapped it.
        tokens : int tensor, shape (batch, pos + 1)
            The batch, or this process's share of it.
        step : int
            The optimiser step, from 0 on.
        """
        ...

    def identity(self) -> dict[str, dict]:
        """Return, as JSON values, what must be the same for a run to be resumed."""
        ...

    def state_dict(self) -> dict:
        """Return, as JSON values, what changes from step to step."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from a state that `state_dict` returned."""
        ...


class NextToken:
    """The loss of the next token, in nats per token; it has no state.

    Parameters
    ----------
    loss : callable
        Another loss in its place, as in `sources.Source`.
    """

    def __init__(self, loss: Loss = next_token_loss) -> None:
        self.loss = loss

    def __call__(
        self, forward: Forward, tokens: Int[Tensor, "batch pos_and_one"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss, twice."""
        loss = self.loss(forward(tokens[:, :-1]).float(), tokens)
        return loss, {"loss": loss.detach()}

    def identity(self) -> dict[str, dict]:
        """Return nothing."""
        return {}

    def state_dict(self) -> dict:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Do nothing."""
