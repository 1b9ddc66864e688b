"""The study of pruned inputs: its rows are what the contexts give when they are entered by hand."""

import pytest
import torch
from sparse_circuits.input_study import (
    LEARNED,
    MITIGATIONS,
    SIMPLE,
    Learning,
    energies,
    grid,
    measured,
    mitigated,
)
from sparse_circuits.metrics import next_token_loss
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import (
    InputPruning,
    Law,
    Pattern,
    energy_lost,
    energy_lost_by,
    prune_input,
    pruned_inputs,
    static_shifts,
)
from sparse_circuits.sparsity.inputs import layer_inputs

CONFIG = TransformerConfig(d_vocab=20, n_ctx=9, n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=32, gated_mlp=True)
MODEL = Transformer(CONFIG, seed=1).eval()
WINDOWS = torch.randint(20, (5, 10), generator=torch.Generator().manual_seed(0))
HALF = Pattern(2, 4)
LEARNING = Learning(WINDOWS[:, :-1], lambda step: WINDOWS, steps=4, learning_rate=0.02, rank=2)


def test_loss_and_accuracy_are_those_of_all_windows_at_once():
    found = measured(MODEL, WINDOWS, batch_size=2)
    with torch.no_grad():
        logits = MODEL(WINDOWS[:, :-1])
    assert found["loss"] == pytest.approx(next_token_loss(logits, WINDOWS).item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(-1) == WINDOWS[:, 1:]).float().mean().item())


def test_a_row_of_the_grid_is_what_its_context_gives():
    rows = list(grid(MODEL, WINDOWS, [HALF, Pattern(50)], ["magnitude", "weight-aware"], ["none", "variance"]))
    assert len(rows) == 1 + 2 * 2 * 2
    assert rows[0]["pattern"] == "dense"
    assert rows[0]["increase"] == 0
    row = next(
        r for r in rows if r["pattern"] == "2:4" and r["criterion"] == "weight-aware" and r["mitigation"] != "none"
    )
    with pruned_inputs(MODEL, InputPruning(HALF, "weight-aware", variance=True)):
        expected = measured(MODEL, WINDOWS)
    assert (row["loss"], row["accuracy"]) == (expected["loss"], expected["accuracy"])
    assert row["increase"] == expected["loss"] - rows[0]["loss"]


def test_every_mitigation_does_something_of_its_own():
    losses = {}
    for name in MITIGATIONS:
        with mitigated(MODEL, InputPruning(HALF), name, LEARNING):
            losses[name] = measured(MODEL, WINDOWS)["loss"]
    assert len(set(losses.values())) == len(MITIGATIONS)
    assert set(MITIGATIONS) == {"none", *SIMPLE, *LEARNED}
    assert min(losses[name] for name in LEARNED) < losses["none"]
    with pruned_inputs(MODEL, InputPruning(HALF), corrections=static_shifts(MODEL, WINDOWS[:, :-1])):
        assert measured(MODEL, WINDOWS)["loss"] == losses["shift, static"]


def test_energy_is_measured_on_what_the_layers_read():
    rows = list(energies(MODEL, WINDOWS[:, :-1], [HALF, Pattern(50)]))
    inputs = layer_inputs(MODEL, WINDOWS[:, :-1])
    assert {row["projection"] for row in rows} == {"q", "k", "v", "o", "gate", "up", "down"}
    for row in rows:
        x = inputs[row["weight"]]
        pruned = prune_input(x, torch.ones(x.shape[1], 2), InputPruning(Pattern.parse(row["pattern"])))
        assert row["measured"] == pytest.approx(energy_lost_by(x, pruned))
        width = x.shape[1]
        assert row["Gaussian"] == energy_lost(Law("Gaussian"), Pattern.parse(row["pattern"]), width)
    by_kind = {row["projection"]: row for row in rows if row["pattern"] == "2:4"}
    assert by_kind["q"]["kurtosis"] == by_kind["v"]["kurtosis"]
    assert by_kind["down"]["kurtosis"] > by_kind["q"]["kurtosis"]  # a product has heavier tails


def test_bad_input_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"no mitigation 'bias'; choose one of"):
        mitigated(MODEL, InputPruning(HALF), "bias")
    with pytest.raises(ValueError, match=r"'shift, static' is made from data, and learning is None; give a Learning"):
        mitigated(MODEL, InputPruning(HALF), "shift, static")
