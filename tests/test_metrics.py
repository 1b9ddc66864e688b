"""The two-way task loss against its definition, computed term by term in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.metrics import two_way_task_loss


def batch(seed: int, n: int = 5, d_vocab: int = 11, scale: float = 3.0):
    generator = torch.Generator().manual_seed(seed)
    positive, negative = (scale * torch.randn(n, d_vocab, generator=generator, dtype=torch.float64) for _ in range(2))
    first = torch.randint(d_vocab, (n,), generator=generator)
    second = (first + torch.randint(1, d_vocab, (n,), generator=generator)) % d_vocab
    return positive, negative, first, second


def brute_force(positive, negative, first, second) -> float:
    total = 0.0
    for row in range(len(positive)):
        a, b = first[row].item(), second[row].item()
        for logits, right, wrong in ((positive[row], a, b), (negative[row], b, a)):
            right_weight, wrong_weight = math.exp(logits[right].item()), math.exp(logits[wrong].item())
            total -= math.log(right_weight / (right_weight + wrong_weight))
    return total / (2 * len(positive))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0.01, 20))
def test_it_is_the_mean_over_all_prompts_of_the_two_way_cross_entropy(seed, n, scale):
    arguments = batch(seed, n=n, scale=scale)
    assert two_way_task_loss(*arguments).item() == pytest.approx(brute_force(*arguments), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_give_exactly_ln_2(dtype):
    _, _, first, second = batch(0)
    logits = torch.full((5, 11), 1.5, dtype=dtype)
    assert two_way_task_loss(logits, logits, first, second).item() == torch.tensor(math.log(2), dtype=dtype).item()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_the_other_logits_do_not_matter(seed):
    positive, negative, first, second = batch(seed)
    loss = two_way_task_loss(positive, negative, first, second)
    others = torch.ones_like(positive)
    others[torch.arange(5), first] = 0
    others[torch.arange(5), second] = 0
    noise = torch.randn_like(positive) * 100 * others
    assert torch.equal(two_way_task_loss(positive + noise, negative - noise, first, second), loss)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_exchanging_positive_and_negative_changes_nothing(seed):
    positive, negative, first, second = batch(seed)
    exchanged = two_way_task_loss(negative, positive, second, first)
    assert exchanged.item() == pytest.approx(two_way_task_loss(positive, negative, first, second).item(), rel=1e-12)


def test_a_model_that_ignores_the_cue_is_at_chance_or_worse():
    positive, _, first, second = batch(3)
    assert two_way_task_loss(positive, positive, first, second).item() >= math.log(2)


def test_certainty_costs_nothing_and_does_not_overflow():
    logits = torch.zeros(1, 4)
    sure = logits.clone()
    sure[0, 1] = 1e4
    first, second = torch.tensor([1]), torch.tensor([2])
    assert two_way_task_loss(sure, -sure, first, second).item() == 0
    assert two_way_task_loss(-sure, sure, first, second).item() == pytest.approx(1e4)


def test_logits_at_all_positions_are_read_at_the_answer_position():
    generator = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(5, 7, 11, generator=generator) for _ in range(2))
    _, _, first, second = batch(1)
    position = torch.tensor([6, 0, 3, 2, 5])
    picked = [torch.stack([logits[row, position[row]] for row in range(5)]) for logits in (positive, negative)]
    expected = two_way_task_loss(*picked, first, second)
    assert torch.equal(two_way_task_loss(positive, negative, first, second, position), expected)


def test_the_gradient_is_that_of_central_differences():
    positive, negative, first, second = batch(2, n=2, d_vocab=4)
    positive.requires_grad_()
    two_way_task_loss(positive, negative, first, second).backward()
    step = 1e-6
    for index in range(positive.numel()):
        shift = torch.zeros(8, dtype=torch.float64)
        shift[index] = step
        above, below = (
            two_way_task_loss(positive.detach() + sign * shift.view(2, 4), negative, first, second) for sign in (1, -1)
        )
        assert positive.grad.flatten()[index].item() == pytest.approx(
            (above - below).item() / (2 * step), rel=1e-6, abs=1e-9
        )


def test_bad_input_is_refused():
    positive, negative, first, second = batch(0)
    with pytest.raises(ValueError, match="same length"):
        two_way_task_loss(positive, negative[:, :-1], first, second)
    with pytest.raises(ValueError, match="position is missing"):
        two_way_task_loss(positive[:, None], negative[:, None], first, second)
    with pytest.raises(ValueError, match="position is given"):
        two_way_task_loss(positive, negative, first, second, first)
    with pytest.raises(ValueError, match="answer_negative has shape"):
        two_way_task_loss(positive, negative, first, second[:-1])
    with pytest.raises(ValueError, match="position has shape"):
        two_way_task_loss(positive[:, None], negative[:, None], first, second, first[:2])
