"""Numbers that say how well a model, or a circuit, does. Losses are in nats."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def next_token_loss(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos_and_one"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the next token, in nats per token.

    Parameters
    ----------
    logits : float tensor, shape (batch, pos, d_vocab)
        Predictions at positions 0 to pos - 1.
    tokens : int tensor, shape (batch, pos + 1)
        The sequence; position p + 1 is the target of the logits at p.

    Raises
    ------
    ValueError
        If `tokens` does not have exactly one position more than `logits`.
    """
    if tokens.shape[1] != logits.shape[1] + 1:
        raise ValueError(
            f"logits have {logits.shape[1]} positions and tokens {tokens.shape[1]}; "
            "give the whole sequence as tokens and the logits of all but its last position."
        )
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def stream_loss(model: nn.Module, stream: Int[Tensor, " n_tokens"], length: int, batch_size: int = 64) -> float:
    """Return a model's mean next-token loss over a whole token stream, in nats per token.

    The stream is cut into windows of `length` tokens that share one token at each seam, so that every token but the
    first is predicted exactly once; what does not fill a window at the end is left out.

    Parameters
    ----------
    model : module
        Maps int tokens (batch, pos) to logits (batch, pos, d_vocab).
    stream : int tensor, shape (n_tokens,)
        The tokens.
    length : int
        Positions per window that are predicted; at most the model's `n_ctx`.
    batch_size : int
        Windows per forward pass.

    Raises
    ------
    ValueError
        If the stream does not fill one window.
    """
    if len(stream) <= length:
        raise ValueError(f"The stream has {len(stream)} tokens, one window needs {length + 1}; give a longer stream.")
    device = next(model.parameters()).device
    windows = stream.unfold(0, length + 1, length)
    losses = [
        next_token_loss(model(batch[:, :-1].to(device)), batch.to(device)).item() * len(batch)
        for batch in windows.split(batch_size)
    ]
    return sum(losses) / len(windows)
