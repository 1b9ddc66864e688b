"""Attention edges: which head carries what from which key position to which query position.

First used in chapter 9.

* An **edge** is one entry of one head's attention pattern, `a1.h0.key[3] -> a1.h0.query[7]`: what head 0 of layer 1
  brings from position 3 to position 7. It is the same edge in every prompt, so prompts have to agree in what stands
  where.
* A **node** is a position as a head's key or as its query.
* **Not edges**: pairs that the mask forbids, and the residual stream, which keeps each position's own contents.

L layers of H heads have `L H T (T + 1) / 2` edges between T positions if attention is causal. An edge is ablated by
closing it (nothing travels; the other weights of the row stay as they are) or by sending along it what the corrupted
run sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attribution import MEMORY, line
from .branching_runs import BranchingRuns
from .component_runs import EMBEDDED, activations, check_has_attention, gradients, keeping
from .edge_scores import EdgeScores
from .graph import Graph, Masks
from .model import Transformer
from .prompt_pairs import Metric, PromptPairs
from .two_way import TwoWayPrompts

if TYPE_CHECKING:
    from .model import TransformerConfig

VALUES = ("zero", "corrupted")


@dataclass(frozen=True, eq=False, repr=False)
class TokenGraph(Graph):
    """The graph of the attention edges of a model; a `Graph` with one matrix, keys by queries, for each head.

    Parameters
    ----------
    n_layers, n_heads, length : int
        Shape of the model, and tokens in a prompt.
    answers : tuple of int
        Positions where answers are read.
    """

    n_layers: int
    n_heads: int
    length: int
    answers: tuple[int, ...]

    def connected(self, edge_masks: Masks) -> dict[str, Bool[Tensor, "key query"]]:
        """Return the edges whose query position is an answer, or is read on the way to one by edges of later layers."""
        read = torch.zeros(self.length, dtype=torch.bool)
        read[list(self.answers)] = True
        kept = {}
        for layer in reversed(range(self.n_layers)):
            names = [head_name(layer, head) for head in range(self.n_heads)]
            kept |= {name: edge_masks[name] & read for name in names}
            read = read | torch.stack([kept[name] for name in names]).any(0).any(1)
        return {name: kept[name] for name in edge_masks}

    def by_layer(self, tensors: Masks) -> Iterator[Tensor]:
        """Yield what the matrices of a layer hold as one tensor (head, query, key), as the pattern has it."""
        for layer in range(self.n_layers):
            yield torch.stack([tensors[head_name(layer, head)].T for head in range(self.n_heads)])


def head_name(layer: int, head: int) -> str:
    """Return the name of a head's matrix of attention edges: `"a1.h0"`."""
    return f"a{layer}.h{head}"


def token_graph(
    model: Transformer | TransformerConfig, length: int, answers: Iterable[int] | None = None
) -> TokenGraph:
    """Return the attention edges of a model between the positions of a prompt.

    Parameters
    ----------
    model : Transformer or TransformerConfig
        Anything with `n_layers` and `n_heads`, itself or as its `cfg`.
    length : int
        Tokens in a prompt.
    answers : iterable of int, optional
        Positions where answers are read; the last one if not given.

    Raises
    ------
    ValueError
        If `length` is below 1 or an answer's position is outside the prompt.
    """
    cfg = getattr(model, "cfg", model)
    if length < 1:
        raise ValueError(f"length is {length}; give the number of tokens in a prompt, 1 or more.")
    answers = (length - 1,) if answers is None else tuple(sorted({int(position) for position in answers}))
    if not answers or not 0 <= answers[0] <= answers[-1] < length:
        raise ValueError(f"answers are {answers}; give positions from 0 to {length - 1}.")
    names = [head_name(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]
    sizes = {f"{name}.{end}": length for name in names for end in ("key", "query")}
    ends = {name: (f"{name}.key", f"{name}.query") for name in names}
    pairs = torch.ones(length, length, dtype=torch.bool)
    pairs = pairs.triu() if getattr(cfg, "attention_dir", "causal") == "causal" else pairs
    masks = {name: pairs.clone() for name in names}
    return TokenGraph("token", sizes, ends, masks, cfg.n_layers, cfg.n_heads, length, answers)


def token_eap(
    model: Transformer,
    pairs: PromptPairs,
    metric: Metric = TwoWayPrompts.margins,
    values: str = "zero",
    steps: int | None = None,
    memory: int = MEMORY,
) -> EdgeScores:
    """Return the score of every attention edge by EAP, or by EAP-IG: the gradient times what ablation changes.

    Parameters
    ----------
    model, pairs, metric, memory
        As in `attribution.eap`.
    values : {"zero", "corrupted"}
        Close an edge, or send along it what the corrupted run sends.
    steps : int, optional
        Points of EAP-IG, as in `attribution.eap_ig`; EAP if not given.

    Raises
    ------
    TypeError, ValueError
        As in `attribution.eap`, or if `values` or `steps` cannot be used.
    """
    check_values(values)
    check_has_attention(model)
    shares, graph = [1.0] if steps is None else line(steps), graph_of(model, pairs)
    layers = range(model.cfg.n_layers)
    carried = [f"blocks.{layer}.attn.hook_{place}" for layer in layers for place in ("pattern", "v")]
    totals = [torch.zeros(graph.n_heads, graph.length, graph.length, dtype=torch.float64) for _ in layers]
    bytes_each = 2 * model.cfg.n_layers * graph.n_heads * graph.length**2 * model.W_E.element_size()
    for batch in pairs.batches(bytes_each, memory):
        corrupted = activations(model, batch.corrupted_prompts, [EMBEDDED, *carried])
        clean = activations(model, batch.clean, [EMBEDDED, *carried])
        for share in shares:
            embedded = corrupted[EMBEDDED].lerp(clean[EMBEDDED], share)
            seen: dict[str, Tensor] = {}
            mixed = keeping(seen, [f"blocks.{layer}.attn.hook_z" for layer in layers])
            at_heads = gradients(model, batch.clean, metric, mixed, seen, embedded)
            for layer, total in zip(layers, totals, strict=True):
                gradient = at_heads[f"blocks.{layer}.attn.hook_z"]
                total -= _products(clean, layer, gradient)
                if values == "corrupted":
                    total += _products(corrupted, layer, gradient)
    method = f"{'EAP' if steps is None else f'EAP-IG, {steps} steps'}, {values} values"
    return as_scores(graph, [total / (len(pairs) * len(shares)) for total in totals], method, model)


@torch.no_grad()
def exact_token_scores(
    model: Transformer,
    pairs: PromptPairs,
    metric: Metric = TwoWayPrompts.margins,
    values: str = "zero",
    memory: int = MEMORY,
) -> EdgeScores:
    """Return the score of every attention edge, each ablated in a run of its own from its layer on.

    Parameters and errors as in `token_eap`. It takes one run per edge that the answer can depend on: for short prompts.
    """
    check_values(values)
    check_has_attention(model)
    graph = graph_of(model, pairs)
    totals = [torch.zeros(graph.n_heads, graph.length, graph.length, dtype=torch.float64) for _ in model.blocks]
    useful = graph.connected(graph.edge_masks)
    carried = [f"blocks.{layer}.attn.hook_{p}" for layer in range(graph.n_layers) for p in ("pattern", "v")]
    for batch in pairs.batches(2 * len(carried) * graph.n_heads * graph.length**2 * model.W_E.element_size(), memory):
        runs = BranchingRuns(model, batch.clean, metric, carried, memory)
        corrupted = activations(model, batch.corrupted_prompts, carried) if values == "corrupted" else None
        for layer, mask in enumerate(graph.by_layer(useful)):
            edges = mask.nonzero()
            changes = (_changes(runs, corrupted, layer, part) for part in edges.split(runs.at_once))
            totals[layer][mask] += runs.after_middle(layer, changes)
    return as_scores(graph, [total / len(pairs) for total in totals], f"exact, {values} values", model)


def check_values(values: str) -> None:
    """Raise ValueError if `values` is not one of `VALUES`."""
    if values not in VALUES:
        raise ValueError(f"values is {values!r}; choose one of {VALUES}.")


def graph_of(model: Transformer, pairs: PromptPairs) -> TokenGraph:
    """Return the attention edges between the positions of some prompts, with their answer positions."""
    return token_graph(model, pairs.corrupted.shape[1], pairs.clean.position.tolist())


def as_scores(graph: TokenGraph, totals: list[Float[Tensor, "head query key"]], method: str, model) -> EdgeScores:
    """Return the scores of all layers as those of the graph's matrices."""
    scores = {
        head_name(layer, head): total[head].T.to(model.W_E.dtype)
        for layer, total in enumerate(totals)
        for head in range(graph.n_heads)
    }
    return EdgeScores(graph, scores, method)


def _products(run: Masks, layer: int, gradient: Float[Tensor, "batch query head d_head"]) -> Tensor:
    """Return what each edge carries in a run times the gradient of `hook_z`, summed over prompts."""
    value, pattern = run[f"blocks.{layer}.attn.hook_v"], run[f"blocks.{layer}.attn.hook_pattern"]
    return (pattern * torch.einsum("bqhd,bkhd->bhqk", gradient, value)).sum(0, dtype=torch.float64)


def _changes(runs: BranchingRuns, corrupted: Masks | None, layer: int, edges: Tensor) -> Tensor:
    """Return what each ablated edge (head, query, key) changes in the stream after attention."""
    head, query, key = edges.T

    def carried(run: Masks) -> Float[Tensor, "batch edge d_head"]:
        weight = run[f"blocks.{layer}.attn.hook_pattern"][:, head, query, key]
        return weight[..., None] * run[f"blocks.{layer}.attn.hook_v"][:, key, head]

    change = -carried(runs.clean) if corrupted is None else carried(corrupted) - carried(runs.clean)
    written = torch.einsum("bed,edm->ebm", change, runs.model.blocks[layer].attn.W_O[head])
    at_query = torch.nn.functional.one_hot(query, runs.prompts.tokens.shape[1]).T.to(written)
    positions = runs.at_answers(layer, at_query.expand(len(runs.prompts), -1, -1))
    return torch.einsum("ebm,bpe->ebpm", written, positions)
