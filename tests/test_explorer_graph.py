"""The drawing of an attribution graph as Python writes it: what it holds, what it weighs, what it refuses."""

import base64
import json
import zlib

import pytest
import torch
from bs4 import BeautifulSoup
from graph_pages import WORDS, small_graph
from sparse_circuits.circuit import Circuit
from sparse_circuits.explorer import explore_graph
from sparse_circuits.explorer.graph_layout import BOX_HEIGHT, BOX_WIDTH
from sparse_circuits.graph_pruning import influence, prune_graph
from sparse_circuits.reading import Reading, supernode_edges


@pytest.fixture(scope="module")
def graph():
    return small_graph()


@pytest.fixture(scope="module")
def features(graph):
    kept = prune_graph(graph).nodes()
    return [name for name in kept if name.startswith("f")]


@pytest.fixture(scope="module")
def reading(features):
    return Reading({"first <two>": features[:2]}, pins=features[2:4], notes={features[0]: 'a "note" & more'})


def data_of(explorer):
    page = BeautifulSoup(explorer.html(), "html.parser")
    packed = page.select_one("script.scx-packed").string
    return page, json.loads(zlib.decompress(base64.b64decode(packed)).decode().partition("\n")[0])


def test_the_page_holds_every_node_and_edge_of_the_pruned_graph(graph, reading):
    circuit = prune_graph(graph)
    page, data = data_of(explore_graph(graph, circuit, WORDS, "Title <b>", reading))
    edges = {(data["nodes"][s][0], data["nodes"][t][0]): weight for s, t, weight in data["edges"]}
    assert {f"{s}->{t}" for s, t in edges} == set(circuit.edges())
    for (source, target), weight in edges.items():
        assert weight == pytest.approx(graph.edge(source, target), rel=1e-3)
    shares = influence(graph)
    for name, *_, words, value, share, inflow in data["nodes"]:
        node = graph.nodes.index(name)
        assert value == pytest.approx(float(graph.values[node]), rel=1e-3)
        assert share == pytest.approx(float(shares[node]), rel=1e-3)
        assert inflow == pytest.approx(float(graph.adjacency[node].abs().sum()), rel=1e-3)
        assert words
    assert len(page.select("[data-node]")) == len(data["nodes"])
    assert page.select_one(".scx-title").text == "Title <b>"
    assert data["reading"] == reading.to_dict()


def test_layers_stand_above_each_other_and_nothing_overlaps(graph):
    _, data = data_of(explore_graph(graph, Circuit.full(graph.graph), WORDS))
    places = {name: (x, y) for name, _, x, y, *_ in data["nodes"]}
    boxes = list(places.values())
    for i, (x, y) in enumerate(boxes):
        assert BOX_WIDTH / 2 <= x <= data["width"] - BOX_WIDTH / 2 and BOX_HEIGHT / 2 <= y <= data["height"]
        assert all(abs(x - a) >= BOX_WIDTH or abs(y - b) >= BOX_HEIGHT for a, b in boxes[:i])
    nodes = graph.nodes
    for source in nodes.is_kind("feature").nonzero()[:, 0].tolist():
        for target in nodes.is_kind("feature").nonzero()[:, 0].tolist():
            (x, y), (a, b) = (places[nodes.names[node]] for node in (source, target))
            assert (nodes.layer[source] < nodes.layer[target]) == (y > b) or nodes.layer[source] == nodes.layer[target]
            assert nodes.position[source] >= nodes.position[target] or x < a


def test_the_same_graph_is_the_same_text_and_small_changes_of_numbers_do_not_rename_it(graph, reading):
    one, other = (explore_graph(graph, vocabulary=WORDS, reading=reading) for _ in range(2))
    assert one.html() == other.html()
    assert f'data-explorer="{one.identifier}"' in one.html()
    from dataclasses import replace

    shaken = replace(graph, adjacency=graph.adjacency * (1 + 1e-3))
    moved = explore_graph(shaken, vocabulary=WORDS, reading=reading)
    assert moved.identifier == one.identifier and moved.data != one.data
    assert explore_graph(graph, vocabulary=WORDS).identifier != one.identifier


def test_a_graph_of_300_nodes_is_a_page_of_at_most_120_kb():
    graph = small_graph(n_pos=12, features=64, k=8)
    drawn = explore_graph(graph, prune_graph(graph, 1.0, 0.95), WORDS)
    assert drawn.n_nodes > 100 and drawn.n_edges > 300
    assert len(drawn.html().encode()) < 120_000


def test_it_saves_one_file_without_other_files(graph, tmp_path):
    path = explore_graph(graph, vocabulary=WORDS).save(tmp_path / "graph.html")
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "http://" not in text.replace("http://www.w3.org", "")
    assert not BeautifulSoup(text, "html.parser").select("script[src], link[rel=stylesheet], img")


def test_it_refuses_what_it_cannot_draw(graph, features):
    with pytest.raises(ValueError, match="3 words, the model 8"):
        explore_graph(graph, vocabulary=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"f1\.99@0"):
        explore_graph(graph, reading=Reading(pins=["f1.99@0"]))
    with pytest.raises(ValueError, match="no edge to draw"):
        explore_graph(graph, Circuit.from_names(graph.graph))
    with pytest.raises(ValueError, match="another graph"):
        explore_graph(graph, prune_graph(small_graph(5)))
    large = small_graph(n_pos=16, features=64, k=16)
    with pytest.raises(ValueError, match="at most 400 are drawn"):
        explore_graph(large, Circuit.full(large.graph))


def test_a_reading_is_stored_and_refuses_what_is_none(reading, features, tmp_path):
    reading.save(tmp_path / "reading.json")
    assert Reading.load(tmp_path / "reading.json").to_dict() == reading.to_dict()
    (tmp_path / "other.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match="'something'"):
        Reading.load(tmp_path / "other.json")
    with pytest.raises(ValueError, match="one supernode at most"):
        Reading({"a": features[:1], "b": features[:2]})
    with pytest.raises(ValueError, match="list of nodes"):
        Reading({"a": []})


def test_edges_of_supernodes_are_sums_of_edges(graph, reading, features):
    reading = Reading({"low": [n for n in features if n[1] == "0"], "high": [n for n in features if n[1] == "1"]})
    edges = supernode_edges(graph, reading)
    low, high = (reading.groups[name] for name in ("low", "high"))
    assert edges["low", "high"] == pytest.approx(sum(graph.edge(s, t) for s in low for t in high))
    assert ("high", "low") not in edges
    logit = graph.nodes.names[-1]
    assert edges["high", logit] == pytest.approx(sum(graph.edge(s, logit) for s in high))
    whole = Reading({"all": [n for n in graph.nodes.names if not n.startswith("logit")]})
    assert supernode_edges(graph, whole)["all", logit] == pytest.approx(float(graph.values[-1]), abs=1e-9)
    with pytest.raises(ValueError, match="no node"):
        supernode_edges(graph, Reading({"a": ["f0.99@0"]}))
    assert torch.is_tensor(graph.adjacency)
