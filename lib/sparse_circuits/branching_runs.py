"""Many runs that agree with one clean run up to some layer, and differ from it there in one edge each.

First used in chapter 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .component_runs import activations, logits_from, per_prompt
from .model import Transformer
from .prompt_pairs import Metric
from .two_way import TwoWayPrompts

STREAMS = ("hook_resid_mid", "hook_resid_post")


class BranchingRuns:
    """The clean run of a batch, from which ablated runs branch off inside a layer.

    Parameters
    ----------
    model : Transformer
        The model.
    prompts : TwoWayPrompts
        The batch.
    metric : callable
        As in `attribution.eap`.
    keep : iterable of str
        Locations whose clean activations are wanted, besides `hook_resid_mid` and `hook_resid_post` of all layers.
    memory : int
        Bytes that the MLP neurons of the runs that go together may take.
    """

    def __init__(
        self, model: Transformer, prompts: TwoWayPrompts, metric: Metric, keep: Iterable[str], memory: int
    ) -> None:
        self.model, self.prompts, self.metric = model, prompts, metric
        n_layers = model.cfg.n_layers
        streams = {f"blocks.{layer}.{place}" for layer in range(n_layers) for place in STREAMS}
        self.clean = activations(model, prompts, {*keep, *streams})
        # Before and after the activation function, in the block that is changed and in one that is run whole.
        neurons = 4 * prompts.tokens.numel() * model.cfg.d_mlp * model.W_E.element_size()
        self.at_once = max(1, memory // neurons)
        last = prompts.answer_rows(self.clean[f"blocks.{n_layers - 1}.hook_resid_post"])
        self.unchanged = self._sums(logits_from(model, last, n_layers, prompts), 1)

    def at_answers(self, layer: int, activation: Float[Tensor, "batch pos ..."]) -> Float[Tensor, "batch kept ..."]:
        """Return the answer positions alone where nothing after this layer's attention reads the others."""
        return self.prompts.answer_rows(activation) if layer == self.model.cfg.n_layers - 1 else activation

    def middle(self, layer: int) -> Float[Tensor, "batch kept d_model"]:
        """Return the clean residual stream between attention and MLP of a layer, `at_answers`."""
        return self.at_answers(layer, self.clean[f"blocks.{layer}.hook_resid_mid"])

    def after_middle(self, layer: int, changes: Iterator[Float[Tensor, "edge batch kept d_model"]]) -> Tensor:
        """Return the summed change of the metric for each edge that changes the stream between attention and MLP.

        Parameters
        ----------
        layer : int
            The layer.
        changes : iterator of float tensors, shape (edge, batch, kept, d_model)
            What is added to `middle(layer)`, some edges at a time.

        Returns
        -------
        float64 tensor, shape (edge,)
        """
        block, middle = self.model.blocks[layer], self.middle(layer)
        measured = []
        for change in changes:
            stream = (middle + change).flatten(0, 1)
            measured.append(self.after_layer(layer, stream + block.hook_mlp_out(block.mlp(block.ln2(stream)))))
        return torch.cat(measured)

    def after_layer(self, layer: int, stream: Float[Tensor, "row kept d_model"]) -> Float[Tensor, " edge"]:
        """Return the summed change of the metric for each edge, from the residual stream after a layer."""
        edges = len(stream) // len(self.prompts)
        prompts = self.prompts[torch.arange(len(self.prompts)).repeat(edges)]
        return self._sums(logits_from(self.model, stream, layer + 1, prompts), edges) - self.unchanged

    def _sums(self, logits: Float[Tensor, "row d_vocab"], edges: int) -> Float[Tensor, " edge"]:
        measured = (per_prompt(self.metric, self.prompts, part) for part in logits.chunk(edges))
        return torch.stack([values.double().sum() for values in measured])
