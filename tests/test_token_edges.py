"""Scores of attention edges agree with a slow implementation that scales or replaces single entries of patterns."""

import pytest
import torch
from component_oracle import margins, random_case, run
from sparse_circuits.circuit import Circuit
from sparse_circuits.faithfulness_curves import faithfulness_curve
from sparse_circuits.token_edges import exact_token_scores, token_eap, token_graph
from sparse_circuits.token_scores import TokenScore

CASES = [(seed, values) for seed in (0, 1) for values in ("zero", "corrupted")]


def corrupted_edges(model, pairs, values):
    """Return what head (layer, head) sends along each edge instead, (n, query, key, d_head)."""
    sent = {}

    def mix(layer, head, pattern, value):
        sent[layer, head] = pattern[..., None] * value[:, None] * (values == "corrupted")
        return pattern @ value

    with torch.no_grad():
        run(model, pairs.corrupted, mix=mix)
    return sent


def slow_run(model, pairs, ablated, values, embedded=None, fixed=None):
    """Return the mean margin with each edge (layer, head, query, key) ablated by a share between 0 and 1.

    `fixed` holds what edges carry in the clean run, for the derivative: the change is then that of the clean run.
    """
    instead = corrupted_edges(model, pairs, values)

    def mix(layer, head, pattern, value):
        own = pattern[..., None] * value[:, None]
        share = ablated[layer, head][None, ..., None]
        change = instead[layer, head] - (own if fixed is None else fixed[layer, head])
        return (own + share * change).sum(2)

    return margins(pairs.clean, run(model, pairs.clean.tokens, embedded=embedded, mix=mix)[0]).mean()


def as_tensor(scores):
    return torch.stack(list(scores.graph.by_layer(scores.scores)))


def none_ablated(model, length):
    cfg = model.cfg
    return torch.zeros(cfg.n_layers, cfg.n_heads, length, length, dtype=torch.float64)


def test_edges_are_counted_and_named():
    model, _ = random_case(0)
    graph = token_graph(model, 5)
    assert graph.count_edges() == 2 * 2 * 5 * 6 // 2
    assert graph.count_nodes() == 2 * 2 * 5 * 2
    names = Circuit.full(graph).edges()
    assert "a1.h0.key[2] -> a1.h0.query[4]" in names
    assert "a1.h0.key[4] -> a1.h0.query[2]" not in names


def test_only_edges_that_lead_to_an_answer_are_connected():
    model, _ = random_case(0)
    graph = token_graph(model, 4, answers=[2])
    kept = Circuit.from_names(
        graph,
        [
            "a0.h0.key[0] -> a0.h0.query[1]",  # read on by the next
            "a1.h1.key[1] -> a1.h1.query[2]",
            "a0.h1.key[0] -> a0.h1.query[2]",  # at the answer already
            "a0.h0.key[0] -> a0.h0.query[3]",  # read by nothing
            "a1.h0.key[0] -> a1.h0.query[1]",  # in the last layer, not at the answer
        ],
    )
    masks = graph.connected(kept.edge_masks)
    assert Circuit(graph, graph.ends_of(masks), masks).edges() == [kept.edges()[i] for i in (0, 2, 4)]


@pytest.mark.parametrize(("seed", "values"), CASES)
def test_exact_scores_are_those_of_one_whole_run_for_each_edge(seed, values):
    model, pairs = random_case(seed)
    scores = as_tensor(exact_token_scores(model, pairs, values=values))
    expected = none_ablated(model, 5)
    with torch.no_grad():
        whole = slow_run(model, pairs, none_ablated(model, 5), values)
        for edge in torch.ones(5, 5).tril().expand(2, 2, 5, 5).nonzero().tolist():
            ablated = none_ablated(model, 5)
            ablated[tuple(edge)] = 1
            expected[tuple(edge)] = slow_run(model, pairs, ablated, values) - whole
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-9)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize(("seed", "values"), CASES)
@pytest.mark.parametrize("steps", [None, 2])
def test_eap_is_the_derivative_by_the_share_that_is_ablated(seed, values, steps):
    from component_oracle import embed

    model, pairs = random_case(seed)
    clean = {}

    def keep(layer, head, pattern, value):
        clean[layer, head] = pattern[..., None] * value[:, None]
        return pattern @ value

    with torch.no_grad():
        run(model, pairs.clean.tokens, mix=keep)
    expected = none_ablated(model, 5)
    shares = [1.0] if steps is None else [k / steps for k in range(steps)]
    for share in shares:
        ablated = none_ablated(model, 5).requires_grad_()
        embedded = share * embed(model, pairs.clean.tokens) + (1 - share) * embed(model, pairs.corrupted)
        metric = slow_run(model, pairs, ablated, values, embedded.detach(), clean)
        expected += torch.autograd.grad(metric, ablated)[0] / len(shares)
    scores = token_eap(model, pairs, values=values, steps=steps)
    torch.testing.assert_close(as_tensor(scores), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(token_eap(model, pairs, values=values, steps=steps, memory=1).scores, scores.scores)


@pytest.mark.parametrize(("seed", "values"), CASES)
def test_a_circuit_does_what_the_oracle_does(seed, values):
    model, pairs = random_case(seed)
    graph = token_graph(model, 5)
    drawn = torch.rand(2, 2, 5, 5, generator=torch.Generator().manual_seed(seed)) < 0.5
    masks = {f"a{a}.h{h}": graph.edge_masks[f"a{a}.h{h}"] & drawn[a, h].T for a in range(2) for h in range(2)}
    circuit = Circuit(graph, graph.ends_of(masks), masks)
    with torch.no_grad():
        expected = slow_run(model, pairs, (~drawn).double(), values)
    assert TokenScore(model, pairs, values=values)(circuit) == pytest.approx(float(expected), rel=1e-9)


def test_the_curve_ends_at_the_edges_that_can_matter():
    model, pairs = random_case(0)
    scores = token_eap(model, pairs)
    curve = faithfulness_curve(TokenScore(model, pairs), scores)
    assert curve.left[-1] == curve.total < scores.graph.count_edges()
    assert curve.faithfulness[-1] == pytest.approx(1)


def test_bad_input_is_named():
    model, pairs = random_case(0)
    with pytest.raises(ValueError, match="values is 'mean'; choose one of"):
        token_eap(model, pairs, values="mean")
    with pytest.raises(ValueError, match=r"answers are \(7,\); give positions from 0 to 4"):
        token_graph(model, 5, answers=[7])
    with pytest.raises(ValueError, match="length is 0; give"):
        token_graph(model, 0)
    with pytest.raises(ValueError, match="of 2 layers of 2 heads over 5 positions; take it from"):
        TokenScore(model, pairs)(Circuit.full(token_graph(model, 4)))
