"""The predicted loss of energy, against simulation, against known values, and against sums done by hand."""

import math
from functools import cache

import pytest
import torch
from sparse_circuits.sparsity import PATTERNS, Law, Pattern, energy_lost, energy_lost_by, fitted_law, pattern_mask
from sparse_circuits.sparsity.order_statistics import at_least

GAUSSIAN, LAPLACE, STUDENT = Law("Gaussian"), Law("Laplace"), Law("Student t", 3.0)
LAWS = (GAUSSIAN, LAPLACE, STUDENT, Law("Student t", 8.0))


@cache
def rows_of(law: Law) -> torch.Tensor:
    torch.manual_seed(0)
    return law.distribution().sample((16_000, 128))


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("pattern", [*PATTERNS, Pattern(1, 4), Pattern(3, 4), Pattern(20)], ids=str)
def test_the_prediction_is_what_a_simulation_loses(law, pattern):
    x = rows_of(law)
    lost = x.masked_fill(pattern_mask(x, pattern), 0).square().mean(1) / law.variance
    error = lost.std().item() / math.sqrt(len(lost))  # of the mean, from the spread of the rows
    predicted = energy_lost(law, pattern, 128)
    # What is lost are the small entries, so their mean is steady also where the variance of a law is hardly defined.
    assert lost.mean().item() == pytest.approx(predicted, rel=0.01)
    assert abs(lost.mean().item() - predicted) < 4 * error


def test_the_smallest_of_a_group_is_known_in_closed_form():
    """The smaller of two Gaussian magnitudes has mean square 1 - 2 / pi; of two exponential ones, 2 / 4."""
    assert energy_lost(GAUSSIAN, Pattern(1, 2), 2) == pytest.approx((1 - 2 / math.pi) / 2, abs=1e-9)
    assert energy_lost(LAPLACE, Pattern(1, 2), 2) == pytest.approx(0.5 / 2 / 2, abs=1e-9)
    assert energy_lost(LAPLACE, Pattern(3, 4), 8) == pytest.approx(2 / 4**2 / 4 / 2, abs=1e-7)  # the least of four


CUMULATIVE = {  # of the magnitude, in closed form
    GAUSSIAN: lambda t: torch.erf(t / math.sqrt(2)),
    LAPLACE: lambda t: 1 - torch.exp(-t),
    STUDENT: lambda t: 2 / math.pi * (t / math.sqrt(3) / (1 + t**2 / 3) + torch.atan(t / math.sqrt(3))),
}


@pytest.mark.parametrize("law", CUMULATIVE, ids=str)
@pytest.mark.parametrize(("keep", "group"), [(2, 4), (4, 8), (3, 4)])
def test_the_prediction_is_the_sum_over_the_order_statistics_that_go(law, keep, group):
    """Add up the mean squares of the M - N smallest of M, each by a plain Riemann sum over its density."""
    edges = torch.linspace(0, 12, 2_000_001, dtype=torch.float64).exp() - 1
    cumulative = CUMULATIVE[law](edges)
    middle, mass = (cumulative[1:] + cumulative[:-1]) / 2, cumulative.diff()
    square = ((edges[1:] + edges[:-1]) / 2) ** 2
    total = 0.0
    for r in range(1, group - keep + 1):
        ways = math.factorial(group) / math.factorial(r - 1) / math.factorial(group - r)
        total += (ways * square * middle ** (r - 1) * (1 - middle) ** (group - r) * mass).sum().item()
    assert energy_lost(law, Pattern(keep, group), 2 * group) == pytest.approx(total / group / law.variance, rel=1e-5)


def test_known_values_and_the_limit_of_wide_rows():
    found = [[energy_lost(law, pattern, 1024) for pattern in PATTERNS] for law in (GAUSSIAN, LAPLACE)]
    expected = [[0.132, 0.103, 0.0875, 0.0794, 0.0713], [0.080, 0.056, 0.0446, 0.0389, 0.0334]]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0.012, atol=0)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_coarser_the_group_the_more_is_lost_and_keeping_all_loses_nothing(law):
    lost = [energy_lost(law, pattern, 256) for pattern in PATTERNS]
    assert lost == sorted(lost, reverse=True)
    assert energy_lost(law, Pattern(4, 4), 8) == 0


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_at_least_sums_the_binomial_law(chance):
    by_hand = sum(math.comb(11, k) * chance**k * (1 - chance) ** (11 - k) for k in range(4, 12))
    assert at_least(4, 11, torch.tensor(chance, dtype=torch.float64)).item() == pytest.approx(by_hand, abs=1e-12)


def test_the_law_that_made_the_entries_fits_best():
    torch.manual_seed(1)
    for law in (GAUSSIAN, LAPLACE, STUDENT):
        entries = 3 * law.distribution().sample((20_000,))
        fits = {family: fitted_law(entries, family) for family in ("Gaussian", "Laplace", "Student t")}
        best = max(fits, key=lambda family: fits[family][1])
        if law is GAUSSIAN:  # which Student's t contains, up to the last digits
            assert fits["Gaussian"][1] == pytest.approx(fits["Student t"][1], abs=1e-3)
            assert fits["Student t"][0].freedom > 30
        else:
            assert best == law.family
        assert fits[law.family][1] == pytest.approx(law.distribution(3.0).log_prob(entries).mean().item(), abs=1e-3)
    assert fits["Student t"][0].freedom == pytest.approx(3, rel=0.1)


def test_measured_energy_is_a_share_of_squares():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert energy_lost_by(x, torch.tensor([[0.0, 4.0], [0.0, 0.0]])) == pytest.approx(9 / 25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Law("Cauchy"), r"no family 'Cauchy'; choose one of"),
        (lambda: Law("Student t"), r"freedom is None for a Student t law"),
        (lambda: Law("Gaussian", 3.0), r"freedom is 3.0 for a Gaussian law"),
        (lambda: Law("Student t", 2.0), r"freedom is 2.0; give more than 2"),
        (lambda: energy_lost(GAUSSIAN, Pattern(2, 4), 6), r"2:4 does not divide 6 entries"),
        (lambda: energy_lost_by(torch.ones(2), torch.ones(3)), r"x has shape \(2,\), pruned \(3,\)"),
        (lambda: energy_lost_by(torch.zeros(2), torch.zeros(2)), r"All entries of x are zero"),
        (lambda: fitted_law(torch.ones(3), "normal"), r"no family 'normal'"),
        (lambda: fitted_law(torch.zeros(3), "Laplace"), r"only zeros; give activations"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
