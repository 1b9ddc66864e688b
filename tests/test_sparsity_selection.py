"""AbsTopK keeps exactly what a stable sort by magnitude puts first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_circuits import sparsity

# Few distinct values, so that ties are the rule.
TIED_VALUES = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 2.5, float("inf")])
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def sorted_first(row: list[float], k: int) -> list[float]:
    """Keep the first k of a stable sort: the definition, one row at a time."""
    kept = sorted(range(len(row)), key=lambda i: -abs(row[i]))[:k]
    return [value if i in kept else 0.0 for i, value in enumerate(row)]


@given(st.lists(TIED_VALUES, min_size=1, max_size=40), st.data())
def test_ties_go_to_the_lower_index(row, data):
    k = data.draw(st.integers(0, len(row)))
    assert sparsity.keep_largest(torch.tensor(row), k).tolist() == sorted_first(row, k)
    assert sparsity.largest_mask(torch.tensor(row), k).sum() == k


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("k", [0, 1, 5, 12])
def test_every_slice_keeps_its_own(dtype, dim, k):
    x = torch.randn(12, 15, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    k = min(k, x.shape[dim])
    kept = sparsity.keep_largest(x, k, dim)
    assert kept.dtype == dtype
    slices, expected = x.movedim(dim, -1).reshape(-1, x.shape[dim]), kept.movedim(dim, -1).reshape(-1, x.shape[dim])
    for row, found in zip(slices.tolist(), expected.tolist(), strict=True):
        assert found == sorted_first(row, k)


def test_without_a_dimension_the_whole_tensor_competes():
    x = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert sparsity.keep_largest(x, 2).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert sparsity.keep_largest(x, 1, dim=1).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert sparsity.keep_largest(x, 1, dim=0).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert x.tolist() == [[3.0, -1.0], [0.5, -4.0]]


def test_only_kept_entries_have_a_gradient():
    x = torch.tensor([2.0, -3.0, 1.0, 0.5], requires_grad=True)
    (sparsity.keep_largest(x, 2) * torch.tensor([10.0, 20.0, 30.0, 40.0])).sum().backward()
    assert x.grad.tolist() == [10.0, 20.0, 0.0, 0.0]


def test_the_derivatives_are_those_of_a_mask():
    x = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def function(x):
        return sparsity.keep_largest(x, 3, dim=-1) ** 3

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize(
    ("x", "k", "error", "message"),
    [
        (torch.ones(3), 4, ValueError, "k is 4; 3 entries compete, so give 0 to 3"),
        (torch.ones(3), -1, ValueError, "k is -1"),
        (torch.ones(3), 1.5, TypeError, "k is 1.5; give an integer"),
        (torch.ones(3), True, TypeError, "k is True; give an integer"),
        (torch.ones(3).long(), 1, TypeError, "dtype torch.int64"),
        (torch.tensor([1.0, float("nan")]), 1, ValueError, "holds a NaN"),
    ],
)
def test_bad_input_is_named(x, k, error, message):
    with pytest.raises(error, match=message):
        sparsity.keep_largest(x, k)
