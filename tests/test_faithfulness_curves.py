"""What a circuit of component edges does agrees with the slow oracle; curves, areas and smallest circuits follow."""

import json

import pytest
import torch
from component_oracle import margins, random_case, run
from sparse_circuits.attribution import eap
from sparse_circuits.circuit import Circuit
from sparse_circuits.circuit_scores import faithfulness
from sparse_circuits.component_scores import ComponentScore
from sparse_circuits.components import EDGES, component_graph
from sparse_circuits.edge_scores import EdgeScores
from sparse_circuits.exact_edges import exact_edge_scores
from sparse_circuits.faithfulness_curves import faithfulness_curve, growing_counts, mib_areas, smallest_circuit
from sparse_circuits.mib_json import read_mib_graph, write_mib_graph
from sparse_circuits.node_scores import component_circuit, exact_node_scores, node_attribution


def random_circuit(graph, seed):
    drawn = torch.rand(graph.edge_masks[EDGES].shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    masks = {EDGES: graph.edge_masks[EDGES] & drawn}
    return Circuit(graph, graph.ends_of(masks), masks)


@torch.no_grad()
def slow_score(model, pairs, circuit):
    corrupted, kept = run(model, pairs.corrupted)[1], set(circuit.edges())

    def sight(source, reader, own):
        return own if f"{source}->{reader}" in kept else corrupted[source]

    return float(margins(pairs.clean, run(model, pairs.clean.tokens, sight)[0]).mean())


@pytest.mark.parametrize("seed", range(4))
def test_a_circuit_does_what_the_oracle_does(seed):
    model, pairs = random_case(seed)
    score, graph = ComponentScore(model, pairs), component_graph(model)
    for draw in range(3):
        circuit = random_circuit(graph, draw)
        assert score(circuit) == pytest.approx(slow_score(model, pairs, circuit), rel=1e-9)
    assert ComponentScore(model, pairs, memory=1)(circuit) == pytest.approx(score(circuit), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 2])  # without a bigram table, which is no edge and stays that of the clean prompt
def test_the_whole_graph_is_the_clean_run_and_the_empty_one_the_corrupted_run(seed):
    model, pairs = random_case(seed)
    score, graph = ComponentScore(model, pairs), component_graph(model)
    for prompts, circuit in ((pairs.clean, Circuit.full(graph)), (pairs.corrupted_prompts, Circuit.from_names(graph))):
        with torch.no_grad():
            expected = float(prompts.margins(prompts.answer_logits(model)).mean())
        assert score(circuit) == pytest.approx(expected, rel=1e-9)
    assert faithfulness(score, Circuit.full(graph)) == pytest.approx(1)


def test_taking_one_edge_out_of_the_whole_graph_is_the_exact_score_of_an_edge_into_the_logits():
    model, pairs = random_case(1)
    score, graph, exact = ComponentScore(model, pairs), component_graph(model), exact_edge_scores(model, pairs)
    whole = score(Circuit.full(graph))
    for name in ("input->logits", "a0.h1->logits", "m1->logits"):
        assert score(Circuit.full(graph).without(edges=[name])) - whole == pytest.approx(exact[name], rel=1e-6)


def test_the_curve_counts_the_edges_that_are_left_from_none_on():
    model, pairs = random_case(0)
    score, scores = ComponentScore(model, pairs), eap(model, pairs)
    curve = faithfulness_curve(score, scores)
    assert curve.asked[0] == curve.left[0] == 0
    assert curve.asked[-1] == curve.left[-1] == curve.total == scores.graph.count_edges()
    assert list(curve.asked) == growing_counts(curve.total)
    assert list(curve.left) == [scores.largest(k).count_edges() for k in curve.asked]
    assert curve.faithfulness[0] == pytest.approx(0)
    assert curve.faithfulness[-1] == pytest.approx(1)
    for left, share in zip(curve.left, curve.faithfulness, strict=True):
        again = next(scores.largest(k) for k in curve.asked if scores.largest(k).count_edges() == left)
        assert faithfulness(score, again) == pytest.approx(share)


def test_counts_grow_by_about_the_same_factor():
    assert growing_counts(479) == [0, 1, 2, 4, 8, 16, 31, 61, 122, 241, 479]
    assert growing_counts(3) == [0, 1, 2, 3]


class Step:
    """A metric that is 1 from some number of edges on, and 0 below."""

    def __init__(self, edges):
        self.edges = edges

    def __call__(self, circuit):
        return float(circuit.count_edges() >= self.edges)


def ranked_scores():
    """Return scores that grow along the edges, so that edges into the logits come late."""
    graph = component_graph(random_case(0)[0].cfg)
    return EdgeScores(
        graph, {EDGES: torch.arange(1.0, 1 + graph.edge_masks[EDGES].numel()).view(-1, graph.sizes["reader"])}, "x"
    )


def test_areas_are_those_of_trapezoids():
    scores = ranked_scores()
    total = len(scores)
    curve = faithfulness_curve(Step(total), scores, [0, total - 1, total])
    gap = (total - curve.left[1]) / total
    assert curve.area() == pytest.approx(gap / 2)
    assert curve.distance() == pytest.approx(1 - gap / 2)
    cpr, cmd = mib_areas(Step(1), scores)
    shares = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    reached = [float(scores.largest(int(share * total)).count_edges() >= 1) for share in shares]
    expected = sum((b - a) * (x + y) / 2 for a, b, x, y in zip(shares, shares[1:], reached, reached[1:], strict=False))
    assert cpr == pytest.approx(expected)
    assert cmd == pytest.approx(0.999 - expected)


@pytest.mark.parametrize("needed", [1, 2, 5, 11, 30])
def test_the_smallest_circuit_is_found(needed):
    scores = ranked_scores()
    found = smallest_circuit(Step(needed), scores)
    sizes = [scores.largest(k).count_edges() for k in range(len(scores) + 1)]
    assert found.count_edges() == min(size for size in sizes if size >= needed)


def test_a_target_that_cannot_be_met_is_named():
    model, pairs = random_case(0)
    score, scores = ComponentScore(model, pairs), eap(model, pairs)
    with pytest.raises(ValueError, match=r"recovery is 1\.5; give a share above 0 and at most 1"):
        smallest_circuit(score, scores, recovery=1.5)
    with pytest.raises(ValueError, match="the whole model and for the empty circuit; choose"):
        smallest_circuit(lambda circuit: 2.0, scores)
    with pytest.raises(ValueError, match=r"counts are \(1000000,\); give numbers from 0 to"):
        faithfulness_curve(score, scores, [1000000])
    other = component_graph(random_case(0)[0].cfg.preset("minute", d_vocab=9))
    with pytest.raises(ValueError, match="is not of the component graph of 2 layers of 2 heads; take it from"):
        score(Circuit.full(other))
    with pytest.raises(TypeError, match="is no Circuit; give one"):
        score("input->logits")


def test_node_scores_span_circuits_of_whole_components():
    model, pairs = random_case(0)
    score, scores = ComponentScore(model, pairs), eap(model, pairs)
    graph = scores.graph
    nodes = node_attribution(scores)
    assert dict(nodes.ranked())["a1.h0"] == pytest.approx(
        sum(s for name, s in scores.ranked() if name.startswith("a1.h0->"))
    )
    exact = exact_node_scores(score, graph)
    without = component_circuit(graph, [name for name in graph.names["source"][1:] if name != "m0"])
    assert dict(exact.ranked())["m0"] == pytest.approx(score(without) - score(Circuit.full(graph)), rel=1e-5)
    assert graph.components(exact.largest(3)) == [n for n in graph.names["source"] if n in dict(exact.ranked()[:3])]
    assert exact.largest(len(exact)).count_edges() == graph.count_edges()
    assert smallest_circuit(score, exact, recovery=1.0).count_edges() <= graph.count_edges()
    with pytest.raises(ValueError, match=r"'a1\.h0<q>' is an input of a component; name"):
        component_circuit(graph, ["a1.h0<q>"])


def test_a_graph_file_of_eap_ig_comes_back(tmp_path):
    model, pairs = random_case(0)
    scores = eap(model, pairs)
    circuit = scores.largest(12)
    write_mib_graph(tmp_path / "graph.json", scores, circuit, model.cfg.d_model)
    content = json.loads((tmp_path / "graph.json").read_text())
    assert content["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 6}
    assert content["edges"]["input->a1.h0<k>"]["score"] == pytest.approx(scores["input->a1.h0<k>"])
    assert {name for name, node in content["nodes"].items() if node["in_graph"]} == {
        "input",
        "logits",
        *scores.graph.components(circuit),
    }
    read, marked = read_mib_graph(tmp_path / "graph.json", scores.graph)
    assert marked == circuit
    torch.testing.assert_close(read.of_edges(), scores.of_edges().float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("edges"), "is no graph file of EAP-IG"),
        (lambda c: c["cfg"].update(n_heads=3), "is about 2 layers of 3 heads"),
        (lambda c: c["cfg"].update(parallel_attn_mlp=True), "attention beside the MLP"),
        (lambda c: c["edges"].pop("m0->m1"), "does not have the edges .*'m0->m1'; write it again"),
        (lambda c: c["edges"]["m0->m1"].update(score=None), "is no graph file of EAP-IG"),
    ],
)
def test_bad_graph_files_are_named(tmp_path, change, message):
    model, pairs = random_case(0)
    scores = eap(model, pairs)
    path = tmp_path / "graph.json"
    write_mib_graph(path, scores, scores.largest(5), model.cfg.d_model)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_mib_graph(path, scores.graph)
