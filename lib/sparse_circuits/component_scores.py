"""What a model does when only the component edges of a circuit carry what its clean run says.

First used in chapter 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .circuit import Circuit
from .component_runs import (
    EMBEDDED,
    activations,
    check_components_add_up,
    keeping,
    logits_from,
    per_prompt,
    putting,
    source_bytes,
    source_locations,
)
from .components import EDGES, LETTERS, ComponentGraph
from .model import Transformer
from .prompt_pairs import Metric, PromptPairs
from .two_way import TwoWayPrompts


@dataclass(frozen=True, eq=False)
class ComponentScore:
    """F: maps a circuit of the component graph to a metric, with every edge outside it corrupted.

    Noising: a source is recomputed from what its reader sees, and along an edge outside the circuit its value in the
    corrupted run travels instead. `faithfulness(score, circuit)` and `faithfulness_curve` take such an F.

    Parameters
    ----------
    model : Transformer
        The model, without hooks of your own. After a change of its weights make a new score.
    pairs : PromptPairs
        Clean prompts and corrupted ones.
    metric : callable
        As in `attribution.eap`; its mean over the prompts is F.
    memory : int
        Bytes that what the sources of a batch write may take.

    Raises
    ------
    TypeError, ValueError
        As in `attribution.eap`; when called, if the circuit is none, or is of the graph of another shape.
    """

    model: Transformer
    pairs: PromptPairs
    metric: Metric = TwoWayPrompts.margins
    memory: int = 2**28

    def __post_init__(self) -> None:
        check_components_add_up(self.model)

    @torch.no_grad()
    def __call__(self, circuit: Circuit) -> float:
        """Return F(circuit)."""
        if not isinstance(circuit, Circuit):
            raise TypeError(f"{circuit!r} is no Circuit; give one, for example scores.largest(20).")
        graph, shape = circuit.graph, (self.model.cfg.n_layers, self.model.cfg.n_heads)
        if not isinstance(graph, ComponentGraph) or (graph.n_layers, graph.n_heads) != shape:
            raise ValueError(
                f"{circuit!r} is not of the component graph of {shape[0]} layers of {shape[1]} heads; take it from "
                "component_graph(model)."
            )
        total = 0.0
        for pairs, corrupted in self._corrupted_runs:
            logits = self._logits(graph, circuit.edge_masks[EDGES], pairs, corrupted)
            total += float(per_prompt(self.metric, pairs.clean, logits).double().sum())
        return total / len(self.pairs)

    @cached_property
    def _corrupted_runs(self) -> list[tuple[PromptPairs, dict[str, Tensor]]]:
        """What every reader and source has in the corrupted run, batch by batch."""
        cfg = self.model.cfg
        places = [*(f"attn.hook_{letter}" for letter in LETTERS), "ln1.hook_normalized"]
        places += ["hook_resid_pre", "hook_resid_mid", "hook_resid_post"]
        names = {f"blocks.{layer}.{place}" for layer in range(cfg.n_layers) for place in places}
        bytes_each = source_bytes(self.model, self.pairs.corrupted.shape[1])
        return [
            (batch, activations(self.model, batch.corrupted_prompts, names | {*source_locations(cfg.n_layers)}))
            for batch in self.pairs.batches(bytes_each, self.memory)
        ]

    def _logits(
        self,
        graph: ComponentGraph,
        edges: Bool[Tensor, "source reader"],
        pairs: PromptPairs,
        corrupted: dict[str, Tensor],
    ) -> Float[Tensor, "n d_vocab"]:
        model, prompts = self.model, pairs.clean
        weights = edges.to(model.W_E)
        embedded = activations(model, prompts, [EMBEDDED])[EMBEDDED]
        # What each source writes in this run, minus what it writes in the corrupted one.
        changes = embedded.new_zeros(graph.sizes["source"], *embedded.shape)
        torch.sub(embedded, corrupted[EMBEDDED], out=changes[0])

        def read(reader: int | Tensor, before: int, base: Tensor) -> Tensor:
            """Return what some readers see: the corrupted stream and, along kept edges, the changes."""
            kept = weights[:before, reader].movedim(0, -1)
            return base + (kept @ changes[:before].flatten(1)).view(*kept.shape[:-1], *base.shape)

        for layer, block in enumerate(model.blocks):
            prefix, before = f"blocks.{layer}.", graph.sources_before(layer)
            z = f"{prefix}attn.hook_z"
            if edges[:before, graph.attention_readers(layer)].any():
                given = self._given_to_heads(graph, layer, edges[:before], read, corrupted)
                seen: dict[str, Tensor] = {}
                with model.hooks(fwd_hooks=[*putting(given), *keeping(seen, [z])]):
                    block.attn(corrupted[f"{prefix}ln1.hook_normalized"])
                change = (seen[z] - corrupted[z]).flatten(0, 1).transpose(0, 1)
                own = changes[before : before + graph.n_heads].flatten(1, 2)
                torch.bmm(change, block.attn.W_O, out=own)
            if layer == model.cfg.n_layers - 1:
                changes = torch.stack([prompts.answer_rows(change) for change in changes])
                corrupted = {
                    name: prompts.answer_rows(corrupted[name]) for name in corrupted if name.startswith(prefix)
                }
            before = graph.sources_before(layer, after_attention=True)
            written = f"{prefix}hook_mlp_out"
            if edges[:before, graph.mlp_reader(layer)].any():
                middle = read(graph.mlp_reader(layer), before, corrupted[f"{prefix}hook_resid_mid"])
                torch.sub(block.hook_mlp_out(block.mlp(block.ln2(middle))), corrupted[written], out=changes[before])
        final = read(graph.sizes["reader"] - 1, len(changes), corrupted[f"{prefix}hook_resid_post"])
        return logits_from(model, final, model.cfg.n_layers, prompts)

    def _given_to_heads(
        self, graph, layer, edges, read, corrupted
    ) -> dict[str, Float[Tensor, "batch pos head d_head"]]:
        """Return queries, keys and values; a head without a kept edge keeps those of the corrupted run."""
        block, prefix = self.model.blocks[layer], f"blocks.{layer}."
        given = {}
        for letter, readers in zip(
            LETTERS, torch.arange(edges.shape[1])[graph.attention_readers(layer)].chunk(3), strict=True
        ):
            place = f"{prefix}attn.hook_{letter}"
            heads = edges[:, readers].any(0).nonzero().flatten()
            given[place] = corrupted[place]
            if not len(heads):
                continue
            stream = read(readers[heads], len(edges), corrupted[f"{prefix}hook_resid_pre"])
            weight, bias = (getattr(block.attn, f"{kind}_{letter.upper()}")[heads] for kind in "Wb")
            own = torch.einsum("hbpm,hmd->bphd", block.ln1(stream), weight) + bias
            given[place] = corrupted[place].index_copy(2, heads, own)
        return given
