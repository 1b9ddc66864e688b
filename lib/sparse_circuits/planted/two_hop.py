"""A circuit of two hops, and two transcoders that explain every number of it: one as it is, one by a shortcut.

First used in chapter 10. After Lange, Dearstyne and Maher 2026, "CLTs are incentivized to learn unfaithful circuits".
The model reads three bits. Its first MLP finds z = a and b, its second finds y = z and c from z; y decides the logits.
A cross-layer transcoder can have features of the first layer that find y from a, b and c themselves and write it in
place of the second MLP. It then has fewer active features, so a price on them prefers it, and its attribution graph has
no edge from z to y. A per-layer transcoder has no such choice.
"""

from __future__ import annotations

import math

import torch

from ..model import Transformer, TransformerConfig
from ..transcoder import Transcoder, TranscoderConfig
from .base import compiled

A, B, C, Z, Y = range(5)
CHANNELS = ("a", "b", "c", "z = a and b", "y = z and c")
OFF, ON = 0, 7
CONFIG = TransformerConfig(
    d_vocab=8, n_ctx=1, n_layers=2, d_model=5, n_heads=1, d_head=1, d_mlp=1, act_fn="relu", positions=False
)
# A bit is 1 or -1 in its channel, z and y are half of that, so every residual stream has the same norm.
SCALE = math.sqrt((3 + 2 / 4) / 5 + CONFIG.rms_eps)


def planted_two_hop() -> Transformer:
    """Return the model: token 4 a + 2 b + c is read, and the logit of token `ON` is above that of `OFF` if y is on."""
    bits = {(token, channel): 2.0 * (token >> (2 - channel) & 1) - 1 for token in range(8) for channel in (A, B, C)}
    off = {(token, channel): -0.5 for token in range(8) for channel in (Z, Y)}
    return compiled(
        CONFIG,
        {
            "W_E": bits | off,
            "blocks.0.mlp.W_in": {(A, 0): SCALE, (B, 0): SCALE},
            "blocks.0.mlp.b_in": {(0,): -1.0},
            "blocks.0.mlp.W_out": {(0, Z): 1.0},
            "blocks.1.mlp.W_in": {(Z, 0): SCALE, (C, 0): SCALE},
            "blocks.1.mlp.b_in": {(0,): -0.5},
            "blocks.1.mlp.W_out": {(0, Y): 1.0},
            "W_U": {(Y, ON): 1.0, (Y, OFF): -1.0},
        },
    ).requires_grad_(False)


@torch.no_grad()
def two_hop_transcoder(shortcut: bool) -> Transcoder:
    """Return a cross-layer transcoder that reconstructs both MLPs of `planted_two_hop` without error.

    Parameters
    ----------
    shortcut : bool
        Find y in the first layer: one feature is active where the model has two neurons active.
    """
    config = TranscoderConfig.of(planted_two_hop(), d_transcoder=2, k=1, activation="jumprelu")
    transcoder = Transcoder(config)
    for weight in transcoder.parameters():
        weight.zero_()
    transcoder.threshold.fill_(0.5)
    z_at_first, y_at_second = (0, Z), (1, Y)
    if shortcut:
        for feature, sign in enumerate((1, -1)):
            transcoder.W_enc[0, feature, :Z] = torch.tensor([1.0, 1.0, sign]) * SCALE
            transcoder.b_enc[0, feature] = -2
            transcoder.W_dec[0][feature][z_at_first] = 1
        transcoder.W_dec[0][0][y_at_second] = 1
    else:
        transcoder.W_enc[0, 0, [A, B]] = SCALE
        transcoder.b_enc[0, 0] = -1
        transcoder.W_dec[0][0][z_at_first] = 1
        transcoder.W_enc[1, 0, [Z, C]] = SCALE
        transcoder.b_enc[1, 0] = -0.5
        transcoder.W_dec[1][0, 0, Y] = 1
    return transcoder.eval().requires_grad_(False)


def second_hop_share(transcoder: Transcoder, model: Transformer | None = None) -> float:
    """Return how much of the answer a transcoder explains by the second hop, where all three bits are on.

    Parameters
    ----------
    transcoder : Transcoder
        One of `planted_two_hop`.
    model : Transformer, optional
        That model, if it is at hand.

    Returns
    -------
    float
        Share of the absolute edges from features into the logit of `ON` that comes from features of the second layer: 1
        for the circuit as it is, 0 for the shortcut; nan if no feature is active.
    """
    from ..attribution_graph import attribute

    graph = attribute(model or planted_two_hop(), transcoder, torch.tensor([ON]), logits=[ON])
    n = graph.nodes.n_features
    edges = graph.adjacency[-1, :n].abs()
    return float(edges[graph.nodes.layer[:n] == 1].sum() / edges.sum())
