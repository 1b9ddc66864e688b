"""Two-digit addition against Python's own, and a model that reads in both directions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sparse_circuits.checkpoints import load_model, save_model
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity.attention import open_edges
from sparse_circuits.tasks.addition import (
    LENGTH,
    SLOTS,
    VOCABULARY,
    addition_loss,
    addition_problems,
    carries,
    solved,
    sum_digits,
)
from sparse_circuits.token_edges import token_graph

CONFIG = TransformerConfig(len(VOCABULARY), LENGTH, 2, 8, 2, 4, 8, attention_dir="bidirectional")


def test_every_problem_is_there_once_with_its_sum():
    problems = addition_problems("all")
    texts = ["".join(VOCABULARY[token] for token in row[:-1]) for row in problems.tolist()]
    assert len(set(texts)) == 10_000
    for text, total in zip(texts, problems[:, -1].tolist(), strict=True):
        assert text.endswith("=?????")
        one, other = text.removesuffix("=?????").split("+")
        assert int(one) + int(other) == total


def test_the_splits_share_no_problem_and_leave_none_out():
    rows = {split: {tuple(row) for row in addition_problems(split).tolist()} for split in ("train", "held_out", "all")}
    assert len(rows["held_out"]) == 1_000
    assert rows["train"] | rows["held_out"] == rows["all"]
    assert not rows["train"] & rows["held_out"]


def test_digits_and_carries_are_those_of_the_sum():
    problems = addition_problems("all")
    for digits, total in zip(sum_digits(problems[:, -1]).tolist(), problems[:, -1].tolist(), strict=True):
        assert "".join(map(str, digits)) == f"{total:05d}"
    units, tens = carries(problems)
    for row, from_units, from_tens in zip(problems.tolist(), units.tolist(), tens.tolist(), strict=True):
        assert from_units == (row[1] + row[4] >= 10)
        assert from_tens == (row[-1] >= 100)


def test_a_model_that_writes_the_sum_solves_it_and_loses_nothing():
    problems = addition_problems("held_out")
    logits = torch.zeros(len(problems), LENGTH, len(VOCABULARY))
    logits[:, SLOTS] = 50.0 * torch.nn.functional.one_hot(sum_digits(problems[:, -1]), len(VOCABULARY)).float()
    assert solved(logits, problems).all()
    assert addition_loss(logits, problems).item() == pytest.approx(0, abs=1e-6)
    logits[0, SLOTS[-1]] = logits[0, SLOTS[-1]].flip(0)
    assert solved(logits, problems).tolist() == [False] + [True] * 999


def test_a_bidirectional_model_reads_what_comes_after():
    problems = addition_problems("held_out")[:4, :-1]
    changed = problems.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 10
    both, causal = Transformer(CONFIG), Transformer(replace(CONFIG, attention_dir="causal"))
    assert not torch.allclose(both(problems)[:, 0], both(changed)[:, 0])
    assert torch.equal(causal(problems)[:, 0], causal(changed)[:, 0])
    assert open_edges(both, problems).counts.tolist() == [[LENGTH**2] * 2] * 2
    assert open_edges(both, problems).of_allowed_pairs == 1
    assert token_graph(both, LENGTH).count_edges() == 4 * LENGTH**2


def test_the_direction_is_stored_only_where_it_is_not_causal(tmp_path):
    save_model(Transformer(CONFIG), tmp_path / "model")
    assert load_model(tmp_path / "model").cfg == CONFIG
    assert "attention_dir" not in replace(CONFIG, attention_dir="causal").to_dict()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="There is no split 'test' of additions; choose one of"):
        addition_problems("test")
    with pytest.raises(ValueError, match="attention_dir is 'backwards'; choose one of"):
        replace(CONFIG, attention_dir="backwards")
