"""Exact ablation of every edge of the component graph, one at a time: the oracle that gradients are compared with.

First used in chapter 9. For each edge the model is run once more from its reader on. Heads do not see each other, so
one run of a layer's attention with the queries of all heads changed gives what each head would write if only its own
query had changed; the same for keys and values.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .branching_runs import BranchingRuns
from .component_runs import (
    activations,
    check_components_add_up,
    keeping,
    putting,
    source_bytes,
    source_changes,
    source_locations,
)
from .components import EDGES, LETTERS, SOURCE, component_graph
from .edge_scores import EdgeScores
from .model import Transformer
from .prompt_pairs import Metric, PromptPairs
from .two_way import TwoWayPrompts


@torch.no_grad()
def exact_edge_scores(
    model: Transformer, pairs: PromptPairs, metric: Metric = TwoWayPrompts.margins, memory: int = 2**28
) -> EdgeScores:
    """Return the score of every component edge: the change of the metric when its reader sees the corrupted source.

    Parameters and errors as in `attribution.eap`; `memory` bounds what the sources of a batch write, and what the MLP
    neurons of the edges that run together hold.
    """
    check_components_add_up(model)
    graph = component_graph(model)
    totals = torch.zeros(graph.edge_masks[EDGES].shape, dtype=torch.float64)
    for batch in pairs.batches(source_bytes(model, pairs.corrupted.shape[1]), memory):
        runs = _EdgeRuns(model, batch, metric, memory)
        for layer in range(model.cfg.n_layers):
            for source in range(graph.sources_before(layer)):
                totals[source, graph.attention_readers(layer)] += runs.into_heads(layer, source)
            before = graph.sources_before(layer, after_attention=True)
            totals[:before, graph.mlp_reader(layer)] += runs.into_mlp(layer, before)
        totals[: graph.sizes[SOURCE], -1] += runs.into_logits()
    return EdgeScores(graph, {EDGES: (totals / len(pairs)).to(model.W_E.dtype)}, "exact")


class _EdgeRuns(BranchingRuns):
    """Runs that branch off where one reader sees one corrupted source."""

    def __init__(self, model: Transformer, pairs: PromptPairs, metric: Metric, memory: int) -> None:
        at_sources = source_locations(model.cfg.n_layers)
        places = (*(f"attn.hook_{letter}" for letter in LETTERS), "hook_resid_pre")
        names = [f"blocks.{layer}.{place}" for layer in range(model.cfg.n_layers) for place in places]
        super().__init__(model, pairs.clean, metric, [*at_sources, *names], memory)
        self.changes = source_changes(model, self.clean, activations(model, pairs.corrupted_prompts, at_sources))

    def into_heads(self, layer: int, source: int) -> Float[Tensor, " reader"]:
        """Return the summed changes for one source and all q, k and v inputs of a layer's heads."""
        prefix, block = f"blocks.{layer}.", self.model.blocks[layer]
        read, z = block.ln1(self.clean[f"{prefix}hook_resid_pre"] + self.changes[source]), f"{prefix}attn.hook_z"
        changed = []
        for letter in LETTERS:
            others = {f"{prefix}attn.hook_{other}" for other in LETTERS if other != letter}
            seen: dict[str, Tensor] = {}
            clean = {place: self.clean[place] for place in others}
            with self.model.hooks(fwd_hooks=[*putting(clean), *keeping(seen, [z])]):
                block.attn(read)
            change = self.at_answers(layer, seen[z] - self.clean[z])
            changed.append(torch.einsum("bphd,hdm->hbpm", change, block.attn.W_O))
        return self.after_middle(layer, torch.cat(changed).split(self.at_once))

    def into_mlp(self, layer: int, before: int) -> Float[Tensor, " source"]:
        """Return the summed changes for the first sources and the MLP of a layer."""
        block, middle = self.model.blocks[layer], self.middle(layer)
        measured = []
        for changes in self.changes[:before].split(self.at_once):
            read = torch.cat([middle + self.at_answers(layer, change) for change in changes])
            stream = middle.repeat(len(changes), 1, 1) + block.hook_mlp_out(block.mlp(block.ln2(read)))
            measured.append(self.after_layer(layer, stream))
        return torch.cat(measured)

    def into_logits(self) -> Float[Tensor, " source"]:
        """Return the summed changes for all sources and the logits."""
        last = self.model.cfg.n_layers - 1
        stream = self.at_answers(last, self.clean[f"blocks.{last}.hook_resid_post"])
        return self.after_layer(last, torch.cat([stream + self.at_answers(last, change) for change in self.changes]))
