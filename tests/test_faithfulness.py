"""The scores of circuits against enumeration of all subsets, with every run made by a forward pass without hooks."""

import copy
import itertools
import random
import re

import pytest
import sparse_circuits as sc
import torch
from ablation_cases import KINDS, REMEDY, make_values, random_edges
from ablation_oracle import Replacement, forward, locations, random_model, random_tokens
from torch import Tensor

LEVELS = ("nodes", "edges")


def weighted_logits(logits: Tensor) -> float:
    """Return a number that depends on every logit, and not linearly on the prompts."""
    weight = torch.linspace(-1, 1, logits[0].numel(), dtype=logits.dtype).view(logits.shape[1:])
    return float((logits * weight).sum((1, 2)).square().mean())


def names(circuit: sc.Circuit, level: str) -> list[str]:
    return circuit.nodes() if level == "nodes" else circuit.edges()


def kept_only(graph: sc.Graph, level: str, kept: set[str]) -> sc.Circuit:
    """Return the circuit of the named nodes and every edge between them, or of the named edges and all nodes."""
    if level == "edges":
        return sc.Circuit.from_names(graph, kept, nodes=sc.Circuit.full(graph).nodes())
    masks = {p: torch.tensor([f"{p}[{i}]" in kept for i in range(n)]) for p, n in graph.sizes.items()}
    return sc.Circuit.induced(graph, masks)


class Oracle:
    """F by the oracle: everything outside a set of names is replaced."""

    def __init__(self, model, tokens, metric, put_in, level, at=None, frozen=False):
        self.model, self.tokens, self.metric, self.put_in, self.level = model, tokens, metric, put_in, level
        self.graph = sc.weight_graph(model)
        self.at = torch.ones(tokens.shape, dtype=torch.bool) if at is None else at
        _, seen = forward(model, tokens)
        norms = {name.removesuffix(".hook_scale"): x for name, x in seen.items() if name.endswith("hook_scale")}
        self.scales = norms if frozen else {}
        self.every = set(names(sc.Circuit.full(self.graph), level))

    @torch.no_grad()
    def __call__(self, kept: set[str]) -> float:
        ablated = sorted(self.every - kept)
        nodes, edges = {}, {}
        for name in ablated if self.level == "nodes" else []:
            place, i = self.graph.find_node(name)
            nodes.setdefault(place, torch.zeros(*self.tokens.shape, self.graph.sizes[place], dtype=torch.bool))
            nodes[place][..., i] = self.at
        for name in ablated if self.level == "edges" else []:
            matrix, i, j = self.graph.find_edge(name)
            shape = self.graph.edge_masks[matrix].shape
            edges.setdefault(matrix, torch.zeros(*self.tokens.shape, *shape, dtype=torch.bool))
            edges[matrix][..., i, j] = self.at
        logits, _ = forward(self.model, self.tokens, Replacement(nodes, edges, self.put_in, self.scales))
        return float(self.metric(logits))


def subsets_of(members: list[str]) -> list[tuple[str, ...]]:
    return [k for size in range(len(members) + 1) for k in itertools.combinations(members, size)]


def small_case(seed: int, level: str, kind: str = "zero", n_kept: int = 4):
    """A small random model, a circuit of a few nodes or edges of it, the library's F and the oracle's."""
    model = random_model(seed, n_layers=1, d_model=4, d_mlp=3)
    tokens = random_tokens(seed, 2, 4)
    values, put_in = make_values(kind, model, 2, 4, seed)
    graph = sc.weight_graph(model)
    draw = random.Random(seed)
    if level == "edges":
        kept = draw.sample(sc.Circuit.full(graph).edges(), n_kept)
        circuit = sc.Circuit.from_names(graph, kept)
    else:
        kept = draw.sample(sc.Circuit.full(graph).nodes(), n_kept)
        circuit = kept_only(graph, level, set(kept))
    score = sc.CircuitScore(model, tokens, weighted_logits, values=values, level=level)
    return circuit, score, Oracle(model, tokens, weighted_logits, put_in, level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen_norms", [False, True])
def test_the_score_is_the_metric_with_everything_outside_the_circuit_ablated(level, kind, frozen_norms):
    for seed in (0, 1):
        model = random_model(seed)
        tokens = random_tokens(seed, 2, 5)
        values, put_in = make_values(kind, model, 2, 5, seed)
        positions = [None, [0, 3], torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)) < 0.6][
            seed + frozen_norms
        ]
        at = positions if isinstance(positions, Tensor) else torch.zeros(2, 5, dtype=torch.bool)
        if not isinstance(positions, Tensor):
            at[:, range(5) if positions is None else positions] = True
        graph, masks = sc.weight_graph(model), random_edges(model, seed, [0.2, 0.8][seed % 2])
        circuit = sc.Circuit(graph, graph.ends_of(masks), masks)
        options = {"values": values, "level": level, "positions": positions, "frozen_norms": frozen_norms}
        score = sc.CircuitScore(model, tokens, weighted_logits, **options)
        oracle = Oracle(model, tokens, weighted_logits, put_in, level, at, frozen_norms)
        for some in (circuit, sc.Circuit.from_names(graph), sc.Circuit.full(graph)):
            assert score(some) == pytest.approx(oracle(set(names(some, level))), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_faithfulness_and_completeness_are_their_formulas_over_runs_of_the_oracle(level, kind):
    for seed in range(4):
        circuit, score, oracle = small_case(seed, level, kind, n_kept=8)
        kept = set(names(circuit, level))
        whole, nothing = oracle(oracle.every), oracle(set())
        faithful, rest = ((oracle(some) - nothing) / (whole - nothing) for some in (kept, oracle.every - kept))
        assert sc.faithfulness(score, circuit) == pytest.approx(faithful, rel=1e-8, abs=1e-9)
        assert sc.completeness(score, circuit) == pytest.approx(rest, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_faithfulness_is_1_for_the_whole_model_and_0_for_nothing_and_completeness_the_reverse(level):
    circuit, score, _ = small_case(1, level)
    whole, nothing = sc.Circuit.full(circuit.graph), sc.Circuit.from_names(circuit.graph)
    assert [sc.faithfulness(score, c) for c in (whole, nothing)] == [1.0, 0.0]
    assert [sc.completeness(score, c) for c in (whole, nothing)] == [0.0, 1.0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("kind", "seed"), [("zero", 0), ("mean", 1)])
def test_completeness_gaps_equal_the_enumeration_of_all_subsets(level, kind, seed):
    circuit, score, oracle = small_case(seed, level, kind)
    kept = set(names(circuit, level))
    subsets = subsets_of(sorted(kept))
    assert len(subsets) == 16
    expected = [abs(oracle(kept - set(k)) - oracle(oracle.every - set(k))) for k in subsets]
    assert sc.completeness_gaps(score, circuit, subsets) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    generators = ((name for name in k) for k in subsets)
    assert sc.completeness_gaps(score, circuit, generators) == pytest.approx(expected, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("kind", "seed"), [("zero", 0), ("mean", 1)])
def test_minimality_equals_the_enumeration_of_all_subsets(level, kind, seed):
    circuit, score, oracle = small_case(seed, level, kind)
    kept = set(names(circuit, level))
    by_set = {frozenset(k): oracle(kept - set(k)) for k in subsets_of(sorted(kept))}
    expected = {v: max(abs(by_set[k | {v}] - by_set[k]) for k in by_set if v not in k) for v in kept}
    found = sc.minimality(score, circuit, subsets_of(sorted(kept)))
    assert list(found) == names(circuit, level)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)
    alone = {v: abs(by_set[frozenset({v})] - by_set[frozenset()]) for v in kept}
    assert sc.minimality(score, circuit) == pytest.approx(alone, rel=1e-8, abs=1e-9)


def test_scoring_leaves_the_model_and_the_circuit_as_they_were_also_when_the_metric_fails():
    for level in LEVELS:
        circuit, score, _ = small_case(1, level, "mean")
        model, before = score.model, copy.deepcopy(score.model.state_dict())
        intact, kept = model(score.tokens), (circuit.nodes(), circuit.edges())

        def failing(logits):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            sc.CircuitScore(model, score.tokens, failing, level=level)(circuit)
        sc.minimality(score, circuit, subsets_of(names(circuit, level)[:2]))
        sc.stochastic_scores(score, circuit, n_subsets=2)
        assert torch.equal(model(score.tokens), intact)
        assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
        assert (circuit.nodes(), circuit.edges()) == kept


# --- planted circuits ------------------------------------------------------------------------------------------------


class Planted:
    """A planted circuit in float64, its prompts side by side, and its metrics."""

    def __init__(self, make, max_tokens: int):
        planted = make()
        self.model, self.circuit = planted.model.double(), planted.circuit
        prompts = planted.every_prompt(max_tokens)
        length = max(len(p.tokens) for p in prompts)
        self.tokens = torch.tensor([list(p.tokens) + [0] * (length - len(p.tokens)) for p in prompts])
        self.rows, self.ends = torch.arange(len(prompts)), torch.tensor([len(p.tokens) - 1 for p in prompts])
        self.right, self.wrong = (torch.tensor([getattr(p, name) for p in prompts]) for name in ("right", "wrong"))
        self.where = torch.arange(length) <= self.ends[:, None]

    def accuracy(self, logits: Tensor) -> float:
        return sc.match_with_label(logits[self.rows, self.ends], self.right)

    def margin(self, logits: Tensor) -> Tensor:
        return sc.logit_difference(logits[self.rows, self.ends], self.right, self.wrong).mean()

    def values(self, kind: str):
        """Return the library's values and the oracle's."""
        places = locations(self.model.cfg)
        if kind == "zero":
            zeros = {p: torch.zeros(*self.tokens.shape, n, dtype=torch.float64) for p, n in places.items()}
            return sc.zero_values(), zeros
        by_position = kind == "mean by position"
        values = sc.mean_values(self.model, self.tokens, "all prompts", where=self.where, by_position=by_position)
        with torch.no_grad():
            _, seen = forward(self.model, self.tokens)
        counted, axes = self.where[..., None].double(), 0 if by_position else (0, 1)
        means = {p: (seen[p] * counted).sum(axes) / counted.sum(axes) for p in places}
        return values, {p: mean.expand(*self.tokens.shape, -1) for p, mean in means.items()}


@pytest.fixture(scope="module")
def brackets() -> Planted:
    return Planted(sc.planted_bracket_circuit, 8)


@pytest.fixture(scope="module")
def quotes() -> Planted:
    return Planted(sc.planted_quote_circuit, 11)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["zero", "mean", "mean by position"])
def test_the_bracket_circuit_alone_is_the_whole_model(brackets, level, kind):
    values, put_in = brackets.values(kind)
    for metric, whole in ((brackets.accuracy, 1.0), (brackets.margin, None)):
        score = sc.CircuitScore(brackets.model, brackets.tokens, metric, values=values, level=level)
        oracle = Oracle(brackets.model, brackets.tokens, metric, put_in, level)
        kept = set(names(brackets.circuit, level))
        assert score(brackets.circuit) == pytest.approx(oracle(kept), rel=1e-10)
        assert oracle(kept) == pytest.approx(oracle(oracle.every), rel=1e-12)
        assert sc.faithfulness(score, brackets.circuit) == pytest.approx(1.0, abs=1e-9)
        assert sc.completeness(score, brackets.circuit) == pytest.approx(0.0, abs=1e-9)
        if whole is not None:
            assert score(brackets.circuit) == whole


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_the_quote_circuit_alone_answers_every_prompt_and_with_frozen_norms_has_the_models_margin(quotes, level, kind):
    values, put_in = quotes.values(kind)
    kept = set(names(quotes.circuit, level))
    for metric, frozen in ((quotes.accuracy, False), (quotes.margin, False), (quotes.margin, True)):
        options = {"values": values, "level": level, "frozen_norms": frozen}
        score = sc.CircuitScore(quotes.model, quotes.tokens, metric, **options)
        oracle = Oracle(quotes.model, quotes.tokens, metric, put_in, level, frozen=frozen)
        assert score(quotes.circuit) == pytest.approx(oracle(kept), rel=1e-10)
        found = sc.faithfulness(score, quotes.circuit)
        assert sc.completeness(score, quotes.circuit) == pytest.approx(0.0, abs=1e-9)
        if metric == quotes.accuracy:
            assert score(quotes.circuit) == 1.0
            assert score(sc.Circuit.from_names(quotes.circuit.graph)) == 0.0
            assert found == 1.0
        elif frozen:
            assert found == pytest.approx(1.0, abs=1e-9)
        else:
            # What the circuit leaves out no longer adds to the last norm, so the same difference counts for more.
            assert found > 1.1


@pytest.mark.parametrize("level", LEVELS)
def test_on_all_2056_prompts_of_at_most_16_tokens_the_quote_circuit_alone_is_right(level):
    quotes = Planted(sc.planted_quote_circuit, 16)
    assert len(quotes.tokens) == 2056
    for values in (sc.zero_values(), sc.mean_values(quotes.model, quotes.tokens, "all prompts", where=quotes.where)):
        score = sc.CircuitScore(quotes.model, quotes.tokens, quotes.accuracy, values=values, level=level)
        assert score(quotes.circuit) == 1.0


def test_under_means_by_position_the_quote_circuit_no_longer_answers_every_prompt(quotes):
    """The mean at a position tells which job is usual there, so what is left out pulls towards it."""
    values, put_in = quotes.values("mean by position")
    for level in LEVELS:
        score = sc.CircuitScore(quotes.model, quotes.tokens, quotes.accuracy, values=values, level=level)
        oracle = Oracle(quotes.model, quotes.tokens, quotes.accuracy, put_in, level)
        found = score(quotes.circuit)
        assert found == oracle(set(names(quotes.circuit, level)))
        assert 0.5 < found < 1.0


@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("planted", ["brackets", "quotes"])
def test_every_edge_of_a_planted_circuit_is_needed_for_two_prompts_in_five(planted, kind, request):
    planted = request.getfixturevalue(planted)
    values, put_in = planted.values(kind)
    score = sc.CircuitScore(planted.model, planted.tokens, planted.accuracy, values=values, level="edges")
    oracle = Oracle(planted.model, planted.tokens, planted.accuracy, put_in, "edges")
    every = set(planted.circuit.edges())
    losses = sc.minimality(score, planted.circuit)
    assert losses.keys() == every
    for edge, loss in losses.items():
        assert loss == pytest.approx(1.0 - oracle(every - {edge}), abs=1e-12), edge
        assert loss >= 0.4, edge


@pytest.mark.parametrize("planted", ["brackets", "quotes"])
def test_edges_scored_under_zero_ablation_are_models_with_those_weights_cut(planted, request):
    planted = request.getfixturevalue(planted)
    score = sc.CircuitScore(planted.model, planted.tokens, planted.margin, level="edges")
    for edge in planted.circuit.edges():
        smaller = planted.circuit.without(edges=[edge])
        with torch.no_grad():
            cut = float(planted.margin(sc.keep_edges(planted.model, smaller)(planted.tokens)))
        assert score(smaller) == pytest.approx(cut, rel=1e-10, abs=1e-12)


def test_a_query_that_is_a_bias_is_needed_under_zero_and_not_under_mean_ablation(quotes):
    query = "blocks.1.attn.hook_q[0]"
    losses = {}
    for kind in ("zero", "mean"):
        values, put_in = quotes.values(kind)
        score = sc.CircuitScore(quotes.model, quotes.tokens, quotes.accuracy, values=values)
        oracle = Oracle(quotes.model, quotes.tokens, quotes.accuracy, put_in, "nodes")
        kept = set(quotes.circuit.nodes())
        losses[kind] = sc.minimality(score, quotes.circuit)
        for node in kept:
            assert losses[kind][node] == pytest.approx(1.0 - oracle(kept - {node}), abs=1e-12), node
    assert losses["zero"][query] >= 0.5
    assert losses["mean"][query] == 0.0
    assert all(loss >= 0.4 for node, loss in losses["mean"].items() if node != query)


def test_the_bracket_circuit_is_complete_and_minimal_over_all_subsets_of_its_nodes(brackets):
    score = sc.CircuitScore(brackets.model, brackets.tokens, brackets.margin)
    _, zeros = brackets.values("zero")
    oracle = Oracle(brackets.model, brackets.tokens, brackets.margin, zeros, "nodes")
    kept = set(brackets.circuit.nodes())
    subsets = subsets_of(sorted(kept))
    by_set = {frozenset(k): oracle(kept - set(k)) for k in subsets}
    gaps = [abs(by_set[frozenset(k)] - oracle(oracle.every - set(k))) for k in subsets]
    assert sc.completeness_gaps(score, brackets.circuit, subsets) == pytest.approx(gaps, abs=1e-10)
    assert max(gaps) < 1e-10
    expected = {v: max(abs(by_set[k | {v}] - by_set[k]) for k in by_set if v not in k) for v in kept}
    found = sc.minimality(score, brackets.circuit, subsets)
    assert found == pytest.approx(expected, abs=1e-10)
    assert min(found.values()) > 1


# --- random subsets of what is outside -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_stochastic_scores_are_those_of_the_subsets_that_the_seeds_draw(level):
    circuit, score, oracle = small_case(1, level, "mean", n_kept=len(names_of_small_model(level)) - 5)
    outside = oracle.every - set(names(circuit, level))
    by_subset = {frozenset(k): oracle(oracle.every - set(k)) for k in subsets_of(sorted(outside))}
    assert len(by_subset) == 32
    drawn = []
    for found in sc.stochastic_scores(score, circuit, share=0.5, n_subsets=40, seed=3):
        matches = [k for k, value in by_subset.items() if found == pytest.approx(value, rel=1e-10)]
        assert matches
        drawn.append(matches[0])
    assert len(set(drawn)) > 10
    if level == "nodes":
        assert drawn == [nodes_drawn(score.model, outside, 0.5, seed) for seed in range(3, 43)]


def names_of_small_model(level: str) -> list[str]:
    return names(sc.Circuit.full(small_case(1, level)[0].graph), level)


@torch.no_grad()
def nodes_drawn(model, outside: set[str], share: float, seed: int) -> frozenset[str]:
    """Read off a run with zeros which nodes a seed draws; in this model no other node is zero."""
    with sc.ablated(model, outside, share=share, seed=seed):
        _, cache = model.run_with_cache(random_tokens(0, 1, 2))
    graph = sc.weight_graph(model)
    found = [graph.find_node(name) for name in outside]
    return frozenset(f"{place}[{i}]" for place, i in found if not cache[place].flatten(2)[..., i].any())


@pytest.mark.parametrize("level", LEVELS)
def test_stochastic_scores_of_share_1_are_the_circuits_and_of_share_0_the_models(level):
    circuit, score, _ = small_case(2, level, "mean")
    whole = score(sc.Circuit.full(circuit.graph))
    assert sc.stochastic_scores(score, circuit, share=1.0, n_subsets=3) == [score(circuit)] * 3
    assert sc.stochastic_scores(score, circuit, share=0.0, n_subsets=3) == [whole] * 3


@pytest.mark.parametrize("level", LEVELS)
def test_stochastic_scores_repeat_with_their_seed_and_longer_lists_begin_with_the_shorter(level):
    circuit, score, _ = small_case(2, level, "mean")
    scores = sc.stochastic_scores(score, circuit, n_subsets=6, seed=5)
    assert sc.stochastic_scores(score, circuit, n_subsets=6, seed=5) == scores
    assert sc.stochastic_scores(score, circuit, n_subsets=3, seed=5) == scores[:3]
    assert sc.stochastic_scores(score, circuit, n_subsets=3, seed=8) == scores[3:]
    one = sc.CircuitScore(score.model, score.tokens, score.metric, values=score.values, level=level, share=0.5, seed=7)
    assert one(circuit) == scores[2]


@torch.no_grad()
def cancelling_model() -> sc.Transformer:
    """One neuron does the task; two more write +4 and -4 of another feature to the same place."""
    cfg = sc.TransformerConfig(
        d_vocab=4, n_ctx=2, n_layers=1, d_model=4, n_heads=1, d_head=1, d_mlp=3, act_fn="relu", positions=False
    )
    model = sc.Transformer(cfg).double()
    for weight in model.parameters():
        weight.zero_()
    task, other, ballast, out = range(4)
    model.W_E[:, ballast] = 1.0
    model.W_E[1, task] = model.W_E[3, task] = 1.0
    model.W_E[2, other] = model.W_E[3, other] = 1.0
    mlp = model.blocks[0].mlp
    mlp.W_in[task, 0] = mlp.W_in[other, 1] = mlp.W_in[other, 2] = 1.0
    mlp.W_out[0, out], mlp.W_out[1, out], mlp.W_out[2, out] = 1.0, 4.0, -4.0
    model.W_U[out, 0] = 1.0
    return model


@pytest.mark.parametrize("level", LEVELS)
def test_two_wrong_ablations_cancel_in_the_full_complement_and_random_subsets_show_it(level):
    model = cancelling_model()
    graph, tokens = sc.weight_graph(model), torch.arange(4)[:, None]
    circuit = sc.Circuit.from_names(
        graph,
        [
            "blocks.0.ln2.hook_normalized[0] -> blocks.0.mlp.hook_post[0]",
            "blocks.0.mlp.hook_post[0] -> blocks.0.hook_mlp_out[3]",
        ],
    )
    with torch.no_grad():
        intact = model(tokens)

    def error(logits):
        return (logits - intact).abs().max()

    def margin(logits):
        return logits[1, 0, 0] + logits[3, 0, 0] - logits[0, 0, 0] - logits[2, 0, 0]

    assert sc.CircuitScore(model, tokens, error, level=level)(circuit) == 0.0
    score = sc.CircuitScore(model, tokens, margin, level=level)
    assert sc.faithfulness(score, circuit) == 1.0
    # Of each pair the plus or the minus alone is gone in half of the draws; by which path depends on the level.
    zeros = {p: torch.zeros(4, 1, n, dtype=torch.float64) for p, n in locations(model.cfg).items()}
    oracle = Oracle(model, tokens, error, zeros, level)
    outside = sorted(oracle.every - set(names(circuit, level)))
    active = [name for name in outside if oracle(oracle.every - {name}) > 1e-9]
    errors = sc.stochastic_scores(sc.CircuitScore(model, tokens, error, level=level), circuit, n_subsets=60)
    by_subset = [oracle(oracle.every - set(k)) for k in subsets_of(active)]
    # No single one of the paths is needed together with its opposite, so part of the subsets cancel and part do not.
    assert all(any(e == pytest.approx(b, abs=1e-12) for b in by_subset) for e in errors)
    assert min(errors) == 0.0
    assert max(errors) > 0.5
    deviation = torch.tensor(by_subset).std().item() / 60**0.5
    assert sum(errors) / 60 == pytest.approx(sum(by_subset) / len(by_subset), abs=5 * deviation)


# --- bad input -------------------------------------------------------------------------------------------------------


def bad_calls() -> dict:
    circuit, score, _ = small_case(1, "nodes", "mean")
    model, tokens, graph = score.model, score.tokens, circuit.graph
    edge_score = sc.CircuitScore(model, tokens, weighted_logits, level="edges")
    outside = next(name for name in sc.Circuit.full(graph).nodes() if name not in circuit.nodes())
    other = sc.Circuit.full(sc.weight_graph(random_model(1, n_layers=1, d_model=4, d_mlp=4)))

    def scored(**options):
        return lambda: sc.CircuitScore(model, tokens, **{"metric": weighted_logits, **options})(circuit)

    return {
        "unknown level": (scored(level="heads"), "heads"),
        "metric of each prompt": (scored(metric=lambda logits: logits[:, -1, 0]), "(2,)"),
        "metric that is no number": (scored(metric=lambda logits: "high"), "high"),
        "metric that is nan": (scored(metric=lambda logits: float("nan")), "nan"),
        "share above one": (scored(share=1.2), "1.2"),
        "position too large": (scored(positions=[4]), "4"),
        "values of another batch": (
            scored(values=sc.resample_values(model, tokens[:1], "r")),
            "run the model on as many prompts",
        ),
        "circuit of another model": (lambda: score(other), "(4,)"),
        "edges of another model": (lambda: edge_score(other), "(4, 4)"),
        "no circuit": (lambda: score(circuit.nodes()), "Circuit"),
        "nothing to explain": (
            lambda: sc.faithfulness(sc.CircuitScore(model, tokens, lambda logits: 1.0), circuit),
            "1.0",
        ),
        "nothing to be complete about": (
            lambda: sc.completeness(sc.CircuitScore(model, tokens, lambda logits: 1.0), circuit),
            "1.0",
        ),
        "subset outside the circuit": (lambda: sc.completeness_gaps(score, circuit, [[outside]]), outside),
        "subset to try outside the circuit": (lambda: sc.minimality(score, circuit, [[outside]]), outside),
        "subset of unknown names": (lambda: sc.completeness_gaps(score, circuit, [["m0"]]), "m0"),
        "one string as a subset": (lambda: sc.minimality(score, circuit, [circuit.nodes()[0]]), circuit.nodes()[0]),
        "one list as the subsets": (lambda: sc.minimality(score, circuit, circuit.nodes()), circuit.nodes()[0]),
        "edges for a score of nodes": (lambda: sc.minimality(score, circuit, [circuit.graph.ends]), "W_Q"),
        "no subsets to draw": (lambda: sc.stochastic_scores(score, circuit, n_subsets=0), "0"),
        "share of the draw below zero": (lambda: sc.stochastic_scores(score, circuit, share=-0.5), "-0.5"),
    }


def test_bad_input_is_refused_with_the_value_and_the_remedy():
    for name, (call, mention) in bad_calls().items():
        try:
            call()
        except (ValueError, TypeError) as error:
            assert mention in str(error), f"{name}: {error}"
            assert re.search(REMEDY, str(error)), f"{name}: no remedy in: {error}"
        else:
            pytest.fail(f"{name} is accepted")
