"""A forward pass of the book's model written without hooks, in which nodes and edges can be replaced.

The oracle of the ablation tests. Every target gets its own copy of every source, so an ablated edge is one entry
`seen[..., source, target]` that holds another number; nothing is subtracted or added afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from sparse_circuits.model import Transformer, TransformerConfig
from torch import Tensor

BLOCK_PLACES = (
    "hook_resid_pre",
    "ln1.hook_normalized",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)


@dataclass
class Replacement:
    """What stands in for the sources.

    Attributes
    ----------
    nodes : location -> bool or float tensor (batch, pos, coordinate)
        Which activations are replaced; a number m gives `(1 - m) * activation + m * value`.
    edges : matrix -> bool or float tensor (batch, pos, source, target)
        Which targets see a replaced source. The source of W_O is what it multiplies, `hook_z`.
    values : location -> float tensor (batch, pos, coordinate)
        What is put in.
    scales : norm -> float tensor (batch, pos, 1)
        Norms that divide by a given number instead of their own.
    """

    nodes: Mapping[str, Tensor] = field(default_factory=dict)
    edges: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)


def locations(cfg: TransformerConfig) -> dict[str, int]:
    """Return every location that can be ablated, and its number of coordinates."""
    width = {"attn": cfg.n_heads * cfg.d_head, "mlp": cfg.d_mlp}
    embeddings = ["hook_embed", "hook_pos_embed"] if cfg.positions else ["hook_embed"]
    return dict.fromkeys(embeddings, cfg.d_model) | {
        f"blocks.{layer}.{place}": width.get(place.partition(".")[0], cfg.d_model)
        for layer in range(cfg.n_layers)
        for place in BLOCK_PLACES
    }


def mixed(mask: Tensor, value: Tensor, own: Tensor) -> Tensor:
    return torch.where(mask, value, own) if mask.dtype == torch.bool else (1 - mask) * own + mask * value


def forward(
    model: Transformer, tokens: Tensor, replaced: Replacement | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits (batch, pos, d_vocab), and every location's activation and every norm's scale."""
    cfg, weights, replaced = model.cfg, dict(model.named_parameters()), replaced or Replacement()
    n_heads, d_head, length = cfg.n_heads, cfg.d_head, tokens.shape[1]
    seen: dict[str, Tensor] = {}

    def at(location: str, activation: Tensor) -> Tensor:
        if location in replaced.nodes:
            activation = mixed(replaced.nodes[location], replaced.values[location], activation)
        seen[location] = activation
        return activation

    def norm(name: str, x: Tensor) -> Tensor:
        mean_square = sum(x[..., m] ** 2 for m in range(cfg.d_model)) / cfg.d_model
        scale = replaced.scales.get(name, torch.sqrt(mean_square + cfg.rms_eps)[..., None])
        seen[f"{name}.hook_scale"] = scale
        return x / scale

    def copies(matrix: str, source: str, n_targets: int) -> Tensor:
        """One copy of the source for every target: (batch, pos, source, target)."""
        own = seen[source][..., None].expand(*seen[source].shape, n_targets)
        if matrix not in replaced.edges:
            return own
        return mixed(replaced.edges[matrix], replaced.values[source][..., None].expand_as(own), own)

    def linear(matrix: str, source: str, weight: Tensor) -> Tensor:
        return (copies(matrix, source, weight.shape[1]) * weight).sum(-2)

    x = at("hook_embed", weights["W_E"][tokens])
    if cfg.positions:
        x = x + at("hook_pos_embed", weights["W_pos"][:length].expand_as(x))
    future = torch.tensor([[key > query for key in range(length)] for query in range(length)])
    for layer in range(cfg.n_layers):
        b = f"blocks.{layer}."
        x = at(f"{b}hook_resid_pre", x)
        at(f"{b}ln1.hook_normalized", norm(f"{b}ln1", x))
        heads = {}
        for letter in "QKV":
            weight = weights[f"{b}attn.W_{letter}"]
            weight = torch.cat([weight[h] for h in range(n_heads)], dim=1)
            bias = torch.cat([weights[f"{b}attn.b_{letter}"][h] for h in range(n_heads)])
            out = linear(f"{b}attn.W_{letter}", f"{b}ln1.hook_normalized", weight) + bias
            heads[letter] = at(f"{b}attn.hook_{letter.lower()}", out)
        z = []
        for h in range(n_heads):
            own = slice(h * d_head, (h + 1) * d_head)
            scores = heads["Q"][..., own] @ heads["K"][..., own].transpose(1, 2) / math.sqrt(d_head)
            weight = torch.where(future, 0.0, torch.exp(scores))
            total = weight.sum(-1, keepdim=True)
            if cfg.attention_sink:
                total = total + torch.exp(weights[f"{b}attn.sink"][h])
            z.append(weight / total @ heads["V"][..., own])
        at(f"{b}attn.hook_z", torch.cat(z, dim=-1))
        w_o = torch.cat([weights[f"{b}attn.W_O"][h] for h in range(n_heads)], dim=0)
        out = linear(f"{b}attn.W_O", f"{b}attn.hook_z", w_o) + weights[f"{b}attn.b_O"]
        x = at(f"{b}hook_resid_mid", x + at(f"{b}hook_attn_out", out))
        at(f"{b}ln2.hook_normalized", norm(f"{b}ln2", x))
        pre = linear(f"{b}mlp.W_in", f"{b}ln2.hook_normalized", weights[f"{b}mlp.W_in"]) + weights[f"{b}mlp.b_in"]
        pre = at(f"{b}mlp.hook_pre", pre)
        post = pre * 0.5 * (1 + torch.erf(pre / math.sqrt(2))) if cfg.act_fn == "gelu" else pre.clamp(min=0)
        at(f"{b}mlp.hook_post", post)
        out = linear(f"{b}mlp.W_out", f"{b}mlp.hook_post", weights[f"{b}mlp.W_out"]) + weights[f"{b}mlp.b_out"]
        x = at(f"{b}hook_resid_post", x + at(f"{b}hook_mlp_out", out))
    logits = norm("ln_final", x) @ weights["W_U"] + weights["b_U"]
    return logits + weights["W_bigram"][tokens] if cfg.bigram_table else logits, seen


def means_by_loops(
    activations: Mapping[str, Tensor], where: Tensor | None = None, by_position: bool = False
) -> dict[str, Tensor]:
    """Return location -> mean, shape (coordinate,), or (pos, coordinate) by position; one number added at a time."""
    means = {}
    for location, activation in activations.items():
        n, length, size = activation.shape
        counted = torch.ones(n, length, dtype=torch.bool) if where is None else where
        groups = [[p] for p in range(length)] if by_position else [list(range(length))]
        rows = []
        for group in groups:
            total, count = [0.0] * size, 0
            for i, p in itertools.product(range(n), group):
                if counted[i, p]:
                    count += 1
                    total = [t + a for t, a in zip(total, activation[i, p].tolist(), strict=True)]
            rows.append([t / count for t in total])
        mean = torch.tensor(rows, dtype=activation.dtype)
        means[location] = mean if by_position else mean[0]
    return means


@torch.no_grad()
def random_model(seed: int, dtype: torch.dtype = torch.float64, density: float = 0.7, **options) -> Transformer:
    """Return a small model with every kind of weight in use, some of them zero; odd seeds have all the options."""
    generator = torch.Generator().manual_seed(seed)
    odd = bool(seed % 2)
    shape = {"n_layers": 2, "d_model": 6, "n_heads": 2, "d_head": 2 + odd, "d_mlp": 5, "d_vocab": 9, "n_ctx": 7}
    choices = {"act_fn": "relu" if seed % 3 == 0 else "gelu", "attention_sink": odd, "bigram_table": odd}
    cfg = TransformerConfig(**{**shape, **choices, "positions": seed % 4 != 2, **options})
    model = Transformer(cfg, seed).to(dtype)
    for name, weight in model.named_parameters():
        if ".W_" in name:
            weight.mul_(torch.rand(weight.shape, generator=generator) < density)
        elif not weight.any():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    return model


def random_tokens(seed: int, batch: int, length: int, d_vocab: int = 9) -> Tensor:
    return torch.randint(d_vocab, (batch, length), generator=torch.Generator().manual_seed(seed))
