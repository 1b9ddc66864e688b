"""The toys of superposition against loops in float64, closed forms and planted geometry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.superposition import (
    ToyConfig,
    ToyModels,
    feature_dimensionality,
    features_per_dimension,
    features_represented,
    keep_weights,
    planted_pentagon,
    random_support,
    sample_features,
    toy_loss,
    train_toys,
    untrained_toys,
)

SHORT = ToyConfig(steps=20, batch=32)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def dimensionality_by_loops(W):
    m, n = len(W), len(W[0])
    found = []
    for i in range(n):
        length = math.sqrt(sum(W[k][i] ** 2 for k in range(m)))
        if length == 0:
            found.append(0.0)
            continue
        unit = [W[k][i] / length for k in range(m)]
        found.append(length**2 / sum(sum(unit[k] * W[k][j] for k in range(m)) ** 2 for j in range(n)))
    return found


def output_by_loops(W, b, x, neurons):
    m, n = len(W), len(W[0])
    h = [sum(W[k][i] * x[i] for i in range(n)) for k in range(m)]
    h = [max(0.0, value) for value in h] if neurons else h
    return [max(0.0, sum(W[k][i] * h[k] for k in range(m)) + b[i]) for i in range(n)]


shapes = st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**31))


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_dimensionality_is_its_definition(shape):
    m, n, seed = shape
    W = torch.randn(m, n, generator=generators(seed)[0], dtype=torch.float64)
    expected = torch.tensor(dimensionality_by_loops(W.tolist()), dtype=torch.float64)
    assert torch.allclose(feature_dimensionality(W), expected, atol=1e-12)
    assert torch.allclose(feature_dimensionality(W.float()).double(), expected, atol=1e-4)


@given(shapes, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_dimensionalities_add_up_to_no_more_than_the_rank(shape, rank):
    m, n, seed = shape
    generator = generators(seed)[0]
    rank = min(rank, m, n)
    W = torch.randn(m, rank, generator=generator, dtype=torch.float64) @ torch.randn(
        rank, n, generator=generator, dtype=torch.float64
    )
    D = feature_dimensionality(W)
    assert D.sum() <= rank + 1e-9
    row_space = torch.linalg.pinv(W) @ W
    assert (row_space.diagonal() + 1e-9 >= D).all()


def test_orthonormal_rows_use_the_whole_budget():
    rows = torch.linalg.qr(torch.randn(6, 3, generator=generators(0)[0], dtype=torch.float64)).Q.T
    assert feature_dimensionality(rows).sum().item() == pytest.approx(3, abs=1e-12)


@pytest.mark.parametrize("order", [range(5), (0, 3, 1, 4, 2)])
def test_the_planted_pentagon_has_two_fifths(order):
    W = planted_pentagon(1.13, order)
    assert torch.allclose(feature_dimensionality(W), torch.full((5,), 0.4), atol=1e-6)
    assert torch.allclose(W.norm(dim=0), torch.full((5,), 1.13), atol=1e-6)
    around = W[:, list(order)].double()
    next_to = (around * around.roll(-1, 1)).sum(0) / 1.13**2
    assert torch.allclose(next_to, torch.full((5,), math.cos(2 * math.pi / 5), dtype=torch.float64), atol=1e-6)


def test_known_arrangements():
    assert feature_dimensionality(torch.tensor([[1.0, -1.0]])).tolist() == [0.5, 0.5]
    assert feature_dimensionality(torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])).tolist() == [1, 1, 0]
    assert feature_dimensionality(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_dimensionality_sees_neither_signs_nor_rotations():
    W = torch.randn(2, 5, generator=generators(1)[0], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=generators(2)[0], dtype=torch.float64)).Q
    D = feature_dimensionality(W)
    assert torch.allclose(feature_dimensionality(W * torch.tensor([1, -1, 1, -1, -1])), D)
    assert torch.allclose(feature_dimensionality(turn @ W), D)


@pytest.mark.parametrize("neurons", [False, True])
def test_the_forward_pass_is_the_equation(neurons):
    generator = generators(3)[0]
    W = torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(4, 2, 5, generator=generator, dtype=torch.float64)
    x = torch.rand(4, 2, 5, 7, generator=generator, dtype=torch.float64) * 2 - 1
    toys = ToyModels(W, b, neurons)
    found = toys(x)
    for setting, seed, example in [(0, 0, 0), (3, 1, 6), (2, 0, 4)]:
        expected = output_by_loops(
            W[setting, seed].tolist(), b[setting, seed].tolist(), x[setting, seed, :, example].tolist(), neurons
        )
        assert found[setting, seed, :, example].tolist() == pytest.approx(expected, abs=1e-12)
        alone = toys[setting, seed](x[setting, seed])
        assert torch.allclose(alone, found[setting, seed], atol=1e-12)


def test_samples_have_the_density_and_the_range():
    densities = torch.tensor([1.0, 0.3, 0.02])
    x = sample_features(densities, 4, 20_000, generators(0, 1))
    assert x.shape == (3, 2, 4, 20_000)
    assert ((x >= 0) & (x <= 1)).all()
    share = (x != 0).double().mean((1, 2, 3))
    assert torch.allclose(share, densities.double(), atol=0.005)
    assert x[0].mean().item() == pytest.approx(0.5, abs=0.005)
    signed = sample_features(densities, 4, 20_000, generators(0, 1), signed=True)
    assert signed.min() < -0.99
    assert signed[0].mean().item() == pytest.approx(0, abs=0.005)


def test_settings_differ_in_their_density_alone_and_seeds_do_not_depend_on_each_other():
    x = sample_features(torch.tensor([0.5, 0.1]), 4, 50, generators(7, 8))
    rare = x[1] != 0
    assert torch.equal(x[1][rare], x[0][rare])
    alone = sample_features(torch.tensor([0.1]), 4, 50, generators(8))
    assert torch.equal(alone[0, 0], x[1, 1])


def test_one_step_is_a_step_of_adam_down_the_gradient():
    cfg = ToyConfig(n_features=3, n_hidden=2, steps=1, batch=8, lr=0.01)
    importance = torch.tensor([1.0, 0.5, 0.25])
    stream = generators(5)
    start = untrained_toys(cfg, 1, stream)
    x = sample_features(torch.tensor([0.6]), 3, 8, stream)[0, 0].double()
    W = start.W[0, 0].double()

    def loss(W, b):
        total = 0.0
        for example in x.T.tolist():
            output = output_by_loops(W.tolist(), b.tolist(), example, neurons=False)
            total += sum(i * (a - e) ** 2 for i, a, e in zip(importance.tolist(), output, example, strict=True))
        return total / x.shape[1]

    b = torch.zeros(3, dtype=torch.float64)
    trained = train_toys(cfg, [0.6], [5], importance)
    step = 1e-6
    for place in [(0, 0), (1, 2), (0, 1)]:
        up, down = W.clone(), W.clone()
        up[place] += step
        down[place] -= step
        gradient = (loss(up, b) - loss(down, b)) / (2 * step)
        assert abs(gradient) > 1e-4
        # The first step of Adam is the learning rate, against the sign of the gradient.
        moved = trained.W[0, 0][place].item() - W[place].item()
        assert moved == pytest.approx(-0.01 * math.copysign(1, gradient), abs=1e-4)


def test_a_model_does_not_depend_on_what_is_trained_beside_it():
    together = train_toys(SHORT, [0.5, 0.1], [3, 4])
    alone = train_toys(SHORT, [0.1], [4])
    assert torch.allclose(together.W[1, 1], alone.W[0, 0], atol=1e-6)
    assert torch.allclose(together.b[1, 1], alone.b[0, 0], atol=1e-6)
    assert not torch.allclose(together.W[1, 0], together.W[1, 1], atol=1e-2)


def test_a_sparse_toy_finds_the_pentagon_and_a_dense_one_keeps_two():
    importance = torch.stack([torch.ones(5), 0.9 ** torch.arange(5.0)])[:, None]
    toys = train_toys(ToyConfig(steps=800), [0.05, 1.0], [0, 1], importance)
    assert torch.allclose(feature_dimensionality(toys.W[0]), torch.tensor(0.4), atol=0.03)
    assert features_represented(toys).sum(-1).tolist() == [[5, 5], [2, 2]]


def test_the_loss_of_known_models():
    densities = [0.05, 0.3, 1.0]
    p = torch.tensor(densities)
    pair = ToyModels(torch.tensor([[1.0, -1.0]])[None, None], torch.zeros(1, 1, 2))
    assert torch.allclose(toy_loss(pair, densities)[:, 0], p**2 / 3, rtol=0.05)
    # The second feature is given up: the best constant for it is its mean, and the loss its variance.
    kept = ToyModels(torch.tensor([[1.0, 0.0]]).expand(3, 1, 1, 2), torch.stack([torch.zeros(3), p / 2], -1)[:, None])
    assert torch.allclose(toy_loss(kept, densities)[:, 0], p / 3 - p**2 / 4, rtol=0.02)
    assert torch.allclose(toy_loss(kept, densities, torch.tensor([1.0, 0.5]))[:, 0], (p / 3 - p**2 / 4) / 2, rtol=0.02)
    neurons = ToyModels(torch.eye(2)[None, None], torch.zeros(1, 1, 2), neurons=True)
    assert toy_loss(neurons, [0.5]).item() == 0


def test_features_are_represented_when_they_move_their_own_output():
    W = torch.tensor([[1.0, -1.0, 0.5]])
    for b, expected in [
        ((0.0, 0.0, 0.0), [True, True, False]),
        ((-0.6, 0.0, 0.0), [False, True, False]),
        ((5.0, 5.0, 5.0), [True, True, False]),
    ]:
        assert features_represented(ToyModels(W, torch.tensor(b))).tolist() == expected
    assert features_represented(ToyModels(planted_pentagon(1.13), torch.full((5,), -0.25))).all()
    batch = torch.randn(3, 2, 2, 5, generator=generators(0)[0])
    found = features_represented(ToyModels(batch, torch.zeros(3, 2, 5), neurons=True))
    for setting in range(3):
        for feature in range(5):
            x = [float(feature == other) for other in range(5)]
            output = output_by_loops(batch[setting, 1].tolist(), [0.0] * 5, x, neurons=True)
            assert bool(found[setting, 1, feature]) == (output[feature] > 0.5)


def test_features_per_dimension_counts_by_hand():
    W = torch.tensor([[1.0, -0.6, 0.4, 0.0], [0.09, 0.09, 0.09, 0.09], [0.0, 0.0, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]])
    assert features_per_dimension(W).tolist() == [2, 0, 0, 1]


def test_a_budget_is_kept_at_every_step():
    constraint = keep_weights([2, 3], [3, 4], anneal=0.5)
    W = torch.randn(2, 6, 3, 5, generator=generators(0)[0])
    for progress, counts in [(0.0, (10, 15)), (0.25, (6, 9)), (0.5, (3, 4)), (1.0, (3, 4))]:
        kept = constraint(W, progress)
        for setting, (width, n) in enumerate(zip([2, 3], counts, strict=True)):
            assert (kept[setting].flatten(1).count_nonzero(1) == n).all()
            assert not kept[setting, :, width:].any()
            for seed in range(6):
                allowed = W[setting, seed, :width].abs().flatten()
                survived = kept[setting, seed, :width].abs().flatten()
                assert torch.equal(survived.sort(descending=True).values[:n], allowed.sort(descending=True).values[:n])
                stays = kept[setting, seed] != 0
                assert torch.equal(kept[setting, seed][stays], W[setting, seed][stays])


def test_trained_models_obey_their_constraint():
    cfg = ToyConfig(n_hidden=3, steps=20, batch=32)
    toys = train_toys(cfg, [0.1, 0.1], [0, 1], constraint=keep_weights([2, 3], [4, 5]))
    assert toys.W.flatten(2).count_nonzero(2).tolist() == [[4, 4], [5, 5]]
    assert not toys.W[0, :, 2].any()


def test_the_random_support_has_the_same_size_and_never_moves():
    cfg = ToyConfig(n_hidden=3)
    constraint = random_support([2, 3], [4, 5], cfg, [0, 1, 2])
    ones = torch.ones(2, 3, 3, 5)
    support = constraint(ones, 0.0)
    assert torch.equal(support, constraint(ones, 1.0))
    assert support.flatten(2).sum(2).tolist() == [[4] * 3, [5] * 3]
    assert not support[0, :, 2].any()
    assert not torch.equal(support[1, 0], support[1, 1])


@pytest.mark.parametrize("field", ["n_features", "n_hidden", "steps", "batch", "lr"])
def test_a_toy_of_no_size_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 0; give a positive number"):
        ToyConfig(**{field: 0})
