"""A planted circuit among random weights does what it did, at other places, and nothing else does it."""

import math

import pytest
import torch
from sparse_circuits.circuit import Circuit
from sparse_circuits.controls import random_circuit
from sparse_circuits.editing import cut_edges, keep_edges
from sparse_circuits.graph import as_matrix, weight_graph
from sparse_circuits.planted import hidden_circuit, planted_bracket_circuit, planted_quote_circuit

PLANTED = {"quotes": planted_quote_circuit(), "brackets": planted_bracket_circuit()}
HIDDEN = {name: [hidden_circuit(planted, seed) for seed in range(5)] for name, planted in PLANTED.items()}


@pytest.fixture(params=PLANTED)
def pair(request):
    return PLANTED[request.param], HIDDEN[request.param][0]


def weight_of(planted, edge: str) -> float:
    matrix, i, j = planted.graph.find_edge(edge)
    return as_matrix(matrix, planted.model.get_parameter(matrix))[i, j].item()


@pytest.mark.parametrize("name", PLANTED)
def test_every_prompt_is_answered_right_whatever_the_seed(name):
    for hidden in HIDDEN[name]:
        assert hidden.accuracy() == 1.0
        assert hidden.accuracy(prompts=hidden.sample(500, seed=0)) == 1.0


def test_the_planted_weights_stand_at_the_new_places(pair):
    planted, hidden = pair
    assert hidden.circuit.count_nodes() == planted.circuit.count_nodes()
    assert hidden.circuit.count_edges() == planted.circuit.count_edges()
    shrink = math.sqrt(planted.model.cfg.d_model / hidden.model.cfg.d_model)
    old, new = ({what: edge for edge, what in model.carries.items()} for model in (planted, hidden))
    assert {new[planted.carries[edge]] for edge in planted.circuit.edges()} == set(hidden.circuit.edges())
    for what, edge in old.items():
        factor = shrink if "hook_normalized" in edge else 1
        assert weight_of(hidden, new[what]) == pytest.approx(factor * weight_of(planted, edge), rel=1e-6)
    for i, channel in enumerate(planted.channels):
        torch.testing.assert_close(
            hidden.model.W_E[:, hidden.channels.index(channel)], planted.model.W_E[:, i], atol=0, rtol=0
        )
    assert set(hidden.carries) == set(Circuit.full(weight_graph(hidden.model)).edges())
    assert len(hidden.channels) == len(set(hidden.channels)) == hidden.model.cfg.d_model


@pytest.mark.parametrize("name", PLANTED)
def test_position_gives_nothing_away(name):
    places = [tuple(hidden.circuit.nodes()) for hidden in HIDDEN[name]]
    assert len(set(places)) == len(places)


def test_the_larger_width_alone_changes_nothing(pair):
    planted, _ = pair
    prompts = planted.sample(100, seed=1)
    alone = hidden_circuit(planted, 3, channels=0, heads=0, neurons=0)
    torch.testing.assert_close(alone.logits(prompts), planted.logits(prompts), atol=5e-5, rtol=1e-5)
    wide = hidden_circuit(planted, 3, channels=40, heads=0, neurons=0)
    with torch.no_grad():
        spare = [i for i, channel in enumerate(wide.channels) if channel not in planted.channels]
        for name in ("W_E", "W_pos"):
            if (weight := getattr(wide.model, name)) is not None:
                weight[:, spare] = 0
        for block in wide.model.blocks:
            block.attn.b_O[spare] = 0
            block.mlp.b_out[spare] = 0
    torch.testing.assert_close(wide.logits(prompts), planted.logits(prompts), atol=5e-5, rtol=1e-5)


def test_what_is_spare_is_at_work_and_never_writes_to_planted_channels(pair):
    planted, hidden = pair
    prompts = planted.sample(100, seed=2)
    assert (hidden.logits(prompts) - planted.logits(prompts)).std() > 0.1
    spare = [edge for edge, what in hidden.carries.items() if what not in planted.carries.values()]
    assert len(spare) > 100 * len(planted.carries)
    silent = cut_edges(hidden.model, spare)
    assert (hidden.logits(prompts) - hidden.logits(prompts, silent)).std() > 0.05
    assert planted.accuracy(silent) == 1.0
    channels = {hidden.channels.index(channel) for channel in planted.channels}
    writes = [edge.split(" -> ")[1] for edge in spare if "_out[" in edge]
    assert writes
    assert not channels & {int(target.split("[")[1][:-1]) for target in writes}


def test_the_circuit_is_enough_each_edge_is_needed_and_a_random_one_fails(pair):
    _, hidden = pair
    assert hidden.accuracy(keep_edges(hidden.model, hidden.circuit)) == 1.0
    for edge in hidden.circuit.edges():
        assert hidden.accuracy(cut_edges(hidden.model, [edge])) < 1.0
    for seed in range(5):
        for match in ("edges", "matrices", "nodes"):
            chance = random_circuit(hidden.circuit, seed, match=match)
            assert hidden.accuracy(keep_edges(hidden.model, chance)) < 0.6


def test_tokens_that_the_planted_model_cannot_tell_apart_stay_so(pair):
    planted, hidden = pair
    same = [(model.W_E[:, None] == model.W_E).all(-1) for model in (planted.model, hidden.model)]
    assert torch.equal(*same)


def test_the_same_seed_gives_the_same_model_and_the_callers_random_state_stays(pair):
    planted, hidden = pair
    state = torch.random.get_rng_state()
    again = hidden_circuit(planted, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert again.circuit == hidden.circuit
    for weight, other in zip(again.model.parameters(), hidden.model.parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("number", [-1, 2.5])
@pytest.mark.parametrize("what", ["channels", "heads", "neurons"])
def test_a_wrong_number_of_spare_parts_is_refused(what, number):
    with pytest.raises(ValueError, match=f"{what} is {number}; give the number"):
        hidden_circuit(PLANTED["brackets"], 0, **{what: number})
