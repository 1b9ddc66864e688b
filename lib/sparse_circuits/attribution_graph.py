"""Attribution graphs: how much each active feature, error, embedding and bias adds to each feature and logit.

First used in chapter 11. The edges are those of the local replacement model (`local_replacement`), so they are exact:
the edges into a feature add up to its pre-activation, and those into a logit to the logit itself. After Ameisen et al.
2025, "Circuit Tracing", section "Constructing an attribution graph", and circuit-tracer; unlike there, embeddings of
positions and biases are nodes too (without them the sums are not complete), and nothing is set to zero at position 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .feature_nodes import FeatureNodes
from .graph import Graph
from .local_replacement import LocalReplacement, local_replacement_model
from .model import Transformer
from .transcoder import Transcoder

NODE, EDGES = "node", "edges"


@dataclass(frozen=True, eq=False, repr=False)
class FeatureGraph(Graph):
    """The nodes and edges of an attribution graph as a universe of circuits; a `Graph` with one matrix.

    An edge is a non-zero entry of the adjacency matrix, however small; each is counted once. Edges of different prompts
    are different edges.

    Parameters
    ----------
    nodes : FeatureNodes
        What the nodes are called.
    """

    nodes: FeatureNodes

    def node_name(self, location: str, i: int) -> str:
        """Return the name of a node, `"f1.37@5"`."""
        return self.nodes.names[i]

    def edge_name(self, matrix: str, i: int, j: int) -> str:
        """Return the name of an edge, `"f0.2@4->f1.37@5"`."""
        return f"{self.nodes.names[i]}->{self.nodes.names[j]}"

    def find_node(self, name: str) -> tuple[str, int]:
        """Return location and index of a named node; errors as in `FeatureNodes.index`."""
        return NODE, self.nodes.index(name)

    def find_edge(self, name: str) -> tuple[str, int, int]:
        """Return matrix, source and target of a named edge.

        Raises
        ------
        TypeError, ValueError
            If `name` is no string, or names no edge of the graph.
        """
        if not isinstance(name, str) or name.count("->") != 1:
            raise TypeError(f"{name!r} is no name of an edge; write it as the string 'f0.2@4->f1.37@5'.")
        i, j = (self.nodes.index(end) for end in name.split("->"))
        if not self.edge_masks[EDGES][i, j]:
            raise ValueError(f"{name!r} is not an edge: {name.split('->')[0]} adds nothing to the other node.")
        return EDGES, i, j


@dataclass(frozen=True, eq=False)
class AttributionGraph:
    """The attribution graph of a prompt.

    Attributes
    ----------
    local : LocalReplacement
        The frozen model that the edges belong to.
    nodes : FeatureNodes
        What the rows and columns stand for.
    adjacency : float tensor, shape (target, source)
        Entry (t, s) is what node s adds to the pre-activation of feature t, or to logit t. Rows of other nodes are 0.
    values : float tensor, shape (node,)
        The pre-activation of each feature (which is its activation) and the value of each logit; 0 for other nodes.
    probabilities : float tensor, shape (logit,)
        Of the tokens whose logits are nodes, by the model itself.
    demeaned : bool
        Whether a logit node is the logit less the mean over the vocabulary.
    """

    local: LocalReplacement
    nodes: FeatureNodes
    adjacency: Float[Tensor, "target source"]
    values: Float[Tensor, " node"]
    probabilities: Float[Tensor, " logit"]
    demeaned: bool

    @property
    def logit_tokens(self) -> list[int]:
        """The tokens whose logits are nodes."""
        return self.nodes.feature[self.nodes.is_kind("logit")].tolist()

    @property
    def targets(self) -> Int[Tensor, " n"]:
        """The indices of the nodes that have edges in: features and logits."""
        return self.nodes.is_kind("feature", "logit").nonzero()[:, 0]

    def closure_error(self) -> float:
        """Return the largest distance between a node's value and the sum of its edges in, over features and logits."""
        return float((self.adjacency.sum(1) - self.values)[self.targets].abs().max())

    def edge(self, source: str, target: str) -> float:
        """Return what a named node adds to a named feature or logit."""
        return float(self.adjacency[self.nodes.index(target), self.nodes.index(source)])

    @cached_property
    def graph(self) -> FeatureGraph:
        """The universe of circuits of this graph."""
        size = {NODE: len(self.nodes)}
        return FeatureGraph("feature", size, {EDGES: (NODE, NODE)}, {EDGES: (self.adjacency.T != 0).cpu()}, self.nodes)

    def __repr__(self) -> str:
        nodes = self.nodes
        return (
            f"AttributionGraph({nodes.n_features} features, {nodes.count('error')} errors, {nodes.n_pos} positions, "
            f"{nodes.count('logit')} logits, {int((self.adjacency != 0).sum())} edges)"
        )


@torch.no_grad()
def attribute(
    model: Transformer,
    transcoder: Transcoder,
    tokens: Int[Tensor, " pos"],
    logits: Sequence[int] | None = None,
    position: int = -1,
    max_logits: int = 10,
    share: float = 0.95,
    demean: bool = True,
    batch_size: int = 256,
) -> AttributionGraph:
    """Return the attribution graph of a prompt.

    Parameters
    ----------
    model, transcoder, tokens
        As in `local_replacement_model`.
    logits : sequence of int, optional
        Tokens whose logits become nodes. If not given, the most likely ones: as many as it takes to hold `share` of the
        probability, at most `max_logits`.
    position : int
        Where the logits are read; the last position if not given.
    demean : bool
        Take from each logit the mean over the vocabulary, which changes no probability.
    batch_size : int
        Targets that are attributed at once.

    Raises
    ------
    TypeError, ValueError
        As in `local_replacement_model`, or if a token or the position is out of range, or a setting cannot be used.
    """
    local = local_replacement_model(model, transcoder, tokens)
    position = _at(position, len(local.tokens))
    chosen, probabilities = _logit_nodes(local, logits, position, max_logits, share)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; give a positive number.")
    nodes = local.nodes.with_logits(chosen, position, model.W_bigram is not None)
    adjacency = local.errors.new_zeros(len(nodes), len(nodes))
    for layer in range(model.cfg.n_layers):
        _add_feature_rows(adjacency, local, layer, batch_size)
    values = adjacency.new_zeros(len(nodes))
    n = nodes.n_features
    values[:n] = local.pre[nodes.layer[:n], nodes.position[:n], nodes.feature[:n]]
    values[-len(chosen) :] = _add_logit_rows(adjacency, local, chosen, position, demean)
    return AttributionGraph(local, nodes, adjacency, values, probabilities, demean)


def _add_feature_rows(adjacency: Tensor, local: LocalReplacement, layer: int, batch_size: int) -> None:
    """Fill the rows of the features of a layer, those of early positions first: these need few positions."""
    nodes, causal = local.nodes, local.model.cfg.attention_dir == "causal"
    b_enc = local.transcoder.b_enc[layer]
    active = nodes.features_of(layer)
    for rows in active.split(batch_size) if len(active) else ():
        positions, features = nodes.position[rows], nodes.feature[rows]
        length = int(positions.max()) + 1 if causal else nodes.n_pos
        reads = local.feature_reads(layer, positions, features, length)
        adjacency[rows, : len(nodes)] = local.contributions(reads, layer, behind_attention=True)
        adjacency[rows, nodes.bias(layer, "b_enc")] = b_enc[features]


def _add_logit_rows(
    adjacency: Tensor, local: LocalReplacement, chosen: Tensor, position: int, demean: bool
) -> Float[Tensor, " logit"]:
    """Fill the rows of the logits, the last of the matrix; return the values of these nodes."""
    model, nodes, n = local.model, local.nodes, len(chosen)

    def of_chosen(by_token: Tensor) -> Tensor:
        return by_token[..., chosen] - (by_token.mean(-1, keepdim=True) if demean else 0)

    causal = model.cfg.attention_dir == "causal"
    directions = of_chosen(model.W_U).T
    reads = local.logit_reads(directions, position, position + 1 if causal else nodes.n_pos)
    adjacency[-n:, : len(nodes)] = local.contributions(reads, model.cfg.n_layers, behind_attention=False)
    adjacency[-n:, nodes.unembedding_bias] = of_chosen(model.b_U)
    if model.W_bigram is not None:
        adjacency[-n:, -n - 1] = of_chosen(model.W_bigram[local.tokens[position]])
    return of_chosen(local.logits[position])


def _logit_nodes(
    local: LocalReplacement, logits: Sequence[int] | None, position: int, max_logits: int, share: float
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    probabilities = local.logits[position].softmax(-1)
    if logits is None:
        if max_logits < 1 or not 0 < share <= 1:
            raise ValueError(f"max_logits is {max_logits!r} and share {share!r}; give at least one, and 0 to 1.")
        likely = probabilities.sort(descending=True)
        needed = int((likely.values.cumsum(0) < share).sum()) + 1
        chosen = likely.indices[: min(needed, max_logits)]
    else:
        chosen = torch.as_tensor(logits, device=probabilities.device)
        if chosen.ndim != 1 or not len(chosen) or chosen.is_floating_point() or len(chosen.unique()) < len(chosen):
            raise ValueError(f"logits are {logits!r}; give a list of different token ids, at least one.")
        wrong = chosen[(chosen < 0) | (chosen >= len(probabilities))]
        if len(wrong):
            raise ValueError(f"logits have token {wrong[0].item()}; the vocabulary has 0 to {len(probabilities) - 1}.")
    return chosen, probabilities[chosen]


def _at(position: int, n_pos: int) -> int:
    if not -n_pos <= position < n_pos:
        raise ValueError(f"position is {position}; the prompt has {n_pos} positions, 0 to {n_pos - 1}.")
    return position % n_pos
