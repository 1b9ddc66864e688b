"""Sparsity put into a model while it is trained: in its weights, its attention and its activations."""

from .activations import ACTIVATION_LOCATIONS
from .attention import AttentionGate, OpenEdges, closed_attention, gated, open_edges
from .constraint import ConstraintController
from .selection import keep_largest, largest_mask
from .weights import WeightSparsity, sparse_weights, sparsify

__all__ = [
    "ACTIVATION_LOCATIONS",
    "AttentionGate",
    "ConstraintController",
    "OpenEdges",
    "WeightSparsity",
    "closed_attention",
    "gated",
    "keep_largest",
    "largest_mask",
    "open_edges",
    "sparse_weights",
    "sparsify",
]
