"""Sparsity put into a model while it is trained: in its weights and in its activations."""

from .activations import ACTIVATION_LOCATIONS
from .selection import keep_largest, largest_mask
from .weights import WeightSparsity, sparse_weights, sparsify

__all__ = [
    "ACTIVATION_LOCATIONS",
    "WeightSparsity",
    "keep_largest",
    "largest_mask",
    "sparse_weights",
    "sparsify",
]
