"""Attribution graphs are exact: an edge is what an intervention moves, and the edges of a node add up to its value."""

from dataclasses import replace

import pytest
import torch
from graph_oracle import built, cases, run
from sparse_circuits.attribution_graph import attribute
from sparse_circuits.circuit import Circuit
from sparse_circuits.feature_interventions import set_features
from sparse_circuits.graph_pruning import edge_influence, graph_scores, influence, prune_graph
from sparse_circuits.loadings import attention_edges, attention_terms, head_loadings
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.qk import qk_attribution
from sparse_circuits.transcoder import Transcoder, TranscoderConfig
from torch.testing import assert_close

CASES = {name: (model, transcoder) for name, model, transcoder in cases()}
EXACT = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model, transcoder, tokens = built(*CASES[request.param])
    return model, transcoder, tokens, attribute(model, transcoder, tokens, logits=[1, 4, 7], batch_size=5)


def centred(logits):
    return logits - logits.mean(-1, keepdim=True)


def target_values(graph, pre, logits):
    """Return pre-activations of the features and values of the logits of a run, in the order of `graph.targets`."""
    n, nodes = graph.nodes.n_features, graph.nodes
    features = pre[nodes.layer[:n], nodes.position[:n], nodes.feature[:n]]
    return torch.cat([features, centred(logits[int(nodes.position[-1])])[graph.logit_tokens]])


def test_the_edges_of_every_node_add_up_to_its_value(case):
    model, transcoder, tokens, graph = case
    _, pre, logits = run(model, transcoder, tokens)
    assert_close(graph.values[graph.targets], target_values(graph, pre, logits), **EXACT)
    assert graph.closure_error() < 1e-10
    assert graph.nodes.n_features > 8
    others = ~graph.nodes.is_kind("feature", "logit")
    assert not graph.adjacency[others].any()


def test_changing_a_node_moves_everything_behind_it_by_its_column(case):
    model, transcoder, tokens, graph = case
    frozen, pre, logits = run(model, transcoder, tokens)
    _, pre_again, logits_again = run(model, transcoder, tokens, frozen)
    assert_close((pre_again, logits_again), (pre, logits), **EXACT)
    before = target_values(graph, pre, logits)
    changed = 0
    for index, name in enumerate(graph.nodes.names):
        if name.startswith("logit"):
            continue

        def doubled(node, own, name=name):
            nonlocal changed
            changed += node == name
            return 2 * own if node == name else own

        _, pre_now, logits_now = run(model, transcoder, tokens, frozen, doubled)
        moved = target_values(graph, pre_now, logits_now) - before
        assert_close(
            moved, graph.adjacency[graph.targets, index], **EXACT, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert changed == len(graph.nodes) - len(graph.logit_tokens)


def test_edges_equal_a_brute_force_jacobian(case):
    model, transcoder, tokens, graph = case
    frozen, _, _ = run(model, transcoder, tokens)
    names = [name for name in graph.nodes.names if not name.startswith("logit")]
    factors = dict(zip(names, torch.ones(len(names), dtype=torch.float64).requires_grad_().unbind(), strict=True))
    leaves = list(factors.values())

    with torch.enable_grad():
        _, pre, logits = run(model, transcoder, tokens, frozen, lambda node, own: own * factors.get(node, 1.0))
        values = target_values(graph, pre, logits)
        for target, value in zip(graph.targets.tolist(), values, strict=True):
            gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
            row = torch.stack([torch.zeros((), dtype=torch.float64) if g is None else g for g in gradients])
            assert_close(graph.adjacency[target, : len(names)], row, **EXACT)


def test_head_loadings_and_what_heads_do_not_carry_add_up_to_the_edge(case):
    model, transcoder, tokens, graph = case
    edges = attention_edges(graph)
    found = head_loadings(graph, edges)
    frozen = run(model, transcoder, tokens)[0]
    silent = replace(frozen, patterns=[torch.zeros_like(pattern) for pattern in frozen.patterns])
    _, pre_silent, logits_silent = run(model, transcoder, tokens, silent)
    before = target_values(graph, pre_silent, logits_silent)
    row_of = {int(target): i for i, target in enumerate(graph.targets)}
    for source in edges[:, 0].unique().tolist():
        name = graph.nodes.names[source]
        _, pre_now, logits_now = run(
            model, transcoder, tokens, silent, lambda node, own, name=name: 2 * own if node == name else own
        )
        moved = target_values(graph, pre_now, logits_now) - before
        rows = edges[:, 0] == source
        direct = moved[[row_of[t] for t in edges[rows, 1].tolist()]]
        assert_close(found.direct[rows], direct, **EXACT)
    # What one entry of a pattern of the last layer carries, without the biases that it carries too.
    layer, position, logit = model.cfg.n_layers - 1, int(graph.nodes.position[-1]), len(graph.nodes) - 1
    cut = replace(frozen, patterns=[pattern.clone() for pattern in frozen.patterns])
    cut.patterns[layer][0, position, 0] = 0

    def last_logit(held):
        _, _, logits = run(model, transcoder, tokens, held, lambda node, own: own * (not node.startswith("b_")))
        return centred(logits[position])[graph.logit_tokens[-1]]

    carried = found.loadings[edges[:, 1] == logit, layer, 0, 0].sum()
    assert_close(carried, last_logit(frozen) - last_logit(cut), **EXACT)


def test_terms_of_attention_hold_all_that_heads_carry(case):
    graph = case[-1]
    terms = attention_terms(graph)
    pattern = torch.stack([graph.local.at(layer, "attn.hook_pattern") for layer in range(graph.nodes.n_layers)])
    assert not terms.weights[pattern == 0].any()
    edges = attention_edges(graph)
    found = head_loadings(graph, edges)
    unit = edge_influence(graph).T[edges[:, 0], edges[:, 1]] / graph.adjacency.T[edges[:, 0], edges[:, 1]].abs()
    assert_close(terms.weights.sum(), (found.loadings.abs().sum((1, 2, 3)) * unit).sum(), **EXACT)
    n_terms, n_sources, n_heads = (terms.count(0.8, by) for by in ("term", "head and source", "head"))
    assert n_terms >= n_sources >= n_heads >= 1
    assert terms.count(1.0) <= int((pattern != 0).sum())
    assert f"{n_heads} by head)" in repr(terms) and "edges" in repr(found)
    with pytest.raises(ValueError, match="'layer'"):
        terms.count(by="layer")


def test_qk_attribution_adds_up_to_the_score_and_explains_the_gate(case):
    model, transcoder, tokens, graph = case
    query, key, frozen = len(tokens) - 1, 1, run(model, transcoder, tokens)[0]
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            found = qk_attribution(graph, layer, head, query, key)
            assert float(found.terms.sum()) == pytest.approx(found.score, abs=1e-10)
            weight = float(frozen.patterns[layer][head, query, key])
            assert found.weight == pytest.approx(weight, abs=1e-12)
            assert found.is_open == (weight > 0)
            if found.gate_bias is not None:
                assert found.is_open == (float(found.terms.sum()) > found.threshold)
    assert "score" in repr(found) and "active" in repr(graph.local)
    assert len(found.largest(3)) == 3 and found.largest(1)[0][2] == pytest.approx(
        float(found.terms.flatten()[found.terms.abs().argmax()])
    )


def test_influence_and_scores_by_an_independent_path_sum(case):
    graph = case[-1]
    A = graph.adjacency.abs()
    A = torch.where(A.sum(1, keepdim=True) > 0, A / A.sum(1, keepdim=True), 0)
    p = torch.zeros(len(A), dtype=A.dtype)
    p[-len(graph.logit_tokens) :] = graph.probabilities
    total = p @ (torch.linalg.inv(torch.eye(len(A), dtype=A.dtype) - A) - torch.eye(len(A), dtype=A.dtype))
    assert_close(influence(graph), total, **EXACT)
    assert_close(edge_influence(graph), A * (total + p)[:, None], **EXACT)
    kinds = graph.nodes
    from_inputs = total[kinds.is_kind("token", "position", "bigram")].sum()
    from_errors = total[kinds.is_kind("error")].sum()
    targets = graph.targets
    share = 1 - A[:, kinds.is_kind("error")].sum(1)
    weight = (total + p)[targets]
    scores = graph_scores(graph)
    assert scores.replacement == pytest.approx(float(from_inputs / (from_inputs + from_errors)))
    assert scores.completeness == pytest.approx(float((weight * share[targets]).sum() / weight.sum()))


def test_pruning_keeps_the_shares_asked_for_and_nothing_that_hangs_loose(case):
    graph = case[-1]
    whole, pruned = prune_graph(graph, 1.0, 1.0), prune_graph(graph)
    assert isinstance(pruned, Circuit) and pruned.count_edges() < whole.count_edges() <= graph.graph.count_edges()
    kept, edges, scores = pruned.node_masks["node"], pruned.edge_masks["edges"], influence(graph)
    smaller = prune_graph(graph, 0.5, 0.98)
    assert smaller.count_nodes() <= pruned.count_nodes()
    features = graph.nodes.is_kind("feature") & kept
    assert edges.any(0)[features].all() and edges.any(1)[features].all()
    dropped = scores[~kept & (scores > 0)]
    assert not len(dropped) or float(dropped.sum()) < 0.9 * float(scores.sum())
    assert kept[~graph.nodes.is_kind("feature", "error", "bias")].all()
    whole_scores, part_scores = graph_scores(graph, whole), graph_scores(graph, pruned)
    assert part_scores.replacement <= whole_scores.replacement + 1e-12
    name = pruned.edges()[0]
    assert graph.graph.find_edge(name)[0] == "edges"
    with pytest.raises(ValueError, match=r"node_share is 1\.5"):
        prune_graph(graph, 1.5)


def test_a_pruned_graph_is_a_circuit_that_is_stored_and_named(tmp_path):
    graph = attribute(*built({"seed": 5}, {}))
    pruned = prune_graph(graph)
    pruned.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json", graph.graph) == pruned
    assert Circuit.from_names(graph.graph, pruned.edges()).edge_masks["edges"].equal(pruned.edge_masks["edges"])
    with pytest.raises(ValueError, match="token@0 adds nothing"):
        graph.graph.find_edge("token@0->token@1")


def test_a_hand_computed_graph():
    """f0 -> f1 -> logit and error -> f1: the numbers of the example in the text of this test."""
    model, transcoder, tokens = built({"seed": 2}, {})
    graph = attribute(model, transcoder, tokens, logits=[0])
    nodes = graph.nodes
    first, last = 0, nodes.n_features - 1
    error, token, logit = nodes.errors(0).start, nodes.tokens.start, len(nodes) - 1
    graph.adjacency.zero_()
    graph.adjacency[first, token], graph.adjacency[first, error] = 3.0, -1.0
    graph.adjacency[last, first], graph.adjacency[last, token] = 2.0, 2.0
    graph.adjacency[logit, last], graph.adjacency[logit, first] = -1.0, 3.0
    graph.probabilities.fill_(1.0)
    scores = influence(graph)
    # logit: 1/4 to last, 3/4 to first; last gives half to first; first gives 3/4 to the token and 1/4 to the error.
    assert float(scores[last]) == pytest.approx(0.25)
    assert float(scores[first]) == pytest.approx(0.75 + 0.125)
    assert float(scores[token]) == pytest.approx(0.125 + 0.875 * 0.75)
    assert float(scores[error]) == pytest.approx(0.875 * 0.25)
    found = graph_scores(graph)
    assert found.replacement == pytest.approx(0.78125)
    assert found.completeness == pytest.approx((1 * 1 + 0.25 * 1 + 0.875 * 0.75) / 2.125)
    pruned = prune_graph(graph, node_share=0.8, edge_share=0.9)
    assert pruned.node_masks["node"][[first, last, token, logit]].all()
    assert not pruned.node_masks["node"][error] and pruned.count_edges() == 5


def test_set_features_writes_the_change_of_each_feature():
    model, transcoder, tokens = built({"seed": 5}, {})
    graph = attribute(model, transcoder, tokens)
    layer, position, feature = (int(getattr(graph.nodes, n)[0]) for n in ("layer", "position", "feature"))
    logits = model(tokens[None])[0]
    with set_features(model, transcoder, {(layer, position, feature): float(graph.values[0])}):
        assert_close(model(tokens[None])[0], logits, **EXACT)
    with set_features(model, transcoder, {(layer, position, feature): 0.0}):
        ablated = model(tokens[None])[0]
    seen = {}
    hooks = [(f"blocks.{i}.hook_mlp_out", lambda x, hook: seen.setdefault(hook.name, x)) for i in range(2)]
    with model.hooks(fwd_hooks=hooks):
        model(tokens[None])
    change = -float(graph.values[0]) * transcoder.W_dec[layer][feature, 0]
    put = seen[f"blocks.{layer}.hook_mlp_out"].clone()
    put[0, position] += change
    later = -float(graph.values[0]) * transcoder.W_dec[layer][feature, 1]

    def add_later(x, hook):
        x = x.clone()
        x[0, position] += later
        return x

    with model.hooks(
        fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", lambda x, hook: put), ("blocks.1.hook_mlp_out", add_later)]
    ):
        assert_close(model(tokens[None])[0], ablated, **EXACT)
    with pytest.raises(ValueError, match="Feature 99 is out of range"):
        set_features(model, transcoder, {(0, 0, 99): 1.0}).__enter__()
    with pytest.raises(IndexError, match="Position 6"), set_features(model, transcoder, {(0, 6, 1): 1.0}):
        model(tokens[None])


def test_frozen_choices_of_abstopk():
    """Where AbsTopK leaves activations out the sums are still complete, and scores still explained."""
    model, transcoder, tokens = built({"seed": 3, "activation_density": 0.5}, {})
    graph = attribute(model, transcoder, tokens)
    assert graph.closure_error() < 1e-10
    found = head_loadings(graph, attention_edges(graph))
    assert_close(found.direct + found.loadings.sum((1, 2, 3)), graph.adjacency.T[tuple(found.edges.T)], **EXACT)
    for layer in range(2):
        explained = qk_attribution(graph, layer, 1, 3, 2)
        assert float(explained.terms.sum()) == pytest.approx(explained.score, abs=1e-10)


@pytest.mark.parametrize("layers", [[1], [0, 1]])
def test_layers_without_active_features(layers):
    model, transcoder, tokens = built({"seed": 5}, {})
    transcoder.threshold[layers] = 100.0
    graph = attribute(model, transcoder, tokens)
    assert graph.closure_error() < 1e-10
    assert (graph.nodes.n_features == 0) == (len(layers) == 2)
    assert graph_scores(graph).completeness < 1 and prune_graph(graph).count_edges() > 0
    assert_close(head_loadings(graph, attention_edges(graph)).loadings.isfinite().all(), torch.tensor(True))


def test_in_float32_the_sums_still_close():
    model, transcoder, tokens = built({"seed": 3, "n_layers": 3}, {})
    graph = attribute(model.float(), transcoder, tokens)
    assert graph.adjacency.dtype == torch.float32
    assert graph.closure_error() < 1e-5


def test_likely_logits_are_chosen_and_names_are_read():
    model, transcoder, tokens = built({"seed": 5}, {})
    graph = attribute(model, transcoder, tokens, share=0.5, position=2)
    probabilities = model(tokens[None])[0, 2].softmax(-1)
    assert graph.logit_tokens == probabilities.argsort(descending=True)[: len(graph.logit_tokens)].tolist()
    assert float(probabilities[graph.logit_tokens].sum()) >= 0.5 > float(probabilities[graph.logit_tokens[:-1]].sum())
    assert graph.nodes.names[-1] == f"logit[{graph.logit_tokens[-1]}]@2"
    assert graph.edge("bigram@2", graph.nodes.names[-1]) != 0
    assert "features" in repr(graph)
    with pytest.raises(ValueError, match=r"no node 'f9\.9@9'"):
        graph.nodes.index("f9.9@9")
    with pytest.raises(TypeError, match="no name of a node"):
        graph.nodes.index(3)


def random_of(**shape):
    base = {"n_layers": 2, "d_model": 6, "n_heads": 2, "d_head": 3, "d_mlp": 5, "d_vocab": 9, "n_ctx": 7}
    return Transformer(TransformerConfig(**base | shape)).double()


def broken(model):
    copy = Transformer(model.cfg).double()
    copy.b_U.data[3] = torch.inf
    return copy


def unknown_feature():
    transcoder = Transcoder(TranscoderConfig(2, 6, 7, k=1)).double().eval()
    transcoder.W_enc.data[1, 2, 0] = torch.nan
    return transcoder


FREE = TranscoderConfig(2, 6, 7, k=1)
BAD_INPUTS = {
    "another model": (lambda m, c, t: (broken(m), c, t), ValueError, "SHA-256"),
    "another depth": (lambda m, c, t: (random_of(n_layers=3), c, t), ValueError, "for 2 layers, the model has 3"),
    "another width": (lambda m, c, t: (random_of(d_model=8), c, t), ValueError, "for 6 residual channels"),
    "long prompt": (lambda m, c, t: (m, c, t.repeat(2)), ValueError, "8 tokens, the model reads 7"),
    "unknown token": (lambda m, c, t: (m, c, t + 9), ValueError, "the vocabulary has 0 to 8"),
    "two prompts": (lambda m, c, t: (m, c, torch.stack([t, t])), ValueError, r"\(2, 4\)"),
    "infinite logit": (lambda m, c, t: (broken(m), Transcoder(FREE).double(), t), ValueError, "is inf"),
    "nan feature": (lambda m, c, t: (m, unknown_feature(), t), ValueError, r"index \[0, 1, 2\] is nan"),
    "no model": (lambda m, c, t: (torch.nn.Linear(1, 1), c, t), TypeError, "Linear"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_named(name):
    spoilt, error, message = BAD_INPUTS[name]
    with pytest.raises(error, match=message):
        attribute(*spoilt(*built({"seed": 5}, {})))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 4}, "position is 4"),
        ({"logits": [9]}, "token 9"),
        ({"logits": [1, 1]}, "different"),
        ({"share": 0.0}, "share 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attribute(*built({"seed": 5}, {}), **options)


def test_bad_edges_and_heads_are_named():
    graph = attribute(*built({"seed": 5}, {}))
    with pytest.raises(ValueError, match="out of range"):
        head_loadings(graph, torch.tensor([[0, 10_000]]))
    with pytest.raises(ValueError, match="b_U writes at no one position"):
        head_loadings(graph, torch.tensor([[graph.nodes.unembedding_bias, 0]]))
    with pytest.raises(ValueError, match="token@0 has no edges in"):
        head_loadings(graph, torch.tensor([[0, graph.nodes.index("token@0")]]))
    with pytest.raises(ValueError, match="head is 2; give 0 to 1"):
        qk_attribution(graph, 0, 2, 1, 1)
    with pytest.raises(ValueError, match="cannot attend to 3"):
        qk_attribution(graph, 0, 1, 1, 3)
