"""The grid of pruned inputs in a file: its cells, what each is measured as, and going on after a kill."""

from dataclasses import replace

import pytest
import torch
from sparse_circuits import input_grid
from sparse_circuits.input_grid import Texts, chosen_rates, main, read_study, study, study_texts
from sparse_circuits.input_study import LEARNED, SIMPLE, measured
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.search_files import weights_digest, write_records
from sparse_circuits.sparsity import CRITERIA, InputPruning, Pattern, prune_weights, pruned_inputs
from sparse_circuits.tasks import load_tokenizer

CONFIG = TransformerConfig(d_vocab=20, n_ctx=9, n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=32, gated_mlp=True)
MODEL = Transformer(CONFIG, seed=1).eval()
WINDOWS = torch.randint(20, (5, 10), generator=torch.Generator().manual_seed(0))
TEXTS = Texts(WINDOWS, WINDOWS[:, :-1], WINDOWS, lambda step: WINDOWS)
HALF = (Pattern(2, 4),)
KINDS = ("q", "k", "v", "o", "gate", "up", "down")


@pytest.fixture(scope="module")
def records():
    found = []
    assert list(study(MODEL, found, TEXTS, HALF)) == found
    return found


def row(records, **named):
    (only,) = [r for r in records if named.items() <= r.items()]
    return only


def test_every_cell_is_measured_once(records):
    grid = [r for r in records if r["part"] == "grid"]
    assert len(grid) == 1 + len(CRITERIA) * (1 + len(SIMPLE)) + 1 + 2 * len(LEARNED)
    assert [r["kind"] for r in records if r["part"] == "kinds"] == list(KINDS)
    assert len([r for r in records if r["part"] == "rates"]) == len(LEARNED) * len(input_grid.RATES)
    assert len({tuple(sorted((k, str(v)) for k, v in r.items() if k != "cpu_seconds")) for r in records}) == len(
        records
    )


def test_a_row_is_what_its_context_gives(records):
    with pruned_inputs(MODEL, InputPruning(*HALF, "weight-aware", variance=True)):
        expected = measured(MODEL, WINDOWS)
    found = row(records, part="grid", criterion="weight-aware", mitigation="variance")
    assert (found["loss"], found["accuracy"]) == pytest.approx((expected["loss"], expected["accuracy"]), abs=1e-6)
    with pruned_inputs(MODEL, InputPruning(*HALF), ["o"]):
        assert row(records, part="kinds", kind="o")["loss"] == pytest.approx(measured(MODEL, WINDOWS)["loss"], abs=1e-6)
    loss = measured(prune_weights(MODEL, *HALF, "Wanda", WINDOWS[:, :-1]), WINDOWS)["loss"]
    assert row(records, method="Wanda")["loss"] == pytest.approx(loss, abs=1e-6)


def test_with_nothing_pruned_shift_and_low_rank_have_nothing_to_do(records):
    dense = row(records, pattern="dense")["loss"]
    for name in ("shift, learned", "low rank, learned"):
        found = row(records, part="grid", pattern="unstructured 100 %", mitigation=name)
        assert found["loss"] == pytest.approx(dense, abs=2e-6)


def test_the_rate_of_the_lowest_loss_is_taken(records):
    rates = chosen_rates(records)
    for name in LEARNED:
        tried = [r for r in records if r["part"] == "rates" and r["mitigation"] == name]
        assert rates[name] == min(tried, key=lambda r: r["loss"])["rate"]
        assert row(records, part="grid", pattern="2:4", mitigation=name)["rate"] == rates[name]
    given = dict.fromkeys(LEARNED, 0.02)
    again = [r for r in records if r["mitigation"] not in LEARNED]
    assert {r["rate"] for r in study(MODEL, again, TEXTS, HALF, given)} == {0.02}
    del given[LEARNED[0]]
    with pytest.raises(ValueError, match=rf"no learning rate for \['{LEARNED[0]}'\]; give one for each"):
        next(study(MODEL, [], TEXTS, HALF, given))


def test_what_is_there_is_not_measured_again(records):
    assert list(study(MODEL, list(records), TEXTS, HALF)) == []
    assert next(study(MODEL, list(records[:-1]), TEXTS, HALF))["part"] == "grid"


def test_windows_follow_their_seed():
    model = Transformer(replace(CONFIG, d_vocab=load_tokenizer().d_vocab))
    first, again, other = (study_texts(model, seed, windows=3) for seed in (0, 0, 1))
    assert first.held_out.shape == (3, 10)
    assert torch.equal(first.held_out, again.held_out)
    assert not torch.equal(first.held_out, other.held_out)
    assert not torch.equal(first.calibration, other.calibration)
    assert not torch.equal(first.choice[:, :-1], first.calibration)


def test_the_command_goes_on_with_its_file_and_refuses_one_of_other_weights(tmp_path, monkeypatch, capsys, records):
    path = tmp_path / "grid.json"
    monkeypatch.setattr(input_grid, "load_model", lambda folder: MODEL)
    monkeypatch.setattr(input_grid, "study_texts", lambda model: TEXTS)
    write_records(path, input_grid.KIND, weights_digest(MODEL), records[:-2])
    main(["folder", "--output", str(path), "--patterns", "2:4"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert len(read_study(path, MODEL)) == len(records)
    other = tmp_path / "other.json"
    main(["folder", "--output", str(other), "--patterns", "2:4", "--rates-of", str(path)])
    assert not [r for r in read_study(other, MODEL) if r["part"] == "rates"]
    other.write_text("{}")
    with pytest.raises(ValueError, match="holds no pruned inputs"):
        main(["folder", "--output", str(tmp_path / "third.json"), "--rates-of", str(other)])
    with pytest.raises(ValueError, match="belongs to a model with other weights"):
        read_study(path, Transformer(CONFIG, seed=2))
