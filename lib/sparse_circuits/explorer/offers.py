"""What of a vocabulary a page may hold, from all of it to what its prompts need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
    """Yield what a page may hold, the most first: all tokens; few in prompts; few as next tokens too; the fewest.

    The few are the tokens of the prompts, the answers and what leads: five next tokens at the end of each prompt, one
    at every other position. The fewest are the tokens of the prompts, the answers and the leading one at each end, and
    no position beyond the longest prompt.
    """
    cfg = model.cfg
    everything = np.arange(cfg.d_vocab)
    yield Offer(everything, everything, cfg.n_ctx)
    named, logits = list(_named(prompts)), _logits(model, circuit, values, prompts)
    longest = max(len(prompt.tokens) for prompt in prompts)
    few = np.unique([*named, *_leading(logits)])
    length = min(cfg.n_ctx, longest + SPARE_POSITIONS)
    yield Offer(everything, few, length)
    yield Offer(few, few, length)
    fewest = np.unique([*named, *(rows[-1].argmax().item() for rows in logits)])
    yield Offer(fewest, fewest, longest)


def _named(prompts: list[Prompt]) -> Iterator[int]:
    for prompt in prompts:
        yield from prompt.tokens
        if prompt.answer is not None:
            yield prompt.answer


@torch.no_grad()
def _logits(
    model: Transformer, circuit: Circuit, values: AblationValues | None, prompts: list[Prompt]
) -> list[Float[Tensor, "pos d_vocab"]]:
    with ablated(model, nodes_outside(circuit), values=values) if values else nullcontext():
        return [model(torch.tensor([prompt.tokens], device=model.W_E.device))[0] for prompt in prompts]


def _leading(logits: list[Float[Tensor, "pos d_vocab"]]) -> Iterator[int]:
    for rows in logits:
        yield from rows.argmax(-1).tolist()
        yield from rows[-1].topk(min(LEADING, rows.shape[-1])).indices.tolist()
