"""A model whose MLPs are replaced by features and errors, frozen on a prompt, one number at a time where it matters.

The oracle of the attribution tests. It uses neither hooks nor the model's modules, and takes nothing from the library
but the weights: patterns, scales and errors are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from ablation_oracle import random_model
from sparse_circuits.model import Transformer
from sparse_circuits.transcoder import Transcoder, TranscoderConfig
from torch import Tensor

# Maps what a node writes, by its name, to what it is to write instead.
Change = Callable[[str, Tensor], Tensor]


@torch.no_grad()
def random_transcoder(model: Transformer, seed: int, features: int = 7, **options) -> Transcoder:
    """Return a transcoder with every kind of weight in use; about half of its features are active."""
    generator = torch.Generator().manual_seed(seed)
    cfg = TranscoderConfig.of(model, features, k=3, activation="jumprelu", **options)
    transcoder = Transcoder(cfg).double()
    for name, weight in transcoder.named_parameters():
        weight.copy_(0.6 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
        if name == "threshold":
            weight.abs_()
    return transcoder.eval().requires_grad_(False)


@dataclass
class Frozen:
    """What is held fixed: attention patterns, denominators, active features, errors, activations.

    Features keep the activations of the run: an edge is a direct effect, past no other feature.
    """

    patterns: list[Tensor]
    scales: dict[str, Tensor]
    active: list[Tensor]
    errors: list[Tensor]
    pre: list[Tensor]


def softmax_and_gate(model: Transformer, layer: int, q: Tensor, k: Tensor) -> Tensor:
    """Return the pattern (head, query, key) of queries and keys (pos, head, d_head)."""
    cfg, attn = model.cfg, model.blocks[layer].attn
    n = len(q)
    pattern = torch.zeros(cfg.n_heads, n, n, dtype=q.dtype)
    for h in range(cfg.n_heads):
        for i in range(n):
            keys = range(i + 1) if cfg.attention_dir == "causal" else range(n)
            scores = {j: float(q[i, h] @ k[j, h]) / math.sqrt(cfg.d_head) for j in keys}
            total = sum(math.exp(s) for s in scores.values())
            total += math.exp(float(attn.sink[h])) if attn.sink is not None else 0
            for j, s in scores.items():
                is_open = cfg.attention_gate_bias is None or s + cfg.attention_gate_bias > 0
                pattern[h, i, j] = math.exp(s) / total if is_open else 0
    return pattern


def run(
    model: Transformer,
    transcoder: Transcoder,
    tokens: Tensor,
    frozen: Frozen | None = None,
    change: Change = lambda name, own: own,
) -> tuple[Frozen, Tensor, Tensor]:
    """Run on one prompt; return what can be frozen, pre-activations (layer, pos, feature) and logits (pos, d_vocab).

    With `frozen` the run is that of the local replacement model; without, of the model itself. What nodes write goes
    through `change`, under the names of the library.
    """
    cfg, n = model.cfg, len(tokens)
    own = Frozen([], {}, [], [], [])

    def at_each(name: str, vectors: Tensor) -> Tensor:
        return torch.stack([change(f"{name}@{p}", vectors[p]) for p in range(n)])

    def norm(name: str, x: Tensor) -> Tensor:
        scale = ((x**2).mean(-1, keepdim=True) + cfg.rms_eps).sqrt() if frozen is None else frozen.scales[name]
        own.scales[name] = scale
        return x / scale

    x = at_each("token", model.W_E[tokens])
    if model.W_pos is not None:
        x = x + at_each("position", model.W_pos[:n])
    written = [torch.zeros(n, cfg.d_model, dtype=x.dtype) for _ in range(cfg.n_layers)]
    for layer, block in enumerate(model.blocks):
        attn, read = block.attn, norm(f"ln1.{layer}", x)
        b_V, b_O = change(f"b_V[{layer}]", attn.b_V), change(f"b_O[{layer}]", attn.b_O)
        q, k = (torch.einsum("pd,hde->phe", read, W) + b for W, b in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K)))
        own.patterns.append(softmax_and_gate(model, layer, q, k) if frozen is None else frozen.patterns[layer])
        v = torch.einsum("pd,hde->phe", read, attn.W_V) + b_V
        for h in range(cfg.n_heads):
            x = x + own.patterns[layer][h] @ v[:, h] @ attn.W_O[h]
        x = x + b_O
        normalized = norm(f"ln2.{layer}", x)
        inputs = normalized if transcoder.cfg.input_hook == "ln2.hook_normalized" else x
        pre = inputs @ transcoder.W_enc[layer].T + change(f"b_enc[{layer}]", transcoder.b_enc[layer])
        own.pre.append(pre)
        own.active.append(pre > transcoder.threshold[layer] if frozen is None else frozen.active[layer])
        for p, f in own.active[layer].nonzero().tolist():
            activation = change(f"f{layer}.{f}@{p}", (frozen or own).pre[layer][p, f])
            for column, target in enumerate(transcoder.target_layers(layer)):
                written[target][p] += activation * transcoder.W_dec[layer][f, column]
        written[layer] += change(f"b_dec[{layer}]", transcoder.b_dec[layer])
        if frozen is None:
            hidden = block.mlp.act_fn(normalized @ block.mlp.W_in + block.mlp.b_in)
            own.errors.append(hidden @ block.mlp.W_out + block.mlp.b_out - written[layer])
        else:
            own.errors.append(frozen.errors[layer])
        x = x + written[layer] + at_each(f"error{layer}", own.errors[layer])
    logits = norm("ln_final", x) @ model.W_U + change("b_U", model.b_U)
    if model.W_bigram is not None:
        logits = logits + at_each("bigram", model.W_bigram[tokens])
    return own, torch.stack(own.pre), logits


def cases() -> list[tuple[str, dict, dict]]:
    """Return names, options of the model and options of the transcoder."""
    return [
        ("plain", {"seed": 2}, {}),
        ("positions, sink, bigram table, gates", {"seed": 5, "attention_gate_bias": 0.3}, {}),
        ("per layer, residual", {"seed": 4, "n_layers": 3}, {"cross_layer": False, "input_hook": "hook_resid_mid"}),
        ("three layers, gates", {"seed": 3, "n_layers": 3, "attention_gate_bias": 0.5}, {}),
        ("both directions", {"seed": 7, "attention_dir": "bidirectional"}, {}),
    ]


def built(options: dict, transcoder_options: dict, length: int = 4) -> tuple[Transformer, Transcoder, Tensor]:
    options = dict(options)
    seed = options.pop("seed")
    model = random_model(seed, density=0.9, **options).eval().requires_grad_(False)
    tokens = torch.randint(9, (length,), generator=torch.Generator().manual_seed(seed))
    return model, random_transcoder(model, seed, **transcoder_options), tokens
