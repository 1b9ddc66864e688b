"""The mixed language: its chances against its rules, spelled out once more as the distribution after a prefix."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from sparse_circuits.tasks.chain import CHANCES
from sparse_circuits.tasks.mixed import SHARES, TASKS, MixedLanguage
from sparse_circuits.tasks.mixed_questions import mixed_questions

LANGUAGE = MixedLanguage()
WORDS = LANGUAGE.vocabulary
SENTENCE = ("and", "went", "gave")


def named(kind: str, numbers) -> list[str]:
    return [f"{kind}{i}" for i in numbers]


def uniformly(words: list[str], share: float = 1.0) -> dict[str, float]:
    return {word: share / len(words) for word in words}


def open_item(text: list[str]) -> list[str]:
    """Return the words of the last item that has begun, empty if it is at its end."""
    item: list[str] = []
    for word in text[1:]:
        item = [*item, word]
        kind = item[0][0] if item[0] != "from" else "from"
        ended = {
            "w": True,
            "k": len(item) == 2,
            "l": len(item) == 2 * len(set(item)),
            "n": len(item) == 7,
            "from": len(item) == 4,
        }[kind]
        item = [] if ended else item
    return item


def distribution(text: list[str]) -> dict[str, float]:
    """Return the chance of each word after a prefix."""
    item = open_item(text)
    if not item:
        last = text[-1]
        if last.startswith("w") and last != "went":
            successors = named("w", LANGUAGE.chain.successors[int(last[1:])].tolist())
            filler = {w: SHARES["filler"] * c for w, c in zip(successors, CHANCES, strict=True)}
        else:
            filler = uniformly(named("w", range(32)), SHARES["filler"])
        return {
            **filler,
            **uniformly(named("k", range(8)), SHARES["recall"]),
            **uniformly(named("l", range(24)), SHARES["induction"]),
            **uniformly(named("n", range(16)), SHARES["names"]),
            "from": SHARES["years"],
        }
    start = item[0]
    if start.startswith("k"):
        before = [text[i + 1] for i, word in enumerate(text[:-1]) if word == start]
        return {before[0]: 1.0} if before else uniformly(named("v", range(16)))
    if start.startswith("l"):
        letters = list(dict.fromkeys(item))
        if len(item) > len(letters):
            return {letters[len(item) - len(letters)]: 1.0}
        fresh = [word for word in named("l", range(24)) if word not in letters]
        stops = {4: 1 / 3, 5: 1 / 2, 6: 1.0}.get(len(letters), 0.0)
        return {**(uniformly(fresh, 1 - stops) if stops < 1 else {}), **({start: stops} if stops else {})}
    if start == "from":
        if len(item) == 1:
            return uniformly(named("y", range(1, 99)))
        return {"to": 1.0} if len(item) == 2 else uniformly(named("y", range(int(item[1][1:]) + 1, 100)))
    if len(item) in (1, 3, 5):
        return {SENTENCE[len(item) // 2]: 1.0}
    if len(item) == 2:
        return uniformly([word for word in named("n", range(16)) if word != start])
    one, other = item[0], item[2]
    return uniformly([one, other]) if len(item) == 4 else {other if item[4] == one else one: 1.0}


def test_each_token_has_the_chance_that_the_rules_give_it():
    drawn = LANGUAGE.draw(12, 129, seed=5)
    for row, log_chances in zip(drawn.tokens.tolist(), drawn.log_chances.tolist(), strict=True):
        text = [WORDS[token] for token in row]
        for i, log_chance in enumerate(log_chances):
            after = distribution(text[: i + 1])
            assert sum(after.values()) == pytest.approx(1)
            assert log_chance == pytest.approx(math.log(after[text[i + 1]]), abs=1e-5)
    assert drawn.floor == pytest.approx(-drawn.log_chances.mean().item())


def test_answers_are_marked_where_only_the_task_can_know_them():
    drawn = LANGUAGE.draw(50, 129, seed=0)
    certain = torch.cat([torch.zeros(50, 1), drawn.log_chances], dim=1) == 0
    kinds = {"recall": "v", "induction": "l", "names": "n", "years": "y"}
    for task in TASKS:
        marked = drawn.answers[task]
        assert marked.any()
        assert {WORDS[token][0] for token in drawn.tokens[marked].tolist()} == {kinds[task]}
        assert certain[marked].all() or task == "years"
    assert not (drawn.answers["names"] & drawn.answers["recall"]).any()


def test_items_come_as_often_as_their_shares_say():
    rows = LANGUAGE.draw(200, 129, seed=1).tokens.tolist()
    started = Counter()
    for row in rows:
        text = [WORDS[token] for token in row]
        started.update(text[i + 1] for i in range(len(text) - 1) if not open_item(text[: i + 1]))
    kinds = Counter({kind: sum(n for word, n in started.items() if word[0] == kind) for kind in "wklnf"})
    total = kinds.total()
    for kind, share in zip("wklnf", SHARES.values(), strict=True):
        assert kinds[kind] / total == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_questions_of_a_task_have_the_answer_that_the_rules_give(task):
    pairs = mixed_questions(task, 20, seed=3)
    rows = pairs.clean.tokens.tolist()
    assert len(rows) == 40
    shapes = {tuple(WORDS[token][0] for token in row) for row in rows}
    assert len(shapes) == 1
    for i, row in enumerate(rows):
        after = distribution([WORDS[token] for token in row])
        right, wrong = WORDS[pairs.clean.right[i]], WORDS[pairs.clean.wrong[i]]
        assert after.get(right, 0) > 0
        assert after.get(wrong, 0) == 0
        assert pairs.corrupted[i].tolist() == rows[i ^ 1] != row
        assert pairs.clean.position[i] == len(row) - 1


@pytest.mark.parametrize("lead", [0, 1, 8, 40])
def test_the_lead_moves_the_question_and_changes_nothing_in_it(lead):
    shorter, longer = (mixed_questions("names", 5, seed=3, lead=n).clean for n in (lead, lead + 2))
    assert longer.tokens.shape[1] == shorter.tokens.shape[1] + 2 == lead + 9
    assert torch.equal(shorter.tokens[:, lead + 1 :], longer.tokens[:, lead + 3 :])
    assert {WORDS[token][0] for token in shorter.tokens[:, 1 : lead + 1].flatten().tolist()} == (
        {"w"} if lead else set()
    )


def test_the_same_seed_draws_the_same():
    assert torch.equal(LANGUAGE.draw(2, 40, 7).tokens, LANGUAGE.draw(2, 40, 7).tokens)
    assert not torch.equal(LANGUAGE.draw(2, 40, 7).tokens, LANGUAGE.draw(2, 40, 8).tokens)
    one, again = (mixed_questions("names", 3, 1).clean.tokens for _ in range(2))
    assert torch.equal(one, again)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: LANGUAGE.draw(0, 5, 0), r"0 sequences of 5 tokens were asked for; give"),
        (
            lambda: mixed_questions("brackets", 1, 0),
            r"There is no task 'brackets' in the mixed language; choose",
        ),
        (lambda: mixed_questions("names", 0, 0), r"0 couples were asked for; give 1 or more"),
        (lambda: mixed_questions("names", 1, 0, lead=-1), r"lead is -1; give the number of filler words"),
    ],
)
def test_bad_input_is_named(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()
