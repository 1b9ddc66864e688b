"""A forward pass of the book's model in which every reader adds up what it sees of every source, one by one.

The oracle of the attribution tests. It uses neither hooks nor the model's modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from ablation_oracle import random_model, random_tokens
from sparse_circuits.model import Transformer
from sparse_circuits.prompt_pairs import PromptPairs
from sparse_circuits.two_way import TwoWayPrompts
from torch import Tensor

# Maps source, reader and what the source writes in this run to what the reader sees of it.
Sight = Callable[[str, str, Tensor], Tensor]
# Maps layer and head, pattern (n, query, key) and values (n, key, d_head) to what the head mixes (n, query, d_head).
Mix = Callable[[int, int, Tensor, Tensor], Tensor]


def as_it_is(source: str, reader: str, own: Tensor) -> Tensor:
    return own


def mixed(layer: int, head: int, pattern: Tensor, values: Tensor) -> Tensor:
    return pattern @ values


def embed(model: Transformer, tokens: Tensor) -> Tensor:
    embedded = model.W_E[tokens]
    return embedded if model.W_pos is None else embedded + model.W_pos[: tokens.shape[1]]


def run(
    model: Transformer, tokens: Tensor, sight: Sight = as_it_is, embedded: Tensor | None = None, mix: Mix = mixed
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return logits (n, pos, d_vocab), and what every source writes."""
    cfg, length = model.cfg, tokens.shape[1]
    written = {"input": embed(model, tokens) if embedded is None else embedded}
    constant = torch.zeros(cfg.d_model, dtype=model.W_E.dtype)
    future = torch.tensor([[key > query for key in range(length)] for query in range(length)])

    def read(reader: str) -> Tensor:
        stream = constant + sum(sight(source, reader, own) for source, own in written.items())
        return stream / ((stream**2).mean(-1, keepdim=True) + cfg.rms_eps).sqrt()

    for layer, block in enumerate(model.blocks):
        attn, heads = block.attn, {}
        for h in range(cfg.n_heads):
            q = read(f"a{layer}.h{h}<q>") @ attn.W_Q[h] + attn.b_Q[h]
            k = read(f"a{layer}.h{h}<k>") @ attn.W_K[h] + attn.b_K[h]
            v = read(f"a{layer}.h{h}<v>") @ attn.W_V[h] + attn.b_V[h]
            weight = torch.where(future, 0.0, torch.exp(q @ k.transpose(1, 2) / math.sqrt(cfg.d_head)))
            total = weight.sum(-1, keepdim=True) + (0 if attn.sink is None else torch.exp(attn.sink[h]))
            heads[f"a{layer}.h{h}"] = mix(layer, h, weight / total, v) @ attn.W_O[h]
        written |= heads
        constant = constant + attn.b_O
        pre = read(f"m{layer}") @ block.mlp.W_in + block.mlp.b_in
        written[f"m{layer}"] = block.mlp.act_fn(pre) @ block.mlp.W_out + block.mlp.b_out
    logits = read("logits") @ model.W_U + model.b_U
    return logits if model.W_bigram is None else logits + model.W_bigram[tokens], written


def margins(prompts: TwoWayPrompts, logits: Tensor) -> Tensor:
    """Return right minus wrong logit of each prompt, from the logits at all positions."""
    rows = zip(range(len(prompts)), prompts.position.tolist(), strict=True)
    answers = torch.stack([logits[i, p] for i, p in rows])
    rights, wrongs = (
        torch.stack([a[t] for a, t in zip(answers, ids, strict=True)]) for ids in (prompts.right, prompts.wrong)
    )
    return rights - wrongs


def random_pairs(seed: int, n: int = 3, length: int = 5, d_vocab: int = 9) -> PromptPairs:
    """Return random prompts with random answers at random positions, and random corrupted prompts."""
    generator = torch.Generator().manual_seed(seed)
    position = torch.randint(length, (n,), generator=generator)
    right = torch.randint(d_vocab, (n,), generator=generator)
    wrong = (right + torch.randint(1, d_vocab, (n,), generator=generator)) % d_vocab
    prompts = TwoWayPrompts(random_tokens(seed, n, length), position, right, wrong)
    return PromptPairs(prompts, random_tokens(seed + 100, n, length))


def random_case(seed: int) -> tuple[Transformer, PromptPairs]:
    """Return a small float64 model, with attention sink and bigram table for odd seeds, and pairs of prompts."""
    return random_model(seed), random_pairs(seed)
