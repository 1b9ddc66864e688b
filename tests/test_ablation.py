"""Ablation against a forward pass without hooks, in float64, over many random choices of what is replaced by what."""

import contextlib
import copy
import itertools
import random
import re

import pytest
import sparse_circuits as sc
import torch
from ablation_cases import KINDS, REMEDY, assert_close, by_location, make_case, random_edges, random_nodes
from ablation_oracle import Replacement, forward, locations, means_by_loops, random_model, random_tokens
from torch import Tensor


@torch.no_grad()
def logits_under(model, tokens, *arguments, **keywords) -> Tensor:
    with sc.ablated(model, *arguments, **keywords):
        return model(tokens)


@pytest.mark.parametrize("seed", range(12))
def test_the_oracle_itself_is_the_model_when_nothing_is_replaced(seed):
    case = make_case(seed)
    logits, seen = forward(case.model, case.tokens)
    with torch.no_grad():
        expected, cache = case.model.run_with_cache(case.tokens)
    assert_close(logits, expected)
    for place, activation in seen.items():
        assert_close(activation, cache[place].reshape(activation.shape), place)


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_any_nodes_at_any_positions_get_the_stated_value(kind):
    for seed in range(9):
        case = make_case(seed, kind)
        nodes = random_nodes(case.model, seed, share=[0.05, 0.3, 1.0][seed % 3])
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes))
        assert_close(logits_under(case.model, case.tokens, nodes, **case.arguments), expected, f"seed {seed}")


@pytest.mark.parametrize("kind", KINDS)
def test_each_location_alone_can_be_ablated_and_changes_the_logits(kind):
    case = make_case(3, kind)
    intact = case.model(case.tokens)
    for place, size in locations(case.model.cfg).items():
        nodes = {place: torch.arange(size) % 2 == 0}
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes))
        assert_close(logits_under(case.model, case.tokens, nodes, **case.arguments), expected, place)
        if kind not in ("mean by position", "resample") or place != "hook_pos_embed":
            assert not torch.allclose(expected, intact), place


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_ablation_agrees_to_1e_5(kind):
    for seed in range(2):
        case = make_case(seed, kind, torch.float32)
        nodes, edges = random_nodes(case.model, seed), random_edges(case.model, seed)
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes, edges))
        found = logits_under(case.model, case.tokens, nodes, edges, **case.arguments)
        assert found.dtype == torch.float32
        assert_close(found, expected, f"seed {seed}")


def test_nodes_by_name_by_mask_and_by_circuit_are_the_same():
    case = make_case(1, "mean")
    graph = sc.weight_graph(case.model)
    masks = {place: mask for place, mask in random_nodes(case.model, 5).items() if place in graph.sizes}
    circuit = sc.Circuit(graph, masks, {m: torch.zeros_like(e) for m, e in graph.edge_masks.items()})
    logits = [
        logits_under(case.model, case.tokens, nodes, **case.arguments)
        for nodes in (masks, circuit, circuit.nodes(), tuple(circuit.nodes()), (name for name in circuit.nodes()))
    ]
    for other in logits[1:]:
        assert torch.equal(logits[0], other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_all_its_z_channels_and_an_mlp_all_it_writes(kind):
    for seed in (2, 3):
        case = make_case(seed, kind)
        cfg = case.model.cfg
        for layer in range(cfg.n_layers):
            components = {f"m{layer}": {f"blocks.{layer}.hook_mlp_out": torch.ones(cfg.d_model, dtype=torch.bool)}}
            for head in range(cfg.n_heads):
                z = torch.arange(cfg.n_heads * cfg.d_head) // cfg.d_head == head
                components[f"a{layer}.h{head}"] = {f"blocks.{layer}.attn.hook_z": z}
            for name, nodes in components.items():
                expected, _ = forward(case.model, case.tokens, case.replaced(nodes))
                assert_close(logits_under(case.model, case.tokens, [name], **case.arguments), expected, name)


def test_components_and_nodes_can_be_named_together():
    case = make_case(3, "mean")
    cfg = case.model.cfg
    nodes = {
        "blocks.1.attn.hook_z": torch.arange(cfg.n_heads * cfg.d_head) < cfg.d_head,
        "blocks.0.hook_mlp_out": torch.ones(cfg.d_model, dtype=torch.bool),
        "blocks.0.mlp.hook_post": torch.arange(cfg.d_mlp) == 3,
    }
    expected, _ = forward(case.model, case.tokens, case.replaced(nodes))
    names = ["a1.h0", "blocks.0.mlp.hook_post[3]", "m0", "a1.h0"]
    assert_close(logits_under(case.model, case.tokens, names, **case.arguments), expected)


def test_nothing_named_changes_nothing_bitwise():
    case = make_case(5)
    intact = case.model(case.tokens)
    empty = {place: torch.zeros(n, dtype=torch.bool) for place, n in locations(case.model.cfg).items()}
    for nodes in ((), [], {}, empty, sc.Circuit.from_names(sc.weight_graph(case.model))):
        assert torch.equal(logits_under(case.model, case.tokens, nodes, **case.arguments), intact)


def test_every_forward_pass_inside_the_context_is_ablated_also_of_other_shapes():
    model = random_model(1)
    nodes = random_nodes(model, 1)
    with torch.no_grad(), sc.ablated(model, nodes):
        for batch, length in ((2, 5), (1, 2), (3, 7)):
            tokens = random_tokens(batch, batch, length)
            put_in = {
                place: torch.zeros(batch, length, n, dtype=torch.float64) for place, n in locations(model.cfg).items()
            }
            at = {place: mask.expand(batch, length, -1) for place, mask in nodes.items()}
            assert_close(model(tokens), forward(model, tokens, Replacement(at, values=put_in))[0])


# --- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_any_edges_at_any_positions_show_their_targets_the_stated_value(kind):
    for seed in range(9):
        case = make_case(seed, kind)
        edges = random_edges(case.model, seed, share=[0.05, 0.3, 1.0][seed % 3])
        expected, _ = forward(case.model, case.tokens, case.replaced(edges=edges))
        found = logits_under(case.model, case.tokens, edges=edges, **case.arguments)
        assert_close(found, expected, f"seed {seed}")


@pytest.mark.parametrize("kind", KINDS)
def test_each_matrix_alone_can_lose_edges(kind):
    case = make_case(3, kind)
    intact = case.model(case.tokens)
    for matrix, mask in random_edges(case.model, 3, share=0.5).items():
        expected, _ = forward(case.model, case.tokens, case.replaced(edges={matrix: mask}))
        assert_close(logits_under(case.model, case.tokens, edges={matrix: mask}, **case.arguments), expected, matrix)
        assert not torch.allclose(expected, intact), matrix


@pytest.mark.parametrize("kind", KINDS)
def test_nodes_and_edges_can_be_ablated_at_once(kind):
    for seed in range(4):
        case = make_case(seed, kind)
        nodes, edges = random_nodes(case.model, seed, 0.15), random_edges(case.model, seed, 0.3)
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes, edges))
        found = logits_under(case.model, case.tokens, nodes, edges, **case.arguments)
        assert_close(found, expected, f"seed {seed}")


def test_ablating_all_edges_out_of_a_node_is_ablating_the_node():
    for seed in range(6):
        case = make_case(seed, everywhere=True)
        graph = sc.weight_graph(case.model)
        for layer, (matrices, source) in itertools.product(
            range(2),
            [
                (("attn.W_Q", "attn.W_K", "attn.W_V"), "ln1.hook_normalized"),
                (("attn.W_O",), "attn.hook_z"),
                (("mlp.W_in",), "ln2.hook_normalized"),
                (("mlp.W_out",), "mlp.hook_post"),
            ],
        ):
            place = f"blocks.{layer}.{source}"
            chosen = torch.arange(locations(case.model.cfg)[place]) == 1
            edges = {f"blocks.{layer}.{m}": graph.edge_masks[f"blocks.{layer}.{m}"] & chosen[:, None] for m in matrices}
            by_edges = logits_under(case.model, case.tokens, edges=edges, **case.arguments)
            assert_close(by_edges, logits_under(case.model, case.tokens, {place: chosen}, **case.arguments), place)


@pytest.mark.parametrize("seed", range(6))
def test_zero_ablating_edges_is_cutting_their_weights_and_its_complement_is_keeping_them(seed):
    model, tokens = random_model(seed), random_tokens(seed, 3, 6)
    graph = sc.weight_graph(model)
    masks = random_edges(model, seed, 0.4)
    circuit = sc.Circuit(graph, graph.ends_of(masks), masks)
    with torch.no_grad():
        cut, kept = sc.cut_edges(model, circuit)(tokens), sc.keep_edges(model, circuit)(tokens)
    for edges in (circuit, masks, circuit.edges()):
        assert_close(logits_under(model, tokens, edges=edges), cut)
    assert_close(logits_under(model, tokens, edges=sc.edges_outside(circuit)), kept)
    assert_close(logits_under(model, tokens, edges=~circuit), kept)


def test_outside_a_circuit_is_every_other_node_and_every_other_edge_and_no_more():
    for seed in range(5):
        model = random_model(seed)
        graph = sc.weight_graph(model)
        edges = random_edges(model, seed)
        circuit = sc.Circuit(graph, graph.ends_of(edges), edges)
        full = sc.Circuit.full(graph)
        nodes_out, edges_out = sc.nodes_outside(circuit), sc.edges_outside(circuit)
        found_nodes = {f"{p}[{i}]" for p, mask in nodes_out.items() for i in mask.nonzero().flatten().tolist()}
        assert found_nodes == set(full.nodes()) - set(circuit.nodes())
        found_edges = {graph.edge_name(m, i, j) for m, mask in edges_out.items() for i, j in mask.nonzero().tolist()}
        assert found_edges == set(full.edges()) - set(circuit.edges())


@pytest.mark.parametrize("permanent", [False, True])
def test_a_target_that_a_hook_bends_is_bent_after_the_edges_into_it_are_ablated(permanent):
    """As in a model with activation AbsTopK: what an edge carries is part of the sum of which the largest stay."""
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    graph, masks = sc.weight_graph(model), random_edges(model, 2, 0.5)
    cut = sc.cut_edges(model, sc.Circuit(graph, graph.ends_of(masks), masks))

    def largest_stay(x, hook):
        return torch.where(x.abs() >= x.abs().median(), x, 0.0)

    for run, place in itertools.product(
        (model, cut), ("attn.hook_q", "attn.hook_z", "hook_attn_out", "ln2.hook_normalized", "mlp.hook_pre")
    ):
        run.add_hook(f"blocks.0.{place}", largest_stay, is_permanent=permanent)
    with torch.no_grad():
        assert_close(logits_under(model, tokens, edges=masks), cut(tokens))


@pytest.mark.parametrize("seed", range(3))
def test_in_a_model_with_activation_abstopk_zero_ablated_edges_are_cut_weights_too(seed):
    model, tokens = random_model(seed, activation_density=0.5), random_tokens(seed, 3, 6)
    graph, masks = sc.weight_graph(model), random_edges(model, seed, 0.4)
    circuit = sc.Circuit(graph, graph.ends_of(masks), masks)
    with torch.no_grad():
        intact, cut = model(tokens), sc.cut_edges(model, circuit)(tokens)
        kept = sc.keep_edges(model, circuit)(tokens)
    assert not torch.allclose(intact, cut)
    assert_close(logits_under(model, tokens, edges=circuit), cut)
    assert_close(logits_under(model, tokens, edges=sc.edges_outside(circuit)), kept)


# --- values ----------------------------------------------------------------------------------------------------------


def test_means_are_those_of_one_token_after_another_whatever_the_batches():
    model = random_model(3, n_ctx=4)
    tokens = random_tokens(7, 140, 4)
    sizes = locations(model.cfg)
    seen = by_location(forward(model, tokens)[1], sizes)
    where = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    where[:, 1] |= True
    chosen = random_tokens(8, 2, 4)
    everything = {place: torch.ones(n, dtype=torch.bool) for place, n in sizes.items()}
    for place, options in itertools.product(
        ("blocks.0.mlp.hook_post", "blocks.1.attn.hook_z", "blocks.1.hook_attn_out"),
        ({}, {"where": where}, {"by_position": True}),
    ):
        mean = means_by_loops({place: seen[place]}, **options)[place]
        values = sc.mean_values(model, tokens, reference="many", **options)
        with torch.no_grad(), sc.ablated(model, everything, values=values):
            _, cache = model.run_with_cache(chosen)
        found = cache[place].flatten(2)
        assert_close(found, mean.expand_as(found), f"{place} {list(options)}")


def test_by_position_and_where_together_count_each_position_apart():
    model = random_model(5)
    tokens = random_tokens(1, 6, 5)
    where = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    where[0] = True
    sizes = locations(model.cfg)
    means = means_by_loops(by_location(forward(model, tokens)[1], sizes), where, by_position=True)
    values = sc.mean_values(model, tokens, reference="r", where=where, by_position=True)
    run = random_tokens(2, 2, 5)
    nodes = random_nodes(model, 1)
    at = {place: mask.expand(2, 5, -1) for place, mask in nodes.items()}
    put_in = {place: mean.expand(2, 5, -1) for place, mean in means.items()}
    assert_close(logits_under(model, run, nodes, values=values), forward(model, run, Replacement(at, values=put_in))[0])


def test_resampling_the_same_prompts_changes_nothing():
    case = make_case(4)
    values = sc.resample_values(case.model, case.tokens, reference="the same")
    nodes, edges = random_nodes(case.model, 4), random_edges(case.model, 4)
    assert_close(logits_under(case.model, case.tokens, nodes, values=values), case.model(case.tokens))
    assert_close(logits_under(case.model, case.tokens, edges=edges, values=values), case.model(case.tokens))


def test_resampling_every_read_of_the_last_block_gives_the_other_prompts_writes():
    model, tokens, other = random_model(1), random_tokens(1, 2, 5), random_tokens(2, 2, 5)
    values = sc.resample_values(model, other, reference="other")
    everything = {"blocks.1.ln2.hook_normalized": torch.ones(model.cfg.d_model, dtype=torch.bool)}
    with torch.no_grad():
        _, clean = model.run_with_cache(other)
        with sc.ablated(model, everything, values=values):
            _, cache = model.run_with_cache(tokens)
    assert_close(cache["blocks.1.hook_mlp_out"], clean["blocks.1.hook_mlp_out"])


def test_the_reference_distribution_is_carried_under_its_name():
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    assert sc.mean_values(model, tokens, reference="code").reference == "code"
    assert sc.mean_values(model, tokens, reference="other name").reference == "other name"
    assert sc.resample_values(model, tokens, reference="corrupt prompts").reference == "corrupt prompts"


# --- share -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ablated_nodes(model, nodes, **keywords) -> dict[str, Tensor]:
    """Read off which nodes are zero in a run; every one that is not ablated is not zero there."""
    with sc.ablated(model, nodes, **keywords):
        _, cache = model.run_with_cache(random_tokens(0, 1, 2))
    return {place: (cache[place].flatten(0, 1).flatten(1) == 0).all(0) for place in nodes}


def test_a_share_of_one_is_everything_and_of_nothing_nothing():
    case = make_case(1, "mean")
    nodes, edges = random_nodes(case.model, 1), random_edges(case.model, 1)
    for named in ({"nodes": nodes}, {"edges": edges}):
        every = logits_under(case.model, case.tokens, **named, **case.arguments)
        none = logits_under(case.model, case.tokens, **named, share=0.0, seed=3, **case.arguments)
        assert torch.equal(none, case.model(case.tokens))
        for seed in (0, 1):
            found = logits_under(case.model, case.tokens, **named, share=1.0, seed=seed, **case.arguments)
            assert torch.equal(found, every)


def test_a_share_draws_from_the_listed_nodes_alone_about_that_many():
    model = random_model(1, d_mlp=400, density=1.0, act_fn="gelu")
    listed = {"blocks.0.mlp.hook_post": torch.arange(400) < 300, "blocks.1.mlp.hook_post": torch.arange(400) >= 100}
    for share in (0.1, 0.5, 0.9):
        counts = []
        for seed in range(8):
            found = ablated_nodes(model, listed, share=share, seed=seed)
            assert all((mask & ~listed[place]).sum() == 0 for place, mask in found.items())
            counts.append(sum(int(mask.sum()) for mask in found.values()))
        deviation = (600 * share * (1 - share)) ** 0.5
        assert all(abs(count - 600 * share) < 5 * deviation for count in counts)
        assert abs(sum(counts) / 8 - 600 * share) < 5 * deviation / 8**0.5
        assert len(set(counts)) > 1


def test_the_same_seed_draws_the_same_nodes_and_every_run_inside_one_context_has_them():
    case = make_case(1, "mean")
    nodes = random_nodes(case.model, 1, share=1.0)
    keywords = {"share": 0.5, "seed": 11, **case.arguments}
    with torch.no_grad(), sc.ablated(case.model, nodes, **keywords):
        first, second = case.model(case.tokens), case.model(case.tokens)
    assert torch.equal(first, second)
    assert torch.equal(logits_under(case.model, case.tokens, nodes, **keywords), first)
    others = [logits_under(case.model, case.tokens, nodes, **{**keywords, "seed": s}) for s in range(3)]
    assert not any(torch.equal(first, other) for other in others)


def test_a_node_meets_the_same_draw_whatever_else_is_listed():
    model = random_model(1, d_mlp=60, density=1.0, act_fn="gelu")
    post, write = (f"blocks.1.{place}" for place in ("mlp.hook_post", "hook_mlp_out"))
    everything = {place: torch.ones(n, dtype=torch.bool) for place, n in locations(model.cfg).items()}
    del everything["blocks.1.mlp.hook_pre"]  # a neuron whose input is zero is zero without being ablated
    for seed in range(3):
        alone = ablated_nodes(model, {post: everything[post]}, share=0.5, seed=seed)[post]
        half = {post: torch.arange(60) % 2 == 0, write: everything[write]}
        beside = ablated_nodes(model, half, share=0.5, seed=seed)[post]
        among_all = ablated_nodes(model, everything, share=0.5, seed=seed)[post]
        assert torch.equal(beside, alone & half[post])
        assert torch.equal(among_all, alone)
        larger_share = ablated_nodes(model, {post: everything[post]}, share=0.7, seed=seed)[post]
        assert (larger_share | ~alone).all()


def test_the_edges_drawn_are_about_their_share_and_those_of_one_seed():
    model, tokens = random_model(1, density=1.0, d_mlp=3, n_layers=1), random_tokens(1, 2, 4)
    matrix = "blocks.0.mlp.W_out"
    sources, counts = [(0, 2), (1, 2), (2, 2)], []
    listed = torch.zeros(3, 6, dtype=torch.bool)
    listed[:, 2] = True
    by_subset = {}
    for kept in itertools.product([False, True], repeat=3):
        mask = torch.zeros(3, 6, dtype=torch.bool)
        for chosen, entry in zip(kept, sources, strict=True):
            mask[entry] = chosen
        by_subset[kept] = logits_under(model, tokens, edges={matrix: mask})
    for seed in range(30):
        drawn = [logits_under(model, tokens, edges={matrix: listed}, share=0.5, seed=seed) for _ in range(2)]
        assert torch.equal(*drawn)
        matches = [kept for kept, logits in by_subset.items() if torch.allclose(logits, drawn[0], rtol=0, atol=1e-12)]
        assert len(matches) == 1
        counts.append(sum(matches[0]))
    assert abs(sum(counts) - 45) < 5 * (90 * 0.25) ** 0.5
    assert set(counts) == {0, 1, 2, 3}


def test_the_draw_leaves_the_random_state_of_the_caller_alone():
    model, tokens = random_model(1), random_tokens(1, 2, 4)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    random.seed(0)
    expected_python = random.random()
    random.seed(0)
    logits_under(model, tokens, random_nodes(model, 1), random_edges(model, 1), share=0.5, seed=4)
    sc.mean_values(model, random_tokens(9, 3, 4), reference="r")
    assert torch.equal(torch.rand(3), expected)
    assert random.random() == expected_python


# --- frozen norms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_with_frozen_norms_every_norm_divides_by_the_intact_runs_scale(kind):
    for seed in range(3):
        case = make_case(seed, kind)
        _, seen = forward(case.model, case.tokens)
        scales = {name.removesuffix(".hook_scale"): x for name, x in seen.items() if name.endswith("hook_scale")}
        assert scales.keys() == {"blocks.0.ln1", "blocks.0.ln2", "blocks.1.ln1", "blocks.1.ln2", "ln_final"}
        frozen = sc.norm_scales(case.model, case.tokens)
        for named in ({"nodes": random_nodes(case.model, seed)}, {"edges": random_edges(case.model, seed)}):
            expected, _ = forward(case.model, case.tokens, case.replaced(**named, scales=scales))
            found = logits_under(case.model, case.tokens, **named, norm_scales=frozen, **case.arguments)
            assert_close(found, expected, f"seed {seed}")
            free, _ = forward(case.model, case.tokens, case.replaced(**named))
            assert not torch.allclose(free, expected)


def test_frozen_norms_alone_change_nothing():
    case = make_case(2)
    frozen = sc.norm_scales(case.model, case.tokens)
    assert_close(logits_under(case.model, case.tokens, norm_scales=frozen), case.model(case.tokens))


# --- leaving the context ---------------------------------------------------------------------------------------------


def hook_census(model) -> dict[str, tuple[int, int, int]]:
    return {name: (len(h.fwd_hooks), len(h.bwd_hooks), len(h._forward_hooks)) for name, h in model.hook_dict.items()}


def everything_at_once(model, tokens) -> dict:
    return {
        "nodes": random_nodes(model, 1),
        "edges": random_edges(model, 1),
        "values": sc.mean_values(model, random_tokens(77, 3, 7), reference="r"),
        "positions": [0, 1],
        "share": 0.8,
        "norm_scales": sc.norm_scales(model, tokens),
    }


def run_and_leave(model, tokens, arguments):
    with sc.ablated(model, **arguments):
        model(tokens)


def raise_inside(model, tokens, arguments):
    with pytest.raises(ZeroDivisionError), sc.ablated(model, **arguments):
        raise ZeroDivisionError


def raise_in_the_run(model, tokens, arguments):
    with pytest.raises(ValueError, match="the run has"), sc.ablated(model, **arguments):
        model(tokens[:, :3])


def stop_a_generator(model, tokens, arguments):
    def runs():
        with sc.ablated(model, **arguments):
            yield model(tokens)
            yield model(tokens)

    generator = runs()
    next(generator)
    generator.close()


@pytest.mark.parametrize("leave", [run_and_leave, raise_inside, raise_in_the_run, stop_a_generator])
def test_leaving_restores_the_model_bitwise_and_leaves_no_hook(leave):
    for seed in range(2):
        model, tokens = random_model(seed), random_tokens(seed, 2, 5)
        weights = copy.deepcopy(model.state_dict())
        census, context_level, training = hook_census(model), model.context_level, model.training
        with torch.no_grad():
            before = model(tokens)
            arguments = everything_at_once(model, tokens)
            assert not torch.equal(logits_under(model, tokens, **arguments), before)
            leave(model, tokens, arguments)
            after = model(tokens)
        assert torch.equal(before, after)
        assert hook_census(model) == census
        assert (model.context_level, model.training) == (context_level, training)
        assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_refused_arguments_leave_no_hook():
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    census, before = hook_census(model), model(tokens)
    good = random_nodes(model, 1)
    bad = [
        {"nodes": {**good, "blocks.1.nowhere": torch.ones(3, dtype=torch.bool)}},
        {"nodes": good, "edges": ["blocks.0.mlp.hook_post[0]"]},
        {"nodes": good, "share": 2.0},
        {"nodes": good, "positions": [99]},
    ]
    for arguments in bad:
        with pytest.raises((ValueError, TypeError)):
            logits_under(model, tokens, **arguments)
        assert hook_census(model) == census
    assert torch.equal(model(tokens), before)


def test_leaving_an_inner_context_leaves_the_outer_one_in_force():
    model, tokens = random_model(3), random_tokens(3, 2, 5)
    outer, inner = {"blocks.0.mlp.hook_post": torch.arange(5) < 2}, {"blocks.1.attn.hook_q": torch.arange(6) < 3}
    values = sc.mean_values(model, random_tokens(5, 4, 7), reference="r")
    means = means_by_loops(by_location(forward(model, random_tokens(5, 4, 7))[1], locations(model.cfg)))
    with torch.no_grad():
        intact = model(tokens)
        with sc.ablated(model, outer):
            under_outer = model(tokens)
            with sc.ablated(model, inner, values=values):
                under_both = model(tokens)
            assert torch.equal(model(tokens), under_outer)
            with pytest.raises(ZeroDivisionError), sc.ablated(model, inner, values=values):
                raise ZeroDivisionError
            assert torch.equal(model(tokens), under_outer)
        assert torch.equal(model(tokens), intact)
    at = {place: mask.expand(2, 5, -1) for place, mask in (outer | inner).items()}
    put_in = {
        "blocks.0.mlp.hook_post": torch.zeros(2, 5, 5, dtype=torch.float64),
        "blocks.1.attn.hook_q": means["blocks.1.attn.hook_q"].expand(2, 5, -1),
    }
    assert_close(under_both, forward(model, tokens, Replacement(at, values=put_in))[0])


def test_a_node_ablated_inside_a_context_of_edges_and_the_reverse_equal_both_at_once():
    for seed in range(3):
        case = make_case(seed, "mean")
        nodes, edges = random_nodes(case.model, seed, 0.3), random_edges(case.model, seed, 0.4)
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes, edges))
        only_edges, _ = forward(case.model, case.tokens, case.replaced(edges=edges))
        with torch.no_grad():
            with sc.ablated(case.model, edges=edges, **case.arguments):
                with sc.ablated(case.model, nodes, **case.arguments):
                    assert_close(case.model(case.tokens), expected)
                assert_close(case.model(case.tokens), only_edges)
            with sc.ablated(case.model, nodes, **case.arguments), sc.ablated(case.model, edges=edges, **case.arguments):
                assert_close(case.model(case.tokens), expected)


def test_two_contexts_of_different_edges_add_up_and_of_the_same_edge_are_refused():
    for seed in range(4):
        case = make_case(seed, "mean")
        edges = random_edges(case.model, seed, 0.6)
        first = {matrix: mask & (torch.arange(mask.shape[1]) % 2 == 0) for matrix, mask in edges.items()}
        second = {matrix: mask & ~first[matrix] for matrix, mask in edges.items()}
        expected, _ = forward(case.model, case.tokens, case.replaced(edges=edges))
        with torch.no_grad(), sc.ablated(case.model, edges=first, **case.arguments):
            census, under_first = hook_census(case.model), case.model(case.tokens)
            with sc.ablated(case.model, edges=second, **case.arguments):
                assert_close(case.model(case.tokens), expected)
            with pytest.raises(ValueError, match="an outer context ablates already; leave it out"):
                logits_under(case.model, case.tokens, edges=edges)
            assert torch.equal(case.model(case.tokens), under_first)
            assert hook_census(case.model) == census


def test_where_two_contexts_name_the_same_node_the_inner_one_counts():
    model, tokens = random_model(3), random_tokens(3, 2, 5)
    nodes = {"blocks.0.mlp.hook_post": torch.arange(5) < 2}
    values = sc.mean_values(model, random_tokens(5, 4, 7), reference="r")
    with torch.no_grad(), sc.ablated(model, nodes):
        zero = model(tokens)
        with sc.ablated(model, nodes, values=values):
            mean = model(tokens)
    assert_close(zero, logits_under(model, tokens, nodes))
    assert_close(mean, logits_under(model, tokens, nodes, values=values))


@pytest.mark.parametrize("permanent", [False, True])
def test_hooks_that_the_user_added_before_stay_and_act(permanent):
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    calls = []
    model.add_hook("blocks.0.hook_mlp_out", lambda x, hook: calls.append(1) or x + 1, is_permanent=permanent)
    with torch.no_grad():
        before = model(tokens)
        logits_under(model, tokens, **everything_at_once(model, tokens))
        calls.clear()
        assert torch.equal(model(tokens), before)
        assert len(calls) == 1
    model.reset_hooks(including_permanent=True)
    assert not torch.equal(model(tokens), before)


def test_caching_and_further_hooks_inside_the_context_do_not_end_it():
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    with torch.no_grad(), sc.ablated(model, random_nodes(model, 1), random_edges(model, 1)):
        expected = model(tokens)
        cached, _ = model.run_with_cache(tokens)
        hooked = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.hook_mlp_out", lambda x, hook: x * 1.0)])
        assert torch.equal(cached, expected)
        assert torch.equal(hooked, expected)
        assert torch.equal(model(tokens), expected)


# --- soft masks, gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_an_ablated_run_are_those_of_the_oracle(kind):
    for seed in range(2):
        case = make_case(seed, kind)
        nodes, edges = random_nodes(case.model, seed, 0.15), random_edges(case.model, seed, 0.3)
        weight = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        logits, _ = forward(case.model, case.tokens, case.replaced(nodes, edges))
        expected = torch.autograd.grad((logits @ weight).sum(), list(case.model.parameters()), allow_unused=True)
        with sc.ablated(case.model, nodes, edges, **case.arguments):
            logits = case.model(case.tokens)
        found = torch.autograd.grad((logits @ weight).sum(), list(case.model.parameters()), allow_unused=True)
        for (name, parameter), a, b in zip(case.model.named_parameters(), found, expected, strict=True):
            a, b = (torch.zeros_like(parameter) if gradient is None else gradient for gradient in (a, b))
            assert_close(a, b, f"seed {seed} {name}")


def test_a_soft_mask_moves_that_share_of_the_way_and_gradients_reach_it():
    for seed in range(5):
        case = make_case(seed)
        generator = torch.Generator().manual_seed(seed)
        soft = {
            name: torch.rand(mask.shape, generator=generator, dtype=torch.float64).requires_grad_()
            for name, mask in (random_nodes(case.model, 0) | random_edges(case.model, 0)).items()
        }
        nodes, edges = ({n: m for n, m in soft.items() if (".W_" in n) == is_edge} for is_edge in (False, True))
        expected, _ = forward(case.model, case.tokens, case.replaced(nodes, edges))
        with sc.ablated(case.model, nodes, edges, **case.arguments):
            found = case.model(case.tokens)
        assert_close(found, expected, f"seed {seed}")
        gradients, right = (torch.autograd.grad(x.square().sum(), list(soft.values())) for x in (found, expected))
        for name, a, b in zip(soft, gradients, right, strict=True):
            assert_close(a, b, name)


def test_a_soft_mask_of_zeros_and_ones_is_the_boolean_mask():
    case = make_case(1, "mean")
    nodes, edges = random_nodes(case.model, 1), random_edges(case.model, 1)
    soft = [{name: mask.double() for name, mask in masks.items()} for masks in (nodes, edges)]
    expected = logits_under(case.model, case.tokens, nodes, edges, **case.arguments)
    assert_close(logits_under(case.model, case.tokens, *soft, **case.arguments), expected)


# --- caching ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def counted_runs(*models):
    runs = []
    handles = [model.register_forward_pre_hook(lambda *_: runs.append(1)) for model in models]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()


def mean_node(values, model, place="blocks.0.mlp.hook_post") -> Tensor:
    """Read a mean off a run in which it stands at every position."""
    nodes = {place: torch.ones(locations(model.cfg)[place], dtype=torch.bool)}
    with torch.no_grad(), sc.ablated(model, nodes, values=values):
        return model.run_with_cache(random_tokens(0, 1, 2))[1][place].flatten(2)[0]


def test_means_of_the_same_content_are_not_computed_again():
    model, tokens = random_model(101), random_tokens(101, 3, 6)
    where = random_tokens(5, 3, 6) > 3
    for options in ({}, {"by_position": True}, {"where": where}):
        with counted_runs(model) as first:
            values = sc.mean_values(model, tokens, reference="r", **options)
        assert len(first) >= 1
        again = {name: x.clone() if isinstance(x, Tensor) else x for name, x in options.items()}
        twin = copy.deepcopy(model)
        with counted_runs(model, twin) as runs:
            same = sc.mean_values(model, tokens.clone(), reference="r", **again)
            sc.mean_values(twin, tokens.clone(), reference="another name for it", **again)
        assert not runs
        assert torch.equal(mean_node(values, model), mean_node(same, model))


@pytest.mark.parametrize("changed", ["weight", "bias", "token", "where", "by_position", "activation", "norm", "dtype"])
def test_means_of_changed_content_are_computed_anew(changed):
    model, tokens = random_model(103, act_fn="gelu"), random_tokens(103, 3, 6)
    options = {"where": torch.ones(3, 6, dtype=torch.bool)}
    old = mean_node(sc.mean_values(model, tokens, reference="r", **options), model)
    with torch.no_grad():
        if changed == "weight":
            model.W_E[tokens[0, 0], 0] += 1
        elif changed == "bias":
            model.blocks[0].mlp.b_in[0] += 1
        elif changed == "token":
            tokens[1, 2] = (tokens[1, 2] + 1) % 9
        elif changed == "where":
            options["where"][0, 1] = False
        elif changed == "by_position":
            options["by_position"] = True
        elif changed == "dtype":
            model = model.float()
        else:
            change = {"act_fn": "relu"} if changed == "activation" else {"rms_eps": 0.5}
            twin = sc.Transformer(sc.TransformerConfig(**{**model.cfg.to_dict(), **change})).double()
            twin.load_state_dict(model.state_dict())
            model = twin
    values = sc.mean_values(model, tokens, reference="r", **options)
    sizes = locations(model.cfg)
    with torch.no_grad():
        means = means_by_loops(by_location(forward(model, tokens)[1], sizes), **options)
    expected = means["blocks.0.mlp.hook_post"]
    found = mean_node(values, model)
    assert_close(found, (expected[:2] if changed == "by_position" else expected).expand_as(found))
    if changed != "dtype":
        assert not torch.allclose(found, old)


def test_means_that_were_first_asked_for_inside_an_ablation_do_not_spoil_later_ones():
    model, tokens = random_model(107), random_tokens(107, 3, 6)
    place = "blocks.1.mlp.hook_post"
    with sc.ablated(model, random_nodes(model, 1)), contextlib.suppress(ValueError):
        sc.mean_values(model, tokens, reference="r")
    expected = means_by_loops({place: forward(model, tokens)[1][place]})[place]
    found = mean_node(sc.mean_values(model, tokens, reference="r"), model, place)
    assert_close(found, expected.expand_as(found))


def thin_model(seed, **options):
    return random_model(seed, activation_density=0.5, activation_locations=("attn.hook_q", "mlp.hook_post"), **options)


def test_the_abstopk_of_a_configuration_is_part_of_the_key_and_no_hook_of_a_user():
    model, tokens = thin_model(121), random_tokens(121, 3, 6)
    place = "blocks.0.mlp.hook_post"
    with counted_runs(model) as first:
        values = sc.mean_values(model, tokens, reference="r")
    twin = copy.deepcopy(model)
    with counted_runs(model, twin) as runs:
        sc.mean_values(model, tokens.clone(), reference="r")
        sc.mean_values(twin, tokens, reference="r")
    assert first and not runs
    with torch.no_grad():
        activation = model.run_with_cache(tokens)[1][place]
    assert (activation == 0).any()
    found = mean_node(values, model)
    assert_close(found, means_by_loops({place: activation})[place].expand_as(found))
    dense = sc.Transformer(sc.TransformerConfig(**{**model.cfg.to_dict(), "activation_density": 1.0})).double()
    dense.load_state_dict(model.state_dict())
    assert not torch.allclose(mean_node(sc.mean_values(dense, tokens, reference="r"), dense), found)


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("location", ["blocks.0.mlp.hook_post", "blocks.1.hook_mlp_out"])
def test_a_hook_of_a_user_is_computed_anew_beside_the_abstopk(location, permanent):
    model, tokens = thin_model(123), random_tokens(123, 3, 6)
    plain = sc.mean_values(model, tokens, reference="r")
    model.add_hook(location, lambda activation, hook: activation + 1, is_permanent=permanent)
    for _ in range(2):
        with counted_runs(model) as runs:
            shifted = sc.mean_values(model, tokens, reference="r")
        assert runs
    # The hooks of `mean_values` come after the user's and see what it leaves.
    assert_close(shifted.activations[location], plain.activations[location] + 1)
    model.reset_hooks(including_permanent=True)
    with counted_runs(model) as runs:
        sc.mean_values(model, tokens, reference="r")
    assert runs, "without its AbsTopK the model is no longer the one of its configuration"


def test_values_are_constants_without_gradient():
    model, tokens = random_model(109), random_tokens(109, 3, 6)
    nodes = {"blocks.1.hook_mlp_out": torch.ones(6, dtype=torch.bool)}
    for values in (
        sc.mean_values(model, tokens, reference="r"),
        sc.resample_values(model, tokens, reference="r"),
    ):
        with sc.ablated(model, nodes, values=values):
            model(tokens).sum().backward()
        assert model.blocks[1].mlp.W_out.grad is None or not model.blocks[1].mlp.W_out.grad.any()
        model.zero_grad()


# --- bad input -------------------------------------------------------------------------------------------------------


def assert_refused(name: str, call, *mentions: str) -> None:
    """The call is refused with an error that names the value and what to do."""
    try:
        call()
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        pytest.fail(f"{name} is accepted")
    for mention in mentions:
        assert mention in message, f"{name}: {message}"
    assert re.search(REMEDY, message), f"{name}: no remedy in: {message}"


def bad_calls() -> dict:
    model, tokens = random_model(1), random_tokens(1, 2, 5)
    cfg = model.cfg
    graph = sc.weight_graph(model)
    post = {"blocks.0.mlp.hook_post": torch.ones(cfg.d_mlp, dtype=torch.bool)}
    missing_edge = next(
        graph.edge_name(m, *(~mask).nonzero()[0].tolist()) for m, mask in graph.edge_masks.items() if not mask.all()
    )
    means = sc.mean_values(model, tokens, reference="r")
    by_position = sc.mean_values(model, tokens, reference="r", by_position=True)
    resampled = sc.resample_values(model, tokens, reference="r")
    scales = sc.norm_scales(model, tokens)

    def under(tokens_of_run=tokens, **keywords):
        return lambda: logits_under(model, tokens_of_run, **keywords)

    nan_model = copy.deepcopy(model)
    with torch.no_grad():
        nan_model.blocks[0].mlp.W_in[0, 0] = float("nan")
    other = random_model(1, d_mlp=4)
    return {
        "unknown location": (under(nodes=["blocks.0.hook_nothing[1]"]), "blocks.0.hook_nothing"),
        "unknown location of a mask": (under(nodes={"blocks.7.hook_mlp_out": torch.ones(6) > 0}), "blocks.7"),
        "index too large": (under(nodes=["blocks.0.mlp.hook_post[5]"]), "blocks.0.mlp.hook_post[5]"),
        "no name of a node": (under(nodes=["neuron 3"]), "neuron 3"),
        "one string": (under(nodes="blocks.0.mlp.hook_post[1]"), "blocks.0.mlp.hook_post[1]"),
        "one string of an edge": (under(edges=graph.edge_name("blocks.0.mlp.W_in", 0, 0)), "blocks.0.ln2"),
        "no string": (under(nodes=[3]), "3"),
        "no iterable": (under(nodes=3), "3"),
        "unknown head": (under(nodes=["a0.h2"]), "a0.h2"),
        "unknown layer of a head": (under(nodes=["a2.h0"]), "a2.h0"),
        "unknown layer of an mlp": (under(nodes=["m2"]), "m2"),
        "no edge": (under(edges=[missing_edge]), missing_edge),
        "no name of an edge": (under(edges=["a0.h0"]), "a0.h0"),
        "unknown matrix": (under(edges={"blocks.0.mlp.W_up": torch.ones(2, 2) > 0}), "blocks.0.mlp.W_up"),
        "mask of a node of another shape": (
            under(nodes={"blocks.0.mlp.hook_post": torch.ones(4, dtype=torch.bool)}),
            "blocks.0.mlp.hook_post",
            "(4,)",
        ),
        "mask of a node of integers": (under(nodes={"blocks.0.mlp.hook_post": torch.ones(5).int()}), "torch.int32"),
        "mask of a node as a list": (under(nodes={"blocks.0.mlp.hook_post": [True] * 5}), "list"),
        "soft mask above one": (under(nodes={"blocks.0.mlp.hook_post": torch.ones(5) * 1.5}), "1.5"),
        "soft mask below zero": (under(edges={"blocks.0.mlp.W_in": -torch.ones(6, 5)}), "-1"),
        "soft mask that is not a number": (under(nodes={"blocks.0.mlp.hook_post": torch.full((5,), torch.nan)}), "nan"),
        "positions where there are none": (
            lambda: logits_under(random_model(2), tokens, ["hook_pos_embed[0]"]),
            "hook_pos_embed",
        ),
        "a location that the values lack": (
            under(nodes=post, values=sc.resample_values(model, tokens, "r", locations=["blocks.1.mlp.hook_post"])),
            "blocks.0.mlp.hook_post",
        ),
        "unknown location to keep": (lambda: sc.resample_values(model, tokens, "r", locations=["nowhere"]), "nowhere"),
        "values by hand that are not finite": (
            lambda: sc.AblationValues("mean", "by hand", {"hook_embed": torch.full((6,), torch.inf)}),
            "hook_embed",
        ),
        "scales of a norm that is not there": (
            under(nodes=post, norm_scales={"ln.hook_scale": torch.ones(2, 5, 1)}),
            "ln.hook_scale",
        ),
        "mask of an edge of another shape": (
            under(edges={"blocks.0.mlp.W_in": torch.ones(5, 6, dtype=torch.bool)}),
            "blocks.0.mlp.W_in",
            "(5, 6)",
        ),
        "mask of an edge of integers": (under(edges={"blocks.0.mlp.W_in": torch.ones(6, 5).long()}), "torch.int64"),
        "circuit of another model": (under(nodes=sc.Circuit.full(sc.weight_graph(other))), "hook_post"),
        "edges of another model": (under(edges=sc.Circuit.full(sc.weight_graph(other))), "mlp"),
        "position too large": (under(nodes=post, positions=[0, 5]), "5"),
        "negative position": (under(nodes=post, positions=[-1]), "-1"),
        "position no integer": (under(nodes=post, positions=[0.5]), "0.5"),
        "positions of another length": (under(nodes=post, positions=torch.ones(4) > 0), "4"),
        "positions of another batch": (under(nodes=post, positions=torch.ones(3, 5) > 0), "3"),
        "positions as floats": (under(nodes=post, positions=torch.ones(5)), "1.0"),
        "positions as a number": (under(nodes=post, positions=3), "3"),
        "positions as truth values": (under(nodes=post, positions=[True, False]), "True"),
        "share above one": (under(nodes=post, share=1.5), "1.5"),
        "share below zero": (under(nodes=post, share=-0.1), "-0.1"),
        "share not a number": (under(nodes=post, share=float("nan")), "nan"),
        "share no number": (under(nodes=post, share="half"), "half"),
        "resampled from another batch": (under(random_tokens(1, 3, 5), nodes=post, values=resampled), "2", "3"),
        "resampled from another length": (under(random_tokens(1, 2, 4), nodes=post, values=resampled), "5", "4"),
        "run longer than the positions of the means": (
            under(random_tokens(1, 2, 7), nodes=post, values=by_position),
            "5",
            "7",
        ),
        "scales of another batch": (under(random_tokens(1, 3, 5), nodes=post, norm_scales=scales), "2", "3"),
        "scales of another length": (under(random_tokens(1, 2, 4), nodes=post, norm_scales=scales), "5", "4"),
        "values of another model": (
            lambda: logits_under(other, tokens, nodes=["blocks.0.mlp.hook_post[1]"], values=means),
            "blocks.0.mlp.hook_post",
        ),
        "values of another kind": (under(nodes=post, values="mean"), "mean"),
        "values as a number": (under(nodes=post, values=0.0), "0.0"),
        "no reference tokens": (lambda: sc.mean_values(model, tokens[:0], reference="r"), "0"),
        "no token counts": (
            lambda: sc.mean_values(model, tokens, reference="r", where=torch.zeros(2, 5, dtype=torch.bool)),
            "where",
        ),
        "no token counts at a position": (
            lambda: sc.mean_values(
                model, tokens, reference="r", where=torch.arange(5).expand(2, 5) > 0, by_position=True
            ),
            "0",
        ),
        "where of another shape": (
            lambda: sc.mean_values(model, tokens, reference="r", where=torch.ones(2, 4, dtype=torch.bool)),
            "(2, 4)",
        ),
        "where as floats": (
            lambda: sc.mean_values(model, tokens, reference="r", where=torch.ones(2, 5)),
            "torch.float32",
        ),
        "no name of the reference": (lambda: sc.mean_values(model, tokens, reference=""), "reference"),
        "means that are not finite": (lambda: sc.mean_values(nan_model, tokens, reference="r"), "finite"),
        "resampled values that are not finite": (
            lambda: sc.resample_values(nan_model, tokens, reference="r"),
            "finite",
        ),
        "scales that are not finite": (lambda: sc.norm_scales(nan_model, tokens), "finite"),
    }


def test_bad_input_is_refused_with_the_value_and_the_remedy():
    for name, (call, *mentions) in bad_calls().items():
        assert_refused(name, call, *mentions)
