"""Edge attribution patching over the component graph, and the choice between it and exact ablation.

First used in chapter 9. The edge from source u to reader v is ablated by letting v, and nothing else, see what u
writes in the corrupted run. To first order in that change the metric changes by

    score(u -> v) = sum over positions and residual coordinates of (u corrupted - u clean) * d metric / d (input of v)

EAP (arXiv 2310.10348) takes the gradient at the clean run. EAP-IG (arXiv 2403.17806, "inputs") takes its mean over
runs whose embeddings lie on the line from the corrupted to the clean ones. Both need one forward pass for each side
and one backward pass for each step; all scores are then products with one buffer of what the sources write.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .component_runs import (
    EMBEDDED,
    Linearised,
    activations,
    check_components_add_up,
    linearised,
    source_bytes,
    source_changes,
    source_locations,
)
from .components import EDGES, LETTERS, ComponentGraph, component_graph
from .edge_scores import EdgeScores
from .exact_edges import exact_edge_scores
from .model import Attention, Transformer
from .prompt_pairs import Metric, PromptPairs
from .two_way import TwoWayPrompts

MEMORY = 2**28
EXACT_BELOW = 10_000


def score_edges(
    model: Transformer,
    pairs: PromptPairs,
    metric: Metric = TwoWayPrompts.margins,
    memory: int = MEMORY,
) -> EdgeScores:
    """Return the score of every component edge: exact below 10 000 edges, by EAP-IG with 5 steps from there on.

    Parameters and errors as in `eap`.
    """
    graph = component_graph(model)
    if graph.count_edges() < EXACT_BELOW:
        return exact_edge_scores(model, pairs, metric, memory)
    return eap_ig(model, pairs, metric, memory=memory)


def eap(
    model: Transformer,
    pairs: PromptPairs,
    metric: Metric = TwoWayPrompts.margins,
    memory: int = MEMORY,
) -> EdgeScores:
    """Return the score of every component edge by edge attribution patching: the gradient at the clean run.

    Parameters
    ----------
    model : Transformer
        The model, without hooks of your own.
    pairs : PromptPairs
        Clean prompts and corrupted ones.
    metric : callable
        Maps prompts and their logits at the answer positions, (n, d_vocab), to one number each, (n,). The logit
        difference of right and wrong answer if not given. It must not mix prompts.
    memory : int
        Bytes that the buffer of a batch may take: what all sources write, for as many pairs as fit (at least one).

    Returns
    -------
    EdgeScores
        Of the component graph; means over the prompts, whatever the batches.

    Raises
    ------
    TypeError, ValueError
        If the model has no attention or no additive components, or the metric gives no finite number per prompt.
    """
    return _attributed(model, pairs, metric, memory, shares=[1.0], method="EAP")


def eap_ig(
    model: Transformer,
    pairs: PromptPairs,
    metric: Metric = TwoWayPrompts.margins,
    steps: int = 5,
    memory: int = MEMORY,
) -> EdgeScores:
    """Return the score of every component edge by EAP with integrated gradients over the embeddings.

    Parameters
    ----------
    model, pairs, metric, memory
        As in `eap`.
    steps : int
        Points k = 0 to steps - 1 of the line; point k lies k / steps of the way from the corrupted to the clean
        embeddings. These are the points of the authors' code; their paper has k = 1 to steps.

    Raises
    ------
    TypeError, ValueError
        As in `eap`, or if `steps` is below 1.
    """
    return _attributed(model, pairs, metric, memory, line(steps), method=f"EAP-IG, {steps} steps")


def line(steps: int) -> list[float]:
    """Return the shares of the clean embeddings at the points of EAP-IG: 0, 1 / steps, ..., (steps - 1) / steps."""
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps is {steps!r}; give the number of points to average over, 1 or more.")
    return [k / steps for k in range(steps)]


def _attributed(
    model: Transformer, pairs: PromptPairs, metric: Metric, memory: int, shares: list[float], method: str
) -> EdgeScores:
    check_components_add_up(model)
    graph = component_graph(model)
    totals = torch.zeros(graph.edge_masks[EDGES].shape, dtype=torch.float64)
    for batch in pairs.batches(source_bytes(model, pairs.corrupted.shape[1]), memory):
        totals += _batch_totals(model, graph, batch, metric, shares)
    scores = torch.where(graph.edge_masks[EDGES], totals / (len(pairs) * len(shares)), 0)
    return EdgeScores(graph, {EDGES: scores.to(model.W_E.dtype)}, method)


def _batch_totals(
    model: Transformer, graph: ComponentGraph, pairs: PromptPairs, metric: Metric, shares: list[float]
) -> Float[Tensor, "source reader"]:
    """Return the sums of the scores over the prompts of a batch and the points of the line."""
    at_sources = source_locations(model.cfg.n_layers)
    corrupted = activations(model, pairs.corrupted_prompts, at_sources)
    at_clean = shares == [1.0]
    clean = linearised(model, pairs.clean, metric, at_sources) if at_clean else None
    values = clean.values if at_clean else activations(model, pairs.clean, at_sources)
    changes = source_changes(model, values, corrupted)
    totals = torch.zeros(graph.edge_masks[EDGES].shape, dtype=torch.float64)
    for share in shares:
        point = clean or linearised(
            model, pairs.clean, metric, embedded=corrupted[EMBEDDED].lerp(values[EMBEDDED], share)
        )
        _add_products(totals, graph, model, changes, point)
    return totals


@torch.no_grad()
def _add_products(
    totals: Float[Tensor, "source reader"],
    graph: ComponentGraph,
    model: Transformer,
    changes: Float[Tensor, "source batch pos d_model"],
    point: Linearised,
) -> None:
    """Add the products of all changes with the gradients at what the readers read, before their norms."""
    changes = changes.flatten(1)
    for layer, block in enumerate(model.blocks):
        before = graph.sources_before(layer)
        gradients = _at_head_inputs(block.attn, f"blocks.{layer}.", point)
        totals[:before, graph.attention_readers(layer)] += changes[:before] @ gradients.flatten(1).T
        before = graph.sources_before(layer, after_attention=True)
        norm = f"blocks.{layer}.ln2"
        normalized, gradient = point.values[f"{norm}.hook_normalized"], point.gradients[f"{norm}.hook_normalized"]
        along = (gradient * normalized).mean(-1, keepdim=True)
        gradient = (gradient - along * normalized) / point.values[f"{norm}.hook_scale"]
        totals[:before, graph.mlp_reader(layer)] += changes[:before] @ gradient.flatten()
    totals[:, -1] += changes @ point.gradients[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"].flatten()


def _at_head_inputs(attention: Attention, layer: str, point: Linearised) -> Float[Tensor, "reader token d_model"]:
    """Return the gradients at what each head reads for q, k and v, as if each had a copy of the residual stream.

    Through RMSNorm, x / s, a gradient g becomes (g - n mean(n g)) / s with n = x / s. Here g is a head's matrix times
    its own gradient, so the mean is a product of two vectors of d_head entries: q without its bias, and its gradient.
    """
    normalized, scale = point.values[f"{layer}ln1.hook_normalized"], point.values[f"{layer}ln1.hook_scale"]
    n_heads, d_model, _ = attention.W_Q.shape
    tokens = normalized.shape[0] * normalized.shape[1]
    gradients, along = normalized.new_empty(3 * n_heads, tokens, d_model), normalized.new_empty(3 * n_heads, tokens)
    for i, letter in enumerate(LETTERS):
        weight, bias = getattr(attention, f"W_{letter.upper()}"), getattr(attention, f"b_{letter.upper()}")
        place, heads = f"{layer}attn.hook_{letter}", slice(i * n_heads, (i + 1) * n_heads)
        own = (point.gradients[place] / scale[..., None]).flatten(0, 1).transpose(0, 1)
        read = (point.values[place] - bias).flatten(0, 1).transpose(0, 1)
        torch.bmm(own, weight.transpose(1, 2), out=gradients[heads])
        torch.sum(own * read, -1, out=along[heads])
    return gradients.addcmul_(along[..., None], normalized.flatten(0, 1), value=-1 / d_model)
