"""Pruned inputs of a model's layers, against the formulas written out token by token in float64."""

import math
import statistics

import pytest
import torch
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.sparsity import (
    CRITERIA,
    PROJECTIONS,
    Correction,
    InputPruning,
    Pattern,
    first_corrections,
    learn_corrections,
    prune_input,
    pruned_inputs,
    static_shifts,
)
from sparse_circuits.sparsity.criteria import scores

CONFIG = TransformerConfig(d_vocab=20, n_ctx=9, n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, gated_mlp=True)
HALF = Pattern(2, 4)
generator = torch.Generator().manual_seed(0)
X = torch.randn(6, 16, generator=generator, dtype=torch.float64) ** 3 + 0.5
W = torch.randn(16, 5, generator=generator, dtype=torch.float64)
TOKENS = torch.randint(20, (3, 9), generator=generator)


def random_model(**changes) -> Transformer:
    return Transformer(TransformerConfig(**CONFIG.to_dict() | changes), seed=1).double()


def scores_by_loops(criterion: str, x: list[list[float]], w: list[list[float]]) -> list[list[float]]:
    tokens, channels = range(len(x)), range(len(w))
    if criterion == "magnitude":
        return [[abs(value) for value in row] for row in x]
    if criterion == "CLACT":
        channel = [math.sqrt(sum(x[i][t] ** 2 for i in tokens)) for t in channels]
        token = [math.sqrt(sum(value**2 for value in row)) for row in x]
        return [[abs(x[i][t]) * channel[t] / token[i] for t in channels] for i in tokens]
    if criterion == "weight-aware":
        length = [math.sqrt(sum(value**2 for value in row)) for row in w]
        return [[abs(x[i][t]) * length[t] for t in channels] for i in tokens]
    every = sorted(value for row in w for value in row)

    def quantile(q: float) -> float:
        place = q * (len(every) - 1)
        low = math.floor(place)
        return every[low] + (place - low) * (every[min(low + 1, len(every) - 1)] - every[low])

    inliers = [value for value in every if quantile(0.005) <= value <= quantile(0.995)]
    mean, deviation = statistics.mean(inliers), statistics.stdev(inliers)
    length = [math.sqrt(sum(((value - mean) / deviation) ** 2 for value in row)) for row in w]
    return [[abs(x[i][t]) * length[t] / min(length) for t in channels] for i in tokens]


def pruned_by_loops(criterion: str, shift: str, variance: bool, given: list[float] | None = None) -> torch.Tensor:
    x = X.tolist()
    taken = []
    for row in x:
        eta = {"none": 0.0, "mean": statistics.fmean(row), "median": statistics.median(row)}[shift]
        taken.append(given or [eta] * len(row))
    centred = [[value - eta for value, eta in zip(row, etas, strict=True)] for row, etas in zip(x, taken, strict=True)]
    score = scores_by_loops(criterion, centred, W.tolist())
    result = []
    for row, rank, etas in zip(centred, score, taken, strict=True):
        kept = [0.0] * len(row)
        for start in range(0, len(row), 4):
            for i in sorted(range(start, start + 4), key=lambda i: -rank[i])[:2]:
                kept[i] = row[i]
        v = math.sqrt(statistics.pvariance(row) / statistics.pvariance(kept)) if variance else 1.0
        result.append([v * value + eta for value, eta in zip(kept, etas, strict=True)])
    return torch.tensor(result, dtype=torch.float64)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_orders_the_channels_of_a_token_as_its_formula_does(criterion):
    found, expected = scores(criterion, X, W), torch.tensor(scores_by_loops(criterion, X.tolist(), W.tolist()))
    ratio = found / expected
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # a factor common to the token changes nothing
    if criterion != "CLACT":
        torch.testing.assert_close(found, expected.double())


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("shift", ["none", "mean", "median"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_pruned_input_is_that_of_the_formulas(criterion, shift, variance):
    found = prune_input(X, W, InputPruning(HALF, criterion, shift, variance))
    torch.testing.assert_close(found, pruned_by_loops(criterion, shift, variance))


def test_a_given_shift_is_taken_off_and_put_back():
    shift = torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = prune_input(X, W, InputPruning(HALF), shift)
    torch.testing.assert_close(found, pruned_by_loops("magnitude", "none", False, shift.tolist()))


def test_a_shift_costs_one_number_per_token():
    """x' @ W = prune(x - s) @ W + s * (sum of the channels of W): a sparse product, and a known row times a number."""
    shift = X.mean(-1, keepdim=True)
    sparse = prune_input(X - shift, W, InputPruning(HALF))
    assert (sparse.view(6, 4, 4).count_nonzero(-1) == 2).all()
    torch.testing.assert_close(
        prune_input(X, W, InputPruning(HALF, shift="mean")) @ W, sparse @ W + shift * W.sum(0, keepdim=True)
    )


@pytest.mark.parametrize("shift", ["none", "mean"])
def test_the_variance_of_each_token_is_that_before(shift):
    found = prune_input(X, W, InputPruning(HALF, shift=shift, variance=True))
    torch.testing.assert_close(found.var(-1), X.var(-1))


def test_one_token_alone_makes_clact_the_magnitude():
    one = X[:1]
    assert torch.equal(prune_input(one, W, InputPruning(HALF, "CLACT")), prune_input(one, W, InputPruning(HALF)))


def test_with_clact_a_later_token_changes_what_is_kept_of_an_earlier_one():
    x = torch.tensor([[1.0, 1.1, 0.9, 1.2], [9.0, 0.1, 0.1, 0.1]])
    weight = torch.ones(4, 2)
    alone, together = (prune_input(rows, weight, InputPruning(HALF, "CLACT"))[0] for rows in (x[:1], x))
    assert alone.tolist() != together.tolist()


def test_random_keeps_as_many_and_not_the_largest():
    kept = prune_input(X, W, InputPruning(HALF, "random"))
    assert (kept.view(6, 4, 4).count_nonzero(-1) == 2).all()
    assert not torch.equal(kept, prune_input(X, W, InputPruning(HALF)))


def with_inputs_replaced(model: Transformer, tokens: torch.Tensor, replace) -> torch.Tensor:
    """Run the model written out, with `replace(matrix, x, W)` in place of the input of every layer."""
    x = model.W_E[tokens] + model.W_pos[: tokens.shape[1]]

    def norm(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.rms_eps).sqrt()

    later = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
    for layer, block in enumerate(model.blocks):
        attn, mlp, at = block.attn, block.mlp, f"blocks.{layer}"

        def through(name, x, matrix, at=at):
            return replace(f"{at}.{name}", x, matrix) @ matrix

        heads = []
        for h in range(model.cfg.n_heads):
            q, k, v = (
                through(f"attn.W_{n}", norm(x), getattr(attn, f"W_{n}").transpose(0, 1).flatten(1))[
                    ..., 8 * h : 8 * h + 8
                ]
                for n in "QKV"
            )
            pattern = (q @ k.mT / math.sqrt(8)).masked_fill(later, -math.inf).softmax(-1)
            heads.append(pattern @ v)
        x = x + through("attn.W_O", torch.cat(heads, -1), attn.W_O.flatten(0, 1))
        read = norm(x)
        if model.cfg.gated_mlp:
            post = torch.nn.functional.silu(through("mlp.W_gate", read, mlp.W_gate)) * through(
                "mlp.W_in", read, mlp.W_in
            )
        else:
            post = torch.nn.functional.gelu(through("mlp.W_in", read, mlp.W_in))
        x = x + through("mlp.W_out", post, mlp.W_out)
    return norm(x) @ model.W_U


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_layer_of_the_model_reads_a_pruned_input(gated, criterion):
    model, pruning = random_model(gated_mlp=gated), InputPruning(HALF, criterion, shift="median")
    with torch.no_grad(), pruned_inputs(model, pruning):
        found = model(TOKENS)
    with torch.no_grad():
        expected = with_inputs_replaced(model, TOKENS, lambda name, x, matrix: prune_input(x, matrix, pruning))
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(model(TOKENS), found, atol=1e-3)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_one_kind_of_layer_is_pruned_alone(projection):
    model, pruning = random_model(), InputPruning(HALF)
    weight = PROJECTIONS[projection][0]

    def replace(name, x, matrix):
        return prune_input(x, matrix, pruning) if name.endswith(weight) else x

    with torch.no_grad(), pruned_inputs(model, pruning, [projection]):
        torch.testing.assert_close(model(TOKENS), with_inputs_replaced(model, TOKENS, replace))


def test_corrections_do_what_they_say_and_the_model_is_restored():
    model, pruning = random_model(), InputPruning(HALF)
    draw = torch.Generator().manual_seed(3)
    vectors = [torch.randn(n, generator=draw, dtype=torch.float64) for n in (32, 16, 16)]
    down, up = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((32, 3), (3, 16)))
    correction = Correction(*vectors, down, up)
    before = model(TOKENS)
    _, cache = model.run_with_cache(TOKENS)
    x = cache["blocks.1.mlp.hook_post"]
    pruned = prune_input(x, model.blocks[1].mlp.W_out, pruning, vectors[0])
    expected = (1 + vectors[1]) * (pruned @ model.blocks[1].mlp.W_out) + vectors[2] + (x - pruned) @ down @ up
    seen = {}
    replaced = ("blocks.1.mlp.hook_post", lambda _, hook: x)  # what came before it is pruned, too
    watched = ("blocks.1.hook_mlp_out", lambda y, hook: seen.update(y=y))
    with (
        model.hooks(fwd_hooks=[replaced]),
        pruned_inputs(model, pruning, ["down"], {"blocks.1.mlp.W_out": correction}),
        model.hooks(fwd_hooks=[watched]),
    ):
        model(TOKENS)
    torch.testing.assert_close(seen["y"], expected)
    assert torch.equal(model(TOKENS), before)


def test_static_shifts_are_the_means_of_the_channels():
    model = random_model()
    shifts = static_shifts(model, TOKENS)
    _, cache = model.run_with_cache(TOKENS)
    assert len(shifts) == 14
    torch.testing.assert_close(shifts["blocks.1.attn.W_O"].shift, cache["blocks.1.attn.hook_z"].reshape(-1, 16).mean(0))


@pytest.mark.parametrize("kind", ["shift", "scale", "low rank"])
def test_learning_lowers_the_loss_of_the_pruned_model_and_leaves_its_weights(kind):
    from sparse_circuits.metrics import next_token_loss

    model, pruning = random_model(), InputPruning(HALF)
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    first = first_corrections(model, kind, rank=2)

    def loss(corrections):
        with torch.no_grad(), pruned_inputs(model, pruning, corrections=corrections):
            return next_token_loss(model(TOKENS[:, :-1]), TOKENS).item()

    learned = learn_corrections(model, pruning, first, lambda step: TOKENS, steps=15, learning_rate=0.03)
    assert loss(learned) < loss(first) - 0.01
    if kind != "low rank":
        assert loss(first) == loss({})
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: InputPruning("2:4"), TypeError, r"pattern is '2:4'; give a Pattern"),
        (lambda: InputPruning(HALF, "size"), ValueError, r"no criterion 'size'; choose one of"),
        (lambda: InputPruning(HALF, shift="mode"), ValueError, r"no shift 'mode'; choose one of"),
        (lambda: Correction(up=W), ValueError, r"both down and up; only one is given"),
        (lambda: scores("magnitude", X, W.T), ValueError, r"x has shape \(6, 16\), weight \(5, 16\); give"),
        (lambda: scores("size", X, W), ValueError, r"no criterion 'size'"),
        (lambda: prune_input(X, W, InputPruning(HALF, shift="mean"), X[0]), ValueError, r"dynamic shift \(mean\) and"),
        (lambda: prune_input(X, W, InputPruning(Pattern(3, 5))), ValueError, r"3:5 does not divide 16 entries"),
        (lambda: enter(["qkv"]), ValueError, r"no projections \['qkv'\]; choose among"),
        (lambda: enter("q"), TypeError, r"projections is 'q'; give a list"),
        (lambda: enter(["q"], {"blocks.0.attn.W_K": Correction()}), ValueError, r"not pruned; leave them out"),
        (lambda: first_corrections(random_model(), "bias"), ValueError, r"no learned correction 'bias'"),
        (lambda: first_corrections(random_model(), "shift", rank=0), ValueError, r"rank is 0; give 1"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()


def enter(projections, corrections=None):
    with pruned_inputs(random_model(), InputPruning(HALF), projections, corrections):
        pass


def test_a_model_without_gates_has_no_gate_to_prune():
    without, pruning = random_model(gated_mlp=False), InputPruning(HALF)
    with pytest.raises(ValueError, match=r"no projections \['gate'\]"), pruned_inputs(without, pruning, ["gate"]):
        pass
