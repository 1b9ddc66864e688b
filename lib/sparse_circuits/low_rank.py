"""Low-rank adapters: train a model by small matrices added to its weights, for models too large to train whole.

First used in chapter 8. The adapters are those of `peft`; this module says which weights of the book's model get them,
and reads the sums back as weights of an ordinary model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .model import Transformer

# What an adapter can be added to: the name of a matrix, and of the module that it is in.
MATRICES = {
    "W_Q": "attn",
    "W_K": "attn",
    "W_V": "attn",
    "W_O": "attn",
    "W_in": "mlp",
    "W_gate": "mlp",
    "W_out": "mlp",
}
MODULE, ADAPTER = ".base_layer", "default"


@dataclass(frozen=True)
class LowRank:
    r"""Which matrices of every layer are trained, and through how many dimensions.

    A matrix W, in attention that of one head, becomes W + (alpha / rank) B A, where A has `rank` rows and B has `rank`
    columns. A is drawn and B starts at 0, so that training starts at the model. Nothing else is trained.

    Parameters
    ----------
    rank : int
        Dimensions of each sum.
    alpha : float
        Scale of what is added.
    weights : tuple of str
        Names of matrices, among W_Q, W_K, W_V, W_O, W_in, W_gate and W_out; those that a model has are trained.
    seed : int
        Of the first A.

    Raises
    ------
    ValueError
        If the rank or the scale is not positive, or a name is not among those.

    Notes
    -----
    Equation 3 of arXiv 2106.09685v2. Adapters are per head here because the weights are.
    """

    rank: int = 8
    alpha: float = 16.0
    weights: tuple[str, ...] = tuple(MATRICES)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        for name in ("rank", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a positive number.")
        unknown = sorted(set(self.weights) - MATRICES.keys())
        if unknown or not self.weights:
            raise ValueError(f"weights are {self.weights}; choose from {list(MATRICES)}.")


def add_adapters(model: Transformer, low_rank: LowRank) -> None:
    """Add adapters to a model in place, and freeze its weights; the model computes what it did before.

    Hook points keep their names. The modules with adapters are wrapped, so that a weight is no longer found at
    `model.blocks[0].attn.W_Q`; `merged` returns an ordinary model.

    Raises
    ------
    ValueError
        If the model has adapters already, none of the matrices, or too few heads for the adapters of `peft`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_adapters(model):
        raise ValueError("The model has adapters already; give one without.")
    if model.cfg.n_heads < 2 and any(MATRICES[name] == "attn" for name in low_rank.weights):
        raise ValueError(f"The model has {model.cfg.n_heads} head; adapters of attention need 2 or more.")
    targets = [f"{MATRICES[name]}.{name}" for name in low_rank.weights]
    if not any(name.endswith(tuple(targets)) for name, _ in model.named_parameters()):
        raise ValueError(f"The model has none of the matrices {low_rank.weights}; choose others.")
    config = LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,
        target_parameters=targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(low_rank.seed)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)


def has_adapters(model: Transformer) -> bool:
    """Return whether a model has adapters."""
    return any(MODULE in name for name, _ in model.named_parameters())


def merged(model: Transformer) -> Transformer:
    """Return an ordinary model with what the adapters add in its weights; the model itself if it has none."""
    if not has_adapters(model):
        return model
    ordinary = Transformer(model.cfg).to(model.W_E)
    ordinary.load_state_dict(merged_weights(model))
    return ordinary.train(model.training)


@torch.no_grad()
def merged_weights(model: Transformer) -> dict[str, Float[Tensor, ...]]:
    """Return the weights of a model with adapters as an ordinary one names them, each with what its adapter adds."""
    weights = {name.replace(MODULE, ""): w for name, w in model.state_dict().items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            place = f"{name.replace(MODULE, '')}.{module.parameter_name}"
            weights[place] = weights[place] + module.get_delta_weight(ADAPTER)
    return weights
