"""The controller finds the known optimum of a scalar problem, from either side, and stays within its bounds."""

import math

import pytest
import torch
from sparse_circuits.sparsity.constraint import ConstraintController


def solve(controller, loss_of, start, steps=4000, rate=0.01):
    """Minimise x squared while loss_of(x) stays within the controller's limit, by gradient descent."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = loss_of(x)
        (gradient,) = torch.autograd.grad(controller.objective(x**2, loss), x)
        with torch.no_grad():
            x -= rate * gradient
        controller.update(loss.item())
    return x.item()


@pytest.mark.parametrize("start", [0.0, 3.0])
@pytest.mark.parametrize("relative", [True, False])
def test_it_finds_the_optimum_and_its_multiplier(start, relative):
    """min x^2 with (x - 3)^2 <= 1: x = 2, where 2 x + multiplier * 2 (x - 3) = 0, so the multiplier is 2."""
    controller = ConstraintController(limit=1.0, rate=0.02, relative=relative)
    assert solve(controller, lambda x: (x - 3) ** 2, start) == pytest.approx(2, abs=1e-3)
    assert controller.multiplier == pytest.approx(2, rel=1e-2)


def test_relative_violations_mean_the_same_for_small_losses():
    """The same problem in a hundredth of the unit has a hundred times the multiplier, and the same optimum."""
    controller = ConstraintController(limit=0.01, rate=0.02, log_bounds=(-5, 10))
    assert solve(controller, lambda x: 0.01 * (x - 3) ** 2, 3.0, rate=0.5) == pytest.approx(2, abs=5e-3)
    assert controller.multiplier == pytest.approx(200, rel=0.05)


def test_where_the_limit_is_never_reached_the_penalty_alone_counts():
    controller = ConstraintController(limit=100.0, rate=0.1)
    assert solve(controller, lambda x: (x - 3) ** 2, 3.0) == pytest.approx(0, abs=0.05)
    assert controller.log_multiplier == -5


def test_updates_are_those_of_the_equations():
    controller = ConstraintController(limit=2.0, rate=0.5, decay=0.75)
    average, log_multiplier = None, 0.0
    for loss in (3.0, 1.0, 2.5, 2.0):
        controller.update(loss)
        violation = loss / 2 - 1
        average = violation if average is None else 0.75 * average + 0.25 * violation
        log_multiplier += 0.5 * average
        assert controller.average == pytest.approx(average)
        assert controller.multiplier == pytest.approx(math.exp(log_multiplier))


def test_the_multiplier_is_clamped():
    controller = ConstraintController(limit=1.0, rate=10.0, log_bounds=(-2, 3))
    for loss, bound in ((9.0, 3), (9.0, 3), (0.0, 3)):
        controller.update(loss)
        assert controller.log_multiplier == bound
    for _ in range(50):
        controller.update(0.0)
    assert controller.log_multiplier == -2


def test_its_state_comes_back():
    one, other = ConstraintController(limit=1.0), ConstraintController(limit=1.0)
    one.update(1.5)
    other.load_state_dict(one.state_dict())
    for controller in (one, other):
        controller.update(0.9)
    assert one == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 0.0}, "limit is 0.0; give"),
        ({"limit": math.inf}, "limit is inf; give"),
        ({"limit": 1.0, "rate": 0.0}, "rate is 0.0; give"),
        ({"limit": 1.0, "decay": 1.0}, "decay is 1.0; give"),
        ({"limit": 1.0, "log_bounds": (1, 2)}, r"log_bounds are \(1, 2\); give"),
        ({"limit": 1.0, "log_start": 6.0}, r"between which log_start, 6\.0, lies"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ConstraintController(**settings)


def test_an_infinite_loss_leaves_the_controller_as_it_was():
    controller = ConstraintController(limit=1.0)
    controller.update(1.5)
    before = controller.state_dict()
    with pytest.raises(FloatingPointError, match="The loss is inf; lower learning_rate"):
        controller.update(math.inf)
    assert controller.state_dict() == before


def test_the_multiplier_begins_where_it_is_told_to():
    controller = ConstraintController(limit=1.0, log_bounds=(-4, 1), log_start=-1.5)
    assert controller.log_multiplier == -1.5
    controller.update(2.0)
    assert controller.log_multiplier == pytest.approx(-1.4)
