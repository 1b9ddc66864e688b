"""What a model does when only the attention edges of a circuit are open, or uncorrupted.

First used in chapter 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .circuit import Circuit
from .component_runs import activations, check_has_attention, per_prompt
from .model import Transformer
from .prompt_pairs import Metric, PromptPairs
from .token_edges import TokenGraph, check_values
from .two_way import TwoWayPrompts


@dataclass(frozen=True, eq=False)
class TokenScore:
    """F: maps a circuit of attention edges to a metric, with every attention edge outside it ablated.

    Parameters
    ----------
    model : Transformer
        The model. After a change of its weights make a new score.
    pairs : PromptPairs
        Clean prompts, and corrupted ones for `values="corrupted"`.
    metric : callable
        As in `attribution.eap`; its mean over the prompts is F.
    values : {"zero", "corrupted"}
        Close an edge, or send along it what the corrupted run sends.

    Raises
    ------
    TypeError, ValueError
        If the model has no attention or `values` is unknown; when called, if the circuit is none, or is of another
        number of layers, heads or positions.
    """

    model: Transformer
    pairs: PromptPairs
    metric: Metric = TwoWayPrompts.margins
    values: str = "zero"

    def __post_init__(self) -> None:
        check_has_attention(self.model)
        check_values(self.values)

    @torch.no_grad()
    def __call__(self, circuit: Circuit) -> float:
        """Return F(circuit)."""
        if not isinstance(circuit, Circuit):
            raise TypeError(f"{circuit!r} is no Circuit; give one, for example scores.largest(20).")
        graph, cfg = circuit.graph, self.model.cfg
        shape = (cfg.n_layers, cfg.n_heads, self.pairs.corrupted.shape[1])
        if not isinstance(graph, TokenGraph) or (graph.n_layers, graph.n_heads, graph.length) != shape:
            raise ValueError(
                f"{circuit!r} is not of the attention edges of {shape[0]} layers of {shape[1]} heads over {shape[2]} "
                "positions; take it from token_graph(model, length)."
            )
        prompts, last = self.pairs.clean, f"blocks.{cfg.n_layers - 1}."
        # The last layer is run at the answer positions alone: what its attention writes there is added everywhere.
        hooks = [
            (f"{last}attn.hook_attn_scores", lambda scores, hook: _answer_queries(prompts, scores)),
            (f"{last}hook_resid_mid", lambda stream, hook: prompts.answer_rows(stream)),
        ]
        for layer, kept in enumerate(graph.by_layer(circuit.edge_masks)):
            at_last = layer == cfg.n_layers - 1
            mask = kept[:, prompts.position].transpose(0, 1)[:, :, None] if at_last else kept
            hooks.append((f"blocks.{layer}.attn.hook_pattern", lambda pattern, hook, mask=mask: pattern * mask))
            if self.values == "corrupted":
                instead = self._corrupted(layer, kept)
                instead = prompts.answer_rows(instead) if at_last else instead
                hooks.append((f"blocks.{layer}.attn.hook_z", lambda z, hook, instead=instead: z + instead))
        with self.model.hooks(fwd_hooks=hooks):
            logits = self.model(prompts.tokens)
        # A bigram table adds its rows for all positions.
        logits = logits[:, 0] if logits.shape[1] == 1 else prompts.answer_rows(logits)[:, 0]
        return float(per_prompt(self.metric, prompts, logits).double().mean())

    def _corrupted(self, layer: int, kept: Tensor) -> Tensor:
        """Return what the ablated edges of a layer carry in the corrupted run, as a part of `hook_z`."""
        run = self._corrupted_run
        pattern = run[f"blocks.{layer}.attn.hook_pattern"] * ~kept
        return torch.einsum("bhqk,bkhd->bqhd", pattern, run[f"blocks.{layer}.attn.hook_v"])

    @cached_property
    def _corrupted_run(self) -> dict[str, Tensor]:
        layers = range(self.model.cfg.n_layers)
        carried = [f"blocks.{layer}.attn.hook_{place}" for layer in layers for place in ("pattern", "v")]
        return activations(self.model, self.pairs.corrupted_prompts, carried)


def _answer_queries(prompts: TwoWayPrompts, scores: Tensor) -> Tensor:
    """Return attention scores (n, head, query, key) at the answer position of each prompt, shape (n, head, 1, key)."""
    return prompts.answer_rows(scores.transpose(1, 2)).transpose(1, 2)
