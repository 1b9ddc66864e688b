"""Prompts for nesting are the Python that they claim to be, and searches on them are kept as others are."""

import ast

import pytest
import sparse_circuits as sc
from sparse_circuits import found_circuits, nesting
from sparse_circuits.found_circuits import FoundCircuits
from sparse_circuits.nesting import TASK, nesting_prompts, nesting_texts


def depth_at_end(text):
    """Count brackets by hand; the texts hold none in strings."""
    return text.count("[") - text.count("]")


@pytest.mark.parametrize("shape", [{}, {"items": 5}, {"rows": 3}, {"lines": 4}, {"items": 2, "rows": 2, "lines": 0}])
def test_one_half_is_a_program_and_the_other_has_one_bracket_open(shape):
    for still_open, whole in nesting_texts(40, seed=1, **shape):
        ast.parse(whole)
        with pytest.raises(SyntaxError):
            ast.parse(still_open)
        assert (depth_at_end(still_open), depth_at_end(whole)) == (1, 0)
        assert still_open.endswith("]") and whole.endswith("]")
        assert ast.literal_eval(f"{still_open}]".splitlines()[-1].split(" = ")[1])


def test_shapes_are_kept():
    for still_open, _ in nesting_texts(20, seed=2, items=4, rows=3, lines=2, first="# words\n"):
        *before, last = still_open.splitlines()
        rows = ast.literal_eval(f"{last}]".split(" = ")[1])
        assert before[0] == "# words" and len(before) == 3
        assert [len(row) for row in rows] == [4, 4, 4]


def test_prompts_want_a_bracket_and_a_line_break_in_turn():
    tokenizer = sc.load_tokenizer()
    prompts = nesting_prompts(8, seed=3)
    assert len(prompts) == 16
    for row in range(16):
        text = tokenizer.decode(prompts.tokens[row, 1 : prompts.position[row] + 1].tolist())
        assert text == nesting_texts(8, seed=3)[row // 2][row % 2]
        answers = [tokenizer.token(int(ids[row])) for ids in (prompts.right, prompts.wrong)]
        assert answers == (["]", "\n"] if row % 2 == 0 else ["\n", "]"])
        assert prompts.tokens[row, prompts.position[row]] == tokenizer.id("]")


def test_draws_repeat_and_differ_between_seeds():
    assert nesting_texts(10, seed=4) == nesting_texts(10, seed=4) != nesting_texts(10, seed=5)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"items": 0}, {"rows": 0}, {"lines": -1}])
def test_numbers_that_make_no_list_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; give at least {0 if name == 'lines' else 1}"):
        nesting_texts(**{"n": 2, "seed": 0} | wrong)


def test_a_killed_search_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(nesting, "REFERENCE_TOKENS", 3000)
    monkeypatch.setattr(nesting, "REFERENCE_WINDOWS", 8)
    monkeypatch.setattr(found_circuits, "LEARNING", (8, 0))
    monkeypatch.setattr(found_circuits, "SELECTION", (8, 1))
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 4, "d_mlp": 16}
    model = sc.Transformer(sc.TransformerConfig(d_vocab=2048, n_ctx=64, **shape), seed=0).eval()
    found, config = FoundCircuits.of(model), sc.PruningConfig(steps=5, prompts_per_step=8)
    # An untrained model is some way above chance; these targets it meets.
    (record,) = nesting.search(model, found, [1.5], config)
    assert record["task"] == TASK and record["selection_loss"] <= 1.5
    found.save(tmp_path / "circuits.json")
    read = FoundCircuits.load(tmp_path / "circuits.json", model)
    assert [new["target_loss"] for new in nesting.search(model, read, [1.5, 1.6, 0.01], config)] == [1.6]
    assert read.circuit(TASK, 1.5) == found.circuit(TASK, 1.5)
