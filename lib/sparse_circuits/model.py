"""The one model of the book: a small decoder-only transformer with named hook points.

Introduced in chapter 1, where every line of the forward pass is read and recomputed by hand.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from .gated import GatedMLP
from .sparsity.activations import ACTIVATION_LOCATIONS, add_activation_sparsity, check_activations
from .sparsity.attention import AttentionGate, check_gate_bias

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}
DIRECTIONS = ("causal", "bidirectional")

PRESETS = {
    "minute": {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_head": 16, "d_mlp": 256, "n_ctx": 64},
    "code": {"n_layers": 2, "d_model": 128, "n_heads": 4, "d_head": 32, "d_mlp": 512, "n_ctx": 128},
    "code-4-layer": {"n_layers": 4, "d_model": 128, "n_heads": 4, "d_head": 32, "d_mlp": 512, "n_ctx": 128},
}


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and options of a `Transformer`; stored beside every checkpoint.

    Parameters
    ----------
    d_vocab, n_ctx : int
        Number of tokens in the vocabulary, and the longest sequence in tokens.
    n_layers, d_model, n_heads, d_head, d_mlp : int
        Depth and widths. `n_heads * d_head` need not equal `d_model`.
    act_fn : {"gelu", "relu"}
        Activation of the MLP neurons; gated ones have SiLU.
    positions : bool
        Add a learned embedding of the absolute position.
    attention_sink : bool
        Give each head one learned logit that joins the softmax and carries no value (arXiv 2511.13653, appendix A.1).
    bigram_table : bool
        Add a learned `(d_vocab, d_vocab)` table, indexed by the current token, to the logits (same appendix).
    rms_eps : float
        Added to the mean square inside RMSNorm.
    activation_density : float
        Share of the coordinates that AbsTopK keeps, per token, at each of `activation_locations`; 1 keeps all.
    activation_locations : tuple of str
        Hook names within a layer, among the node locations of the weight graph; see `sparsity.activations`.
    attention_gate_bias : float, optional
        Give every attention edge a gate with this bias; see `sparsity.attention`. Without gates if not given.
    attention_dir : {"causal", "bidirectional"}
        Whether a position reads itself and those before it, or all positions.
    gated_mlp : bool
        Give every neuron a gate (SwiGLU), see `gated.GatedMLP`.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or `act_fn`, the activation density, a location, the bias or
        `attention_dir` is not allowed.
    """

    d_vocab: int
    n_ctx: int
    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    act_fn: str = "gelu"
    positions: bool = True
    attention_sink: bool = False
    bigram_table: bool = False
    rms_eps: float = 1e-5
    activation_density: float = 1.0
    activation_locations: tuple[str, ...] = ACTIVATION_LOCATIONS
    attention_gate_bias: float | None = None
    attention_dir: str = "causal"
    gated_mlp: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "activation_locations", tuple(self.activation_locations))
        for name in ("d_vocab", "n_ctx", "n_layers", "d_model", "n_heads", "d_head", "d_mlp"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} is {size!r}; give a positive integer.")
        if self.act_fn not in ACTIVATIONS:
            raise ValueError(f"act_fn is {self.act_fn!r}; choose one of {sorted(ACTIVATIONS)}.")
        check_activations(self.activation_density, self.activation_locations)
        check_gate_bias(self.attention_gate_bias)
        if self.attention_dir not in DIRECTIONS:
            raise ValueError(f"attention_dir is {self.attention_dir!r}; choose one of {list(DIRECTIONS)}.")

    @classmethod
    def preset(cls, name: str, d_vocab: int, **changes) -> TransformerConfig:
        """Return the named preset for a vocabulary of `d_vocab` tokens, with single fields changed.

        Raises
        ------
        ValueError
            If there is no preset of that name.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}; choose one of {sorted(PRESETS)}.")
        return replace(cls(d_vocab=d_vocab, **PRESETS[name]), **changes)

    def to_dict(self) -> dict:
        """Return the fields as plain JSON values; those of later chapters only where they are not the default."""
        fields = asdict(self) | {"activation_locations": list(self.activation_locations)}
        default = {"attention_gate_bias": None, "attention_dir": "causal", "gated_mlp": False}
        return {name: value for name, value in fields.items() if name not in default or value != default[name]}


class RMSNorm(nn.Module):
    """Divide each residual vector by its root mean square; no parameters, so a zero stays a zero."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized(x / scale)


class Attention(nn.Module):
    """Multi-head attention; weights are per head, as TransformerLens names and shapes them."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        heads, d_model, d_head = cfg.n_heads, cfg.d_model, cfg.d_head
        self.scale = 1 / math.sqrt(d_head)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(heads, d_model, d_head)) for _ in range(3))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(heads, d_head)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(heads, d_head, d_model))
        self.b_O = nn.Parameter(torch.zeros(d_model))
        self.sink = nn.Parameter(torch.zeros(heads)) if cfg.attention_sink else None
        self.gate = None if cfg.attention_gate_bias is None else AttentionGate(cfg.attention_gate_bias)
        later = torch.ones(cfg.n_ctx, cfg.n_ctx).triu(1).bool()
        self.register_buffer("mask", later & (cfg.attention_dir == "causal"), persistent=False)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern, self.hook_z = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        q = self.hook_q(torch.einsum("bpm,hmd->bphd", x, self.W_Q) + self.b_Q)
        k = self.hook_k(torch.einsum("bpm,hmd->bphd", x, self.W_K) + self.b_K)
        v = self.hook_v(torch.einsum("bpm,hmd->bphd", x, self.W_V) + self.b_V)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.scale
        length = x.shape[1]
        scores = self.hook_attn_scores(scores.masked_fill(self.mask[:length, :length], -torch.inf))
        pattern = self.softmax(scores)
        pattern = self.hook_pattern(pattern if self.gate is None else self.gate(pattern, scores))
        z = self.hook_z(torch.einsum("bhqk,bkhd->bqhd", pattern, v))
        return torch.einsum("bqhd,hdm->bqm", z, self.W_O) + self.b_O

    def softmax(self, scores: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head query key"]:
        if self.sink is None:
            return scores.softmax(-1)
        sink = self.sink.view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        return torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]


class MLP(nn.Module):
    """One hidden layer of neurons: read a direction, bend, write a direction."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, cfg.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(cfg.d_mlp))
        self.W_out = nn.Parameter(torch.empty(cfg.d_mlp, cfg.d_model))
        self.b_out = nn.Parameter(torch.zeros(cfg.d_model))
        self.act_fn = ACTIVATIONS[cfg.act_fn]
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        pre = self.hook_pre(x @ self.W_in + self.b_in)
        return self.hook_post(self.act_fn(pre)) @ self.W_out + self.b_out


class Block(nn.Module):
    """Attention, then the MLP; each reads a normalised copy of the residual stream and adds to it."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.ln1, self.attn = RMSNorm(cfg.rms_eps), Attention(cfg)
        self.ln2 = RMSNorm(cfg.rms_eps)
        self.mlp = (GatedMLP if cfg.gated_mlp else MLP)(cfg)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self.attn(self.ln1(x))))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))


class Transformer(HookedRootModule):
    """A decoder-only transformer: embeddings, blocks, a last norm, untied unembedding.

    Hook points carry the standard TransformerLens names (`hook_embed`, `blocks.0.attn.hook_q`, ...), so
    `run_with_cache`, `run_with_hooks` and `hooks` work as everywhere else.

    Parameters
    ----------
    cfg : TransformerConfig
        Shape and options.
    seed : int
        Seed of the initial weights. The caller's random state is left as it was.
    """

    def __init__(self, cfg: TransformerConfig, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))
        self.W_pos = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model)) if cfg.positions else None
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.ln_final = RMSNorm(cfg.rms_eps)
        self.W_U = nn.Parameter(torch.empty(cfg.d_model, cfg.d_vocab))
        self.b_U = nn.Parameter(torch.zeros(cfg.d_vocab))
        self.W_bigram = nn.Parameter(torch.zeros(cfg.d_vocab, cfg.d_vocab)) if cfg.bigram_table else None
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self.reset_weights(seed)
        self.setup()
        add_activation_sparsity(self)

    @torch.no_grad()
    def reset_weights(self, seed: int) -> None:
        """Draw the weights anew: N(0, 1 / fan-in), what is written to the residual stream scaled by 1 / sqrt(2 L)."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            kind = name.rpartition(".")[2]
            if kind in ("sink", "W_bigram") or kind.startswith("b_"):
                weight.zero_()
                continue
            fan_in = {"W_O": self.cfg.n_heads * self.cfg.d_head, "W_out": self.cfg.d_mlp}.get(kind, self.cfg.d_model)
            depth = 2 * self.cfg.n_layers if kind in ("W_O", "W_out") else 1
            weight.copy_(torch.randn(weight.shape, generator=generator) / math.sqrt(fan_in * depth))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits of the next token at every position.

        Raises
        ------
        ValueError
            If `tokens` is not a 2-D integer tensor or is longer than `n_ctx`.
        """
        if tokens.ndim != 2 or tokens.is_floating_point():
            raise ValueError(
                f"tokens has shape {tuple(tokens.shape)} and dtype {tokens.dtype}; give integers (batch, pos)."
            )
        if tokens.shape[1] > self.cfg.n_ctx:
            raise ValueError(
                f"The sequence has {tokens.shape[1]} tokens, the model reads {self.cfg.n_ctx}; cut it shorter."
            )
        x = self.hook_embed(self.W_E[tokens])
        if self.W_pos is not None:
            x = x + self.hook_pos_embed(self.W_pos[: tokens.shape[1]].expand_as(x))
        for block in self.blocks:
            x = block(x)
        logits = self.ln_final(x) @ self.W_U + self.b_U
        return logits if self.W_bigram is None else logits + self.W_bigram[tokens]
