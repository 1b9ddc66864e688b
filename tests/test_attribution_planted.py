"""On planted circuits the edges that matter are known: exact scores name them alone, and gradients mostly do."""

from functools import cache

import pytest
from sparse_circuits.attribution import eap, eap_ig
from sparse_circuits.component_scores import ComponentScore
from sparse_circuits.exact_edges import exact_edge_scores
from sparse_circuits.faithfulness_curves import smallest_circuit
from sparse_circuits.planted import hidden_circuit, planted_cancelling_heads, planted_quote_circuit
from sparse_circuits.planted.quotes import OPENERS
from sparse_circuits.prompt_pairs import PromptPairs
from sparse_circuits.token_edges import exact_token_scores, token_eap
from sparse_circuits.token_scores import TokenScore

PATH = {"input->m0", "m0->a1.h0<v>", "a1.h0->logits"}


@cache
def quote_pairs(length=6):
    """Prompts with one string, and the same with the other kind of quote."""
    planted = planted_quote_circuit()
    one_string = [p for p in planted.every_prompt(length) if len(p.tokens) == length and " after " not in p.group]
    one_string = [p for p in one_string if sum(t in OPENERS for t in p.tokens) == 1]
    flip = dict(zip(OPENERS, reversed(OPENERS), strict=True))
    corrupted = [planted.prompt(planted.decode(flip.get(t, t) for t in p.tokens)) for p in one_string]
    return PromptPairs.of(one_string, corrupted)


def nonzero(scores, above=1e-4):
    return {name for name, score in scores.ranked() if abs(score) > above}


def test_only_the_edges_of_the_planted_path_have_an_exact_effect():
    exact = exact_edge_scores(planted_quote_circuit().model, quote_pairs())
    assert nonzero(exact) == PATH
    assert all(exact[name] < -1 for name in PATH)


@pytest.mark.parametrize("method", [eap, eap_ig])
def test_gradients_rank_the_planted_path_first(method):
    scores = method(planted_quote_circuit().model, quote_pairs())
    assert {name for name, _ in scores.ranked(3)} == PATH


def test_three_edges_are_the_smallest_circuit():
    model = planted_quote_circuit().model
    exact = exact_edge_scores(model, quote_pairs())
    assert set(smallest_circuit(ComponentScore(model, quote_pairs()), exact).edges()) == PATH


def test_heads_that_cancel_have_opposite_effects():
    exact = exact_edge_scores(planted_cancelling_heads(), quote_pairs())
    assert exact["a1.h2->logits"] * exact["a1.h3->logits"] < 0
    assert nonzero(exact) > PATH


@pytest.mark.parametrize("seed", range(2))
def test_the_path_is_found_among_random_heads(seed):
    hidden = hidden_circuit(planted_quote_circuit(), seed, channels=10, heads=2, neurons=4)
    layer_1_head = next(h for h in range(4) if f"blocks.1.attn.hook_v[{h}]" in hidden.circuit.nodes())
    path = {name.replace("h0", f"h{layer_1_head}") for name in PATH}
    assert {name for name, _ in exact_edge_scores(hidden.model, quote_pairs()).ranked(3)} == path


@pytest.mark.parametrize("values", ["zero", "corrupted"])
def test_one_attention_edge_brings_the_kind_of_quote(values):
    model, pairs = planted_quote_circuit().model, quote_pairs()
    edge = "a1.h0.key[1] -> a1.h0.query[5]"
    for scores in (exact_token_scores(model, pairs, values=values), token_eap(model, pairs, values=values)):
        assert scores.ranked(1)[0][0] == edge
    assert smallest_circuit(TokenScore(model, pairs, values=values), scores).edges() == [edge]
