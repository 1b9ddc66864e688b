"""Calibration: the best scale and offset, their bounds, and a search that is judged after it."""

import math
from copy import deepcopy

import pytest
import torch
from pruning_cases import case, needed
from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.calibration import LARGEST_SCALE, UNCALIBRATED, Calibration, fit, fitted_calibration, task_loss
from sparse_circuits.pruning import calibrated, circuit_loss, prune
from sparse_circuits.two_way import TwoWayPrompts, two_way_loss


def prompts_with_sides(sides):
    """One-token prompts; the larger candidate is right where the side is 1."""
    n, up = len(sides), torch.tensor(sides) > 0
    return TwoWayPrompts(torch.zeros(n, 1).long(), torch.zeros(n).long(), 1 + up.long(), 2 - up.long())


def brute_force(margins, prompts):
    """The least loss over a fine grid of scales and offsets, in float64, without the library."""
    scales = torch.linspace(0, LARGEST_SCALE, 401).double()[:, None, None]
    offsets = torch.linspace(-40, 40, 801).double()[None, :, None]
    sides = torch.where(prompts.right > prompts.wrong, 1.0, -1.0).double()
    return torch.log1p(torch.exp(-(scales * margins.double() + offsets * sides))).mean(-1).min().item()


MARGINS = {
    "mixed": [1.0, 0.4, -0.3, 2.0, 0.7, -0.1, 1.5, 0.2],
    "tipped to one side": [4.2, -3.0, 4.5, -3.2, 3.9, -3.1, 4.0, -2.7],
    "right but timid": [0.02, 0.01, 0.03, 0.02, 0.015, 0.02, 0.01, 0.02],
    "wrong throughout": [-1.0, -2.0, -0.5, -1.5, -1.0, -2.0, -0.5, -1.5],
}


@pytest.mark.parametrize("name", MARGINS)
def test_the_fit_is_as_good_as_brute_force(name):
    margins, prompts = torch.tensor(MARGINS[name]), prompts_with_sides([1, -1] * 4)
    found = fit(margins, prompts, steps=60)
    assert 0 <= found.scale <= LARGEST_SCALE
    assert found.loss_after <= brute_force(margins, prompts) + 1e-4
    assert found.losses(margins, prompts).mean().item() == pytest.approx(found.loss_after, abs=1e-6)
    assert found.loss_before == pytest.approx(torch.nn.functional.softplus(-margins).mean().item(), abs=1e-6)


def test_answers_that_are_wrong_throughout_are_not_turned_round():
    prompts = prompts_with_sides([1, -1] * 4)
    assert fit(torch.tensor(MARGINS["wrong throughout"]), prompts).loss_after == pytest.approx(math.log(2), abs=0.01)


def test_a_timid_circuit_does_not_become_certain():
    margins, prompts = torch.full((8,), 1e-6), prompts_with_sides([1, -1] * 4)
    assert fit(margins, prompts).loss_after > 0.69


def test_the_loss_with_a_calibration_is_that_of_scaled_and_shifted_margins():
    one = case("quotes")
    circuit, calibration = needed(one.planted), Calibration(0.5, 0.2, math.nan, math.nan)
    with torch.no_grad(), ablated(one.model, nodes_outside(circuit), values=one.means):
        logits = one.model(one.selection.tokens)[torch.arange(len(one.selection)), one.selection.position].double()
    rows = torch.arange(len(logits))
    margins = logits[rows, one.selection.right] - logits[rows, one.selection.wrong]
    side = torch.where(one.selection.right > one.selection.wrong, 1.0, -1.0)
    expected = torch.log1p(torch.exp(-(0.5 * margins + 0.2 * side))).mean().item()
    found = circuit_loss(one.model, circuit, one.selection, one.means, calibration)
    assert found == pytest.approx(expected, abs=1e-6)
    assert task_loss(one.model, one.selection, UNCALIBRATED) == pytest.approx(
        two_way_loss(one.model, one.selection), abs=1e-7
    )


@pytest.mark.parametrize("name", ["quotes", "hidden quotes"])
def test_a_search_with_calibration_finds_no_more_nodes_and_meets_its_target(name):
    one = case(name)
    config = one.config(calibrate=True)
    found = prune(one.model, one.learning, one.selection, one.means, config)
    plain = prune(one.model, one.learning, one.selection, one.means, one.config())
    assert found.circuit.count_nodes() <= plain.circuit.count_nodes()
    assert found.loss <= config.target_loss
    again = circuit_loss(one.model, found.circuit, one.selection, one.means, found.calibration)
    assert again == pytest.approx(found.loss, abs=1e-5)
    own = calibrated(one.model, found.circuit, one.selection, one.means)
    assert (found.calibration.scale, found.calibration.offset) == pytest.approx((own.scale, own.offset), abs=1e-6)
    assert plain.calibration.scale == 1.0 and plain.calibration.offset == 0.0


def test_the_whole_model_is_not_made_worse():
    one = case("brackets")
    assert fitted_calibration(one.model, one.selection).loss_after <= two_way_loss(one.model, one.selection) + 1e-6


def test_a_model_that_leans_to_one_answer_solves_the_task_after_an_offset_and_is_refused_without():
    one = case("quotes")
    leaning = deepcopy(one.model)
    with torch.no_grad():
        leaning.b_U[one.selection.right[0]] += 60
    own = two_way_loss(leaning, one.selection)
    assert own > one.config().target_loss
    with pytest.raises(ValueError, match=f"task loss of {own:.4f} nats on the selection"):
        prune(leaning, one.learning, one.selection, one.means, one.config())
    found = prune(leaning, one.learning, one.selection, one.means, one.config(calibrate=True))
    assert set(found.circuit.nodes()) <= set(needed(one.planted).nodes())
    assert found.loss <= one.config().target_loss
    with pytest.raises(ValueError, match="nats after scale and offset on the selection"):
        prune(leaning, one.learning, one.selection, one.means, one.config(calibrate=True, target_loss=1e-9))
