"""AbsTopK: keep the entries of largest magnitude, set the others to zero, and keep exactly as many as asked."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Without its sign bit, a floating-point number has the order of its bits read as an integer.
BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
CACHED_ENTRIES = 2**16


def keep_largest(x: Float[Tensor, "*shape"], k: int, dim: int | None = None) -> Float[Tensor, "*shape"]:
    """Return a copy in which all but the `k` entries of largest magnitude are zero.

    Gradients flow through the kept entries and through no other.

    Parameters
    ----------
    x : float tensor
        Any shape; not changed.
    k : int
        Entries to keep: of the whole tensor, or of every slice along `dim`.
    dim : int, optional
        The dimension whose entries compete; if not given, all entries of the tensor compete.

    Returns
    -------
    float tensor, shape of `x`
        Of entries with equal magnitude the one with the lower index (in row-major order) is kept.

    Raises
    ------
    ValueError
        If `k` is negative or larger than the number of competing entries, or if `x` holds a NaN.
    TypeError
        If `k` is not an integer or `x` is not floating point.

    Notes
    -----
    AbsTopK of arXiv 2511.13653, section 2.1 (weights) and appendix A.1 (activations).
    """
    return zero_outside(x, largest_mask(x, k, dim))


def zero_outside(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a copy of `x` that is zero where `mask` is False; gradients flow where it is True."""
    return _ZeroOutside.apply(x, mask)


class _ZeroOutside(torch.autograd.Function):
    """As `x.masked_fill(~mask, 0)`, in a third of its time on the CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return (x.view(BITS[x.dtype]) * mask).view(x.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _ZeroOutside.apply(gradient, *ctx.saved_tensors), None


@torch.no_grad()
def largest_mask(x: Float[Tensor, "*shape"], k: int, dim: int | None = None) -> Bool[Tensor, "*shape"]:
    """Return where the `k` entries of largest magnitude stand; parameters and errors as in `keep_largest`."""
    if x.dtype not in BITS:
        raise TypeError(f"x has dtype {x.dtype}; give a floating-point tensor.")
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"k is {k!r}; give an integer.")
    if dim is None:
        return largest_mask(x.flatten(), k, 0).view(x.shape)
    competing = x.shape[dim]
    if not 0 <= k <= competing:
        raise ValueError(f"k is {k}; {competing} entries compete, so give 0 to {competing}.")
    if k == 0:
        return torch.zeros_like(x, dtype=torch.bool)
    slices = x.detach().movedim(dim, -1)
    mask = torch.empty(slices.shape, dtype=torch.bool, device=x.device)
    rows = slices.reshape(-1, competing)
    # On the CPU parts that fit its cache take less time than the whole; other devices take the whole at once.
    at_once = max(1, CACHED_ENTRIES // competing if x.device.type == "cpu" else len(rows))
    for part, found in zip(rows.split(at_once), mask.view(-1, competing).split(at_once), strict=True):
        found.copy_(_mask_of_rows(part, k))
    return mask.movedim(-1, dim)


def _mask_of_rows(x: Float[Tensor, "row entry"], k: int) -> Bool[Tensor, "row entry"]:
    bits = BITS[x.dtype]
    magnitude = x.view(bits) & torch.iinfo(bits).max
    upper = _upper_part(magnitude, k)
    if upper.max() > torch.tensor(torch.inf, dtype=x.dtype).view(bits):
        raise ValueError("x holds a NaN, which has no magnitude; look for the step that made it.")
    threshold = upper.amin(-1, keepdim=True)
    mask = magnitude >= threshold
    if mask.count_nonzero() == len(x) * k:
        return mask
    above, tied = magnitude > threshold, magnitude == threshold
    places_left = k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= places_left))


def _upper_part(magnitude: Int[Tensor, "row entry"], k: int) -> Int[Tensor, "row kept"]:
    """Return the `k` largest entries of each row, in no particular order.

    On the CPU NumPy's vectorised selection is several times faster than PyTorch's.
    """
    if magnitude.device.type != "cpu":
        return magnitude.topk(k, sorted=False).values
    first_kept = magnitude.shape[1] - k
    return torch.from_numpy(np.partition(magnitude.numpy(), first_kept, axis=1))[:, first_kept:]
