"""Every grader of chapter 15 passes right answers, whatever their style, and fails plausible wrong ones."""

import torch
from helpers import assert_grader
from sparse_circuits.graders.chapter_15 import by_rank
from sparse_circuits.sparsity import Pattern, pattern_mask


def by_library(x, n, m):
    return x * pattern_mask(x, Pattern(n, m))


def by_topk(x, n, m):
    groups = x.reshape(-1, m)
    order = groups.abs().sort(dim=1, descending=True, stable=True).indices[:, :n]
    return (groups * torch.zeros_like(groups).scatter(1, order, 1.0)).view_as(x)


def by_lists(x, n, m):
    return torch.tensor([by_rank(row, n, m) for row in x.tolist()])


def whole_row(x, n, m):
    k = x.shape[1] * n // m
    kept = x.abs().topk(k).indices
    return x * torch.zeros_like(x).scatter(1, kept, 1.0)


def signed(x, n, m):
    groups = x.reshape(-1, m)
    return (groups * torch.zeros_like(groups).scatter(1, groups.topk(n).indices, 1.0)).view_as(x)


def by_threshold(x, n, m):
    groups = x.reshape(-1, m)
    threshold = groups.abs().topk(n).values[:, -1:]
    return (groups * (groups.abs() >= threshold)).view_as(x)


def not_consecutive(x, n, m):
    groups = x.unflatten(1, (m, -1))
    order = groups.abs().sort(dim=1, descending=True, stable=True).indices[:, :n]
    return (groups * torch.zeros_like(groups).scatter(1, order, 1.0)).flatten(1)


def drops_the_large(x, n, m):
    return x - by_topk(x, m - n, m) if n < m else torch.zeros_like(x)


def in_place(x, n, m):
    x.mul_(pattern_mask(x, Pattern(n, m)))
    return x


def test_grader_1():
    wrong = [whole_row, signed, by_threshold, not_consecutive, drops_the_large, in_place, lambda x, n, m: None]
    assert_grader("15.1", right=[by_library, by_topk, by_lists], wrong=wrong)


def cheap(x, weight):
    shift = x.mean(-1, keepdim=True)
    kept = by_library(x - shift, 2, 4)
    return kept, kept @ weight + shift * weight.sum(0)


def cheap_by_ones(x, weight):
    shift = x.mean(-1)
    kept = by_topk(x - shift[:, None], 2, 4)
    return [kept, kept @ weight + torch.outer(shift, torch.ones(len(weight)) @ weight)]


def put_back_first(x, weight):
    shift = x.mean(-1, keepdim=True)
    whole = by_library(x - shift, 2, 4) + shift
    return whole, whole @ weight


def forgotten(x, weight):
    kept = by_library(x - x.mean(-1, keepdim=True), 2, 4)
    return kept, kept @ weight


def added_once(x, weight):
    kept, y = forgotten(x, weight)
    return kept, y + x.mean(-1, keepdim=True)


def one_mean_for_all(x, weight):
    kept = by_library(x - x.mean(), 2, 4)
    return kept, kept @ weight + x.mean() * weight.sum(0)


def summed_over_outputs(x, weight):
    kept, y = forgotten(x, weight)
    return kept, y + x.mean(-1, keepdim=True) * weight.sum(1).mean()


def test_grader_2():
    wrong = [put_back_first, forgotten, added_once, one_mean_for_all, summed_over_outputs, lambda x, w: x @ w]
    assert_grader("15.2", right=[cheap, cheap_by_ones], wrong=wrong)


def mended(x, kept):
    return kept * (x.var(-1, keepdim=True) / kept.var(-1, keepdim=True).clamp_min(1e-9)).sqrt()


def mended_by_std(x, kept):
    return kept * x.std(-1, keepdim=True) / (kept.std(-1, keepdim=True) + 1e-12)


def over_the_batch(x, kept):
    return kept * (x.var() / kept.var().clamp_min(1e-9)).sqrt()


def upside_down(x, kept):
    return kept * (kept.var(-1, keepdim=True) / x.var(-1, keepdim=True).clamp_min(1e-9)).sqrt()


def without_root(x, kept):
    return kept * x.var(-1, keepdim=True) / kept.var(-1, keepdim=True).clamp_min(1e-9)


def energy_instead(x, kept):
    return kept * x.norm(dim=-1, keepdim=True) / kept.norm(dim=-1, keepdim=True)


def no_floor(x, kept):
    return kept * (x.var(-1, keepdim=True) / kept.var(-1, keepdim=True)).sqrt()


def changes_what_it_is_judged_by(x, kept):
    x.copy_(kept)
    return kept


def test_grader_3():
    wrong = [
        changes_what_it_is_judged_by,
        over_the_batch,
        upside_down,
        without_root,
        energy_instead,
        no_floor,
        lambda x, kept: -mended(x, kept),
    ]
    assert_grader("15.3", right=[mended, mended_by_std], wrong=wrong)


def test_grader_4():
    right = [[1.0] * 8 + [0.0] * 8, [-3.0, 3, 3, 3] * 2 + [0.01] * 8, torch.tensor([0.0] * 4 + [1.0] * 8 + [0.0] * 4)]
    wrong = [
        [1.0, 1.0, 0.0, 0.0] * 4,  # what 2:4 is made for
        [1.0] * 16,  # unstructured loses half, too
        [1.0] * 3 + [0.0] * 13,  # too few large ones: 2:4 keeps two thirds
        [0.0] * 16,
        [1.0] * 8,
        "large",
    ]
    assert_grader("15.4", right=right, wrong=wrong)


def leak(large):
    x = torch.ones(2, 8)
    x[0, :4] = torch.tensor([1.0, 1.1, 1.2, 1.3])
    x[1, large] = 50.0
    return x


def test_grader_5():
    other_first = leak(0)
    other_first[0, 0] = 2.0
    wrong = [
        (leak(0), leak(0)),
        (leak(0), other_first),
        (torch.ones(2, 8), 3 * torch.ones(2, 8)),
        (torch.cat([torch.ones(1, 8), torch.ones(1, 8)]), torch.cat([torch.ones(1, 8), 5 * torch.ones(1, 8)])),
        leak(0),
        (leak(0)[:1], leak(1)[:1]),
    ]
    assert_grader("15.5", right=[(leak(0), leak(3)), [leak(1).double(), leak(2).double()]], wrong=wrong)
