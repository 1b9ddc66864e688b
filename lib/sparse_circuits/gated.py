"""A gated MLP, in place of the plain one where a configuration asks for it.

First used in chapter 15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

if TYPE_CHECKING:
    from .model import TransformerConfig


class GatedMLP(nn.Module):
    """Neurons with a gate: each reads two directions, bends one, and multiplies it with the other.

    Weights and hook points have the names of TransformerLens: W_gate makes `hook_pre`, which is bent, W_in makes
    `hook_pre_linear`, and `hook_post` is the product, shape (batch, pos, d_mlp), that W_out reads.

    Parameters
    ----------
    cfg : TransformerConfig
        Gives the widths. The activation is SiLU, whatever `act_fn` says of the plain MLP.

    Notes
    -----
    SwiGLU of arXiv 2002.05202, equation 6, which has no biases.
    """

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_gate, self.W_in = (nn.Parameter(torch.empty(cfg.d_model, cfg.d_mlp)) for _ in range(2))
        self.W_out = nn.Parameter(torch.empty(cfg.d_mlp, cfg.d_model))
        self.hook_pre, self.hook_pre_linear, self.hook_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        gate = F.silu(self.hook_pre(x @ self.W_gate))
        post = self.hook_post(gate * self.hook_pre_linear(x @ self.W_in))
        return post @ self.W_out
