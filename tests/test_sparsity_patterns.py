"""N of every M stay: exactly as many, the largest, the first of equals; and the bits that say which."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_circuits.sparsity import PATTERNS, Pattern, pattern_mask
from sparse_circuits.sparsity.patterns import comparators

TIED_VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.5, float("inf")])
SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16, 32])


def kept_by_a_sort(row: list[float], keep: int, group: int) -> list[bool]:
    """Go through the groups of a row and keep the first of a stable sort by magnitude."""
    kept = []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        first = sorted(range(group), key=lambda i: -abs(part[i]))[:keep]
        kept += [i in first for i in range(group)]
    return kept


@settings(deadline=None)
@given(st.data(), SIZES, st.integers(1, 3))
def test_exactly_n_of_every_m_stay_and_of_equals_the_first(data, group, groups):
    keep = data.draw(st.integers(1, group))
    row = data.draw(st.lists(TIED_VALUES, min_size=group * groups, max_size=group * groups))
    mask = pattern_mask(torch.tensor(row), Pattern(keep, group))
    assert mask.tolist() == kept_by_a_sort(row, keep, group)
    assert (mask.view(-1, group).sum(1) == keep).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_largest_of_random_entries_stay(dtype, pattern):
    x = torch.randn(3, 5, 96, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = pattern_mask(x, pattern)
    for row, kept in zip(x.view(-1, 96).tolist(), mask.view(-1, 96).tolist(), strict=True):
        assert kept == kept_by_a_sort(row, *pattern.sizes(96))


def test_a_row_of_equal_entries_keeps_the_first_of_each_group():
    mask = pattern_mask(torch.ones(2, 16), Pattern.parse("2:4"))
    assert mask.tolist() == [[True, True, False, False] * 4] * 2


def test_a_tie_in_one_row_leaves_the_others_alone():
    x = torch.arange(800.0).view(100, 8) + 1
    x[50] = 1
    mask = pattern_mask(x, Pattern(4, 8))
    expected = torch.tensor([False] * 4 + [True] * 4).repeat(100, 1)
    expected[50] = torch.tensor([True] * 4 + [False] * 4)
    assert torch.equal(mask, expected)


def test_unstructured_keeps_its_share_of_each_token():
    x = torch.randn(7, 30)
    for percent in (10, 30, 50, 99):
        assert (pattern_mask(x, Pattern(percent)).sum(-1) == percent * 30 // 100).all()


def test_the_finer_pattern_is_one_of_those_that_the_coarser_allows():
    """So 2:4 can lose no less energy than 4:8 does, and so on, whatever the entries."""
    x = torch.randn(50, 64).double() ** 3
    lost = [x.masked_fill(pattern_mask(x, pattern), 0).square().sum(-1) for pattern in PATTERNS]
    for coarse, fine in itertools.pairwise(lost):
        assert (coarse >= fine).all()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_comparators_sort_every_order(size):
    for order in itertools.permutations(range(size)) if size < 8 else itertools.product((0, 1), repeat=size):
        entries = list(order)  # for 8: zeros and ones are enough (0-1 principle)
        for low, high in comparators(size):
            entries[low], entries[high] = sorted((entries[low], entries[high]))
        assert entries == sorted(order)


def test_a_pattern_is_written_as_it_is_read():
    for text in ("2:4", "16:32", "unstructured", "unstructured 30 %"):
        assert str(Pattern.parse(text)) == text
    assert Pattern.parse("1:4") == Pattern(1, 4)
    assert Pattern.parse("unstructured") == Pattern(50)


def test_index_bits_are_those_of_the_number_of_masks():
    bits = {str(pattern): pattern.index_bits(32) for pattern in PATTERNS}
    assert bits["2:4"] == math.log2(6) / 4
    assert [round(bits[name], 3) for name in ("2:4", "4:8", "8:16", "16:32")] == [0.646, 0.766, 0.853, 0.911]
    assert bits["unstructured"] == bits["16:32"]  # in a row of 32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Pattern(0, 4), ValueError, r"keep is 0; give 1 to 4"),
        (lambda: Pattern(101), ValueError, r"keep is 101; give 1 to 100 percent"),
        (lambda: Pattern(2.0, 4), TypeError, r"keep is 2.0; give an integer"),
        (lambda: Pattern(2, True), TypeError, r"group is True; give an integer"),
        (lambda: Pattern.parse("2 of 4"), ValueError, r"'2 of 4' is no pattern; write"),
        (lambda: pattern_mask(torch.ones(2, 6), Pattern(2, 4)), ValueError, r"2:4 does not divide 6 entries; choose"),
        (lambda: pattern_mask(torch.ones(2, 6), Pattern(10)), ValueError, r"10 % of 6 entries are none; give"),
        (lambda: pattern_mask(torch.ones(2, 4).int(), Pattern(2, 4)), TypeError, r"torch.int32; give a floating"),
        (lambda: pattern_mask(torch.full((2, 4), torch.nan), Pattern(2, 4)), ValueError, r"NaN"),
        (lambda: pattern_mask(torch.full((2, 32), torch.nan), Pattern(16, 32)), ValueError, r"NaN"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()
