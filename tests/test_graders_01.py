"""Every grader of chapter 1 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
import torch.nn.functional as F
from helpers import assert_grader
from sparse_circuits.metrics import next_token_loss


def attention(q, k, v, scale=None, mask=1, softmax_axis=-1):
    length, width = q.shape[1], q.shape[-1]
    matches = torch.einsum("bqhd,bkhd->bhqk", q, k) * (width**-0.5 if scale is None else scale)
    if mask is not None:
        matches = matches.masked_fill(torch.ones(length, length).triu(mask).bool(), -1e9)
    return torch.einsum("bhqk,bkhd->bqhd", matches.softmax(softmax_axis), v)


def fused_attention(q, k, v):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def test_attention():
    assert_grader(
        "01.1",
        right=[attention, fused_attention],
        wrong=[
            lambda q, k, v: attention(q, k, v, mask=None),
            lambda q, k, v: attention(q, k, v, scale=1.0),
            lambda q, k, v: attention(q, k, v, scale=1 / q.shape[-1]),
            lambda q, k, v: attention(q, k, v, softmax_axis=-2),
            lambda q, k, v: attention(k, q, v),
            lambda q, k, v: attention(q, k, v).flatten(2),
            lambda q, k, v: v,
            lambda q, k, v: None,
        ],
    )


def test_previous_token_score():
    assert_grader(
        "01.2",
        right=[
            lambda pattern: pattern.diagonal(-1, 2, 3).mean((0, 2)),
            lambda pattern: torch.stack([pattern[:, :, p, p - 1] for p in range(1, pattern.shape[-1])]).mean((0, 1)),
        ],
        wrong=[
            lambda pattern: pattern.diagonal(0, 2, 3).mean((0, 2)),
            lambda pattern: pattern.diagonal(1, 2, 3).mean((0, 2)),
            lambda pattern: pattern.diagonal(-1, 2, 3).sum(2).mean(0) / pattern.shape[-1],
            lambda pattern: pattern.diagonal(-1, 2, 3).sum((0, 2)),
            lambda pattern: pattern.diagonal(-1, 2, 3).mean(0),
            lambda pattern: pattern.diagonal(-1, 2, 3)[0].mean(1),
            lambda pattern: pattern.diagonal(-1, 2, 3).mean(),
        ],
    )


def test_mended_loss():
    def compare(logits, tokens):
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    assert_grader(
        "01.3",
        right=[
            lambda logits, tokens: compare(logits[:, :-1], tokens[:, 1:]),
            lambda logits, tokens: next_token_loss(logits[:, :-1], tokens),
        ],
        wrong=[
            lambda logits, tokens: compare(logits.softmax(-1), tokens),
            lambda logits, tokens: compare(logits.softmax(-1)[:, :-1], tokens[:, 1:]),
            lambda logits, tokens: compare(logits, tokens),
            lambda logits, tokens: compare(logits[:, 1:], tokens[:, :-1]),
            lambda logits, tokens: compare(logits[:, :-1], tokens[:, 1:]) / torch.tensor(2.0).log(),
        ],
    )


def costs(model, tokens, sign=1, hook="hook_z", every_head=False, subtract=True, clean_up=True):
    def loss():
        return next_token_loss(model(tokens[:, :-1]), tokens)

    with torch.no_grad():
        whole = loss()
        result = torch.zeros(model.cfg.n_layers, model.cfg.n_heads)
        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):

                def zero(activation, hook, head=head):
                    activation = activation.clone()
                    activation[:, :, slice(None) if every_head else head] = 0
                    return activation

                model.add_hook(f"blocks.{layer}.attn.{hook}", zero)
                result[layer, head] = sign * (loss() - (whole if subtract else 0))
                if clean_up:
                    model.reset_hooks()
    return result


def test_cost_of_each_head():
    assert_grader(
        "01.4",
        right=[costs, lambda model, tokens: costs(model, tokens, hook="hook_v")],
        wrong=[
            lambda model, tokens: costs(model, tokens, sign=-1),
            lambda model, tokens: costs(model, tokens, hook="hook_q"),
            lambda model, tokens: costs(model, tokens, every_head=True),
            lambda model, tokens: costs(model, tokens, subtract=False),
            lambda model, tokens: costs(model, tokens, clean_up=False),
            lambda model, tokens: costs(model, tokens).T,
        ],
    )


def test_breaking_prompt():
    assert_grader(
        "01.5",
        right=["f(x[a, b, c", "print({name, value, size"],
        wrong=[
            "x = [1, (2",
            "print('hello')",
            "x = [1, 2) + (3",
            "if isinstance(x[name, str",
            "x = [" + "1, " * 200 + "1",
            7,
        ],
    )
