"""Sparsity put into a model while it is trained: in its weights and in its activations."""

from .selection import keep_largest, largest_mask

__all__ = ["keep_largest", "largest_mask"]
