"""What transcoders are trained on: inputs and outputs of every MLP, streamed from a model that reads tokens.

First used in chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .component_runs import keeping
from .model import Transformer
from .transcoder import INPUT_HOOKS, NORMALIZED, OUTPUT_HOOK, check_finite

INPUTS, TARGETS = 0, 1


@torch.no_grad()
def mlp_activations(
    model: Transformer, tokens: Int[Tensor, "batch pos"], input_hook: str = NORMALIZED
) -> Float[Tensor, "batch pos side layer d_model"]:
    """Return what every MLP of a model reads (side 0) and gives (side 1), without noise of attention gates.

    Parameters
    ----------
    model : Transformer
        The model, with the hooks that it carries.
    tokens : int tensor, shape (batch, pos)
        What it reads.
    input_hook : str
        As in `TranscoderConfig`.

    Raises
    ------
    ValueError
        If the hook is not allowed, the tokens are too many for the model, or an activation is not finite.
    """
    if input_hook not in INPUT_HOOKS:
        raise ValueError(f"input_hook is {input_hook!r}; choose one of {list(INPUT_HOOKS)}.")
    kept: dict[str, Tensor] = {}
    names = [[f"blocks.{layer}.{place}" for layer in range(model.cfg.n_layers)] for place in (input_hook, OUTPUT_HOOK)]
    training = model.training
    model.eval()
    try:
        with model.hooks(fwd_hooks=keeping(kept, names[INPUTS] + names[TARGETS])):
            model(tokens.to(model.W_E.device))
    finally:
        model.train(training)
    sides = [torch.stack([kept[name] for name in side], dim=2) for side in names]
    activations = torch.stack(sides, dim=2)
    check_finite(activations, "The model's activation (batch, pos, side, layer, channel)")
    return activations


@dataclass
class ActivationCache:
    """A stream of shuffled activations, as a batch source of `training.train`.

    The model is run on some steps' worth of tokens at once and its activations are shuffled among them; what a step
    gets depends on the seed and the step alone, so a training run can stop anywhere and go on.

    Parameters
    ----------
    model : Transformer
        The model; it is read, not trained.
    tokens : callable
        `tokens(i)` returns the i-th batch of windows, shape (batch, pos + 1), as for `training.train`; the last token
        of a window is not read.
    batch_size : int
        Positions in a step.
    input_hook : str
        As in `TranscoderConfig`.
    steps_at_once : int
        Steps whose positions are shuffled together and held in memory.
    seed : int
        Of the shuffling.

    Raises
    ------
    ValueError
        If a number is not positive, or an activation is not finite.
    """

    model: Transformer
    tokens: Callable[[int], Int[Tensor, "batch pos_and_one"]]
    batch_size: int
    input_hook: str = NORMALIZED
    steps_at_once: int = 16
    seed: int = 0
    _held: tuple[int, Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps_at_once"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a positive number.")

    def __call__(self, step: int) -> Float[Tensor, "batch side layer d_model"]:
        """Return the inputs (side 0) and targets (side 1) of a step."""
        chunk, part = divmod(step, self.steps_at_once)
        return self.chunk(chunk)[part * self.batch_size : (part + 1) * self.batch_size]

    def chunk(self, index: int) -> Float[Tensor, "n side layer d_model"]:
        """Return the activations of `steps_at_once` steps, in the order in which the steps take them."""
        if self._held is None or self._held[0] != index:
            self._held = None
            self._held = index, self._run(index)
        return self._held[1]

    def _run(self, index: int) -> Float[Tensor, "n side layer d_model"]:
        wanted = self.steps_at_once * self.batch_size
        n_batches = math.ceil(wanted / self.tokens(0)[:, :-1].numel())
        windows = (self.tokens(index * n_batches + i)[:, :-1] for i in range(n_batches))
        parts = [mlp_activations(self.model, read, self.input_hook).flatten(0, 1) for read in windows]
        positions = torch.cat(parts)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        return positions[torch.randperm(len(positions), generator=generator)[:wanted]]
