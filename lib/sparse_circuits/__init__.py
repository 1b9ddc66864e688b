"""The library of the book *Sparse Circuits*.

Names are loaded on first use, so that `import sparse_circuits` stays fast and loads no PyTorch.
"""

from importlib import import_module

__version__ = "0.1.0"

# Public name -> the module of this package that defines it.
_EXPORTS = {
    "ClaimError": "claims",
    "Ledger": "claims",
    "claim": "claims",
    "claim_rows": "claims",
    "Wrong": "grading",
    "grade": "grading",
    "grader": "grading",
    "receipt": "receipts",
    "verify_receipt": "receipts",
    "chapter_seed": "notebook",
    "setup_notebook": "notebook",
    "predict": "predictions",
    "reveal": "predictions",
    "ablated": "ablation",
    "edges_outside": "ablation_masks",
    "nodes_outside": "ablation_masks",
    "AblationValues": "ablation_values",
    "mean_values": "ablation_values",
    "norm_scales": "ablation_values",
    "resample_values": "ablation_values",
    "zero_values": "ablation_values",
    "CircuitScore": "circuit_scores",
    "completeness": "circuit_scores",
    "completeness_gaps": "circuit_scores",
    "faithfulness": "circuit_scores",
    "minimality": "circuit_scores",
    "stochastic_scores": "circuit_scores",
    "Transformer": "model",
    "TransformerConfig": "model",
    "CheckpointError": "checkpoints",
    "data_path": "checkpoints",
    "load_model": "checkpoints",
    "save_model": "checkpoints",
    "Explorer": "explorer",
    "explore": "explorer",
    "Circuit": "circuit",
    "Overlap": "overlap",
    "random_circuit": "controls",
    "cut_edges": "editing",
    "keep_edges": "editing",
    "set_edge": "editing",
    "FoundCircuits": "found_circuits",
    "reference_values": "found_circuits",
    "mini_python_values": "nesting",
    "nesting_prompts": "nesting",
    "nesting_texts": "nesting",
    "Graph": "graph",
    "weight_graph": "graph",
    "PlantedCircuit": "planted",
    "hidden_circuit": "planted",
    "planted_bracket_circuit": "planted",
    "planted_cancelling_heads": "planted",
    "planted_quote_circuit": "planted",
    "Calibration": "calibration",
    "Pruned": "pruning",
    "calibrated": "pruning",
    "circuit_loss": "pruning",
    "necessity_loss": "pruning",
    "prune": "pruning",
    "half_losses": "pruning_controls",
    "nonsense_prompts": "pruning_controls",
    "random_twin": "pruning_controls",
    "read_controls": "pruning_controls",
    "search_regardless": "pruning_controls",
    "PruningConfig": "mask_learning",
    "TwoWayPrompts": "two_way",
    "task_prompts": "two_way",
    "two_way_loss": "two_way",
    "attention_heads": "vis",
    "colored_tokens": "vis",
    "CONTRAST_TASKS": "tasks",
    "ContrastBatch": "tasks",
    "MiniPython": "tasks",
    "contrast_pairs": "tasks",
    "mini_python_tokens": "tasks",
    "code_tokens": "tasks",
    "load_tokenizer": "tasks",
    "kl_divergence": "metrics",
    "logit_difference": "metrics",
    "match_with_label": "metrics",
    "match_with_model": "metrics",
    "ToyConfig": "superposition",
    "ToyModels": "superposition",
    "feature_dimensionality": "superposition",
    "features_per_dimension": "superposition",
    "features_represented": "superposition",
    "keep_weights": "superposition",
    "planted_pentagon": "superposition",
    "random_support": "superposition",
    "toy_loss": "superposition",
    "train_toys": "superposition",
    "next_token_loss": "metrics",
    "stream_loss": "metrics",
    "two_way_task_loss": "metrics",
    "TrainingConfig": "training",
    "TrainingRun": "training",
    "random_windows": "training",
    "train": "training",
    "read_runs": "frontier",
}

# Modules that are used by their own name, as in `sc.plots.show(...)`.
_MODULES = {"claims", "grading", "plots", "sparsity", "tasks"}

__all__ = sorted([*_EXPORTS, *_MODULES])


def __getattr__(name: str):
    if name in _EXPORTS:
        value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
