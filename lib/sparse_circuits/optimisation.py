"""What stands between the gradients and the weights: AdamW, and the limit on the gradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .model import Transformer
    from .training import TrainingConfig

# Keeps the division finite when every gradient is zero, as in the authors' script.
SMALLEST_RMS = 1e-5


def adamw(model: Transformer, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW for what is trained of a model: matrices, embeddings and adapters decay; other weights do not.

    Raises
    ------
    ValueError
        If all weights are frozen.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    if not trained:
        raise ValueError("All weights of the model are frozen; call model.requires_grad_() to train all of them.")
    decaying = [weight for name, weight in trained if _decays(name)]
    others = [weight for name, weight in trained if not _decays(name)]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon)


def limit_gradients(model: Transformer, config: TrainingConfig, accelerator: Accelerator) -> None:
    """Clip the global norm of the gradients, or divide them by their common root mean square.

    The division (arXiv 2511.13653, appendix A.2, as the authors' training script does it) gives the gradients the
    scale 1, against which a large epsilon of AdamW has a meaning.
    """
    if not config.normalize_gradients:
        accelerator.clip_grad_norm_(model.parameters(), config.max_gradient_norm)
        return
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    n_entries = sum(gradient.numel() for gradient in gradients)
    rms = torch.nn.utils.get_total_norm(gradients) / math.sqrt(n_entries)
    for gradient in gradients:
        gradient.div_(rms + SMALLEST_RMS)


def _decays(name: str) -> bool:
    kind = name.rpartition(".")[2]
    return not kind.startswith("b_") and kind not in ("sink", "W_bigram")
