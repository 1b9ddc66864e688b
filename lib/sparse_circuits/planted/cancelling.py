"""The quote model with two more heads that cancel: a model whose circuit looks faithful and is not."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..model import Transformer
from .base import compiled
from .quotes import CLOSE, HERE, KIND, POSITION, planted_quote_circuit

FIRST_OPENING, LAST_OPENING = 2, 3
SIZE, QUERY = 2.0, 16.0


@torch.no_grad()
def planted_cancelling_heads() -> Transformer:
    """Return the planted quote model with two more heads in layer 1, which undo each other where only one string is.

    Head 2 finds the first opening token and adds twice the kind of its quote to the channel that closes the string.
    Head 3 finds the last opening token and takes twice its kind away. In a prompt with one string these are the same
    token, so the two outputs are equal and opposite. In a prompt with two kinds of quotes they are not, and the model
    goes wrong.

    Returns
    -------
    Transformer
        Heads 0 and 1 of layer 1, and all the rest, are those of `planted_quote_circuit`. Layer 0 has four heads too,
        and as before none of them does anything.
    """
    original = planted_quote_circuit().model
    model = compiled(replace(original.cfg, n_heads=4), {})
    for name, weight in original.named_parameters():
        grown = model.get_parameter(name)
        grown[tuple(slice(n) for n in weight.shape)].copy_(weight)
    attention = model.blocks[1].attn
    for head, sign in ((FIRST_OPENING, -1), (LAST_OPENING, 1)):
        attention.b_Q[head] = QUERY
        attention.W_K[head, HERE], attention.W_K[head, POSITION] = 2, sign * 1.25
        attention.W_V[head, KIND] = 0.5
        attention.W_O[head, 0, CLOSE] = -sign * SIZE
    return model
