"""Ablation: replace what chosen nodes carry, or what travels along chosen edges, while the model runs.

First used in chapter 3. One context manager, on TransformerLens hooks; leaving it restores the model exactly.

A **node** is one coordinate of a location such as `blocks.0.mlp.hook_post[3]`; channel d of head h has index
`h * d_head + d`. Two short names stand for many nodes: `a1.h0` is head 0 of layer 1 (its channels of `hook_z`), and
`m0` is the MLP of layer 0 (all it writes). An **edge** is one of the weight graph (see `graph.py`). Ablating the edge
from i to j puts the ablated value of i into the sum that makes j, and into nothing else. An edge that leaves an
`attn.hook_v` channel leaves it after the attention pattern has mixed the positions, as W_O reads it (`attn.hook_z`).

Contexts may be nested. Where two replace the same node, the inner one counts; an edge is ablated in one of them only.
A hook of your own that changes the source of an ablated edge has to be added before the context is entered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import HookedRootModule

from .ablation_masks import draw_subset, in_use, masks_of_edges, masks_of_nodes, source_of, target_of
from .ablation_values import AblationValues, location_sizes, zero_values
from .circuit import Circuit, listed
from .graph import Masks, as_matrix

if TYPE_CHECKING:
    from .model import Transformer


@contextmanager
def ablated(
    model: HookedRootModule,
    nodes: Circuit | Masks | Iterable[str] = (),
    edges: Circuit | Masks | Iterable[str] = (),
    *,
    values: AblationValues | None = None,
    positions: Iterable[int] | Bool[Tensor, ...] | None = None,
    share: float = 1.0,
    seed: int = 0,
    norm_scales: Mapping[str, Float[Tensor, "batch pos one"]] | None = None,
) -> Iterator[HookedRootModule]:
    """Ablate nodes and edges of a model for as long as the context lasts.

    Parameters
    ----------
    model : HookedRootModule
        The model. It carries hooks inside the context; its weights are never touched.
    nodes : Circuit, mapping of str to tensor of shape (coordinate,), or iterable of str
        Which nodes: those of a circuit, masks by location, or names. A boolean mask replaces where it is True. A float
        mask m in [0, 1] gives `activation + m * (value - activation)`, and gradients reach m.
    edges : Circuit, mapping of str to tensor of shape (source, target), or iterable of str
        Which edges of the weight graph: those of a circuit, masks by matrix, or names. Float masks work as for nodes.
    values : AblationValues, optional
        What to put there: `zero_values()` (if not given), `mean_values(...)` or `resample_values(...)`.
    positions : iterable of int, or bool tensor of shape (pos,) or (batch, pos), optional
        Where in the prompt; everywhere if not given.
    share : float
        Stochastic ablation: each listed node and edge is ablated with this probability. One random subset is drawn on
        entry and holds for all prompts and positions of the context.
    seed : int
        Names the subset. A node meets the same draw whatever else is listed.
    norm_scales : mapping of str to float tensor, shape (batch, pos, 1), optional
        The frozen-norm variant: what every norm divides by, from `norm_scales(model, tokens)` with the tokens of this
        run. Without it an ablation also changes the scale of all that it does not touch.

    Yields
    ------
    HookedRootModule
        The model itself.

    Raises
    ------
    TypeError, ValueError
        On entry if a name, a mask, `share` or a position cannot be used, or an outer context ablates the same edge; in
        the run if values or scales do not fit the tokens. The hooks are gone in either case.

    Examples
    --------
    >>> with ablated(model, ["a1.h0"], values=mean_values(model, tokens, "training split")):
    ...     logits = model(prompts)
    """
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; give a probability between 0 and 1.")
    if not isinstance(values, AblationValues | None):
        raise TypeError(f"values is {values!r}; give zero_values(), mean_values(...) or resample_values(...).")
    run = _Replacement(zero_values() if values is None else values, _position_mask(positions))
    node_masks, edge_masks = masks_of_nodes(model, nodes), masks_of_edges(model, edges)
    if share < 1:
        node_masks, edge_masks = draw_subset(node_masks, edge_masks, location_sizes(model), share, seed)
    node_masks, edge_masks = in_use(node_masks), in_use(edge_masks)
    edge_hooks = {matrix: _EdgeHook(run, model, matrix, mask) for matrix, mask in edge_masks.items()}
    for hook in edge_hooks.values():
        hook.refuse_overlap(_hooks_at(model, target_of(hook.matrix)))
    # A location's node hook comes before the edges out of it, also before those of an outer context.
    hooks = [
        *_scale_hooks(model, norm_scales or {}),
        *((location, run.node_hook(mask)) for location, mask in node_masks.items()),
        *((location, hook) for location in node_masks for hook in _hooks_at(model, location) if _keeps_source(hook)),
        *((location, run.source_hook) for location in {source_of(matrix): None for matrix in edge_masks}),
    ]
    with model.hooks(fwd_hooks=hooks):
        for matrix, hook in edge_hooks.items():
            # What arrives along an edge is part of the sum that all other hooks of the target already see.
            model.add_hook(target_of(matrix), hook, level=model.context_level, prepend=True)
        yield model


def hooks_are_alike_everywhere(model: HookedRootModule) -> bool:
    """Return whether every hook of a model is known to do the same at each position of each prompt.

    That is so for AbsTopK, and for nodes ablated at all positions with one value each. Such a model can be run on some
    of the prompts, or without positions that nothing else reads, and gives the same there.
    """
    return all(
        getattr(handle.user_hook, "alike_everywhere", False)
        for point in model.hook_dict.values()
        for handle in (*point.fwd_hooks, *point.bwd_hooks)
    )


class _Replacement:
    """The hooks of one context: they share the values, the positions, and what the sources of edges carried."""

    def __init__(self, values: AblationValues, positions: Tensor | None) -> None:
        self.values, self.positions = values, positions
        self.lost: dict[str, Tensor] = {}

    def node_hook(self, mask: Tensor):
        def replace_nodes(activation: Float[Tensor, "batch pos ..."], hook) -> Tensor:
            flat = activation.flatten(2)
            values, chosen = self.values.fitted(hook.name, flat), mask.to(flat.device)
            here = self._here(flat)
            if chosen.dtype == torch.bool:
                replaced = torch.where(chosen if here is None else chosen & here, values, flat)
            else:
                weight = chosen.to(flat) if here is None else chosen.to(flat) * here
                replaced = flat.lerp(values, weight)
            return replaced.view_as(activation)

        replace_nodes.alike_everywhere = self.positions is None and self.values.alike_everywhere
        return replace_nodes

    def source_hook(self, activation: Tensor, hook) -> None:
        """Keep what the ablated edges out of this location lose: value minus activation."""
        flat = activation.flatten(2)
        change = self.values.fitted(hook.name, flat) - flat
        here = self._here(flat)
        self.lost[hook.name] = change if here is None else change * here

    def _here(self, flat: Float[Tensor, "batch pos coordinate"]) -> Tensor | None:
        """Return the positions as a mask that broadcasts to `flat`."""
        where = self.positions
        if where is None:
            return None
        if where.dtype != torch.bool:
            if len(where) and int(where.max()) >= flat.shape[1]:
                raise ValueError(
                    f"Position {int(where.max())} is ablated; the run has {flat.shape[1]} positions, give lower ones."
                )
            where = torch.zeros(flat.shape[1], dtype=torch.bool).index_fill(0, where, True)
        if where.shape not in (flat.shape[1:2], flat.shape[:2]):
            raise ValueError(
                f"positions have shape {tuple(where.shape)}, the run has {tuple(flat.shape[:2])} (batch, pos); give "
                "booleans of shape (pos,) or (batch, pos)."
            )
        return where.to(flat.device)[..., None]


class _EdgeHook:
    """Adds to the target of a matrix what its ablated entries change."""

    def __init__(self, run: _Replacement, model: Transformer, matrix: str, mask: Tensor) -> None:
        self.run, self.matrix, self.mask = run, matrix, mask
        self.weight = model.get_parameter(matrix)

    def __call__(self, activation: Float[Tensor, "batch pos ..."], hook) -> Tensor:
        ablated_weight = as_matrix(self.matrix, self.weight) * self.mask.to(self.weight.device)
        return activation + (self.run.lost[source_of(self.matrix)] @ ablated_weight).view_as(activation)

    def refuse_overlap(self, present: Iterable[object]) -> None:
        """Raise if one of the hooks that are present ablates an edge that this one ablates."""
        for other in present:
            if isinstance(other, _EdgeHook) and other.matrix == self.matrix and (other.mask * self.mask).any():
                i, j = (other.mask * self.mask).nonzero()[0].tolist()
                raise ValueError(
                    f"Entry {(i, j)} of {self.matrix} is an edge that an outer context ablates already; leave it out."
                )


def _hooks_at(model: HookedRootModule, location: str) -> list[object]:
    return [handle.user_hook for handle in model.hook_dict[location].fwd_hooks]


def _keeps_source(hook: object) -> bool:
    return getattr(hook, "__func__", None) is _Replacement.source_hook


def _position_mask(positions: Iterable[int] | Tensor | None) -> Tensor | None:
    """Return positions as a bool tensor, or as a tensor of indices; the run's length is not known yet."""
    if positions is None or (isinstance(positions, Tensor) and positions.dtype == torch.bool):
        return positions
    indices = positions.tolist() if isinstance(positions, Tensor) else listed(positions, "positions")
    if not isinstance(indices, list) or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in indices
    ):
        raise ValueError(f"positions are {indices!r}; give integers from 0 on, or a boolean tensor.")
    return torch.tensor(indices, dtype=torch.long)


def _scale_hooks(model: HookedRootModule, scales: Mapping[str, Tensor]) -> Iterator[tuple[str, object]]:
    def hook_for(frozen: Tensor):
        def freeze(scale: Tensor, hook) -> Tensor:
            if frozen.shape != scale.shape:
                raise ValueError(
                    f"The frozen scales of {hook.name} have shape {tuple(frozen.shape)}, the run has "
                    f"{tuple(scale.shape)}; take norm_scales from the tokens of this run."
                )
            return frozen.to(scale)

        return freeze

    for name, frozen in scales.items():
        if name not in model.hook_dict:
            raise ValueError(f"norm_scales name {name!r}, which the model has not; take them from this model.")
        yield name, hook_for(frozen)
