"""What of a vocabulary a page may hold, from all of it to what its prompts need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch

from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.ablation_values import AblationValues
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer.payload import Offer
from sparse_circuits.explorer.questions import Prompt
from sparse_circuits.model import Transformer

LEADING = 5
SPARE_POSITIONS = 4


def offers(
    model: Transformer, circuit: Circuit, values: AblationValues | None, prompts: list[Prompt]
) -> Iterator[Offer]:
    """Yield what a page may hold, the most first: all tokens; fewer in prompts; those few as next tokens too.

    The few are the tokens of the prompts, the answers and what leads: five next tokens at the end of each prompt, one
    at every other position.
    """
    cfg = model.cfg
    everything = np.arange(cfg.d_vocab)
    yield Offer(everything, everything, cfg.n_ctx)
    few = np.unique([*_named(prompts), *_leading(model, circuit, values, prompts)])
    length = min(cfg.n_ctx, max(len(prompt.tokens) for prompt in prompts) + SPARE_POSITIONS)
    yield Offer(everything, few, length)
    yield Offer(few, few, length)


def _named(prompts: list[Prompt]) -> Iterator[int]:
    for prompt in prompts:
        yield from prompt.tokens
        if prompt.answer is not None:
            yield prompt.answer


@torch.no_grad()
def _leading(
    model: Transformer, circuit: Circuit, values: AblationValues | None, prompts: list[Prompt]
) -> Iterator[int]:
    outside = ablated(model, nodes_outside(circuit), values=values) if values else nullcontext()
    with outside:
        for prompt in prompts:
            logits = model(torch.tensor([prompt.tokens], device=model.W_E.device))[0]
            yield from logits.argmax(-1).tolist()
            yield from logits[-1].topk(min(LEADING, model.cfg.d_vocab)).indices.tolist()
