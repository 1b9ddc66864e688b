"""Pruning against circuits that are known, all small circuits of the smallest model, and its own promises."""

import itertools
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pruning_cases import NAMES, QUERY, case, needed
from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.ablation_values import AblationValues, mean_values, resample_values, zero_values
from sparse_circuits.calibration import UNCALIBRATED
from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import as_matrix, weight_graph
from sparse_circuits.mask_learning import PruningConfig, StepWithSigmoidGradient, by_location
from sparse_circuits.mask_search import MaskSearch
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.pruning import Pruned, calibrated, circuit_loss, necessity_loss, prune
from sparse_circuits.two_way import TwoWayPrompts, two_way_loss

SEEDS = range(5)


def search_of(one) -> MaskSearch:
    return MaskSearch(one.model, one.planted.graph, one.selection, one.means, one.config().target_loss)


def flat(circuit: Circuit) -> torch.Tensor:
    return torch.cat([circuit.node_masks[place] for place in circuit.graph.sizes])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_planted_circuit_is_found(name, seed):
    one = case(name, seed)
    found = prune(one.model, one.learning, one.selection, one.means, one.config(seed=seed))
    overlap = found.circuit.overlap(needed(one.planted))
    assert (overlap.node_precision, overlap.node_recall) == (1.0, 1.0)
    assert (overlap.edge_precision, overlap.edge_recall) == (1.0, 1.0)
    assert found.circuit == needed(one.planted)
    assert found.loss == pytest.approx(circuit_loss(one.model, found.circuit, one.selection, one.means), abs=1e-6)
    assert list(found.nodes_by_stage) == ["mask", "bisection", "removal"]
    assert found.nodes_by_stage["removal"] == found.circuit.count_nodes() <= found.nodes_by_stage["bisection"]
    assert found.tried == ((found.circuit.count_nodes(), found.circuit.count_edges()),)


def test_with_zeros_the_constant_query_is_found_too_and_with_means_it_may_go():
    one = case("quotes")
    found = prune(one.model, one.learning, one.selection, zero_values(), one.config())
    assert found.circuit == one.planted.circuit
    smaller = needed(one.planted)
    assert (smaller.count_nodes(), smaller.count_edges()) == (12, 10)
    every = TwoWayPrompts.of(one.planted.every_prompt())
    with_query, without = (circuit_loss(one.model, c, every, one.means) for c in (one.planted.circuit, smaller))
    assert without == pytest.approx(with_query, abs=1e-9)
    assert without < 1e-9
    assert circuit_loss(one.model, one.planted.circuit, every, zero_values()) < 1e-9
    assert circuit_loss(one.model, smaller, every, zero_values()) > 0.5
    values = one.means.activations["blocks.1.attn.hook_q"]
    assert values[int(QUERY[-2])] == pytest.approx(one.model.blocks[1].attn.b_Q[0].item())


def test_no_two_nodes_of_the_quote_circuit_can_go_together():
    one = case("quotes")
    search, kept = search_of(one), flat(needed(one.planted))
    nodes = kept.nonzero().flatten().tolist()
    for gone in itertools.chain(itertools.combinations(nodes, 1), itertools.combinations(nodes, 2)):
        fewer = kept.clone()
        fewer[list(gone)] = False
        assert search.loss(fewer) > 0.3


def test_no_smaller_set_of_nodes_does_what_the_bracket_circuit_does():
    """All 21 700 sets of at most 5 of the 20 nodes, run by a forward pass of this test in float64."""
    one = case("brackets")
    prompts, cfg = one.selection[torch.arange(24)], one.model.cfg
    search = replace(search_of(one), prompts=prompts)
    weights = {name: weight.detach().double() for name, weight in one.model.named_parameters()}
    means = {place.removeprefix("blocks.0."): mean for place, mean in one.means.activations.items()}
    sizes = {place.removeprefix("blocks.0."): n for place, n in one.planted.graph.sizes.items()}
    seen = torch.arange(cfg.n_ctx)[: prompts.tokens.shape[1]] <= prompts.position[:, None]

    def losses(masks: torch.Tensor) -> torch.Tensor:
        kept = dict(zip(sizes, masks[:, None, None].split(list(sizes.values()), dim=-1), strict=True))

        def masked(place: str, x: torch.Tensor) -> torch.Tensor:
            return torch.where(kept[place], x, means[place])

        def norm(x: torch.Tensor) -> torch.Tensor:
            return x / (x.pow(2).mean(-1, keepdim=True) + cfg.rms_eps).sqrt()

        def read(kind: str, bias: str, x: torch.Tensor) -> torch.Tensor:
            return x @ weights[f"blocks.0.attn.{kind}"][0] + weights[f"blocks.0.attn.{bias}"][0]

        x = weights["W_E"][prompts.tokens][None]
        normalized = masked("ln1.hook_normalized", norm(x))
        q, k, v = (masked(f"attn.hook_{s}", read(f"W_{s.upper()}", f"b_{s.upper()}", normalized)) for s in "qkv")
        rows = torch.arange(len(prompts))
        scores = q[:, rows, prompts.position] * k[..., 0]
        pattern = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        z = (pattern[..., None] * v).sum(-2)
        x = x[:, rows, prompts.position]
        kept = {place: mask[:, 0] for place, mask in kept.items()}
        x = x + masked("hook_attn_out", z @ weights["blocks.0.attn.W_O"][0] + weights["blocks.0.attn.b_O"])
        pre = masked("ln2.hook_normalized", norm(x)) @ weights["blocks.0.mlp.W_in"] + weights["blocks.0.mlp.b_in"]
        neurons = masked("mlp.hook_post", pre.relu())
        x = x + masked("hook_mlp_out", neurons @ weights["blocks.0.mlp.W_out"] + weights["blocks.0.mlp.b_out"])
        logits = norm(x) @ weights["W_U"] + weights["b_U"]
        return F.softplus(logits[:, rows, prompts.wrong] - logits[:, rows, prompts.right]).mean(-1)

    n = sum(sizes.values())
    sets = [list(nodes) for size in range(6) for nodes in itertools.combinations(range(n), size)]
    masks = torch.zeros(len(sets), n, dtype=torch.bool)
    for mask, nodes in zip(masks, sets, strict=True):
        mask[nodes] = True
    planted = flat(one.planted.circuit)[None]
    for mask in (planted[0], *masks[:: len(masks) // 20]):
        assert losses(mask[None]).item() == pytest.approx(search.loss(mask), abs=1e-5)
    assert losses(planted).item() < search.target
    assert min(losses(part).min().item() for part in masks.split(1024)) > 0.2 > search.target
    single = planted ^ torch.eye(n, dtype=torch.bool)
    assert torch.equal(losses(single) <= search.target, ~planted[0])


def test_pruning_repeats_with_its_seed_and_leaves_model_and_random_state_alone():
    one = case("hidden brackets")
    config = one.config(steps=15, seed=3)
    one.model.W_U.requires_grad_(False)
    weights = {name: weight.clone() for name, weight in one.model.named_parameters()}
    state = torch.random.get_rng_state()
    first, again = (prune(one.model, one.learning, one.selection, one.means, config) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.learned.tau, again.learned.tau)
    assert first.learned.losses == again.learned.losses
    assert first.circuit == again.circuit
    other = prune(one.model, one.learning, one.selection, one.means, replace(config, seed=4))
    assert not torch.equal(first.learned.tau, other.learned.tau)
    assert first.learned.tau.abs().max() <= 1
    foreign = TwoWayPrompts.of(one.planted.sample(64, seed=0))
    foreign.tokens[:, 0] = 1000
    with pytest.raises(IndexError):
        prune(one.model, foreign, one.selection, one.means, config)
    assert {name for name, weight in one.model.named_parameters() if not weight.requires_grad} == {"W_U"}
    one.model.W_U.requires_grad_(True)
    assert all(weight.grad is None for weight in one.model.parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in one.model.named_parameters())
    assert not any(point.fwd_hooks for point in one.model.hook_dict.values())


def test_of_several_restarts_the_one_with_the_fewest_edges_is_kept_then_with_the_fewest_nodes(monkeypatch):
    one = case("quotes")
    whole, edges = Circuit.full(one.planted.graph), one.planted.circuit.edges()
    lone = [node for node in whole.nodes() if "ln1" in node]
    circuits = [
        Circuit.from_names(one.planted.graph, edges[:n_edges], nodes=lone[:n_lone])
        for n_edges, n_lone in ((5, 0), (3, 9), (3, 4), (3, 6), (4, 0))
    ]
    seeds = []

    def attempt(model, prompts, selection, values, config):
        seeds.append(config.seed)
        circuit = circuits[config.seed - 7]
        return Pruned(circuit, 0.1, UNCALIBRATED, {}, None, ((circuit.count_nodes(), circuit.count_edges()),))

    monkeypatch.setattr("sparse_circuits.pruning.attempt", attempt)
    found = prune(one.model, one.learning, one.selection, one.means, one.config(seed=7), restarts=5)
    assert seeds == [7, 8, 9, 10, 11]
    assert found.circuit == circuits[2]
    assert found.tried == tuple((circuit.count_nodes(), circuit.count_edges()) for circuit in circuits)


def test_at_a_looser_target_six_nodes_of_the_quote_circuit_are_enough():
    """One neuron, its kind and a head that looks everywhere: right while only one kind of quote came before."""
    one = case("quotes")
    found = prune(one.model, one.learning, one.selection, one.means, one.config(steps=20, target_loss=0.45))
    assert (found.circuit.count_nodes(), found.circuit.count_edges()) == (6, 4)
    assert found.circuit == found.circuit & one.planted.circuit
    every = TwoWayPrompts.of(one.planted.every_prompt())
    assert 0.3 < circuit_loss(one.model, found.circuit, every, one.means) < 0.6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["brackets", "hidden brackets"])
def test_bisection_and_removal_end_where_one_node_fewer_misses_the_target(name, seed):
    search = search_of(case(name))
    tau = torch.rand(search.graph.count_nodes(), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    bisected = search.bisected(tau)
    order = tau.argsort(descending=True)
    n = int(bisected.sum())
    assert torch.equal(bisected.nonzero().flatten(), order[:n].sort().values)
    assert search.loss(bisected) <= search.target < search.loss(search._only(order[: n - 1]))
    thinned = search.thinned(bisected)
    assert not (thinned & ~bisected).any()
    assert search.loss(thinned) <= search.target
    for node in thinned.nonzero().flatten():
        fewer = thinned.clone()
        fewer[node] = False
        assert search.loss(fewer) > search.target


def test_a_loss_cut_short_says_the_same_of_the_target(monkeypatch):
    monkeypatch.setattr("sparse_circuits.two_way.WORK_OF_A_RUN", 1)
    search = search_of(case("brackets"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        kept = flat(case("brackets").planted.circuit) ^ (
            torch.rand(search.graph.count_nodes(), generator=generator) < 0.1
        )
        whole, cut = search.loss(kept), search.loss(kept, 0.3)
        assert (whole <= 0.3) == (cut <= 0.3)
        assert cut == whole or 0.3 < cut < whole
        circuit = Circuit.induced(search.graph, by_location(kept, search.graph))
        assert whole == pytest.approx(circuit_loss(search.model, circuit, search.prompts, search.values), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.3])
def test_the_step_has_the_derivative_of_the_sigmoid(temperature):
    tau = torch.tensor([-1.0, -0.3, 0.0, 1e-3, 0.4, 1.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0], dtype=torch.float64)
    step = StepWithSigmoidGradient.apply(tau, temperature)
    assert step.tolist() == [0, 0, 0, 1, 1, 1]
    (weights * step).sum().backward()
    h = 1e-6
    up, down = (((tau.detach() + sign * h) / temperature).sigmoid() for sign in (1, -1))
    torch.testing.assert_close(tau.grad, weights * (up - down) / (2 * h), atol=1e-9, rtol=1e-7)


def test_the_gradient_of_the_loss_by_the_masks_equals_finite_differences():
    generator = torch.Generator().manual_seed(0)
    model = Transformer(TransformerConfig(12, 10, 2, 8, 2, 4, 16, attention_sink=True)).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.5, generator=generator)
    tokens = torch.randint(12, (20, 10), generator=generator)
    position, zeros = torch.arange(20) % 10, torch.zeros(20, dtype=torch.long)
    prompts, means = TwoWayPrompts(tokens, position, zeros, zeros + 1), mean_values(model, tokens, "themselves")
    search = MaskSearch(model, weight_graph(model), prompts, means, 1.0)
    kept = torch.rand(search.graph.count_nodes(), generator=generator) < 0.5
    gain, ablation, h = search._gain(kept), (~kept).double(), 1e-6

    def loss(ablation: torch.Tensor) -> float:
        with torch.no_grad(), ablated(model, by_location(ablation, search.graph), values=means):
            return prompts.losses(prompts.answer_logits(model)).mean().item()

    assert gain.abs().max() > 0.01
    for node in range(0, len(kept), 3):
        inside = ablation.clone()
        inside[node] += h if kept[node] else -h
        difference = (loss(inside) - loss(ablation)) / (inside[node] - ablation[node]).item()
        assert gain[node].item() == pytest.approx(difference, abs=1e-7, rel=1e-4)


def test_sufficiency_and_necessity_equal_ablation_by_hand():
    one = case("quotes")
    circuit = one.planted.circuit.without(nodes=["blocks.0.mlp.hook_post[1]"])
    rows = torch.arange(len(one.selection))

    def by_hand(keep_inside: bool) -> float:
        def hook(activation, hook):
            inside = circuit.node_masks[hook.name].view(activation.shape[2:])
            mean = one.means.activations[hook.name].float().view(activation.shape[2:])
            return torch.where(inside == keep_inside, activation, mean)

        with torch.no_grad():
            logits = one.model.run_with_hooks(
                one.selection.tokens, fwd_hooks=[(place, hook) for place in circuit.graph.sizes]
            )[rows, one.selection.position]
        return F.softplus(logits[rows, one.selection.wrong] - logits[rows, one.selection.right]).mean().item()

    sufficiency = circuit_loss(one.model, circuit, one.selection, one.means)
    necessity = necessity_loss(one.model, circuit, one.selection, one.means)
    assert sufficiency == pytest.approx(by_hand(True), abs=1e-6)
    assert necessity == pytest.approx(by_hand(False), abs=1e-6)
    assert min(sufficiency, necessity) > 0.2
    assert circuit_loss(one.model, one.planted.circuit, one.selection, one.means) < 1e-6


def test_edges_of_a_found_circuit_are_the_non_zero_weights_between_kept_nodes():
    one = case("hidden brackets")
    graph = one.planted.graph
    kept = torch.rand(graph.count_nodes(), generator=torch.Generator().manual_seed(0)) < 0.3
    circuit = Circuit.induced(graph, by_location(kept, graph))
    edges = 0
    for matrix, (source, target) in graph.ends.items():
        weight = as_matrix(matrix, one.model.get_parameter(matrix)).tolist()
        for i, row in enumerate(weight):
            for j, entry in enumerate(row):
                edges += entry != 0 and bool(circuit.node_masks[source][i]) and bool(circuit.node_masks[target][j])
    assert circuit.count_edges() == edges > 100


def test_calibration_reaches_the_best_scale_and_offset_of_a_grid():
    one = case("quotes")
    circuit = needed(one.planted).without(nodes=["blocks.1.ln1.hook_normalized[7]"])
    fit = calibrated(one.model, circuit, one.selection, one.means, steps=50)
    assert fit.loss_before == pytest.approx(circuit_loss(one.model, circuit, one.selection, one.means), abs=1e-6)
    assert fit.loss_after < fit.loss_before - 0.01
    whole = calibrated(one.model, one.planted.circuit, one.selection, one.means)
    assert whole.loss_after <= whole.loss_before

    with torch.no_grad(), ablated(one.model, nodes_outside(circuit), values=one.means):
        margins = one.selection.margins(one.selection.answer_logits(one.model)).double()
    signs = torch.where(one.selection.right > one.selection.wrong, 1.0, -1.0).double()

    def losses(scales, offsets):
        margin = scales[:, None, None] * margins + offsets[None, :, None] * signs
        return torch.log1p(torch.exp(-margin)).mean(-1)

    assert losses(torch.ones(1).double(), torch.zeros(1).double()).item() == pytest.approx(fit.loss_before, abs=1e-9)
    centre, width = torch.tensor([0.5, 0.0]).double(), torch.tensor([0.5, 4.0]).double()
    for _ in range(12):
        scales, offsets = (c + w * torch.linspace(-1, 1, 21).double() for c, w in zip(centre, width, strict=True))
        grid = losses(scales, offsets)
        i, j = divmod(int(grid.argmin()), 21)
        centre, width = torch.stack([scales[i], offsets[j]]), width / 2
    assert fit.loss_after == pytest.approx(grid.min().item(), abs=1e-6)
    assert (fit.scale, fit.offset) == pytest.approx(centre.tolist(), abs=0.01)


def test_a_target_below_the_models_own_loss_and_a_task_it_does_not_solve_are_refused():
    one = case("brackets")
    own = two_way_loss(one.model, one.selection)
    with pytest.raises(ValueError, match=f"task loss of {own:.4f}.*target is 0.001; choose a task.*above {own:.4f}"):
        prune(one.model, one.learning, one.selection, one.means, PruningConfig(target_loss=0.001))
    swapped = replace(one.selection, right=one.selection.wrong, wrong=one.selection.right)
    with pytest.raises(ValueError, match="choose a task that the model solves"):
        prune(one.model, one.learning, swapped, one.means, PruningConfig())


def test_values_circuits_and_masks_of_another_model_are_refused():
    one, other = case("brackets"), case("hidden brackets")
    arguments = (one.model, one.learning, one.selection)
    with pytest.raises(
        ValueError, match=r"\(54,\) for blocks.0.ln1.hook_normalized, the model has 4 nodes there; make"
    ):
        prune(*arguments, other.means)
    with pytest.raises(ValueError, match=r"nothing for blocks\.0\.ln1\.hook_normalized"):
        prune(*arguments, AblationValues("mean", "nothing", {}))
    with pytest.raises(ValueError, match="64 single prompts, and pruning runs others; give mean_values or zero_values"):
        prune(*arguments, resample_values(one.model, one.selection.tokens, "themselves"))
    for loss in (circuit_loss, necessity_loss, calibrated):
        with pytest.raises(ValueError, match=re.escape(f"{other.planted.circuit!r} is of another model")):
            loss(one.model, other.planted.circuit, one.selection, one.means)
    with pytest.raises(ValueError, match="is of another model"):
        circuit_loss(one.model, Circuit.full(weight_graph(Transformer(one.model.cfg))), one.selection, one.means)
    search = MaskSearch(one.model, other.planted.graph, one.selection, one.means, 0.1)
    with pytest.raises(ValueError, match=r"The mask of blocks.0.ln1.hook_normalized has shape \(54,\); give one of"):
        search.loss(torch.ones(other.planted.graph.count_nodes(), dtype=torch.bool))


def test_means_by_position_are_values_too():
    one = case("brackets")
    reference = TwoWayPrompts.of([prompt for prompt in one.planted.sample(2000, seed=1) if len(prompt.tokens) == 32])
    means = mean_values(one.model, reference.tokens, "long prompts", by_position=True)
    found = prune(one.model, one.learning[:32], one.selection[:32], means, one.config(steps=5))
    assert found.circuit == one.planted.circuit


@pytest.mark.parametrize("restarts", [0, -1, 1.5])
def test_a_wrong_number_of_restarts_is_refused(restarts):
    one = case("brackets")
    with pytest.raises(ValueError, match=f"restarts is {restarts}; give a whole number from 1 on"):
        prune(one.model, one.learning, one.selection, one.means, restarts=restarts)


def test_too_few_steps_of_calibration_are_refused():
    one = case("brackets")
    with pytest.raises(ValueError, match="steps is 0; give at least 1"):
        calibrated(one.model, one.planted.circuit, one.selection, one.means, steps=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 0}, f"{name} is 0; give a whole number from 1 on") for name in ("steps", "check_every")),
        ({"prompts_per_step": 2.5}, "prompts_per_step is 2.5; give a whole number"),
        *(
            ({name: value}, f"{name} is {value}; give a number above 0")
            for name in ("target_loss", "learning_rate", "penalty", "temperature")
            for value in (0, -1.0, float("nan"), float("inf"))
        ),
        ({"penalty_decay": 1.1}, "penalty_decay is 1.1"),
        ({"penalty_decay": 0.0}, "penalty_decay is 0.0"),
        ({"penalty_growth": 0.9}, "penalty_growth 0.9; give one of at most 1 and one of at least 1"),
        ({"start": 1.5}, "start is 1.5; give a number from -1 to 1"),
        ({"noise": -0.1}, "noise is -0.1; give 0 or a number above it"),
    ],
)
def test_settings_outside_their_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PruningConfig(**changes)
