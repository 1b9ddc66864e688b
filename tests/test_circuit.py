"""Graphs and circuits against loops that read one weight at a time."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.circuit import Circuit
from sparse_circuits.controls import random_circuit
from sparse_circuits.editing import cut_edges, keep_edges, set_edge
from sparse_circuits.graph import as_matrix, as_weight, weight_graph
from sparse_circuits.model import Transformer, TransformerConfig

READ, WRITE = (
    {"attn": "ln1.hook_normalized", "mlp": "ln2.hook_normalized"},
    {"attn": "hook_attn_out", "mlp": "hook_mlp_out"},
)


@torch.no_grad()
def sparse_model(seed: int, density: float = 0.2, n_layers: int = 2, n_heads: int = 2, d_head: int = 3) -> Transformer:
    shape = {"n_layers": n_layers, "d_model": 5, "n_heads": n_heads, "d_head": d_head, "d_mlp": 4}
    model = Transformer(TransformerConfig(d_vocab=7, n_ctx=6, **shape), seed).double()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if ".W_" in name:
            weight.mul_(torch.rand(weight.shape, generator=generator) < density)
        elif ".b_" in name:
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.double))
    return model


def edges_by_loops(model: Transformer) -> dict[str, float]:
    """Return name -> weight of every edge, by plain loops over the definition."""
    found = {}
    cfg = model.cfg
    for layer, block in enumerate(model.blocks):
        at = f"blocks.{layer}."
        for name in "QKV":
            weight = getattr(block.attn, f"W_{name}")
            for h, m, d in itertools.product(range(cfg.n_heads), range(cfg.d_model), range(cfg.d_head)):
                edge = f"{at}{READ['attn']}[{m}] -> {at}attn.hook_{name.lower()}[{h * cfg.d_head + d}]"
                found[edge] = weight[h, m, d].item()
        for h, d, m in itertools.product(range(cfg.n_heads), range(cfg.d_head), range(cfg.d_model)):
            edge = f"{at}attn.hook_v[{h * cfg.d_head + d}] -> {at}{WRITE['attn']}[{m}]"
            found[edge] = block.attn.W_O[h, d, m].item()
        for m, n in itertools.product(range(cfg.d_model), range(cfg.d_mlp)):
            found[f"{at}{READ['mlp']}[{m}] -> {at}mlp.hook_post[{n}]"] = block.mlp.W_in[m, n].item()
            found[f"{at}mlp.hook_post[{n}] -> {at}{WRITE['mlp']}[{m}]"] = block.mlp.W_out[n, m].item()
    return {name: weight for name, weight in found.items() if weight != 0}


seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, density=st.sampled_from([0.0, 0.05, 0.3, 1.0]), n_heads=st.integers(1, 3), d_head=st.integers(1, 3))
def test_counts_and_names_equal_a_loop_over_the_weights(seed, density, n_heads, d_head):
    model = sparse_model(seed, density, n_heads=n_heads, d_head=d_head)
    graph, expected = weight_graph(model), edges_by_loops(model)
    assert graph.count_edges() == len(expected)
    assert set(Circuit.full(graph).edges()) == set(expected)
    assert graph.count_nodes() == 2 * (4 * 5 + 3 * n_heads * d_head + 4)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, kept=st.floats(0, 1))
def test_an_induced_circuit_keeps_exactly_the_edges_with_both_ends(seed, kept):
    graph = weight_graph(sparse_model(seed))
    generator = torch.Generator().manual_seed(seed)
    masks = {place: torch.rand(n, generator=generator) < kept for place, n in graph.sizes.items()}
    circuit = Circuit.induced(graph, masks)
    nodes = {f"{place}[{i}]" for place, mask in masks.items() for i in range(len(mask)) if mask[i]}
    assert set(circuit.nodes()) == nodes
    assert circuit.count_nodes() == len(nodes)
    expected = {edge for edge in edges_by_loops(sparse_model(seed)) if set(edge.split(" -> ")) <= nodes}
    assert set(circuit.edges()) == expected
    assert circuit.count_edges() == len(expected)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, data=st.data())
def test_set_algebra_equals_python_sets_of_names(seed, data):
    graph = weight_graph(sparse_model(seed))
    names = Circuit.full(graph).edges()
    a_names, b_names = (data.draw(st.sets(st.sampled_from(names))) for _ in range(2))
    a, b = Circuit.from_names(graph, a_names), Circuit.from_names(graph, b_names)
    assert set((a | b).edges()) == a_names | b_names
    assert set((a & b).edges()) == a_names & b_names
    assert set((~a).edges()) == set(names) - a_names
    assert (~(~a)).edges() == a.edges()
    all_nodes = set(Circuit.full(graph).nodes())
    ends_outside = {end for edge in (~a).edges() for end in edge.split(" -> ")}
    assert set((~a).nodes()) == (all_nodes - set(a.nodes())) | ends_outside
    overlap = a.overlap(b)
    assert (overlap.edges_shared, overlap.edges_found, overlap.edges_reference) == tuple(
        map(len, (a_names & b_names, a_names, b_names))
    )
    assert overlap.nodes_shared == len(set(a.nodes()) & set(b.nodes()))
    if a_names and b_names:
        assert overlap.edge_precision == len(a_names & b_names) / len(a_names)
        assert overlap.edge_recall == len(a_names & b_names) / len(b_names)


def test_precision_of_an_empty_circuit_is_not_a_number():
    graph = weight_graph(sparse_model(0))
    overlap = Circuit.from_names(graph).overlap(Circuit.full(graph))
    assert overlap.edge_precision != overlap.edge_precision
    assert overlap.edge_recall == 0


@settings(max_examples=20, deadline=None)
@given(seed=seeds, data=st.data())
def test_cut_and_keep_zero_exactly_the_named_weights(seed, data):
    model = sparse_model(seed)
    before = copy.deepcopy(model.state_dict())
    expected = edges_by_loops(model)
    cut = data.draw(st.sets(st.sampled_from(sorted(expected))))
    kept_model = keep_edges(model, Circuit.from_names(weight_graph(model), cut))
    cut_model = cut_edges(model, cut)
    assert edges_by_loops(cut_model) == {name: w for name, w in expected.items() if name not in cut}
    assert edges_by_loops(kept_model) == {name: w for name, w in expected.items() if name in cut}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for name, bias in cut_model.named_parameters():
        if ".W_" not in name:
            assert torch.equal(bias, before[name])


@settings(max_examples=15, deadline=None)
@given(seed=seeds, weight=st.floats(-3, 3), data=st.data())
def test_set_edge_changes_one_weight_of_a_copy(seed, weight, data):
    model = sparse_model(seed)
    expected = edges_by_loops(model)
    edge = data.draw(st.sampled_from(sorted(expected)))
    changed = {name: w for name, w in (expected | {edge: weight}).items() if w != 0}
    assert edges_by_loops(set_edge(model, edge, weight)) == changed
    assert edges_by_loops(model) == expected
    with pytest.raises(ValueError, match="give a finite number"):
        set_edge(model, edge, float("nan"))


def test_cutting_an_edge_equals_taking_its_product_out_of_the_activation():
    model = sparse_model(3, density=0.6)
    tokens = torch.arange(6)[None] % 7
    _, cache = model.run_with_cache(tokens)
    edge = next(e for e in Circuit.full(weight_graph(model)).edges() if e.startswith("blocks.1.ln2"))
    source, target = edge.split(" -> ")
    m, n = int(source.split("[")[1][:-1]), int(target.split("[")[1][:-1])
    hand = cache["blocks.1.mlp.hook_pre"].clone()
    hand[..., n] -= cache["blocks.1.ln2.hook_normalized"][..., m] * model.blocks[1].mlp.W_in[m, n]
    _, cut_cache = cut_edges(model, [edge]).run_with_cache(tokens)
    torch.testing.assert_close(cut_cache["blocks.1.mlp.hook_pre"], hand, rtol=0, atol=1e-12)


def test_matrix_and_weight_shapes_undo_each_other():
    model = sparse_model(1)
    for name, weight in model.named_parameters():
        if ".W_" in name:
            assert torch.equal(as_weight(name, as_matrix(name, weight), model.cfg.n_heads), weight)


@pytest.mark.parametrize("match", ["edges", "matrices", "nodes"])
def test_a_random_circuit_has_the_size_it_promises_and_repeats_with_its_seed(match):
    graph = weight_graph(sparse_model(5, density=0.5))
    reference = random_circuit(Circuit.induced(graph, {p: torch.arange(n) % 2 == 0 for p, n in graph.sizes.items()}), 1)
    drawn = [random_circuit(reference, seed, match) for seed in range(20)]
    assert drawn[3] == random_circuit(reference, 3, match)
    assert any(drawn[0] != other for other in drawn[1:])
    for circuit in drawn:
        if match == "nodes":
            assert {p: int(m.sum()) for p, m in circuit.node_masks.items()} == {
                p: int(m.sum()) for p, m in reference.node_masks.items()
            }
        else:
            assert circuit.count_edges() == reference.count_edges()
        if match == "matrices":
            assert all(m.sum() == reference.edge_masks[name].sum() for name, m in circuit.edge_masks.items())


def test_a_random_circuit_draws_every_edge_equally_often():
    graph = weight_graph(sparse_model(7, density=0.15))
    reference = Circuit.from_names(graph, Circuit.full(graph).edges()[:2])
    draws, edges = 1000, graph.count_edges()
    hits = sum(
        torch.cat([m.flatten() for m in random_circuit(reference, s).edge_masks.values()]).double()
        for s in range(draws)
    )
    expected = draws * 2 / edges
    assert (hits[hits > 0] - expected).abs().max() < 5 * expected**0.5
    assert (hits > 0).sum() == edges


def test_a_random_circuit_can_be_drawn_from_outside_the_reference():
    graph = weight_graph(sparse_model(5, density=0.5))
    reference = Circuit.from_names(graph, Circuit.full(graph).edges()[:5])
    assert not set(random_circuit(reference, 0, pool=~reference).edges()) & set(reference.edges())
    with pytest.raises(ValueError, match=r"has 5 to draw from .* give a larger pool"):
        random_circuit(~reference, 0, pool=reference)
    with pytest.raises(ValueError, match="match is 'size'; choose"):
        random_circuit(reference, 0, match="size")


def test_a_saved_circuit_comes_back_the_same(tmp_path):
    graph = weight_graph(sparse_model(2))
    circuit = Circuit.from_names(graph, Circuit.full(graph).edges()[::3], nodes=["blocks.0.attn.hook_q[1]"])
    circuit.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json", graph) == circuit
    assert [path.name for path in tmp_path.iterdir()] == ["circuit.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("circuit 1", "circuit 9"),
        lambda text: text.replace('"nodes"', '"knots"'),
        lambda text: text.replace('"kind": "weight"', '"kind": "component"'),
        lambda text: "[]",
    ],
    ids=["truncated", "unknown version", "missing part", "other graph", "no object"],
)
def test_a_damaged_file_is_refused_with_its_name(tmp_path, change):
    graph = weight_graph(sparse_model(2))
    path = tmp_path / "circuit.json"
    Circuit.from_names(graph, Circuit.full(graph).edges()[:3]).save(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=r"circuit\.json"):
        Circuit.load(path, graph)


def test_wrong_names_and_masks_are_refused_with_the_remedy():
    graph = weight_graph(sparse_model(2))
    full = Circuit.full(graph)
    edge = full.edges()[0]
    refused = {
        "give a list of names": lambda: Circuit.from_names(graph, edge),
        "is no name of an edge; write it as": lambda: Circuit.from_names(graph, ["W_in[3, 1]"]),
        "no location 'blocks.9": lambda: Circuit.from_names(graph, [edge.replace("blocks.0", "blocks.9")]),
        "has 4 coordinates; give an index below": lambda: Circuit.from_names(
            graph, nodes=["blocks.0.mlp.hook_post[4]"]
        ),
        "no matrix leads from": lambda: Circuit.from_names(graph, [" -> ".join(reversed(edge.split(" -> ")))]),
    }
    for message, call in refused.items():
        with pytest.raises((ValueError, TypeError), match=message.replace("[", r"\[")):
            call()
    missing = next(
        graph.edge_name(m, *(~mask).nonzero()[0].tolist()) for m, mask in graph.edge_masks.items() if not mask.all()
    )
    with pytest.raises(ValueError, match=r"is not an edge: that entry of .* is zero"):
        Circuit.from_names(graph, [missing])
    no_nodes = {place: torch.zeros(n, dtype=torch.bool) for place, n in graph.sizes.items()}
    with pytest.raises(ValueError, match="one of its ends is not kept"):
        Circuit(graph, no_nodes, graph.edge_masks)
    with pytest.raises(ValueError, match="no such edge"):
        Circuit(graph, full.node_masks, {m: torch.ones_like(mask) for m, mask in graph.edge_masks.items()})
    with pytest.raises(TypeError, match="give booleans"):
        Circuit.induced(graph, {place: mask.float() for place, mask in full.node_masks.items()})
    with pytest.raises(ValueError, match=r"shape \(1,\); the graph needs"):
        Circuit.induced(graph, {place: torch.ones(1, dtype=torch.bool) for place in graph.sizes})
    with pytest.raises(ValueError, match="subsets of different graphs"):
        full | Circuit.full(weight_graph(sparse_model(4)))
    with pytest.raises(ValueError, match="use this model's weight graph"):
        keep_edges(sparse_model(2, d_head=2), full)
    with pytest.raises(ValueError, match=r"has no matrix blocks\.1"):
        keep_edges(sparse_model(2, n_layers=1), full)
