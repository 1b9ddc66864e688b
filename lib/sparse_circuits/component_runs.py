"""Runs of a model in which single components are seen: what each writes, and the rest of a run from some layer on.

First used in chapter 9. A model serves if what its heads write adds up in the residual stream, and if its norms are
those of `model.RMSNorm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge
from transformer_lens import HookedRootModule

from .model import Transformer
from .prompt_pairs import Metric
from .two_way import TwoWayPrompts

# AbsTopK at the other locations makes heads compete, so that what they write no longer adds up.
ADDITIVE = {"mlp.hook_post", "hook_mlp_out"}
EMBEDDED = "blocks.0.hook_resid_pre"


def check_has_attention(model: HookedRootModule) -> None:
    """Raise TypeError if a model has no attention pattern, or is no `Transformer`."""
    if "blocks.0.attn.hook_pattern" not in getattr(model, "hook_dict", {}):
        raise TypeError(
            f"{type(model).__name__} has no hook point blocks.0.attn.hook_pattern, so it has no attention whose edges "
            "could be told apart; give a Transformer."
        )
    if not isinstance(model, Transformer):
        raise TypeError(f"The model is a {type(model).__name__}; give a Transformer, which runs layer by layer.")


def check_components_add_up(model: HookedRootModule) -> None:
    """Raise if the edges between the components of a model are not defined, or not known to this library.

    Raises
    ------
    TypeError
        If the model has no attention, or is no `Transformer`.
    ValueError
        If AbsTopK acts where what heads read and write has to add up.
    """
    check_has_attention(model)
    competing = set(model.cfg.activation_locations) - ADDITIVE
    if model.cfg.activation_density < 1 and competing:
        raise ValueError(
            f"activation_density is {model.cfg.activation_density} at {sorted(competing)}, so what heads write does "
            f"not add up; use a model with AbsTopK at {sorted(ADDITIVE)} only, or with none."
        )


def keeping(kept: dict[str, Tensor], names: Iterable[str]) -> list[tuple[str, Callable]]:
    """Return hooks that put the activations of some locations into `kept`, by name."""

    def keep(activation: Tensor, hook) -> None:
        kept[hook.name] = activation

    return [(name, keep) for name in names]


def putting(activations: Mapping[str, Tensor]) -> list[tuple[str, Callable]]:
    """Return hooks that put given activations in the place of a run's own, repeated for as many rows as the run has."""

    def put(activation: Tensor, hook) -> Tensor:
        given = activations[hook.name]
        return given.repeat(len(activation) // len(given), *[1] * (given.ndim - 1))

    return [(name, put) for name in activations]


def answer_logits(
    model: Transformer, prompts: TwoWayPrompts, hooks: list[tuple[str, Callable]]
) -> Float[Tensor, "n d_vocab"]:
    """Run a model on prompts with some hooks; return its logits at the answer positions, the others not computed."""
    cut = ("ln_final.hook_normalized", lambda activation, hook: prompts.answer_rows(activation))
    with model.hooks(fwd_hooks=[*hooks, cut]):
        logits = model(prompts.tokens)
    # A bigram table adds its rows for all positions.
    return logits[:, 0] if logits.shape[1] == 1 else prompts.answer_rows(logits)[:, 0]


@torch.no_grad()
def activations(model: Transformer, prompts: TwoWayPrompts, names: Iterable[str]) -> dict[str, Tensor]:
    """Return what a run on some prompts has at some locations."""
    kept: dict[str, Tensor] = {}
    answer_logits(model, prompts, keeping(kept, names))
    return kept


@torch.enable_grad()
def gradients(
    model: Transformer,
    prompts: TwoWayPrompts,
    metric: Metric,
    hooks: list[tuple[str, Callable]],
    wanted: Mapping[str, Tensor | GradientEdge],
    embedded: Float[Tensor, "batch pos d_model"] | None = None,
) -> dict[str, Float[Tensor, ...]]:
    """Run a model forward and backward once, and return the gradients of the sum of a metric over the prompts.

    Parameters
    ----------
    model, prompts, metric
        What is run, and what is differentiated at the answers. The weights get no gradient.
    hooks : list
        Hooks of the forward pass.
    wanted : mapping of str to float tensor or gradient edge
        The hooks put in what to differentiate by, for example those of `keeping`.
    embedded : float tensor, shape (batch, pos, d_model), optional
        Put in the place of `blocks.0.hook_resid_pre`.
    """

    def begin(activation: Tensor, hook) -> Tensor:
        return (activation if embedded is None else embedded).detach().requires_grad_()

    total = per_prompt(metric, prompts, answer_logits(model, prompts, [(EMBEDDED, begin), *hooks])).sum()
    return dict(zip(wanted, torch.autograd.grad(total, list(wanted.values())), strict=True))


def per_prompt(metric: Metric, prompts: TwoWayPrompts, logits: Float[Tensor, "n d_vocab"]) -> Float[Tensor, " n"]:
    """Return the metric of each prompt.

    Raises
    ------
    ValueError
        If the metric does not give one finite number for each prompt.
    """
    measured = metric(prompts, logits)
    if not isinstance(measured, Tensor) or measured.shape != (len(prompts),):
        shape = tuple(measured.shape) if isinstance(measured, Tensor) else type(measured).__name__
        raise ValueError(
            f"The metric gives {shape} for {len(prompts)} prompts; give one that returns a number for each, such as "
            "TwoWayPrompts.margins."
        )
    if not measured.isfinite().all():
        at = int((~measured.isfinite()).nonzero()[0])
        raise ValueError(
            f"The metric is {float(measured[at].detach())} for prompt {at}; give a model with finite logits and a "
            "metric that is finite for them."
        )
    return measured


def source_locations(n_layers: int) -> list[str]:
    """Return where a run shows what the components write: the embedding, each `hook_z`, each `hook_mlp_out`."""
    layers = [f"blocks.{layer}." for layer in range(n_layers)]
    return [EMBEDDED, *(f"{layer}{place}" for layer in layers for place in ("attn.hook_z", "hook_mlp_out"))]


def source_bytes(model: Transformer, pos: int) -> int:
    """Return the size of what all sources write for one prompt of `pos` tokens, in bytes."""
    n_sources = 1 + model.cfg.n_layers * (model.cfg.n_heads + 1)
    return n_sources * pos * model.cfg.d_model * model.W_E.element_size()


@torch.no_grad()
def source_changes(
    model: Transformer, clean: Mapping[str, Tensor], corrupted: Mapping[str, Tensor]
) -> Float[Tensor, "source batch pos d_model"]:
    """Return what each source of the component graph writes in the corrupted run minus what it writes in the clean one.

    Parameters
    ----------
    model : Transformer
        Gives W_O.
    clean, corrupted : mapping of str to float tensor
        The activations at `source_locations` in the two runs.
    """
    changes = empty_changes(model, clean[EMBEDDED])
    for name in source_locations(model.cfg.n_layers):
        _write_change(changes, model, name, clean[name], corrupted[name])
    return changes


def empty_changes(
    model: Transformer, embedded: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "source batch pos d_model"]:
    """Return room for `source_changes` of prompts with given embeddings; what it holds means nothing."""
    return embedded.new_empty(1 + model.cfg.n_layers * (model.cfg.n_heads + 1), *embedded.shape)


def changing(
    changes: Float[Tensor, "source batch pos d_model"], model: Transformer, corrupted: dict[str, Tensor]
) -> list[tuple[str, Callable]]:
    """Return hooks for a clean run that write `source_changes` into `changes`, and use up `corrupted`.

    So the activations of the two runs never stand in memory together.
    """

    def change(activation: Tensor, hook) -> None:
        with torch.no_grad():
            _write_change(changes, model, hook.name, activation.detach(), corrupted.pop(hook.name))

    return [(name, change) for name in source_locations(model.cfg.n_layers)]


def _write_change(
    changes: Float[Tensor, "source batch pos d_model"], model: Transformer, name: str, clean: Tensor, corrupted: Tensor
) -> None:
    if name == EMBEDDED:
        torch.sub(corrupted, clean, out=changes[0])
        return
    layer, heads = int(name.split(".")[1]), model.cfg.n_heads
    first = 1 + layer * (heads + 1)
    if name.endswith("attn.hook_z"):
        change = (corrupted - clean).flatten(0, 1).transpose(0, 1)
        torch.bmm(change, model.blocks[layer].attn.W_O, out=changes[first : first + heads].flatten(1, 2))
    else:
        torch.sub(corrupted, clean, out=changes[first + heads])


def logits_from(
    model: Transformer, residual: Float[Tensor, "row pos d_model"], layer: int, prompts: TwoWayPrompts
) -> Float[Tensor, "row d_vocab"]:
    """Run the rest of a model from the residual stream before a layer, with the hooks that the model carries.

    Parameters
    ----------
    model : Transformer
        The model.
    residual : float tensor, shape (row, pos, d_model)
        `hook_resid_pre` of the layer; before the unembedding, its rows at the answer positions will do.
    layer : int
        The first layer to run; `n_layers` for the unembedding alone.
    prompts : TwoWayPrompts
        One prompt for each row. The last layer is run at the answer positions alone, once keys and values are read.
    """
    n_layers = model.cfg.n_layers
    for block in model.blocks[layer : n_layers - 1]:
        residual = block(residual)
    if layer < n_layers:
        last = f"blocks.{n_layers - 1}."
        # What attention writes for one position is added at every position.
        places = (f"{last}attn.hook_z", f"{last}hook_resid_mid")
        with model.hooks(fwd_hooks=[(place, lambda x, hook: prompts.answer_rows(x)) for place in places]):
            residual = model.blocks[-1](residual)
    if residual.shape[1] > 1:
        residual = prompts.answer_rows(residual)
    logits = (model.ln_final(residual) @ model.W_U + model.b_U)[:, 0]
    return logits if model.W_bigram is None else logits + model.W_bigram[prompts.answer_rows(prompts.tokens)[:, 0]]
