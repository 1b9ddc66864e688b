"""Activation AbsTopK: at chosen locations of a model only the largest coordinates of each token stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..graph import ENDS
from .selection import keep_largest

if TYPE_CHECKING:
    from ..model import Transformer

# The node locations of a layer: what blocks read, the channels of the heads, the neurons, what blocks write. The
# residual stream and the attention-weighted values are not among them.
ACTIVATION_LOCATIONS = tuple(dict.fromkeys(location for ends in ENDS.values() for location in ends))


def check_activations(density: float, locations: tuple[str, ...]) -> None:
    """Raise ValueError if the density is outside (0, 1] or a location is not one of `ACTIVATION_LOCATIONS`."""
    if not 0 < density <= 1:
        raise ValueError(
            f"activation_density is {density!r}; give a share above 0 and at most 1, where 1 keeps every activation."
        )
    unknown = sorted(set(locations) - set(ACTIVATION_LOCATIONS))
    if unknown:
        raise ValueError(f"activation_locations has {unknown}; choose among {list(ACTIVATION_LOCATIONS)}.")


def add_activation_sparsity(model: Transformer) -> None:
    """Add the AbsTopK that the model's configuration asks for, as permanent hooks; a dense model gets none.

    Permanent hooks run before those of `run_with_cache`, `run_with_hooks` and `hooks`, so caches and interventions see
    the activations after AbsTopK; `reset_hooks` leaves them where they are.

    Parameters
    ----------
    model : Transformer
        With `cfg.activation_density` below 1, each location in `cfg.activation_locations` keeps
        `activation_count(width, density)` coordinates per token. Heads compete with one another for q, k and v.

    Notes
    -----
    arXiv 2511.13653, appendix A.1; the locations are those of section 2 of that paper.
    """
    cfg = model.cfg
    if cfg.activation_density == 1:
        return

    def keep(activation: Tensor, hook: object) -> Tensor:
        flat = activation.flatten(2)
        return keep_largest(flat, activation_count(flat.shape[-1], cfg.activation_density), dim=-1).view_as(activation)

    keep.alike_everywhere = True
    for layer in range(cfg.n_layers):
        for location in cfg.activation_locations:
            model.add_perma_hook(f"blocks.{layer}.{location}", keep)


def activation_count(width: int, density: float) -> int:
    """Return how many of `width` coordinates a density keeps: the nearest whole number, and at least one."""
    return max(1, round(width * density))
