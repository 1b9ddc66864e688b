"""Transcoders: sparse features that stand in for the MLPs of a model, one layer at a time or across layers.

First used in chapter 10. A feature of layer l reads what the MLP of layer l reads, and writes a part of what MLPs give:
in a cross-layer transcoder those of layer l and of all later layers, in a per-layer transcoder that of layer l alone
(Ameisen et al. 2025, "Circuit Tracing", section "Building an interpretable replacement model"):

    pre^l = W_enc^l x^l + b_enc^l        a^l = pre^l where pre^l > threshold^l, else 0
    y^l   = sum over layers m <= l of W_dec^{m -> l} a^m + b_dec^l

`transcoder_training` trains them, `transcoder_scores` measures them, `transcoder_files` stores them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .sparsity.selection import zero_outside

if TYPE_CHECKING:
    from .model import Transformer

NORMALIZED, RESIDUAL, OUTPUT_HOOK = "ln2.hook_normalized", "hook_resid_mid", "hook_mlp_out"
INPUT_HOOKS = (NORMALIZED, RESIDUAL)
ACTIVATIONS = ("batch_topk", "jumprelu")


@dataclass(frozen=True)
class TranscoderConfig:
    """Shape and activation of a `Transcoder`; stored beside every one.

    Parameters
    ----------
    n_layers, d_model : int
        Of the model whose MLPs are replaced.
    d_transcoder : int
        Features in each layer.
    cross_layer : bool
        Whether features write to later layers too.
    activation : {"batch_topk", "jumprelu"}
        BatchTopK (arXiv 2412.06410): in training, the `k * batch` largest activations of a layer stay, with those that
        equal the last, each weighed by the norm of what its feature writes; in evaluation, those above thresholds that
        `calibrate` has set. JumpReLU (arXiv 2407.14435): thresholds that are trained.
    k : int
        Active features for each token in each layer, on average: what BatchTopK keeps.
    bandwidth : float
        Width of the window around a threshold in which training moves it; in units of the pre-activations.
    input_hook : {"ln2.hook_normalized", "hook_resid_mid"}
        What features read: the residual stream after the norm in front of the MLP, or before it.
    model_sha256 : str, optional
        `model_fingerprint` of the model; if not given, any model of that shape is taken for it.

    Raises
    ------
    ValueError
        If a number is not positive, or a name is not allowed.
    """

    n_layers: int
    d_model: int
    d_transcoder: int
    cross_layer: bool = True
    activation: str = "batch_topk"
    k: int = 8
    bandwidth: float = 1.0
    input_hook: str = NORMALIZED
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_layers", "d_model", "d_transcoder", "k"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} is {size!r}; give a positive integer.")
        if self.k > self.d_transcoder:
            raise ValueError(f"k is {self.k}, but a layer has {self.d_transcoder} features; give a smaller k.")
        if not 0 < self.bandwidth < math.inf:
            raise ValueError(f"bandwidth is {self.bandwidth!r}; give a finite number above 0.")
        for name, allowed in (("activation", ACTIVATIONS), ("input_hook", INPUT_HOOKS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {list(allowed)}.")

    @classmethod
    def of(cls, model: Transformer, d_transcoder: int, **changes) -> TranscoderConfig:
        """Return the configuration of a transcoder for a model, with single fields changed."""
        shape = {"n_layers": model.cfg.n_layers, "d_model": model.cfg.d_model, "d_transcoder": d_transcoder}
        return cls(**shape | {"model_sha256": model_fingerprint(model)} | changes)

    def to_dict(self) -> dict:
        """Return the fields as plain JSON values."""
        return asdict(self)


class Coded(NamedTuple):
    """What a transcoder makes of some inputs.

    Attributes
    ----------
    pre : float tensor, shape (batch, layer, feature)
        Pre-activations.
    activations : float tensor, shape (batch, layer, feature)
        Pre-activations of the active features, 0 elsewhere.
    reconstruction : float tensor, shape (batch, layer, d_model)
        What the features and `b_dec` write in place of each MLP.
    """

    pre: Float[Tensor, "batch layer feature"]
    activations: Float[Tensor, "batch layer feature"]
    reconstruction: Float[Tensor, "batch layer d_model"]


class Transcoder(nn.Module):
    """A cross-layer or per-layer transcoder.

    Parameters
    ----------
    cfg : TranscoderConfig
        Shape and activation.
    seed : int
        Of the first weights: encoders N(0, 1 / d_model), decoders zero, thresholds 0.

    Attributes
    ----------
    W_enc, b_enc : float tensors, shapes (layer, feature, d_model) and (layer, feature)
    W_dec : list of float tensors, shape (feature, target layer, d_model)
        Entry l has what the features of layer l write to the layers `cfg` allows: l, l + 1, ... or l alone.
    b_dec : float tensor, shape (layer, d_model)
    threshold : float tensor, shape (layer, feature)
        In units of the pre-activations; trained if the activation is JumpReLU.
    """

    def __init__(self, cfg: TranscoderConfig, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        layers, features, d_model = cfg.n_layers, cfg.d_transcoder, cfg.d_model
        generator = torch.Generator().manual_seed(seed)
        self.W_enc = nn.Parameter(torch.randn(layers, features, d_model, generator=generator) / math.sqrt(d_model))
        self.b_enc = nn.Parameter(torch.zeros(layers, features))
        widths = [len(self.target_layers(layer)) for layer in range(layers)]
        self.W_dec = nn.ParameterList(nn.Parameter(torch.zeros(features, width, d_model)) for width in widths)
        self.b_dec = nn.Parameter(torch.zeros(layers, d_model))
        threshold = torch.zeros(layers, features)
        if cfg.activation == "jumprelu":
            self.threshold = nn.Parameter(threshold)
        else:
            self.register_buffer("threshold", threshold)

    def target_layers(self, layer: int) -> range:
        """Return the layers that the features of a layer write to."""
        return range(layer, self.cfg.n_layers if self.cfg.cross_layer else layer + 1)

    def forward(self, inputs: Float[Tensor, "batch layer d_model"]) -> Coded:
        """Return pre-activations, activations and reconstruction; BatchTopK competes within `inputs` in training."""
        pre = self.pre_activations(inputs)
        activations = self.activate(pre)
        return Coded(pre, activations, self.decode(activations))

    def pre_activations(self, inputs: Float[Tensor, "batch layer d_model"]) -> Float[Tensor, "batch layer feature"]:
        """Return the pre-activations of all features.

        Raises
        ------
        ValueError
            If the inputs are not (batch, n_layers, d_model) or not finite.
        """
        expected = (self.cfg.n_layers, self.cfg.d_model)
        if inputs.ndim != 3 or inputs.shape[1:] != expected:
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}; give (batch, {expected[0]}, {expected[1]}).")
        check_finite(inputs, "inputs")
        return torch.einsum("bld,lfd->blf", inputs, self.W_enc) + self.b_enc

    def activate(self, pre: Float[Tensor, "batch layer feature"]) -> Float[Tensor, "batch layer feature"]:
        """Return the activations of some pre-activations."""
        if self.cfg.activation == "jumprelu":
            return _JumpReLU.apply(pre, self.threshold, self.cfg.bandwidth)
        if not self.training:
            return zero_outside(pre, pre > self.threshold)
        return zero_outside(pre, self.largest(pre))

    @torch.no_grad()
    def largest(self, pre: Float[Tensor, "batch layer feature"]) -> Tensor:
        """Return where BatchTopK keeps activations: True at the `k * batch` largest of each layer, if above 0."""
        weighed = pre.relu() * self.decoder_norms()
        # Not `largest_mask`, whose exact choice among equals takes the CPU twenty times longer here.
        of_layers = weighed.transpose(0, 1).flatten(1)
        cuts = of_layers.topk(self.cfg.k * len(pre), sorted=False).values.amin(1)
        return (weighed >= cuts[:, None]) & (weighed > 0)

    def decode(self, activations: Float[Tensor, "batch layer feature"]) -> Float[Tensor, "batch layer d_model"]:
        """Return what features write in place of the MLPs, with `b_dec`."""
        written = [self.b_dec[layer].expand(len(activations), -1) for layer in range(self.cfg.n_layers)]
        for layer, W_dec in enumerate(self.W_dec):
            parts = (activations[:, layer] @ W_dec.flatten(1)).unflatten(1, W_dec.shape[1:])
            for target, part in zip(self.target_layers(layer), parts.unbind(1), strict=True):
                written[target] = written[target] + part
        return torch.stack(written, dim=1)

    def decoder_norms(self) -> Float[Tensor, "layer feature"]:
        """Return the norm of what each feature writes per unit of activation, over all its layers together."""
        return torch.stack([W_dec.flatten(1).norm(dim=1) for W_dec in self.W_dec])

    @torch.no_grad()
    def calibrate(self, inputs: Float[Tensor, "n layer d_model"]) -> None:
        """Set the thresholds so that exactly `k` features per token and layer are active on `inputs`, on average.

        One cut for each layer on activation times decoder norm, so a feature's threshold is that cut over its norm.
        Fewer are active only if fewer pre-activations are above 0.
        """
        weighed = self.pre_activations(inputs).relu() * self.decoder_norms()
        n = self.cfg.k * len(inputs)
        for layer, norms in enumerate(self.decoder_norms()):
            values = weighed[:, layer].flatten()
            # Half way between the last that stays and the first that does not, so that rounding moves neither.
            cut = values.topk(n + 1).values[-2:].mean() if n < len(values) else norms.new_zeros(())
            self.threshold[layer] = torch.where(norms > 0, cut / norms, torch.finfo(norms.dtype).max)

    def as_jumprelu(self) -> Transcoder:
        """Return a copy whose activation is JumpReLU with the present thresholds; in evaluation both are the same."""
        copy = Transcoder(replace(self.cfg, activation="jumprelu")).to(self.W_enc)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)

    @torch.no_grad()
    def folded(self, input_scale: Float[Tensor, " layer"], target_scale: Float[Tensor, " layer"]) -> Transcoder:
        """Return the transcoder for unscaled activations, given one for inputs and targets divided by these scales.

        Its activations are the same numbers; W_enc is divided by the scale of its input, W_dec and b_dec are multiplied
        by the scale of the layer they write to.
        """
        copy = Transcoder(self.cfg).to(self.W_enc)
        copy.load_state_dict(self.state_dict())
        copy.W_enc /= input_scale[:, None, None]
        copy.b_dec *= target_scale[:, None]
        for layer, W_dec in enumerate(copy.W_dec):
            W_dec *= target_scale[self.target_layers(layer)][:, None]
        return copy.train(self.training)

    def check_feature(self, layer: int, feature: int) -> None:
        """Raise ValueError if a layer or a feature of it is out of range."""
        for name, number, size in (("Layer", layer, self.cfg.n_layers), ("Feature", feature, self.cfg.d_transcoder)):
            if not 0 <= number < size:
                raise ValueError(f"{name} {number} is out of range; the transcoder has 0 to {size - 1}.")


class _JumpReLU(torch.autograd.Function):
    """JumpReLU with the straight-through gradient of its threshold (arXiv 2407.14435, equations 11 and 12)."""

    @staticmethod
    def forward(ctx, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < ctx.bandwidth / 2
        return gradient * (pre > threshold), -(threshold / ctx.bandwidth) * (near * gradient).sum(0), None


def model_fingerprint(model: Transformer) -> str:
    """Return a SHA-256 of a model's configuration and weights; the same in float32 and after `model.double()`."""
    digest = hashlib.sha256(json.dumps(model.cfg.to_dict(), sort_keys=True).encode())
    for name, weight in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_belongs(transcoder: Transcoder, model: Transformer) -> None:
    """Raise ValueError if a transcoder is not one of this model: other layers, another width, or other weights."""
    for name, what in (("n_layers", "layers"), ("d_model", "residual channels")):
        here, there = getattr(model.cfg, name), getattr(transcoder.cfg, name)
        if here != there:
            raise ValueError(f"The transcoder is for {there} {what}, the model has {here}; give one of this model.")
    stored = transcoder.cfg.model_sha256
    if stored is not None and stored != (found := model_fingerprint(model)):
        raise ValueError(
            f"The transcoder was trained on a model with SHA-256 {stored[:12]}…, this one has {found[:12]}…; give the "
            "model it was trained on."
        )


def check_finite(values: Tensor, what: str) -> None:
    """Raise ValueError if a value is infinite or nan; the message says which and where."""
    if not values.isfinite().all():
        where = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{what} at index {where} is {values[tuple(where)].item()}; give finite activations.")
