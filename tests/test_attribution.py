"""Edge scores agree with a slow implementation in float64 that shares no code with the fast one."""

import pytest
import torch
from component_oracle import as_it_is, embed, margins, random_case, run
from sparse_circuits.attribution import eap, eap_ig, score_edges
from sparse_circuits.components import EDGES, component_graph
from sparse_circuits.exact_edges import exact_edge_scores
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.prompt_pairs import PromptPairs
from sparse_circuits.two_way import TwoWayPrompts
from transformer_lens import HookedRootModule

SEEDS = range(4)


def names_of(graph):
    return graph.names["source"], graph.names["reader"]


def slow_eap(model, pairs, shares):
    """Differentiate the metric by a number for each edge that mixes the corrupted source into what the reader sees."""
    graph = component_graph(model)
    sources, readers = names_of(graph)
    with torch.no_grad():
        clean, corrupted = (run(model, tokens)[1] for tokens in (pairs.clean.tokens, pairs.corrupted))
    total = torch.zeros(len(sources), len(readers), dtype=torch.float64)
    for share in shares:
        mixed_in = torch.zeros_like(total, requires_grad=True)

        def sight(source, reader, own, mixed_in=mixed_in):
            number = mixed_in[sources.index(source), readers.index(reader)]
            return own + number * (corrupted[source] - clean[source])

        embedded = share * embed(model, pairs.clean.tokens) + (1 - share) * embed(model, pairs.corrupted)
        metric = margins(pairs.clean, run(model, pairs.clean.tokens, sight, embedded)[0]).mean()
        total += torch.autograd.grad(metric, mixed_in)[0]
    return total / len(shares)


@torch.no_grad()
def slow_exact(model, pairs):
    """Run the whole model once for every edge."""
    graph = component_graph(model)
    sources, readers = names_of(graph)
    corrupted = run(model, pairs.corrupted)[1]
    unchanged = margins(pairs.clean, run(model, pairs.clean.tokens)[0])
    total = torch.zeros(len(sources), len(readers), dtype=torch.float64)
    for i, j in graph.edge_masks[EDGES].nonzero().tolist():

        def sight(source, reader, own, edge=(sources[i], readers[j])):
            return corrupted[source] if (source, reader) == edge else own

        total[i, j] = (margins(pairs.clean, run(model, pairs.clean.tokens, sight)[0]) - unchanged).mean()
    return total


def assert_same(scores, expected):
    mask = scores.graph.edge_masks[EDGES]
    torch.testing.assert_close(scores.scores[EDGES][mask], expected[mask], rtol=1e-6, atol=1e-9)
    assert expected[mask].abs().max() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_eap_is_the_derivative_by_a_number_for_each_edge(seed):
    model, pairs = random_case(seed)
    assert_same(eap(model, pairs), slow_eap(model, pairs, [1.0]))


@pytest.mark.parametrize("seed", SEEDS)
def test_eap_ig_is_the_mean_of_such_derivatives_on_the_line_from_the_corrupted_side(seed):
    model, pairs = random_case(seed)
    assert_same(eap_ig(model, pairs, steps=3), slow_eap(model, pairs, [0, 1 / 3, 2 / 3]))


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_scores_are_those_of_one_whole_run_for_each_edge(seed):
    model, pairs = random_case(seed)
    assert_same(exact_edge_scores(model, pairs), slow_exact(model, pairs))


@pytest.mark.parametrize("method", [eap, eap_ig, exact_edge_scores])
def test_scores_do_not_depend_on_the_batches(method):
    model, pairs = random_case(1)
    whole, single = method(model, pairs), method(model, pairs, memory=1)
    torch.testing.assert_close(single.scores, whole.scores, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_over_readers_is_the_gradient_of_the_source(seed):
    model, pairs = random_case(seed)
    shifts = {
        name: torch.zeros(3, 5, 6, dtype=torch.float64, requires_grad=True) for name in run(model, pairs.corrupted)[1]
    }
    logits, clean = run(model, pairs.clean.tokens, lambda source, reader, own: own + shifts[source])
    gradients = torch.autograd.grad(margins(pairs.clean, logits).mean(), list(shifts.values()))
    corrupted = run(model, pairs.corrupted)[1]
    expected = [((corrupted[u] - clean[u]) * g).sum() for u, g in zip(shifts, gradients, strict=True)]
    torch.testing.assert_close(
        eap(model, pairs).scores[EDGES].sum(1), torch.stack(expected).detach(), rtol=1e-6, atol=1e-9
    )


def test_another_metric_is_used():
    model, pairs = random_case(0)
    doubled = eap(model, pairs, lambda prompts, logits: -2 * prompts.margins(logits))
    torch.testing.assert_close(doubled.scores[EDGES], -2 * eap(model, pairs).scores[EDGES])


def test_the_weights_get_no_gradient_and_keep_asking_for_one():
    model, pairs = random_case(0)
    eap(model, pairs)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_exact_is_the_default_below_ten_thousand_edges(monkeypatch):
    model, pairs = random_case(0)
    assert score_edges(model, pairs).method == "exact"
    monkeypatch.setattr("sparse_circuits.attribution.EXACT_BELOW", 10)
    assert score_edges(model, pairs).method == "EAP-IG, 5 steps"


class NoAttention(HookedRootModule):
    def __init__(self):
        super().__init__()
        self.setup()


def test_bad_input_is_named():
    model, pairs = random_case(0)
    with pytest.raises(
        TypeError, match=r"NoAttention has no hook point blocks\.0\.attn\.hook_pattern.*give a Transformer"
    ):
        eap(NoAttention(), pairs)
    with pytest.raises(ValueError, match=r"corrupted prompts have shape \(3, 4\), the clean ones \(3, 5\); give"):
        PromptPairs(pairs.clean, pairs.corrupted[:, :4])
    with pytest.raises(ValueError, match="steps is 0; give"):
        eap_ig(model, pairs, steps=0)
    with pytest.raises(ValueError, match=r"metric gives \(\) for 3 prompts; give"):
        eap(model, pairs, lambda prompts, logits: prompts.margins(logits).mean())
    cfg = TransformerConfig(**{**model.cfg.to_dict(), "activation_density": 0.5})
    with pytest.raises(ValueError, match=r"activation_density is 0.5 at .*use a model with AbsTopK"):
        eap(Transformer(cfg), pairs)
    with torch.no_grad():
        model.W_U[0] = torch.inf
    with pytest.raises(
        ValueError, match=r"The metric is (nan|inf|-inf) for prompt \d; give a model with finite logits"
    ):
        exact_edge_scores(model, pairs)


def test_a_prompt_and_its_partner_have_the_same_length():
    from sparse_circuits.planted import planted_quote_circuit

    prompts = planted_quote_circuit().sample(30, seed=0)
    short = min(prompts, key=lambda prompt: len(prompt.tokens))
    long = max(prompts, key=lambda prompt: len(prompt.tokens))
    with pytest.raises(
        ValueError, match=r"Pair 1 has \d+ clean tokens and \d+ corrupted ones; give prompts of the same"
    ):
        PromptPairs.of([short, short], [short, long])
    with pytest.raises(ValueError, match="2 clean prompts and 1 corrupted ones; give one for each"):
        PromptPairs.of([short, short], [short])


def test_the_oracle_is_the_model():
    for seed in SEEDS:
        model, pairs = random_case(seed)
        torch.testing.assert_close(run(model, pairs.clean.tokens, as_it_is)[0], model(pairs.clean.tokens))
        torch.testing.assert_close(
            margins(pairs.clean, model(pairs.clean.tokens)), pairs.clean.margins(pairs.clean.answer_logits(model))
        )
        assert isinstance(pairs.clean, TwoWayPrompts)
