"""Every grader of chapter 4 passes right answers, whatever their style, and fails plausible wrong ones."""

import math

import torch
from helpers import assert_grader
from sparse_circuits.graders.chapter_04 import by_rank
from sparse_circuits.sparsity import keep_largest, largest_mask


def project(weight, kept):
    with torch.no_grad():
        weight.copy_(kept)


def right_step(optimizer, weight, k):
    optimizer.step()
    project(weight, keep_largest(weight, k))


def by_sorting(optimizer, weight, k):
    optimizer.step()
    order = weight.detach().abs().flatten().sort(descending=True, stable=True).indices
    weight.data.view(-1)[order[k:]] = 0


def by_mask(optimizer, weight, k):
    optimizer.step()
    weight.data *= largest_mask(weight, k)


def projection_first(optimizer, weight, k):
    project(weight, keep_largest(weight, k))
    optimizer.step()


def ties_by_threshold(optimizer, weight, k):
    optimizer.step()
    threshold = weight.detach().abs().flatten().topk(k).values[-1]
    weight.data *= weight.detach().abs() >= threshold


def per_row(optimizer, weight, k):
    optimizer.step()
    project(weight, keep_largest(weight, math.ceil(k / len(weight)), dim=-1))


def signed(optimizer, weight, k):
    optimizer.step()
    order = weight.detach().flatten().sort(descending=True, stable=True).indices
    weight.data.view(-1)[order[k:]] = 0


def gradients_too(optimizer, weight, k):
    weight.grad *= weight.detach() != 0
    right_step(optimizer, weight, k)


def gradients_after(optimizer, weight, k):
    right_step(optimizer, weight, k)
    weight.grad *= weight.detach() != 0


def clears_gradients(optimizer, weight, k):
    right_step(optimizer, weight, k)
    optimizer.zero_grad()


def moments_too(optimizer, weight, k):
    right_step(optimizer, weight, k)
    for moment in ("exp_avg", "exp_avg_sq"):
        if moment in optimizer.state[weight]:
            optimizer.state[weight][moment] *= weight.detach() != 0


def for_ever(optimizer, weight, k):
    dead = weight.detach() == 0
    optimizer.step()
    weight.data[dead] = 0
    if not dead.any():
        project(weight, keep_largest(weight, k))


def new_tensor(optimizer, weight, k):
    optimizer.step()
    weight.data = keep_largest(weight.detach(), k)


def no_step(optimizer, weight, k):
    project(weight, keep_largest(weight, k))


def gradient_decides(optimizer, weight, k):
    optimizer.step()
    score = weight.detach().abs() + weight.grad.abs()
    weight.data *= by_rank(score, k)


def test_sparse_step():
    assert_grader(
        "04.1",
        right=[right_step, by_sorting, by_mask],
        wrong=[
            projection_first,
            ties_by_threshold,
            per_row,
            signed,
            gradients_too,
            gradients_after,
            clears_gradients,
            moments_too,
            for_ever,
            new_tensor,
            no_step,
            gradient_decides,
            lambda optimizer, weight, k: optimizer.step(),
        ],
    )


def test_smallest_budget():
    assert_grader(
        "04.2",
        right=[lambda expansion, floor, narrow: floor * expansion / narrow],
        wrong=[
            lambda expansion, floor, narrow: floor / (narrow * expansion),
            lambda expansion, floor, narrow: floor / narrow,
            lambda expansion, floor, narrow: floor * expansion**2 / narrow,
            lambda expansion, floor, narrow: floor * expansion,
            lambda expansion, floor, narrow: 4 * floor * expansion / narrow,
            lambda expansion, floor, narrow: 0.0,
            lambda expansion, floor, narrow: None,
        ],
    )


def training(eps=0.1, rate=0.1, steps=400, limit=None, kept_at_end=None, anneal=2.0, start=0.0):
    """Return a training function such as a reader might hand in; `limit` treats the gradient before the step."""

    def train(X, y, k):
        w = torch.full((X.shape[1],), start, dtype=X.dtype, requires_grad=True)
        optimizer = torch.optim.Adam([w], lr=rate, betas=(0.9, 0.95), eps=eps)
        for step in range(steps):
            progress = min(1.0, anneal * (step + 1) / steps)
            kept = round(len(w) - (len(w) - (kept_at_end or k)) * progress)
            optimizer.param_groups[0]["lr"] = rate * (k / kept) ** 0.5 * (1 - step / steps)
            optimizer.zero_grad()
            (X @ w - y).square().mean().backward()
            if limit:
                limit(w.grad)
            optimizer.step()
            project(w, keep_largest(w, kept))
        return w.detach()

    return train


def normalised(gradient):
    gradient /= gradient.square().mean().sqrt() + 1e-5


def test_mended_training():
    assert_grader(
        "04.3",
        right=[
            training(limit=normalised),
            training(limit=lambda gradient: gradient.div_(gradient.norm() / len(gradient) ** 0.5)),
            training(eps=1e-8),
        ],
        wrong=[
            training(),
            training(eps=1e-3),
            training(rate=1.0),
            training(rate=10.0),
            training(steps=1000),
            training(limit=lambda gradient: gradient.div_(gradient.norm().clamp_min(1.0))),
            training(start=0.5),
            training(limit=normalised, kept_at_end=12),
            lambda X, y, k: torch.linalg.lstsq(X, y[:, None]).solution[:, 0],
            lambda X, y, k: None,
        ],
    )


def in_units(units, share=0.1, columns=4):
    """Return a problem in which two columns matter, and two that hardly matter have the larger weights."""
    X = torch.randn(60, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = torch.linalg.qr(X).Q
    y = X[:, 0] + X[:, 1] + share * (X[:, 2] + X[:, 3])
    return X * torch.tensor([units, units] + [1.0] * (columns - 2)), y


def test_trap():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    assert_grader(
        "04.4",
        right=[in_units(30), in_units(100, columns=6), [part.tolist() for part in in_units(30)]],
        wrong=[
            in_units(1),
            in_units(30, share=1.0),
            in_units(1 / 30),
            in_units(30, columns=9),
            (X, X @ torch.tensor([1.0, -1.0, 0, 0, 0, 0], dtype=torch.float64)),
            (X, torch.randn(60, generator=generator)),
            (X, torch.zeros(60)),
            (X.T, X[:, 0]),
            X,
            "a trap",
        ],
    )
