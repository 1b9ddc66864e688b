"""What ablated nodes are set to: zero, the mean over a reference distribution, or what another prompt gives.

First used in chapter 3. The names are those of arXiv 2407.08734, which shows that a result moves with each of these
choices; so `AblationValues` carries the name of the distribution that it was taken from.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from .checkpoints import canonical_json
from .graph import node_sizes
from .sparsity import activations

BATCH = 64
CACHED_MEANS = 32
_means: OrderedDict[str, dict[str, Tensor]] = OrderedDict()


@dataclass(frozen=True, eq=False)
class AblationValues:
    """Values for the nodes of some locations.

    Parameters
    ----------
    kind : {"zero", "mean", "resample"}
        How they were made.
    reference : str
        The distribution that they were taken from, in words; empty for zero.
    activations : mapping of str to float tensor
        For each location a tensor of shape (coordinate,), (pos, coordinate) or (batch, pos, coordinate). Empty for
        zero, which fits every location.

    Raises
    ------
    ValueError
        If a value is not finite.
    """

    kind: str
    reference: str
    activations: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for location, values in self.activations.items():
            _check_finite(location, values)

    @property
    def alike_everywhere(self) -> bool:
        """Whether each node has one value, for all positions of all prompts."""
        return all(values.ndim == 1 for values in self.activations.values())

    def fitted(self, location: str, activation: Float[Tensor, "batch pos coordinate"]) -> Tensor:
        """Return the values of one location, in dtype and on the device of `activation`, ready to broadcast to it.

        Raises
        ------
        ValueError
            If there are no values for the location, or they are for another batch, length or width.
        """
        if self.kind == "zero":
            return activation.new_zeros(())
        if location not in self.activations:
            raise ValueError(
                f"The {self.kind} values hold nothing for {location}; make them with that location, they have "
                f"{list(self.activations)}."
            )
        values = self.activations[location]
        if values.ndim == 2 and len(values) > activation.shape[1]:
            values = values[: activation.shape[1]]
        if values.shape != activation.shape[activation.ndim - values.ndim :]:
            raise ValueError(
                f"The {self.kind} values of {location} have shape {tuple(values.shape)} and the run has "
                f"{tuple(activation.shape)} (batch, pos, coordinate); run the model on as many prompts and positions "
                "as the values were made for."
            )
        return values.to(activation)

    def __repr__(self) -> str:
        return f"AblationValues({self.kind}" + (f" of {self.reference})" if self.reference else ")")


def location_sizes(model: HookedRootModule) -> dict[str, int]:
    """Return the number of coordinates at every location that can be ablated.

    The eight locations of the weight graph, and `hook_embed`, `hook_pos_embed`, `attn.hook_z`, `mlp.hook_pre` and the
    residual stream at `hook_resid_pre`, `hook_resid_mid` and `hook_resid_post`, as far as the model has them.
    """
    cfg = model.cfg
    sizes = {"hook_embed": cfg.d_model}
    if getattr(cfg, "positions", True):
        sizes["hook_pos_embed"] = cfg.d_model
    sizes |= node_sizes(cfg)
    for layer in range(cfg.n_layers):
        prefix = f"blocks.{layer}."
        sizes[f"{prefix}attn.hook_z"] = cfg.n_heads * cfg.d_head
        sizes[f"{prefix}mlp.hook_pre"] = cfg.d_mlp
        sizes |= {f"{prefix}hook_resid_{place}": cfg.d_model for place in ("pre", "mid", "post")}
    return {location: n for location, n in sizes.items() if location in model.hook_dict}


def zero_values() -> AblationValues:
    """Return the values of zero ablation, for any location."""
    return AblationValues("zero", "", {})


@torch.no_grad()
def mean_values(
    model: HookedRootModule,
    tokens: Int[Tensor, "n pos"],
    reference: str,
    where: Bool[Tensor, "n pos"] | None = None,
    by_position: bool = False,
) -> AblationValues:
    """Return the mean activation of every node over a reference distribution.

    Parameters
    ----------
    model : HookedRootModule
        The model, without hooks of its own if the mean of the intact model is wanted.
    tokens : int tensor, shape (n, pos)
        Prompts drawn from the distribution.
    reference : str
        Its name, for tables: `"standard library, training split"`.
    where : bool tensor, shape (n, pos), optional
        Which tokens count; all if not given. Leave padding out.
    by_position : bool
        One mean for each position, shape (pos, coordinate), instead of one for all, shape (coordinate,).

    Returns
    -------
    AblationValues
        For every location of `location_sizes`.

    Raises
    ------
    ValueError
        If there is no reference name, no token counts (with `by_position`: at some position), or an activation is
        not finite.

    Notes
    -----
    Each 64 prompts are summed in the model's precision, and the sums added in float64. The latest 32 results are kept,
    under a key made from the content of the weights, the configuration and the tokens; another tensor with the same
    content finds them, a changed weight does not. A model that carries hooks of a user is computed anew each time,
    because they are no part of the key; the AbsTopK that a model's own configuration asks for is.
    """
    counted = _checked(tokens, where, by_position)
    if not reference.strip():
        raise ValueError('reference is empty; name the distribution, for example "standard library, training split".')
    if _carries_hooks_of_a_user(model):
        return AblationValues("mean", reference, _means_of(model, tokens, counted, by_position))
    key = _content_key(model, tokens, counted, by_position)
    if key not in _means:
        _means[key] = _means_of(model, tokens, counted, by_position)
    _means.move_to_end(key)
    if len(_means) > CACHED_MEANS:
        _means.popitem(last=False)
    return AblationValues("mean", reference, {name: mean.clone() for name, mean in _means[key].items()})


@torch.no_grad()
def resample_values(
    model: HookedRootModule, tokens: Int[Tensor, "batch pos"], reference: str, locations: Iterable[str] | None = None
) -> AblationValues:
    """Return the activations of other prompts, to be put into a run on as many prompts of the same length.

    Prompt i of the run gets what prompt i of `tokens` gives: for a contrast pair its other half, else a prompt drawn
    from the reference distribution.

    Parameters
    ----------
    model : HookedRootModule
        The model.
    tokens : int tensor, shape (batch, pos)
        The other prompts.
    reference : str
        Where they come from, for tables.
    locations : iterable of str, optional
        Only these locations are kept, to save memory; all if not given.

    Raises
    ------
    ValueError
        If there is no reference name, a location is unknown, or an activation is not finite.
    """
    _checked(tokens, None, False)
    if not reference.strip():
        raise ValueError('reference is empty; say where the prompts come from, for example "the negative prompts".')
    sizes = location_sizes(model)
    wanted = set(sizes if locations is None else locations)
    if wanted - sizes.keys():
        raise ValueError(f"There is no location {sorted(wanted - sizes.keys())}; choose from {list(sizes)}.")
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in wanted)
    return AblationValues("resample", reference, {name: cache[name].flatten(2) for name in sizes if name in wanted})


@torch.no_grad()
def norm_scales(model: HookedRootModule, tokens: Int[Tensor, "batch pos"]) -> dict[str, Float[Tensor, "batch pos one"]]:
    """Return what every norm divides by when the model reads `tokens`, to freeze the norms in an ablated run.

    Parameters
    ----------
    model : HookedRootModule
        The model.
    tokens : int tensor, shape (batch, pos)
        The prompts that the ablated run will read.

    Returns
    -------
    dict of str to float tensor, shape (batch, pos, 1)
        One entry for each `hook_scale`.

    Raises
    ------
    ValueError
        If a scale is not finite.
    """
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_scale"))
    for name, scale in cache.items():
        _check_finite(name, scale)
    return dict(cache.items())


def _check_finite(location: str, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(f"A value at {location} is not finite; give a model whose weights and activations are.")


def _checked(tokens: Tensor, where: Tensor | None, by_position: bool) -> Bool[Tensor, "n pos"]:
    """Return which tokens count; raise if none does."""
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; give at least one prompt, shape (n, pos).")
    if where is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if where.shape != tokens.shape or where.dtype != torch.bool:
        raise ValueError(
            f"where has shape {tuple(where.shape)} and dtype {where.dtype}; give booleans of shape "
            f"{tuple(tokens.shape)}, as the tokens have."
        )
    empty = ~where.any(0) if by_position else ~where.any().view(1)
    if empty.any():
        places = f"at positions {empty.nonzero().flatten().tolist()}" if by_position else "at all"
        raise ValueError(f"where counts no token {places}; let it count one, or cut the prompts.")
    return where


def _means_of(model: HookedRootModule, tokens: Tensor, counted: Tensor, by_position: bool) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    weights = counted.to(torch.float64)

    def add_up(activation: Tensor, hook) -> None:
        flat = activation.flatten(2)
        weight = weights[rows].to(flat)
        total = (weight[..., None] * flat).sum(0) if by_position else weight.flatten() @ flat.flatten(0, 1)
        _check_finite(hook.name, total)
        sums[hook.name] = sums.get(hook.name, 0) + total.double()

    hooks = [(location, add_up) for location in location_sizes(model)]
    device = next(model.parameters()).device
    for rows in torch.arange(len(tokens)).split(BATCH):
        with model.hooks(fwd_hooks=hooks):
            model(tokens[rows].to(device))
    count = weights.sum(0 if by_position else (0, 1))
    divisor = count[:, None] if by_position else count
    return {name: total / divisor.to(total.device) for name, total in sums.items()}


def _carries_hooks_of_a_user(model: HookedRootModule) -> bool:
    """Return whether there is a forward hook that does not follow from the model's configuration."""
    cfg = model.cfg
    own = set()
    if getattr(cfg, "activation_density", 1) < 1:
        own = {f"blocks.{layer}.{place}" for layer in range(cfg.n_layers) for place in cfg.activation_locations}
    return any(
        len(point.fwd_hooks) != (name in own)
        or any(getattr(hook.user_hook, "__module__", "") != activations.__name__ for hook in point.fwd_hooks)
        for name, point in model.hook_dict.items()
    )


def _content_key(model: HookedRootModule, tokens: Tensor, counted: Tensor, by_position: bool) -> str:
    cfg = model.cfg
    digest = hashlib.sha256(canonical_json(cfg.to_dict()) if hasattr(cfg, "to_dict") else repr(cfg).encode())
    for name, tensor in [*model.state_dict().items(), ("tokens", tokens), ("counted", counted)]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    digest.update(str(by_position).encode())
    return digest.hexdigest()
