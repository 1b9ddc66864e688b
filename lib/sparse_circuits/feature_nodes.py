"""The nodes of an attribution graph: what they are, in which order, and what they are called.

First used in chapter 11. In this order, which is that of circuit-tracer with the kinds it lacks put in before the
logits:

* `feature`: an active feature of the transcoder at a position, `f1.37@5` (layer 1, feature 37, position 5);
* `error`: what the transcoder leaves over of an MLP's output at a position, `error1@5`;
* `token`: the embedding of the token at a position, `token@5`;
* `position`: the embedding of the position, `position@5`, if the model has one;
* `bias`: a vector that is added for every prompt, wherever it is added: `b_O[1]` and `b_V[1]` of an attention layer,
  `b_dec[1]` and `b_enc[1]` of the transcoder, `b_U`;
* `bigram`: the row of the bigram table for the token at the position of the logits, `bigram@5`, if the model has one;
* `logit`: the logit of a token, `logit[3]@5`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from .model import Transformer

KINDS = ("feature", "error", "token", "position", "bias", "bigram", "logit")
LAYER_BIASES = ("b_O", "b_V", "b_dec", "b_enc")
WRITTEN = "'f1.37@5', 'error1@5', 'token@5', 'position@5', 'b_O[1]', 'b_U', 'bigram@5' or 'logit[3]@5'"


@dataclass(frozen=True, eq=False)
class FeatureNodes:
    """The nodes of an attribution graph, one entry each; -1 where a number means nothing.

    Attributes
    ----------
    kind : int tensor, shape (node,)
        Index into `KINDS`.
    layer, position, feature : int tensors, shape (node,)
        `feature` is the index of a feature within its layer, of a bias among those of its layer, of a logit's token.
    n_layers, n_pos, n_features : int
        Layers, positions, active features.
    """

    kind: Int[Tensor, " node"]
    layer: Int[Tensor, " node"]
    position: Int[Tensor, " node"]
    feature: Int[Tensor, " node"]
    n_layers: int
    n_pos: int
    n_features: int
    has_positions: bool

    @classmethod
    def sources_of(cls, model: Transformer, activations: Float[Tensor, "layer pos feature"]) -> FeatureNodes:
        """Return the nodes of a prompt with these activations, without bigram and logits."""
        n_layers, n_pos = activations.shape[:2]
        has_positions = model.W_pos is not None
        features = activations.nonzero()
        errors = torch.cartesian_prod(torch.arange(n_layers), torch.arange(n_pos))
        at_positions = torch.arange(n_pos)
        biases = torch.cartesian_prod(torch.arange(n_layers), torch.arange(len(LAYER_BIASES)))
        parts = [
            _rows("feature", *features.cpu().T),
            _rows("error", errors[:, 0], errors[:, 1], -1),
            _rows("token", -1, at_positions, -1),
            _rows("position", -1, at_positions[: n_pos if has_positions else 0], -1),
            _rows("bias", biases[:, 0], -1, biases[:, 1]),
            _rows("bias", torch.tensor([-1]), -1, -1),
        ]
        return cls(*torch.cat(parts, dim=1), n_layers, n_pos, len(features), has_positions)

    def with_logits(self, tokens: Int[Tensor, " n"], position: int, bigram: bool) -> FeatureNodes:
        """Return the nodes with the logits of some tokens at a position behind them, and the bigram table if asked."""
        parts = [torch.stack([self.kind, self.layer, self.position, self.feature])]
        if bigram:
            parts.append(_rows("bigram", -1, torch.tensor([position]), -1))
        parts.append(_rows("logit", -1, position, tokens.cpu()))
        kind, layer, at, feature = torch.cat(parts, dim=1)
        return replace(self, kind=kind, layer=layer, position=at, feature=feature)

    def __len__(self) -> int:
        return len(self.kind)

    def is_kind(self, *kinds: str) -> Bool[Tensor, " node"]:
        """Return which nodes are of some kinds."""
        return torch.isin(self.kind, torch.tensor([KINDS.index(kind) for kind in kinds]))

    def count(self, kind: str) -> int:
        """Return the number of nodes of a kind."""
        return int(self.is_kind(kind).sum())

    def features_of(self, layer: int) -> Int[Tensor, " n"]:
        """Return the indices of the features of a layer; they stand together, by position."""
        first, last = torch.searchsorted(self.layer[: self.n_features].contiguous(), torch.tensor([layer, layer + 1]))
        return torch.arange(int(first), int(last))

    def errors(self, layer: int) -> slice:
        """Return where the error nodes of a layer stand."""
        first = self.n_features + layer * self.n_pos
        return slice(first, first + self.n_pos)

    @property
    def tokens(self) -> slice:
        """Where the token nodes stand."""
        first = self.n_features + self.n_layers * self.n_pos
        return slice(first, first + self.n_pos)

    @property
    def positions(self) -> slice:
        """Where the position nodes stand."""
        first = self.tokens.stop
        return slice(first, first + self.n_pos * self.has_positions)

    def bias(self, layer: int, name: str) -> int:
        """Return the index of a bias of a layer."""
        return self.positions.stop + layer * len(LAYER_BIASES) + LAYER_BIASES.index(name)

    @property
    def unembedding_bias(self) -> int:
        """The index of `b_U`."""
        return self.positions.stop + self.n_layers * len(LAYER_BIASES)

    def check_local(self, indices: Int[Tensor, " n"]) -> None:
        """Raise ValueError if a node does not write at one position into the residual stream."""
        wrong = indices[~self.is_kind("feature", "error", "token", "position")[indices]]
        if len(wrong):
            raise ValueError(
                f"{self.names[int(wrong[0])]} writes at no one position of the residual stream; choose features, "
                "errors, tokens and positions."
            )

    @cached_property
    def names(self) -> list[str]:
        """The name of each node, as the module's docstring has them."""
        columns = (self.kind, self.layer, self.position, self.feature)
        return [_name(KINDS[kind], *numbers) for kind, *numbers in zip(*(c.tolist() for c in columns), strict=True)]

    def index(self, name: str) -> int:
        """Return the index of a named node.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or names no node; a feature that is not active is none.
        """
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is no name of a node; write it as {WRITTEN}.")
        found = self._by_name.get(name.strip())
        if found is None:
            raise ValueError(f"There is no node {name!r} in this graph; a name is written as {WRITTEN}.")
        return found

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}


def _rows(kind: str, layer: Tensor | int, position: Tensor | int, feature: Tensor | int) -> Int[Tensor, "4 n"]:
    length = next(len(column) for column in (layer, position, feature) if isinstance(column, Tensor))
    columns = (KINDS.index(kind), layer, position, feature)
    return torch.stack([torch.as_tensor(column).expand(length) for column in columns])


def _name(kind: str, layer: int, position: int, feature: int) -> str:
    if kind == "bias":
        return "b_U" if layer < 0 else f"{LAYER_BIASES[feature]}[{layer}]"
    head = {"feature": f"f{layer}.{feature}", "error": f"error{layer}", "logit": f"logit[{feature}]"}.get(kind, kind)
    return f"{head}@{position}"
