"""The two-way task loss and the metrics of circuits against their definitions, computed term by term in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.metrics import (
    kl_divergence,
    logit_difference,
    match_with_label,
    match_with_model,
    two_way_task_loss,
)


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


def kl_by_loops(model_row: list[float], circuit_row: list[float]) -> float:
    def log_probabilities(row):
        largest = max(row)
        log_total = largest + math.log(math.fsum(math.exp(x - largest) for x in row))
        return [x - log_total for x in row]

    p, q = log_probabilities(model_row), log_probabilities(circuit_row)
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(0.01, 20))
def test_kl_is_the_sum_over_the_vocabulary_of_p_log_p_over_q_for_each_prompt(seed, n, scale):
    of_model, of_circuit, _, _ = batch(seed, n=n, scale=scale)
    found = kl_divergence(of_model, of_circuit)
    assert found.shape == (n,)
    for row in range(n):
        expected = kl_by_loops(of_model[row].tolist(), of_circuit[row].tolist())
        assert found[row].item() == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert found[row].item() >= -1e-12


def test_kl_has_a_direction_and_its_known_values():
    half, skewed = torch.tensor([[0.5, 0.5]]).log().double(), torch.tensor([[0.75, 0.25]]).double().log()
    assert kl_divergence(half, skewed).item() == pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert kl_divergence(skewed, half).item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_kl_of_equal_logits_is_zero_and_a_shift_of_all_logits_does_not_count():
    of_model, of_circuit, _, _ = batch(7)
    assert torch.equal(kl_divergence(of_model, of_model), torch.zeros(5, dtype=torch.float64))
    shifted = kl_divergence(of_model + 100, of_circuit - 50)
    assert shifted.tolist() == pytest.approx(kl_divergence(of_model, of_circuit).tolist(), rel=1e-9, abs=1e-11)


def test_kl_does_not_divide_by_the_size_of_the_vocabulary():
    sure, unsure = torch.zeros(1, 1000).double(), torch.zeros(1, 1000).double()
    sure[0, 3] = 1000.0
    assert kl_divergence(sure, unsure).item() == pytest.approx(math.log(1000), rel=1e-9)


def test_kl_stays_finite_at_large_logits():
    large = torch.tensor([[1e4, 0.0, -1e4]])
    assert kl_divergence(large, -large).item() == pytest.approx(2e4, rel=1e-6)
    assert kl_divergence(large, large).item() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_logit_difference_is_right_minus_wrong_prompt_by_prompt(seed, n):
    logits, _, right, wrong = batch(seed, n=n)
    found = logit_difference(logits, right, wrong)
    assert found.tolist() == [(logits[i, right[i]] - logits[i, wrong[i]]).item() for i in range(n)]
    assert torch.equal(logit_difference(logits, wrong, right), -found)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_matches_are_shares_of_prompts_with_the_same_first_choice(seed, n):
    logits, of_model, label, _ = batch(seed, n=n, d_vocab=3)

    def first_choice(row):
        return max(range(len(row)), key=lambda token: row[token])

    chosen = [first_choice(row) for row in logits.tolist()]
    with_model = sum(a == first_choice(b) for a, b in zip(chosen, of_model.tolist(), strict=True)) / n
    with_label = sum(a == b for a, b in zip(chosen, label.tolist(), strict=True)) / n
    assert match_with_model(logits, of_model) == pytest.approx(with_model, abs=1e-15)
    assert match_with_label(logits, label) == pytest.approx(with_label, abs=1e-15)
    assert isinstance(match_with_model(logits, of_model), float)
    assert isinstance(match_with_label(logits, label), float)


def test_a_faithful_copy_of_a_wrong_model_matches_the_model_and_not_the_label():
    logits = torch.eye(4)
    assert match_with_model(logits, 3 * logits) == 1.0
    assert match_with_label(logits, torch.tensor([1, 2, 3, 0])) == 0.0
    assert match_with_label(logits, torch.tensor([0, 1, 3, 2])) == 0.5


def test_kl_and_logit_difference_have_the_gradient_of_central_differences():
    logits, other, right, wrong = batch(5, n=2, d_vocab=4)
    for metric in (
        lambda x: kl_divergence(other, x).sum(),
        lambda x: kl_divergence(x, other).sum(),
        lambda x: logit_difference(x, right, wrong).square().sum(),
    ):
        assert torch.autograd.gradcheck(metric, logits.clone().requires_grad_())


def test_bad_input_of_the_circuit_metrics_is_refused():
    logits, other, right, wrong = batch(0)
    refused = {
        "kl of other shapes": lambda: kl_divergence(logits, other[:, :-1]),
        "kl of all positions and of one": lambda: kl_divergence(logits[:, None], other),
        "kl of another batch": lambda: kl_divergence(logits, other[:1]),
        "kl of no prompts": lambda: kl_divergence(logits[:0], other[:0]),
        "right of another length": lambda: logit_difference(logits, right[:-1], wrong),
        "wrong of another length": lambda: logit_difference(logits, right, wrong[:1]),
        "right as numbers": lambda: logit_difference(logits, right.double(), wrong),
        "a token outside the vocabulary": lambda: logit_difference(logits, right + 11, wrong),
        "a negative token": lambda: logit_difference(logits, right - 11, wrong),
        "all positions": lambda: logit_difference(logits[:, None], right, wrong),
        "match of other shapes": lambda: match_with_model(logits, other[:, :-1]),
        "match with another batch": lambda: match_with_model(logits, other[:1]),
        "label of another length": lambda: match_with_label(logits, right[:1]),
        "label outside the vocabulary": lambda: match_with_label(logits, right + 11),
        "no prompts": lambda: match_with_label(logits[:0], right[:0]),
        "no prompts of the model": lambda: match_with_model(logits[:0], logits[:0]),
        "not a number to compare": lambda: match_with_model(logits * math.nan, other),
        "not a number to label": lambda: match_with_label(logits * math.nan, right),
    }
    for name, call in refused.items():
        try:
            call()
        except (ValueError, TypeError) as error:
            assert "; give" in str(error), f"{name}: no remedy in: {error}"
        else:
            pytest.fail(f"{name} is accepted")


def test_kl_keeps_all_positions_apart():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    found = kl_divergence(a, b)
    assert found.shape == (2, 3)
    assert torch.equal(found[1], kl_divergence(a[1], b[1]))
