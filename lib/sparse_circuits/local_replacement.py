"""The local replacement model: a model on one prompt, in which everything between features is linear.

First used in chapter 11. Every MLP is replaced by the features of a transcoder plus a fixed error, so that the sum is
what the MLP gave; attention patterns, with their gates, and the denominators of the norms are those of the run
(Ameisen et al. 2025, "Circuit Tracing", section "Building a local replacement model"). What one node adds to what
another reads is then a product of matrices, exact and signed. Where AbsTopK sets activations to zero, its choice is
that of the run too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .component_runs import check_has_attention, keeping
from .feature_nodes import FeatureNodes
from .graph import ATTENTION_READ, ATTENTION_WRITE
from .model import Transformer
from .transcoder import NORMALIZED, OUTPUT_HOOK, Transcoder, check_belongs, check_finite

FROZEN = ("attn.hook_pattern", "attn.hook_attn_scores", "ln1.hook_scale", "ln2.hook_scale")
MASKED = (ATTENTION_READ, "attn.hook_q", "attn.hook_k", "attn.hook_v", ATTENTION_WRITE, NORMALIZED)


@dataclass(frozen=True, eq=False)
class LocalReplacement:
    """A model with a transcoder in place of its MLPs, frozen on one prompt.

    Attributes
    ----------
    model, transcoder
        Whose weights are used.
    tokens : int tensor, shape (pos,)
        The prompt.
    seen : mapping of str to float tensor
        Activations of the run by hook name, without the batch axis.
    pre, activations : float tensors, shape (layer, pos, feature)
        Of all features.
    errors : float tensor, shape (layer, pos, d_model)
        Output of each MLP minus what the transcoder writes in its place.
    logits : float tensor, shape (pos, d_vocab)
        Of the model itself.
    """

    model: Transformer
    transcoder: Transcoder
    tokens: Int[Tensor, " pos"]
    seen: Mapping[str, Tensor]
    pre: Float[Tensor, "layer pos feature"]
    activations: Float[Tensor, "layer pos feature"]
    errors: Float[Tensor, "layer pos d_model"]
    logits: Float[Tensor, "pos d_vocab"]

    def __repr__(self) -> str:
        return f"LocalReplacement({len(self.tokens)} tokens, {int((self.activations != 0).sum())} active features)"

    @cached_property
    def nodes(self) -> FeatureNodes:
        """All nodes but the logits: active features, errors, tokens, positions, biases."""
        return FeatureNodes.sources_of(self.model, self.activations)

    def at(self, layer: int, place: str) -> Tensor:
        """Return the activation of a place of a layer in the run, without the batch axis."""
        return self.seen[f"blocks.{layer}.{place}"]

    def masked(self, layer: int, place: str, values: Tensor) -> Tensor:
        """Return values with zeros where AbsTopK put them in the run; broadcast over leading axes."""
        cfg = self.model.cfg
        if cfg.activation_density == 1 or place not in cfg.activation_locations:
            return values
        return values * (self.at(layer, place) != 0)[: values.shape[-3 if place.startswith("attn.") else -2]]

    def feature_reads(
        self, layer: int, positions: Int[Tensor, " n"], features: Int[Tensor, " n"], length: int
    ) -> Float[Tensor, "n pos d_model"]:
        """Return what features read of the residual stream behind the attention of their layer, at `length` positions.

        The product with the residual stream, summed, is the pre-activation less `b_enc`.
        """
        reads = self.transcoder.W_enc.new_zeros(len(features), length, self.model.cfg.d_model)
        reads[range(len(features)), positions] = self.transcoder.W_enc[layer, features]
        if self.transcoder.cfg.input_hook == NORMALIZED:
            reads = self.masked(layer, NORMALIZED, reads) / self.at(layer, "ln2.hook_scale")[:length]
        return reads

    def logit_reads(
        self, directions: Float[Tensor, "n d_model"], position: int, length: int
    ) -> Float[Tensor, "n pos d_model"]:
        """Return what directions of the unembedding read of the last residual stream at a position."""
        reads = directions.new_zeros(len(directions), length, directions.shape[1])
        reads[:, position] = directions / self.seen["ln_final.hook_scale"][position]
        return reads

    def contributions(
        self, reads: Float[Tensor, "n pos d_model"], layer: int, behind_attention: bool
    ) -> Float[Tensor, "n source"]:
        """Return how much every node contributes to some readers of the residual stream.

        Parameters
        ----------
        reads : float tensor, shape (n, pos, d_model)
            What each reader multiplies the residual stream by. Positions beyond the last are not read; no later
            position must reach these through attention.
        layer : int
            Where they read: in front of the attention of this layer, `n_layers` for the last residual stream.
        behind_attention : bool
            Read behind the attention of the layer, in front of its MLP.

        Returns
        -------
        float tensor, shape (n, source)
            In the order of `nodes`; the sum of a row is the product of a reader with the residual stream of the run.
        """
        nodes, model = self.nodes, self.model
        out = reads.new_zeros(len(reads), len(nodes))
        length = reads.shape[1]
        if behind_attention:
            reads = self._through_attention(layer, reads, out)
        for below in reversed(range(layer)):
            self._add_written(below, reads, out)
            reads = self._through_attention(below, reads, out)
        out[:, nodes.tokens][:, :length] = torch.einsum("npd,pd->np", reads, model.W_E[self.tokens[:length]])
        if model.W_pos is not None:
            out[:, nodes.positions][:, :length] = torch.einsum("npd,pd->np", reads, model.W_pos[:length])
        return out

    def _through_attention(self, layer: int, reads: Tensor, out: Tensor) -> Tensor:
        """Return what is read in front of an attention layer, given what is read behind it; add that of its biases."""
        attn, length = self.model.blocks[layer].attn, reads.shape[1]
        written = self.masked(layer, ATTENTION_WRITE, reads)
        out[:, self.nodes.bias(layer, "b_O")] += written.sum(1) @ attn.b_O
        mixed = (written @ attn.W_O.flatten(0, 1).T).unflatten(2, attn.W_O.shape[:2])
        values = torch.einsum("hqk,nqhe->nkhe", self.at(layer, "attn.hook_pattern")[:, :length, :length], mixed)
        values = self.masked(layer, "attn.hook_v", values)
        out[:, self.nodes.bias(layer, "b_V")] += (values.sum(1) * attn.b_V).sum((1, 2))
        before = values.flatten(2) @ attn.W_V.transpose(1, 2).flatten(0, 1)
        return reads + self.masked(layer, ATTENTION_READ, before) / self.at(layer, "ln1.hook_scale")[:length]

    def _add_written(self, layer: int, reads: Tensor, out: Tensor) -> None:
        """Add what is read of everything that stands in place of the MLP of a layer."""
        length = reads.shape[1]
        out[:, self.nodes.bias(layer, "b_dec")] += reads.sum(1) @ self.transcoder.b_dec[layer]
        errors = torch.einsum("npd,pd->np", reads, self.errors[layer, :length])
        out[:, self.nodes.errors(layer)][:, :length] += errors
        for position, (indices, vectors) in enumerate(self._writers[layer][:length]):
            if len(indices):
                # Indices are distinct, so that adding by index is safe.
                out[:, indices] += reads[:, position] @ vectors.T

    @cached_property
    def _writers(self) -> list[list[tuple[Int[Tensor, " n"], Float[Tensor, "n d_model"]]]]:
        """For each layer and position, the features that write there and what they write."""
        nodes, length = self.nodes, len(self.tokens)
        writers = []
        for target in range(self.model.cfg.n_layers):
            indices, vectors = self.writes(target)
            order = nodes.position[indices].argsort(stable=True)
            sizes = torch.bincount(nodes.position[indices], minlength=length).tolist()
            writers.append(
                list(zip(indices[order].split(sizes), vectors[order].split(sizes), strict=True)),
            )
        return writers

    def writes(self, target: int) -> tuple[Int[Tensor, " n"], Float[Tensor, "n d_model"]]:
        """Return which features write in place of the MLP of a layer, and what."""
        nodes, found, vectors = self.nodes, [], []
        for source, W_dec in enumerate(self.transcoder.W_dec):
            if target in self.transcoder.target_layers(source):
                indices = nodes.features_of(source)
                features, positions = nodes.feature[indices], nodes.position[indices]
                column = target - self.transcoder.target_layers(source).start
                found.append(indices)
                vectors.append(W_dec[features, column] * self.activations[source, positions, features][:, None])
        return torch.cat(found), torch.cat(vectors)

    def messages(self, sources: Int[Tensor, " n"]) -> list[Float[Tensor, "n pos d_model"]]:
        """Return what nodes add to the residual stream in front of the attention of every layer, at every position.

        Parameters
        ----------
        sources : int tensor, shape (n,)
            Indices of features, errors, tokens or positions.

        Raises
        ------
        ValueError
            If a node is a bias, which writes at all positions at once.
        """
        nodes = self.nodes
        nodes.check_local(sources)
        stream = self.errors.new_zeros(len(sources), len(self.tokens), self.model.cfg.d_model)
        rows, positions = torch.arange(len(sources)), nodes.position[sources]
        embedded = self.model.W_E[self.tokens]
        for kind, vectors in (("token", embedded), ("position", self.model.W_pos)):
            at = nodes.is_kind(kind)[sources]
            if at.any():
                stream[rows[at], positions[at]] = vectors[positions[at]]
        messages = []
        for layer in range(self.model.cfg.n_layers):
            messages.append(stream)
            stream = stream + self.attention_writes(layer, stream)
            at = nodes.is_kind("error")[sources] & (nodes.layer[sources] == layer)
            stream[rows[at], positions[at]] += self.errors[layer, positions[at]]
            indices, vectors = self.writes(layer)
            among = torch.full((len(nodes),), -1)
            among[indices] = torch.arange(len(indices))
            at = among[sources] >= 0
            stream[rows[at], positions[at]] += vectors[among[sources[at]]]
        return messages

    def head_values(self, layer: int, stream: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos head d_head"]:
        """Return the values that the heads of a layer make of a part of the residual stream, without their biases."""
        attn = self.model.blocks[layer].attn
        read = self.masked(layer, ATTENTION_READ, stream) / self.at(layer, "ln1.hook_scale")
        return self.masked(layer, "attn.hook_v", torch.einsum("npd,hde->nphe", read, attn.W_V))

    def attention_writes(self, layer: int, stream: Float[Tensor, "n pos d_model"]) -> Float[Tensor, "n pos d_model"]:
        """Return what the attention of a layer makes of a part of the residual stream, without its biases."""
        mixed = torch.einsum("hqk,nkhe->nqhe", self.at(layer, "attn.hook_pattern"), self.head_values(layer, stream))
        written = mixed.flatten(2) @ self.model.blocks[layer].attn.W_O.flatten(0, 1)
        return self.masked(layer, ATTENTION_WRITE, written)


@torch.no_grad()
def local_replacement_model(
    model: Transformer, transcoder: Transcoder, tokens: Int[Tensor, " pos"]
) -> LocalReplacement:
    """Freeze a model with a transcoder on one prompt.

    Parameters
    ----------
    model : Transformer
        The model, without hooks of your own; the gates of its attention act as in evaluation.
    transcoder : Transcoder
        One of this model, in units of its activations.
    tokens : int tensor, shape (pos,) or (1, pos)
        The prompt.

    Raises
    ------
    TypeError, ValueError
        If the model has no attention, the transcoder is not one of this model, the prompt is not one sequence of
        tokens of the model or too long for it, or an activation is not finite.
    """
    check_has_attention(model)
    check_belongs(transcoder, model)
    tokens = _prompt(model, tokens)
    transcoder = _like(transcoder, model)
    cfg, kept = model.cfg, {}
    places = {*FROZEN, transcoder.cfg.input_hook, OUTPUT_HOOK}
    places |= set(MASKED) & set(cfg.activation_locations) if cfg.activation_density < 1 else set()
    names = ["ln_final.hook_scale", *(f"blocks.{i}.{place}" for i in range(cfg.n_layers) for place in places)]
    training = model.training
    model.eval()
    try:
        with model.hooks(fwd_hooks=keeping(kept, names)):
            logits = model(tokens[None])[0]
    finally:
        model.train(training)
    seen = {name: activation[0] for name, activation in kept.items()}
    check_finite(logits, "The logit (position, token)")
    inputs, outputs = (
        torch.stack([seen[f"blocks.{layer}.{place}"] for layer in range(cfg.n_layers)], dim=1)
        for place in (transcoder.cfg.input_hook, OUTPUT_HOOK)
    )
    check_finite(outputs, "The MLP output (position, layer, channel)")
    coded = transcoder(inputs)
    check_finite(coded.pre, "The pre-activation (position, layer, feature)")
    errors = (outputs - coded.reconstruction).transpose(0, 1)
    pre, activations = coded.pre.transpose(0, 1), coded.activations.transpose(0, 1)
    return LocalReplacement(model, transcoder, tokens, seen, pre, activations, errors, logits)


def _like(transcoder: Transcoder, model: Transformer) -> Transcoder:
    """Return a transcoder in the precision and place of a model, in evaluation mode, as a copy if it has to change."""
    if transcoder.W_enc.dtype == model.W_E.dtype and transcoder.W_enc.device == model.W_E.device:
        return transcoder if not transcoder.training else transcoder.as_jumprelu().eval()
    return transcoder.as_jumprelu().to(model.W_E).eval()


def _prompt(model: Transformer, tokens: Tensor) -> Int[Tensor, " pos"]:
    tokens = torch.as_tensor(tokens)
    tokens = tokens[0] if tokens.ndim == 2 and len(tokens) == 1 else tokens
    if tokens.ndim != 1 or not len(tokens) or tokens.is_floating_point():
        raise ValueError(
            f"tokens have shape {tuple(tokens.shape)} and dtype {tokens.dtype}; give one prompt of integers, (pos,)."
        )
    if len(tokens) > model.cfg.n_ctx:
        raise ValueError(f"The prompt has {len(tokens)} tokens, the model reads {model.cfg.n_ctx}; cut it shorter.")
    wrong = tokens[(tokens < 0) | (tokens >= model.cfg.d_vocab)]
    if len(wrong):
        raise ValueError(f"The prompt has token {wrong[0].item()}; the vocabulary has 0 to {model.cfg.d_vocab - 1}.")
    return tokens.to(model.W_E.device)
