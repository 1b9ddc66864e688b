"""AbsTopK: keep the entries of largest magnitude, set the others to zero, and keep exactly as many as asked."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
    return torch.where(largest_mask(x, k, dim), x, torch.zeros((), dtype=x.dtype, device=x.device))


@torch.no_grad()
def largest_mask(x: Float[Tensor, "*shape"], k: int, dim: int | None = None) -> Bool[Tensor, "*shape"]:
    """Return where the `k` entries of largest magnitude stand; parameters and errors as in `keep_largest`."""
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; give a floating-point tensor.")
    if not isinstance(k, int) or isinstance(k, bool):
        raise TypeError(f"k is {k!r}; give an integer.")
    if dim is None:
        return largest_mask(x.flatten(), k, 0).view(x.shape)
    competing = x.shape[dim]
    if not 0 <= k <= competing:
        raise ValueError(f"k is {k}; {competing} entries compete, so give 0 to {competing}.")
    magnitude = x.detach().abs()
    if torch.isnan(magnitude).any():
        raise ValueError("x holds a NaN, which has no magnitude; look for the step that made it.")
    if k == 0:
        return torch.zeros_like(magnitude, dtype=torch.bool)
    threshold = magnitude.kthvalue(competing - k + 1, dim, keepdim=True).values
    mask = magnitude >= threshold
    if (mask.sum(dim) == k).all():
        return mask
    above, tied = magnitude > threshold, magnitude == threshold
    places_left = k - above.sum(dim, keepdim=True)
    return above | (tied & (tied.cumsum(dim) <= places_left))
