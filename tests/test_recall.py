"""Key-value recall: what the language promises, asked of its sequences one token at a time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from sparse_circuits.tasks.chain import CHANCES, START
from sparse_circuits.tasks.recall import KeyValueRecall

TASK = KeyValueRecall(n_keys=5, n_values=4, n_filler=6, share=0.4)


def spelled_chances(row: list[int]) -> tuple[list[float], list[bool]]:
    """Return log chance and whether it is recalled, for each token after the first, from the rules of the language."""
    words, stated, chances, recalled = TASK.vocabulary, {}, [], []
    for last, token in pairwise(row):
        was, now = words[last], words[token]
        repeats = was.startswith("k") and was in stated
        recalled.append(repeats)
        if was.startswith("k"):
            assert now.startswith("v")
            assert stated.setdefault(was, now) == now
            chances.append(0.0 if repeats else math.log(1 / 4))
        elif now.startswith("k"):
            chances.append(math.log(0.4 / 5))
        elif was.startswith("w"):
            successors = TASK.chain.successors[int(was[1:])].tolist()
            chances.append(math.log(0.6 * CHANCES[successors.index(int(now[1:]))]))
        else:
            chances.append(math.log(0.6 / 6))
    return chances, recalled


def test_each_token_has_the_chance_that_the_rules_give_it():
    drawn = TASK.draw(20, 40, seed=3)
    assert (drawn.tokens[:, 0] == START).all()
    for row, log_chances, recalled in zip(drawn.tokens, drawn.log_chances, drawn.answers["recall"], strict=True):
        expected, repeats = spelled_chances(row.tolist())
        torch.testing.assert_close(log_chances, torch.tensor(expected))
        assert recalled.tolist() == [False, *repeats]
    assert drawn.answers["recall"].any()
    assert drawn.floor == pytest.approx(-drawn.log_chances.sum().item() / (20 * 39), rel=1e-5)


def test_words_come_as_often_as_their_chances_say():
    drawn = TASK.draw(400, 60, seed=0)
    last, token = drawn.tokens[:, :-1].flatten(), drawn.tokens[:, 1:].flatten()
    first_filler = 1 + TASK.n_keys + TASK.n_values
    after_value = (last > TASK.n_keys) & (last < first_filler)
    is_key = (token[after_value] > START) & (token[after_value] <= TASK.n_keys)
    assert is_key.float().mean().item() == pytest.approx(0.4, abs=0.03)
    after_filler = (last >= first_filler) & (token >= first_filler)
    likeliest = TASK.chain.successors[last[after_filler] - first_filler, 0] == token[after_filler] - first_filler
    assert likeliest.float().mean().item() == pytest.approx(CHANCES[0], abs=0.03)


def test_the_same_seed_draws_the_same_sequences():
    one, again, other = (TASK.draw(3, 20, seed).tokens for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_questions_ask_for_one_of_two_pairs_in_the_same_text():
    pairs = TASK.questions(50, seed=1, stated=5)
    prompts, words = pairs.clean, TASK.vocabulary
    assert len(pairs) == 100
    for i, row in enumerate(prompts.tokens.tolist()):
        spelled_chances([*row, prompts.right[i].item()])
        text = [words[token] for token in row]
        assert [word[0] for word in text] == ["<", *"kvww" * 5, "k"]
        assert len({*text[1:-1:4]}) == 5
        place = text.index(text[-1])
        assert place == 1 + 4 * (1 if i % 2 == 0 else 3)
        assert prompts.position[i] == len(row) - 1
        assert words[prompts.right[i]] == text[place + 1] != words[prompts.wrong[i]]
        assert pairs.corrupted[i].tolist() == prompts.tokens[i ^ 1].tolist()
        assert prompts.wrong[i] == prompts.right[i ^ 1]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: KeyValueRecall(n_keys=1), r"n_keys is 1; give at least 2"),
        (lambda: KeyValueRecall(n_filler=3), r"There are 3 filler words; give at least 4"),
        (lambda: KeyValueRecall(share=1.0), r"share is 1\.0; give a chance between"),
        (lambda: TASK.draw(0, 5, 0), r"0 sequences of 5 tokens were asked for; give"),
        (lambda: TASK.draw(1, 1, 0), r"1 sequences of 1 tokens were asked for; give"),
        (lambda: TASK.questions(1, 0, stated=6), r"6 pairs cannot be stated; give 4 to 5"),
    ],
)
def test_bad_input_is_named(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
