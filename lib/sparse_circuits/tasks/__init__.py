"""Token streams and prompt pairs whose right answers are known."""
