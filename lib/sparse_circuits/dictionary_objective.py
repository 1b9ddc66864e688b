"""What the training of a transcoder minimises, and where it begins.

First used in chapter 10.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from .activation_cache import INPUTS, TARGETS
from .sparsity.selection import zero_outside
from .transcoder import Transcoder

if TYPE_CHECKING:
    from collections.abc import Callable

# Below this standard deviation an activation is taken for a constant, which needs no scaling.
SMALLEST_SCALE = 1e-8


@dataclass(frozen=True)
class DictionaryLearning:
    """How the features of a transcoder are trained; stored in every checkpoint.

    Parameters
    ----------
    initial_rate : float, optional
        Share of the positions at which each feature's pre-activation is above 0 at the start; if not given, twice
        k / d_transcoder and at most one half.
    dead_after : int
        Positions without activity after which a feature counts as dead.
    dead_weight : float, optional
        BatchTopK: weight of the auxiliary loss, in which dead features reconstruct what the others leave over (AuxK,
        arXiv 2406.04093, appendix A.2), 1/32 if not given. JumpReLU: weight of ReLU(threshold - pre) times decoder
        norm, summed over features, mean over layers (the pre-activation loss of Anthropic's January 2025 update), 1e-5
        if not given.
    dead_k : int, optional
        Dead features that do so at each position in each layer; half of d_model if not given.
    sparsity : float
        JumpReLU: weight of tanh(c * activation * decoder norm), summed over features, mean over layers.
    tanh_scale : float
        JumpReLU: the c of that term; 4 in Anthropic's update.
    ramp : float
        JumpReLU: share of the steps over which that weight rises from 0.
    threshold : float
        JumpReLU: thresholds at the start.
    steps_at_once : int
        Of the `ActivationCache`.
    seed : int
        Of first weights and shuffling.

    Raises
    ------
    ValueError
        If a setting cannot be used.
    """

    initial_rate: float | None = None
    dead_after: int = 20_000
    dead_weight: float | None = None
    dead_k: int | None = None
    sparsity: float = 1e-2
    tanh_scale: float = 4.0
    ramp: float = 0.7
    threshold: float = 0.03
    steps_at_once: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.initial_rate is not None and not 0 < self.initial_rate <= 1:
            raise ValueError(f"initial_rate is {self.initial_rate!r}; give a share above 0 and at most 1.")
        for name in ("dead_after", "steps_at_once"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a positive number.")
        for name in ("dead_weight", "sparsity", "tanh_scale", "ramp", "threshold"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a finite number, 0 or more.")
        if self.dead_k is not None and not self.dead_k > 0:
            raise ValueError(f"dead_k is {self.dead_k!r}; give a positive number, or None for half of d_model.")


@dataclass(frozen=True, eq=False)
class Scales:
    """By what activations are divided, so that a transcoder trains on numbers of size 1 in every layer.

    Parameters
    ----------
    inputs : float tensor, shape (layer,)
        Root mean square of what the MLP of each layer reads.
    targets : float tensor, shape (layer,)
        Root of the variance of what it gives, mean over channels: a mean squared error of scaled targets is a share of
        their variance.
    """

    inputs: Float[Tensor, " layer"]
    targets: Float[Tensor, " layer"]

    @classmethod
    def of(cls, activations: Float[Tensor, "n side layer d_model"]) -> Scales:
        """Return the scales of some activations; an MLP that gives a constant gets the scale 1."""
        inputs, targets = activations[:, INPUTS], activations[:, TARGETS]
        inputs = inputs.pow(2).mean((0, 2)).sqrt()
        targets = (targets - targets.mean(0)).pow(2).mean((0, 2)).sqrt()
        return cls(*(torch.where(scale > SMALLEST_SCALE, scale, 1) for scale in (inputs, targets)))

    def apply(self, activations: Float[Tensor, "n side layer d_model"]) -> Float[Tensor, "n side layer d_model"]:
        """Return activations divided by their scales."""
        return activations / torch.stack([self.inputs, self.targets])[:, :, None]


@torch.no_grad()
def initialise(
    transcoder: Transcoder, scaled: Float[Tensor, "n side layer d_model"], learning: DictionaryLearning
) -> None:
    """Set the first weights of a transcoder from data, in place; right for small dictionaries too.

    Each feature begins as the detector of one position of the sample: its encoder points from the mean input to that
    position's, its bias makes its pre-activation positive at the share `initial_rate` of the sample (a fixed number of
    positions over the number of features, as larger trainers have it, would keep every feature of a small dictionary
    on), and it writes what the MLPs gave at that position, less their means, divided among the layers that may write
    there. Last, what a layer's target gets from all features is scaled to fit in least squares.

    Parameters
    ----------
    transcoder : Transcoder
        Changed in place.
    scaled : float tensor, shape (n, side, layer, d_model)
        Scaled inputs and targets.
    learning : DictionaryLearning
        Rate, threshold and seed.
    """
    cfg, generator = transcoder.cfg, torch.Generator().manual_seed(learning.seed)
    rate = learning.initial_rate or min(0.5, 2 * cfg.k / cfg.d_transcoder)
    if cfg.activation == "jumprelu":
        transcoder.threshold.fill_(learning.threshold)
    inputs, targets = scaled[:, INPUTS], scaled[:, TARGETS]
    means = targets.mean(0)
    transcoder.b_dec.copy_(means)
    for layer, W_dec in enumerate(transcoder.W_dec):
        x = inputs[:, layer]
        chosen = torch.randint(len(x), (cfg.d_transcoder,), generator=generator)
        noise = torch.randn(cfg.d_transcoder, cfg.d_model, generator=generator) / cfg.d_model
        directions = x[chosen] - x.mean(0) + noise.to(x)
        transcoder.W_enc[layer] = directions / directions.norm(dim=1, keepdim=True)
        pre = x @ transcoder.W_enc[layer].T
        n_silent = min(len(x) - 1, math.floor((1 - rate) * len(x)))
        cut = pre.kthvalue(max(1, n_silent), dim=0).values
        transcoder.b_enc[layer] = transcoder.threshold[layer] - cut
        own = (pre[chosen, range(cfg.d_transcoder)] + transcoder.b_enc[layer]).clamp_min(1e-2)
        for column, target in enumerate(transcoder.target_layers(layer)):
            writers = target + 1 if cfg.cross_layer else 1
            W_dec[:, column] = (targets[chosen, target] - means[target]) / own[:, None] / writers
    written = transcoder.decode(transcoder.activate(transcoder.pre_activations(inputs))) - transcoder.b_dec
    fit = (written * (targets - means)).sum((0, 2)) / written.pow(2).sum((0, 2)).clamp_min(1e-12)
    for layer, W_dec in enumerate(transcoder.W_dec):
        W_dec *= fit[transcoder.target_layers(layer)][:, None]


class SparseReconstruction:
    """The objective: the share of the variance of the MLP outputs that is left unexplained, with few active features.

    Parameters
    ----------
    transcoder : Transcoder
        The one that is trained.
    scales : Scales
        Of its inputs and targets.
    learning : DictionaryLearning
        Penalties, and what happens to dead features.
    steps : int
        Of the run.
    """

    def __init__(self, transcoder: Transcoder, scales: Scales, learning: DictionaryLearning, steps: int) -> None:
        self.transcoder, self.scales, self.learning, self.steps = transcoder, scales, learning, steps
        default = 1e-5 if self._is_jumprelu else 1 / 32
        self.dead_weight = default if learning.dead_weight is None else learning.dead_weight
        shape = transcoder.cfg.n_layers, transcoder.cfg.d_transcoder
        self.silent_for = torch.zeros(shape, dtype=torch.long)

    def __call__(
        self, forward: Callable, activations: Float[Tensor, "batch side layer d_model"], step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return what is minimised, and for the log `loss` (unexplained share, mean over layers), L0 and dead share."""
        scaled = self.scales.apply(activations).to(self.transcoder.W_enc)
        coded = forward(scaled[:, INPUTS])
        error = scaled[:, TARGETS] - coded.reconstruction
        loss = error.pow(2).mean()
        extra = self._penalty(coded, step) if self._is_jumprelu else self._dead_features_loss(coded, error.detach())
        active = coded.activations.detach() != 0
        self._count(active)
        measures = {
            "loss": loss.detach(),
            "l0": active.sum(-1).float().mean(),
            "dead_share": (self.silent_for >= self.learning.dead_after).float().mean().to(loss.device),
        }
        return loss + extra, measures

    @property
    def _is_jumprelu(self) -> bool:
        return self.transcoder.cfg.activation == "jumprelu"

    def _penalty(self, coded, step: int) -> Float[Tensor, ""]:
        learning, norms = self.learning, self.transcoder.decoder_norms()
        share = min(1.0, (step + 1) / max(1.0, learning.ramp * self.steps))
        active = torch.tanh(learning.tanh_scale * coded.activations * norms).sum(-1).mean()
        below = ((self.transcoder.threshold - coded.pre).relu() * norms.detach()).sum((1, 2)).mean()
        return share * learning.sparsity * active + self.dead_weight * below / self.transcoder.cfg.n_layers

    def _dead_features_loss(self, coded, error: Float[Tensor, "batch layer d_model"]) -> Tensor | float:
        dead = (self.silent_for >= self.learning.dead_after).to(error.device)
        if not self.dead_weight or not dead.any():
            return 0.0
        candidates = coded.pre.relu() * dead
        k = min(self.learning.dead_k or max(1, error.shape[-1] // 2), candidates.shape[-1])
        largest = candidates.detach() >= candidates.detach().topk(k, dim=-1).values[..., -1:]
        helping = zero_outside(candidates, largest)
        left = error - (self.transcoder.decode(helping) - self.transcoder.b_dec)
        share = left.pow(2).sum() / error.pow(2).sum().clamp_min(1e-12)
        return self.dead_weight * share.nan_to_num(0.0)

    def _count(self, active: Tensor) -> None:
        from accelerate.utils import reduce

        fired, n = reduce(active.any(0).float(), "sum").cpu() > 0, int(reduce(torch.tensor(float(len(active))), "sum"))
        self.silent_for = torch.where(fired, 0, self.silent_for + n)

    def identity(self) -> dict[str, dict]:
        """Return the settings, as JSON values."""
        return json.loads(json.dumps({"learning": asdict(self.learning)}))

    def state_dict(self) -> dict:
        """Return for how many positions each feature has been silent."""
        return {"silent_for": self.silent_for.tolist()}

    def load_state_dict(self, state: dict) -> None:
        """Restore those numbers."""
        self.silent_for = torch.tensor(state["silent_for"], dtype=torch.long)
