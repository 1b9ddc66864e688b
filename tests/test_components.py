"""Edges of the component graph are counted by the formula, named as EAP-IG names them, and pruned to paths."""

import networkx as nx
import pandas as pd
import pytest
import torch
from component_oracle import random_case, run
from sparse_circuits.circuit import Circuit
from sparse_circuits.components import EDGES, component_graph
from sparse_circuits.edge_scores import EdgeScores
from sparse_circuits.model import TransformerConfig


def shape(n_layers, n_heads):
    return TransformerConfig(d_vocab=2, n_ctx=2, n_layers=n_layers, d_model=2, n_heads=n_heads, d_head=1, d_mlp=2)


def scores_of(graph, seed):
    drawn = torch.randn(graph.edge_masks[EDGES].shape, generator=torch.Generator().manual_seed(seed))
    return EdgeScores(graph, {EDGES: drawn}, "random")


@pytest.mark.parametrize(("layers", "heads", "edges"), [(4, 4, 479), (6, 8, 3628), (12, 12, 32491), (24, 16, 231877)])
def test_edge_totals_are_those_of_the_literature_and_of_the_formula(layers, heads, edges):
    graph = component_graph(shape(layers, heads))
    formula = layers * (5 * heads + 2) + 1 + (heads + 1) * (3 * heads + 1) * layers * (layers - 1) // 2
    assert graph.count_edges() == edges == formula
    assert graph.sizes == {"source": 1 + layers * (heads + 1), "reader": layers * (3 * heads + 1) + 1}


def test_an_edge_joins_a_source_to_every_reader_that_comes_after_it():
    model, pairs = random_case(0)
    graph = component_graph(model)
    seen = set()
    run(model, pairs.corrupted, lambda source, reader, own: seen.add(f"{source}->{reader}") or own)
    assert set(Circuit.full(graph).edges()) == seen


def test_names_are_read_as_they_are_written():
    graph = component_graph(shape(2, 3))
    for edge in Circuit.full(graph).edges():
        matrix, i, j = graph.find_edge(edge)
        assert graph.edge_name(matrix, i, j) == edge
    nodes = Circuit.full(graph).nodes()
    assert len(set(nodes)) == len(nodes) == graph.count_nodes()
    assert [graph.node_name(*graph.find_node(name)) for name in nodes] == nodes
    assert Circuit.from_names(graph, ["input->a1.h2<k>", "a0.h1->m0"]).nodes() == [
        "input",
        "a0.h1",
        "m0<in>",
        "a1.h2<k>",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a0.h1->m7", "no name of an edge of this graph; write it as 'input->a1.h0<q>'"),
        ("a0.h1", "no name of an edge"),
        ("m1->a0.h1<q>", "is not an edge: m1 is written after a0.h1<q> is read"),
    ],
)
def test_what_names_no_edge_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        component_graph(shape(2, 3)).find_edge(name)


def test_what_names_no_node_is_refused():
    with pytest.raises(ValueError, match=r"no component 'a2\.h0'; choose from"):
        component_graph(shape(2, 3)).find_node("a2.h0")
    with pytest.raises(TypeError, match="3 is no name"):
        component_graph(shape(2, 3)).find_node(3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [0, 3, 12, 30, 75])
def test_pruning_leaves_the_edges_on_paths_from_input_to_logits(seed, k):
    graph = component_graph(shape(2, 3))
    scores = scores_of(graph, seed)
    asked = scores.largest(k, pruned=False)
    assert asked.count_edges() == k
    walks = nx.DiGraph()
    walks.add_nodes_from(["input", "logits"])
    for edge in asked.edges():
        source, reader = edge.split("->")
        walks.add_edge(source, f"into {reader}")
        walks.add_edge(f"into {reader}", "logits" if reader == "logits" else reader.partition("<")[0])
    after, before = nx.descendants(walks, "input") | {"input"}, nx.ancestors(walks, "logits")
    expected = [e for e in asked.edges() if e.split("->")[0] in after and f"into {e.split('->')[1]}" in before]
    pruned = scores.largest(k)
    assert pruned.edges() == expected
    heads_and_mlps = {name.partition("<")[0] for edge in expected for name in edge.split("->")} - {"input", "logits"}
    assert set(graph.components(pruned)) == heads_and_mlps


def test_the_largest_are_those_of_largest_magnitude():
    graph = component_graph(shape(2, 3))
    scores = scores_of(graph, 0)
    ranked = scores.ranked()
    assert [abs(score) for _, score in ranked] == sorted((abs(score) for _, score in ranked), reverse=True)
    assert len(ranked) == graph.count_edges()
    assert (
        set(scores.largest(7, pruned=False).edges()) == {name for name, _ in ranked[:7]} == set(dict(scores.ranked(7)))
    )
    assert all(scores[name] == score for name, score in ranked)


def test_rank_correlation_is_spearmans():
    graph = component_graph(shape(2, 3))
    one, other = scores_of(graph, 0), scores_of(graph, 1)
    tied = EdgeScores(graph, {EDGES: (one.scores[EDGES] * 2).round()}, "tied")
    for a, b in ((one, other), (one, tied), (tied, other)):
        for absolute in (True, False):
            x, y = (s.of_edges().abs() if absolute else s.of_edges() for s in (a, b))
            assert a.rank_correlation(b, absolute) == pytest.approx(
                pd.DataFrame({"x": x, "y": y}).corr("spearman").loc["x", "y"]
            )


def test_bad_scores_are_named():
    graph = component_graph(shape(2, 3))
    with pytest.raises(ValueError, match=r"do not fit .*\(2, 2\).*give these"):
        EdgeScores(graph, {EDGES: torch.zeros(2, 2)}, "none")
    with pytest.raises(ValueError, match="score of an edge is not finite; give"):
        EdgeScores(graph, {EDGES: torch.full(graph.edge_masks[EDGES].shape, torch.nan)}, "none")
    flat = EdgeScores(graph, {EDGES: torch.ones(graph.edge_masks[EDGES].shape)}, "none")
    with pytest.raises(ValueError, match="are equal, so they have no ranks; use others"):
        flat.rank_correlation(flat)
    with pytest.raises(ValueError, match="compare scores of one graph"):
        flat.rank_correlation(scores_of(component_graph(shape(1, 3)), 0))
    with pytest.raises(ValueError, match="k is 10000"):
        flat.largest(10000)
