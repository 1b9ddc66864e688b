"""A small attribution graph and its drawing, for the tests of the payload and of the page."""

from __future__ import annotations

import torch
from sparse_circuits.activation_cache import mlp_activations
from sparse_circuits.attribution_graph import AttributionGraph, attribute
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.transcoder import Transcoder, TranscoderConfig

WORDS = ["<start>", "a", "b", "<c>", "&", "\n", "long word", "h"]


def small_graph(n_pos: int = 6, features: int = 16, k: int = 2) -> AttributionGraph:
    """The graph of a prompt of a random model with two layers and a random transcoder, in float64."""
    shape = {"n_layers": 2, "d_model": 8, "n_heads": 2, "d_head": 4, "d_mlp": 16}
    model = Transformer(TransformerConfig(len(WORDS), 16, **shape)).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(WORDS), (n_pos,), generator=generator)
    transcoder = Transcoder(TranscoderConfig.of(model, features, k=k)).double().requires_grad_(False).eval()
    for W_dec in transcoder.W_dec:
        W_dec.normal_(std=0.3, generator=generator)
    transcoder.calibrate(mlp_activations(model, tokens[None])[0, :, 0])
    return attribute(model, transcoder, tokens, max_logits=3)
