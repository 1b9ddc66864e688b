"""Sparsity put into a model: in its weights, its attention and its activations, in training and after it."""

from .activations import ACTIVATION_LOCATIONS
from .attention import AttentionGate, OpenEdges, closed_attention, gated, open_edges
from .constraint import ConstraintController
from .corrections import first_corrections, learn_corrections, static_shifts
from .criteria import CRITERIA
from .inputs import PROJECTIONS, Correction, InputPruning, prune_input, pruned_inputs
from .order_statistics import Law, energy_lost, energy_lost_by, fitted_law
from .patterns import PATTERNS, Pattern, pattern_mask
from .pruned_weights import prune_weights
from .selection import keep_largest, largest_mask
from .weights import WeightSparsity, sparse_weights, sparsify

__all__ = [
    "ACTIVATION_LOCATIONS",
    "CRITERIA",
    "PATTERNS",
    "PROJECTIONS",
    "AttentionGate",
    "ConstraintController",
    "Correction",
    "InputPruning",
    "Law",
    "OpenEdges",
    "Pattern",
    "WeightSparsity",
    "closed_attention",
    "energy_lost",
    "energy_lost_by",
    "first_corrections",
    "fitted_law",
    "gated",
    "keep_largest",
    "largest_mask",
    "learn_corrections",
    "open_edges",
    "pattern_mask",
    "prune_input",
    "prune_weights",
    "pruned_inputs",
    "sparse_weights",
    "sparsify",
    "static_shifts",
]
