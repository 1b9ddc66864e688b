"""Edge attribution patching over the component graph, and the choice between it and exact ablation.

First used in chapter 9. The edge from source u to reader v is ablated by letting v, and nothing else, see what u
writes in the corrupted run. To first order in that change the metric changes by

    score(u -> v) = sum over positions and residual coordinates of (u corrupted - u clean) * d metric / d (input of v)

EAP (arXiv 2310.10348) takes the gradient at the clean run. EAP-IG (arXiv 2403.17806, "inputs") takes its mean over
runs whose embeddings lie on the line from the corrupted to the clean ones. Both need one forward pass for each side
and one backward pass for each step; all scores are then products with one buffer of what the sources write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .component_runs import (
    EMBEDDED,
    activations,
    answer_logits,
    changing,
    check_components_add_up,
    empty_changes,
    gradients,
    source_bytes,
    source_locations,
)
from .components import EDGES, LETTERS, ComponentGraph, component_graph
from .edge_scores import EdgeScores
from .exact_edges import exact_edge_scores
from .model import Transformer
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
    corrupted = activations(model, pairs.corrupted_prompts, source_locations(model.cfg.n_layers))
    changes = empty_changes(model, corrupted[EMBEDDED])
    products = _Products(model, graph, changes)
    change = changing(changes, model, corrupted)
    if shares == [1.0]:
        products.add(pairs.clean, metric, change)
        return products.totals
    start = corrupted[EMBEDDED]
    with torch.no_grad():
        answer_logits(model, pairs.clean, change)
    for share in shares:
        # `changes[0]` is the corrupted embedding minus the clean one.
        products.add(pairs.clean, metric, [], start - share * changes[0])
    return products.totals


class _Products:
    """Products of all changes with the gradients at what the readers read, before their norms.

    They are taken while the backward pass runs, reader by reader, so no gradient is kept.

    Parameters
    ----------
    model, graph
        The model and its component graph.
    changes : float tensor, shape (source, batch, pos, d_model)
        Read in the backward pass; the forward pass may still write them.
    """

    def __init__(
        self, model: Transformer, graph: ComponentGraph, changes: Float[Tensor, "source batch pos d_model"]
    ) -> None:
        self.model, self.graph, self.changes = model, graph, changes.flatten(1)
        self.totals = torch.zeros(graph.edge_masks[EDGES].shape, dtype=torch.float64)

    def add(
        self,
        prompts: TwoWayPrompts,
        metric: Metric,
        hooks: list[tuple[str, Callable]],
        embedded: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> None:
        """Run forward, with some hooks and from given embeddings, and backward, and add the products to the totals."""
        norms: dict[str, Tensor] = {}
        # Where the backward pass may end. The edge, unlike the activation, keeps nothing in memory.
        of_first_layer: dict[str, GradientEdge] = {}

        def keep(activation: Tensor, hook) -> None:
            norms[hook.name] = activation.detach()

        def watch(place: str, products: Callable) -> tuple[str, Callable]:
            def at_forward(activation: Tensor, hook) -> None:
                layer = hook.layer()
                activation.register_hook(lambda gradient: products(layer, gradient, norms))
                if layer == 0:
                    of_first_layer[hook.name] = get_gradient_edge(activation)

            return place, at_forward

        layers = [f"blocks.{layer}." for layer in range(self.model.cfg.n_layers)]
        kept = [f"ln{n}.hook_{part}" for n in (1, 2) for part in ("normalized", "scale")]
        hooks = [
            *hooks,
            *((f"{layer}{place}", keep) for layer in layers for place in kept),
            *(
                watch(f"{layer}attn.hook_{letter}", partial(self._at_heads, letter))
                for layer in layers
                for letter in LETTERS
            ),
            *(watch(f"{layer}ln2.hook_normalized", self._at_mlp) for layer in layers),
            watch(f"{layers[-1]}hook_resid_post", self._at_logits),
        ]
        gradients(self.model, prompts, metric, hooks, of_first_layer, embedded)

    @torch.no_grad()
    def _at_heads(self, letter: str, layer: int, gradient: Tensor, norms: dict[str, Tensor]) -> None:
        """Add what each head reads for q, k or v, as if each had a copy of the residual stream."""
        weight, heads = getattr(self.model.blocks[layer].attn, f"W_{letter.upper()}"), self.model.cfg.n_heads
        after_norm = torch.bmm(gradient.flatten(0, 1).transpose(0, 1), weight.transpose(1, 2))
        first, before = self.graph.attention_readers(layer).start, self.graph.sources_before(layer)
        readers = slice(first + LETTERS.index(letter) * heads, first + (LETTERS.index(letter) + 1) * heads)
        self._add(before, readers, before_norm(after_norm, norms, f"blocks.{layer}.ln1"))

    @torch.no_grad()
    def _at_mlp(self, layer: int, gradient: Tensor, norms: dict[str, Tensor]) -> None:
        reader, before = self.graph.mlp_reader(layer), self.graph.sources_before(layer, after_attention=True)
        after_norm = gradient.flatten(0, 1)[None].clone()
        self._add(before, slice(reader, reader + 1), before_norm(after_norm, norms, f"blocks.{layer}.ln2"))

    @torch.no_grad()
    def _at_logits(self, layer: int, gradient: Tensor, norms: dict[str, Tensor]) -> None:
        n_sources, n_readers = self.totals.shape
        self._add(n_sources, slice(n_readers - 1, n_readers), gradient.flatten(0, 1)[None])

    def _add(self, before: int, readers: slice, gradients: Float[Tensor, "reader row d_model"]) -> None:
        """Add the products of the first sources with the gradients of some readers."""
        self.totals[:before, readers] += self.changes[:before] @ gradients.flatten(1).T


def before_norm(
    after_norm: Float[Tensor, "reader row d_model"], norms: dict[str, Tensor], norm: str
) -> Float[Tensor, "reader row d_model"]:
    """Return the gradients of some readers before their norm, written in the place of those after it.

    Through RMSNorm, n = x / s, a gradient g becomes (g - n mean(n g)) / s.

    Parameters
    ----------
    after_norm : float tensor, shape (reader, row, d_model)
        Gradients of the normalised residual stream that each reader has for itself; a row is a position of a prompt.
    norms : mapping of str to float tensor
        `hook_normalized`, (batch, pos, d_model), and `hook_scale`, (batch, pos, 1), of the norm called `norm`.
    """
    normalized, scale = (norms[f"{norm}.hook_{part}"].flatten(0, 1) for part in ("normalized", "scale"))
    mean = torch.bmm(after_norm.transpose(0, 1), normalized[..., None]).transpose(0, 1) / normalized.shape[-1]
    return after_norm.addcmul_(mean, normalized, value=-1).div_(scale)
