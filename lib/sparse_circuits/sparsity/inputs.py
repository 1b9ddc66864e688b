"""Prune the inputs of a model's linear layers while it runs, and put right what that does to them.

First used in chapter 15. A layer is x @ W, with x of shape (token, channel) and W of shape (channel, output). Its input
becomes x', in which each token keeps N of every M channels; with a shift, x' = prune(x - shift) + shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..graph import as_matrix
from .criteria import CRITERIA, RANDOM, scores
from .patterns import Pattern, pattern_mask
from .selection import zero_outside

if TYPE_CHECKING:
    from transformer_lens import HookedRootModule

# Projection -> weight, where its input is read, where its output is made; within a layer, by the names of the hooks.
PROJECTIONS = {
    "q": ("attn.W_Q", "ln1.hook_normalized", "attn.hook_q"),
    "k": ("attn.W_K", "ln1.hook_normalized", "attn.hook_k"),
    "v": ("attn.W_V", "ln1.hook_normalized", "attn.hook_v"),
    "o": ("attn.W_O", "attn.hook_z", "hook_attn_out"),
    "gate": ("mlp.W_gate", "ln2.hook_normalized", "mlp.hook_pre"),
    "up": ("mlp.W_in", "ln2.hook_normalized", "mlp.hook_pre_linear"),
    "down": ("mlp.W_out", "mlp.hook_post", "hook_mlp_out"),
}
SHIFTS = ("none", "mean", "median")
SMALLEST_VARIANCE = 1e-9


@dataclass(frozen=True)
class InputPruning:
    """How the inputs of linear layers are pruned.

    Parameters
    ----------
    pattern : Pattern
        How many channels of each group a token keeps.
    criterion : str
        A name in `criteria.CRITERIA`, or `"random"`.
    shift : {"none", "mean", "median"}
        Dynamic shift: mean or median over the channels of each token, taken off before pruning and put back after.
    variance : bool
        Scale what is left of each token so that its variance over the channels is that before pruning.

    Raises
    ------
    TypeError, ValueError
        If the pattern is no `Pattern`, or there is no such criterion or shift.

    Notes
    -----
    arXiv 2509.22166, section 3: D-PTS (the median) and VAR. A shift s that is the same for all channels is put back for
    nearly nothing, since s @ W is s times the sums over the channels of W, which are known before.
    """

    pattern: Pattern
    criterion: str = "magnitude"
    shift: str = "none"
    variance: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, Pattern):
            raise TypeError(f"pattern is {self.pattern!r}; give a Pattern, for example Pattern.parse('8:16').")
        if self.criterion not in (*CRITERIA, RANDOM):
            raise ValueError(f"There is no criterion {self.criterion!r}; choose one of {[*CRITERIA, RANDOM]}.")
        if self.shift not in SHIFTS:
            raise ValueError(f"There is no shift {self.shift!r}; choose one of {list(SHIFTS)}, or give a Correction.")


@dataclass(frozen=True, eq=False)
class Correction:
    """What a layer with a pruned input adds or multiplies; made from data, by calibration or by learning.

    Parameters
    ----------
    shift : float tensor, shape (channel,), optional
        Static or learnable shift of the input (S-PTS, L-PTS), in place of a dynamic one.
    gain, offset : float tensors, shape (output,), optional
        The product becomes (1 + gain) * (x' @ W) + offset (learned scale, LS).
    down, up : float tensors, shapes (channel, rank) and (rank, output), optional
        What was pruned goes around through a low-rank layer: (x - x') @ down @ up is added (R-Sparse).

    Raises
    ------
    ValueError
        If only one of `down` and `up` is given.
    """

    shift: Float[Tensor, " channel"] | None = None
    gain: Float[Tensor, " output"] | None = None
    offset: Float[Tensor, " output"] | None = None
    down: Float[Tensor, "channel rank"] | None = None
    up: Float[Tensor, "rank output"] | None = None

    def __post_init__(self) -> None:
        if (self.down is None) != (self.up is None):
            raise ValueError("A low-rank residual needs both down and up; only one is given.")

    def parameters(self) -> dict[str, Tensor]:
        """Return the tensors that are given, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


def prune_input(
    x: Float[Tensor, "*rows channel"],
    weight: Float[Tensor, "channel output"],
    pruning: InputPruning,
    shift: Float[Tensor, " channel"] | None = None,
) -> Float[Tensor, "*rows channel"]:
    """Return the pruned input of a linear layer.

    Parameters
    ----------
    x : float tensor, shape (..., channel)
        The input.
    weight : float tensor, shape (channel, output)
        The weights of the layer, which some criteria look at.
    pruning : InputPruning
        Pattern, criterion and corrections.
    shift : float tensor, shape (channel,), optional
        A shift that does not depend on the token.

    Returns
    -------
    float tensor, shape of `x`
        v * prune(x - shift) + shift, with v = sqrt(Var(x - shift) / Var(prune(x - shift))) for each token if the
        variance is corrected, else 1. Variances are taken over the channels, without Bessel's correction.

    Raises
    ------
    ValueError
        If there are two shifts, or the pattern or the weights do not fit the channels.
    """
    if shift is not None and pruning.shift != "none":
        raise ValueError(f"There is a dynamic shift ({pruning.shift}) and a given one; use one of them.")
    if pruning.shift != "none":
        shift = x.mean(-1, keepdim=True) if pruning.shift == "mean" else middle(x)
    centred = x if shift is None else x - shift
    kept = zero_outside(centred, pattern_mask(scores(pruning.criterion, centred.detach(), weight), pruning.pattern))
    if pruning.variance:
        variances = centred.var(-1, keepdim=True, correction=0), kept.var(-1, keepdim=True, correction=0)
        kept = kept * (variances[0] / variances[1].clamp_min(SMALLEST_VARIANCE)).sqrt()
    return kept if shift is None else kept + shift


def middle(x: Float[Tensor, "*rows channel"]) -> Float[Tensor, "*rows one"]:
    """Return the median of each row; of an even number of entries the mean of the two in the middle."""
    ordered = x.sort(-1).values
    size = x.shape[-1]
    return ordered[..., (size - 1) // 2 : size // 2 + 1].mean(-1, keepdim=True)


@contextmanager
def pruned_inputs(
    model: HookedRootModule,
    pruning: InputPruning,
    projections: Iterable[str] | None = None,
    corrections: Mapping[str, Correction] | None = None,
) -> Iterator[HookedRootModule]:
    """Prune the inputs of a model's linear layers for as long as the context lasts.

    Parameters
    ----------
    model : HookedRootModule
        The model. It carries hooks inside the context; its weights are never touched.
    pruning : InputPruning
        How.
    projections : iterable of str, optional
        Which kinds of layers, in all blocks: names in `PROJECTIONS`. All that the model has if not given; the
        unembedding is never pruned, as in the paper.
    corrections : mapping of str to Correction, optional
        By weight, such as `"blocks.0.attn.W_Q"`.

    Yields
    ------
    HookedRootModule
        The model itself.

    Raises
    ------
    TypeError, ValueError
        On entry if there is no such projection, or a correction is for a layer that is not pruned; in the run if the
        pattern does not fit a layer. The hooks are gone in either case.

    Notes
    -----
    A layer's output is changed, and not its input, which other layers read too. So a hook of your own that changes an
    input has to be added before the context is entered, and contexts may be nested only if they prune other layers.

    Examples
    --------
    >>> with pruned_inputs(model, InputPruning(Pattern.parse("8:16"), shift="median")):
    ...     logits = model(tokens)
    """
    layers = pruned_layers(model, projections)
    corrections = dict(corrections or {})
    unknown = corrections.keys() - layers.keys()
    if unknown:
        raise ValueError(f"There are corrections for {sorted(unknown)}, which are not pruned; leave them out.")
    inputs: dict[str, Tensor] = {}

    def keep_input(activation: Tensor, hook) -> None:
        inputs[hook.name] = activation.flatten(2)

    def change_output(matrix: str, source: str):
        weight, correction = as_matrix(matrix, model.get_parameter(matrix)).detach(), corrections.get(matrix)

        def change(output: Float[Tensor, "batch pos ..."], hook) -> Tensor:
            x = inputs[source]
            change = output_change(x, weight, pruning, Correction() if correction is None else correction)
            return output + change.view_as(output)

        return change

    hooks = [(source, keep_input) for source in dict.fromkeys(source for source, _ in layers.values())]
    hooks += [(target, change_output(matrix, source)) for matrix, (source, target) in layers.items()]
    with model.hooks(fwd_hooks=hooks):
        yield model


def output_change(
    x: Float[Tensor, "batch pos channel"],
    weight: Float[Tensor, "channel output"],
    pruning: InputPruning,
    correction: Correction,
) -> Float[Tensor, "batch pos output"]:
    """Return what the output of a layer changes by when its input is pruned and corrected."""
    pruned = prune_input(x, weight, pruning, correction.shift)
    change = (pruned - x) @ weight
    if correction.gain is not None:
        change = change + correction.gain * (pruned @ weight)
    if correction.offset is not None:
        change = change + correction.offset
    if correction.up is not None:
        change = change + (x - pruned) @ correction.down @ correction.up
    return change


def pruned_layers(model: HookedRootModule, projections: Iterable[str] | None = None) -> dict[str, tuple[str, str]]:
    """Return, for the weight of each layer that is pruned, the hooks at which its input and its output stand.

    Raises
    ------
    TypeError, ValueError
        If `projections` is a single string, or names what the model has not.
    """
    if isinstance(projections, str):
        raise TypeError(f"projections is {projections!r}; give a list of names, such as [{projections!r}].")
    gated = "blocks.0.mlp.hook_pre_linear" in model.hook_dict
    known = [name for name in PROJECTIONS if gated or name != "gate"]
    chosen = known if projections is None else list(projections)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"The model has no projections {unknown}; choose among {known}.")
    ends = PROJECTIONS if gated else PROJECTIONS | {"up": (*PROJECTIONS["up"][:2], "mlp.hook_pre")}
    return {
        f"blocks.{layer}.{matrix}": (f"blocks.{layer}.{source}", f"blocks.{layer}.{target}")
        for layer in range(model.cfg.n_layers)
        for matrix, source, target in (ends[name] for name in known if name in chosen)
    }


def projection_of(matrix: str) -> str:
    """Return the name in `PROJECTIONS` of the layer with a weight such as `"blocks.0.attn.W_Q"`."""
    return next(name for name, (weight, *_) in PROJECTIONS.items() if matrix.endswith(weight))


@torch.no_grad()
def layer_inputs(
    model: HookedRootModule, tokens: Int[Tensor, "batch pos"], projections: Iterable[str] | None = None
) -> dict[str, Float[Tensor, "token channel"]]:
    """Return what each layer that can be pruned reads, by its weight, shape (token, channel).

    Parameters
    ----------
    model : HookedRootModule
        In whatever state it is; inside `pruned_inputs` what is returned is not yet pruned itself.
    tokens : int tensor, shape (batch, pos)
        Prompts.
    projections : iterable of str, optional
        As in `pruned_inputs`.
    """
    layers = pruned_layers(model, projections)
    sources = {source for source, _ in layers.values()}
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name in sources)
    return {matrix: cache[source].flatten(2).flatten(0, 1) for matrix, (source, _) in layers.items()}
