"""Every grader of chapter 2 passes right answers, whatever their style, and fails plausible wrong ones."""

import math

import torch
from helpers import assert_grader
from sparse_circuits.sparsity import keep_largest
from sparse_circuits.superposition import feature_dimensionality, planted_pentagon


def squares(W):
    return (W.T @ W) ** 2


def test_shares():
    assert_grader(
        "02.1",
        right=[
            lambda W: squares(W) / squares(W).sum(1, keepdim=True),
            lambda W: ((W / W.norm(dim=0)).T @ W).pow(2).div(((W / W.norm(dim=0)).T @ W).pow(2).sum(1, keepdim=True)),
            lambda W: torch.stack([row / row.sum() for row in squares(W)]),
        ],
        wrong=[
            lambda W: squares(W) / squares(W).sum(0, keepdim=True),
            lambda W: squares(W) / squares(W).sum(),
            lambda W: W.T @ W / (W.T @ W).sum(1, keepdim=True),
            lambda W: (W.T @ W).abs() / (W.T @ W).abs().sum(1, keepdim=True),
            lambda W: (W.T @ W / W.norm(dim=0)[:, None]) ** 2,
            lambda W: squares(W) / squares(W).fill_diagonal_(0).sum(1, keepdim=True),
            lambda W: squares(W.T) / squares(W.T).sum(1, keepdim=True),
            feature_dimensionality,
            lambda W: None,
        ],
    )


def layout(scale=1.0, pair=(1.0, -1.0), pentagon=None):
    W = torch.zeros(3, 7)
    W[:2, :5] = planted_pentagon() if pentagon is None else pentagon
    W[2, 5:] = torch.tensor(pair)
    return scale * W


def around(n):
    angles = torch.arange(n) * 2 * math.pi / n
    return torch.stack([angles.cos(), angles.sin()])


def test_layout():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    heptagon = torch.cat([around(7), torch.ones(1, 7)])
    assert_grader(
        "02.2",
        right=[
            layout(),
            layout(scale=3.0).tolist(),
            turn @ layout(),
            layout()[:, torch.randperm(7, generator=torch.Generator().manual_seed(0))],
            # Signs are invisible to D: the pair may point the same way.
            layout(pair=(1.0, 1.0)),
        ],
        wrong=[
            layout().T,
            layout(pair=(1.0, 0.0)),
            layout(pair=(1.0, -0.5)),
            heptagon,
            torch.eye(3, 7),
            torch.randn(3, 7, generator=torch.Generator().manual_seed(1)),
            layout(scale=math.nan),
            "a pentagon and a pair",
        ],
    )


def mended(W, k):
    magnitude = W.abs()
    return W * (magnitude >= magnitude.flatten(1).topk(k).values[:, -1, None, None])


def signed(W, k):
    return W * (W.flatten(1).topk(k).values[:, -1, None, None] <= W)


def in_place(W, k):
    W.copy_(mended(W, k))
    return W


def test_budget():
    assert_grader(
        "02.3",
        right=[
            mended,
            lambda W, k: keep_largest(W.flatten(1), k, dim=1).view_as(W),
            lambda W, k: torch.stack([keep_largest(model, k) for model in W]),
        ],
        wrong=[
            lambda W, k: W * (W.flatten().topk(k).values[-1] <= W),
            lambda W, k: W * (W.abs() >= W.abs().flatten().topk(k).values[-1]),
            lambda W, k: W * (W.abs() >= W.abs().flatten().topk(k * len(W)).values[-1]),
            signed,
            lambda W, k: mended(W.abs(), k),
            lambda W, k: mended(W, min(k + 1, 15)),
            lambda W, k: mended(W, k).flatten(1),
            lambda W, k: mended(W, k).sign(),
            in_place,
            lambda W, k: None,
        ],
    )


def test_confusing_input():
    assert_grader(
        "02.4",
        right=[[1, 1, 0, 0, 0], torch.tensor([1.0, 0.9, 0, 0, 0]), (0, 0, 0, 1, 1), [0, 1, 1, 0, 0]],
        wrong=[
            # Neighbours on the circle, as in the model of the chapter's opening.
            [1, 0, 0, 1, 0],
            [1, 0, 1, 0, 0],
            [0.5, 0.5, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 0, 0, 0, 0],
            [2, 2, 0, 0, 0],
            [1, 1, 0, 0],
            "the neighbours of 3",
        ],
    )


def test_cheap_weights():
    pairs = torch.zeros(3, 5)
    pairs[0, :2] = torch.tensor([1.0, -1.0])
    pairs[1, 2:4] = torch.tensor([1.0, -1.0])
    pairs[2, 4] = 1.0
    alike = pairs.abs()
    assert_grader(
        "02.5",
        right=[pairs, (1.01 * pairs).tolist(), pairs[:, [4, 0, 2, 1, 3]]],
        wrong=[
            planted_pentagon(1.13),
            torch.eye(5),
            pairs[:2],
            alike,
            torch.eye(3, 5),
            2 * pairs,
            pairs[:, :4],
            torch.zeros(3, 5),
            "pairs",
        ],
    )
