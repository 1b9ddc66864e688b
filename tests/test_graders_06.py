"""Every grader of chapter 6 passes right answers, whatever their style, and fails plausible wrong ones."""

from dataclasses import replace

import pytest
import torch
from helpers import assert_grader, widened
from sparse_circuits.graders import chapter_06
from sparse_circuits.grading import check_answer, exercises_of
from sparse_circuits.planted import planted_quote_circuit

QUOTES = planted_quote_circuit()


def correlations(activation, real, candidates):
    return {
        name: torch.corrcoef(torch.stack([activation[real], f[real]]))[0, 1].item() for name, f in candidates.items()
    }


def chosen(scores, least=0.5):
    best = max(scores, key=scores.get)
    return (best if scores[best] >= least else "unnamed"), scores[best]


def by_correlation(activation, real, candidates):
    return chosen({name: r**2 for name, r in correlations(activation, real, candidates).items()})


def by_regression(activation, real, candidates):
    shares = {}
    for name, feature in candidates.items():
        x = torch.stack([torch.ones(int(real.sum())), feature[real]], 1).double()
        y = activation[real].double()[:, None]
        left = y - x @ torch.linalg.lstsq(x, y).solution
        shares[name] = 1 - left.square().sum().item() / (y - y.mean()).square().sum().item()
    return chosen(shares)


def with_padding(activation, real, candidates):
    return by_correlation(activation, torch.ones_like(real), candidates)


def signed(activation, real, candidates):
    return chosen(correlations(activation, real, candidates))


def not_squared(activation, real, candidates):
    return chosen({name: abs(r) for name, r in correlations(activation, real, candidates).items()})


def by_covariance(activation, real, candidates):
    scores = {n: torch.cov(torch.stack([activation[real], f[real]]))[0, 1].abs().item() for n, f in candidates.items()}
    return chosen(scores, 0)


def always_named(activation, real, candidates):
    return chosen({name: r**2 for name, r in correlations(activation, real, candidates).items()}, 0)


def sorted_tokens(activation, tokens, real, k):
    order = activation[real].argsort(descending=True)
    return tokens[real][order[:k]].tolist()


def masked(activation, tokens, real, k):
    return tokens.flatten()[activation.masked_fill(~real, -torch.inf).flatten().topk(k).indices]


def as_given(activation, tokens, real, k):
    best, place = activation.max(1)
    rows = best.topk(min(k, len(best))).indices
    return [tokens[row, (place[row] + 1) % tokens.shape[1]].item() for row in rows]


def one_per_prompt(activation, tokens, real, k):
    best, place = activation.masked_fill(~real, -torch.inf).max(1)
    return [tokens[row, place[row]].item() for row in best.topk(min(k, len(best))).indices]


def one_later(activation, tokens, real, k):
    return masked(activation, tokens.roll(-1, 1), real, k).tolist()


def regardless_of_sign(activation, tokens, real, k):
    return masked(activation.abs(), tokens, real, k).tolist()


NESTED = "x = [[1" + ", 1" * 9


def spare(w_in=None, w_out=None, bias=0.0, layer=0):
    """The quote model with one more neuron in each layer; of one of them the weights are set, by channel."""
    model = widened(QUOTES.model, d_mlp=3)
    with torch.no_grad():
        mlp = model.blocks[layer].mlp
        for channel, value in (w_in or {}).items():
            mlp.W_in[channel, 2] = value
        for channel, value in (w_out or {}).items():
            mlp.W_out[2, channel] = value
        mlp.b_in[2] = bias
    return model


OPENERS = {0: 1.0, 1: 1.0}
TEXT = "name = '{}'\nx = [1]"

ANSWERS = {
    "06.1": (
        [by_correlation, by_regression],
        [with_padding, signed, not_squared, by_covariance, always_named, lambda a, r, c: "quote"],
    ),
    "06.2": (
        [sorted_tokens, masked],
        [
            as_given,
            one_per_prompt,
            one_later,
            regardless_of_sign,
            lambda a, t, r, k: masked(a, t, torch.ones_like(r), k).tolist(),
            lambda a, t, r, k: sorted_tokens(a, t, r, k)[::-1] if k > 1 else [],
            lambda a, t, r, k: None,
        ],
    ),
    "06.3": (
        [(22, NESTED), [22, "x = [1, 2, [1" + ", 3" * 7]],
        [
            (20, NESTED),
            (24, NESTED),
            (32, NESTED),
            (22, "x = [[1" + ", 1" * 8),
            (22, "x = [1" + ", 1" * 10),
            (22, "y = [[1"),
            22,
            ("22", NESTED),
        ],
    ),
    "06.4": (
        [spare({0: 0.02, 1: 0.02}, {0: 0.5}), spare({0: 0.02, 1: 0.02}, {0: 0.3, 1: -0.4})],
        [
            spare(),
            spare({0: 0.05, 1: 0.05}, {0: 0.1}),
            spare({0: 1.0}, {0: 0.5}),
            spare(OPENERS, {0: 0.5}),
            spare(OPENERS, {10: 2.0}),
            spare(OPENERS, {9: -0.5}),
            spare(OPENERS, {2: 8.0}),
            spare(OPENERS, {2: 0.5}, bias=1.0, layer=1),
            spare({7: 1.0}, {2: 0.5}),
            QUOTES.model,
        ],
    ),
}


@pytest.mark.parametrize("exercise", ANSWERS)
def test_grader(exercise):
    assert_grader(exercise, *ANSWERS[exercise])


def test_every_exercise_is_tested():
    assert set(exercises_of("06")) == {*ANSWERS, "06.5"}


class Counting(torch.nn.Module):
    """Closes again where the program holds more of one bracket than of the other, whoever reads them."""

    def __init__(self, tokenizer, most=0):
        super().__init__()
        self.tokenizer, self.most = tokenizer, most
        self.cfg = replace(QUOTES.model.cfg, n_ctx=64)

    def forward(self, tokens):
        opened, closed = (int((tokens == self.tokenizer.id(bracket)).sum()) for bracket in "[]")
        logits = torch.zeros(*tokens.shape, 2048)
        logits[..., self.tokenizer.id("]")] = float(opened - closed - self.most) - 0.5
        return logits


@pytest.fixture
def counting(monkeypatch):
    """Stand in for the shipped models, with models of which the right answers are known."""
    tokenizer = chapter_06.load_tokenizer()
    most = dict(zip(chapter_06.FOOLED, (0, 1, 3), strict=True))
    monkeypatch.setattr(chapter_06, "load_model", lambda name: Counting(tokenizer, most[name]))


def test_grader_of_caused_failures(counting):
    two = TEXT.format("[[")
    right = [two, "a = '[b[c['\nx = [1]", "# [ [\nx = [[1], [2]]", "def f():\n    '[[['\n    return [3]"]
    wrong = [
        TEXT.format("["),
        TEXT.format("((("),
        TEXT.format("]]"),
        "x = [[[1]",
        "x = [1]",
        TEXT.format("[[") + "\n",
        "name = '[['\nx = [[1]",
        "name = '" + "[ sun " * 30 + "'\nx = [1]",
        7,
    ]
    assert_grader("06.5", right, wrong)
    assert "none without your brackets" in check_answer("06.5", two).note
