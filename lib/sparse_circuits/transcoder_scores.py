"""How well a transcoder stands in for the MLPs of a model.

First used in chapter 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .activation_cache import INPUTS, TARGETS, mlp_activations
from .metrics import kl_divergence, next_token_loss
from .model import Transformer
from .objectives import Loss
from .transcoder import OUTPUT_HOOK, Transcoder, check_belongs


@dataclass(frozen=True, eq=False)
class TranscoderScores:
    """What `score_transcoder` measures.

    Attributes
    ----------
    fvu_by_layer : float64 tensor, shape (layer,)
        Fraction of variance unexplained of each MLP's output: sum of squared errors over sum of squared distances from
        the mean output, both over all positions and channels. 0 is perfect, 1 is what the mean does; nan where an MLP
        gives the same everywhere.
    l0_by_layer : float64 tensor, shape (layer,)
        Active features for each token.
    dead_by_layer : float64 tensor, shape (layer,)
        Share of the features that are active at none of the `n_positions`.
    cross_entropy, spliced_cross_entropy : float
        Loss of the model, and of the model with every MLP replaced, in nats per token.
    kl : float
        KL(model || model with every MLP replaced), in nats per token.
    n_positions : int
        Positions measured.
    """

    fvu_by_layer: Float[Tensor, " layer"]
    l0_by_layer: Float[Tensor, " layer"]
    dead_by_layer: Float[Tensor, " layer"]
    cross_entropy: float
    spliced_cross_entropy: float
    kl: float
    n_positions: int

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, mean over layers."""
        return float(self.fvu_by_layer.mean())

    @property
    def l0(self) -> float:
        """Active features for each token in each layer, mean over layers."""
        return float(self.l0_by_layer.mean())

    @property
    def dead_share(self) -> float:
        """Share of the features of all layers that are never active."""
        return float(self.dead_by_layer.mean())

    @property
    def added_cross_entropy(self) -> float:
        """What replacing every MLP costs, in nats per token."""
        return self.spliced_cross_entropy - self.cross_entropy

    def __repr__(self) -> str:
        return (
            f"TranscoderScores(FVU {self.fvu:.3f}, L0 {self.l0:.2f} per layer, {100 * self.dead_share:.1f} % dead, "
            f"cross-entropy {self.added_cross_entropy:+.4f} nats, KL {self.kl:.4f} nats)"
        )


@contextmanager
def spliced(model: Transformer, transcoder: Transcoder) -> Iterator[Transformer]:
    """Replace every MLP of a model by what a transcoder reconstructs, for as long as the context lasts.

    Features read what the model with the replaced MLPs gives them, so errors add up as in the replacement model of
    Ameisen et al. 2025.

    Raises
    ------
    ValueError
        If the transcoder is not one of this model.
    """
    check_belongs(transcoder, model)
    cfg = transcoder.cfg
    written: dict[int, Tensor] = {}

    def read(layer: int):
        def hook_function(x: Tensor, hook) -> None:
            pre = x.to(transcoder.W_enc) @ transcoder.W_enc[layer].T + transcoder.b_enc[layer]
            activations = (pre * (pre > transcoder.threshold[layer])).flatten(0, 1)
            if layer == 0:
                written.clear()
            parts = (activations @ transcoder.W_dec[layer].flatten(1)).unflatten(1, transcoder.W_dec[layer].shape[1:])
            for target, part in zip(transcoder.target_layers(layer), parts.unbind(1), strict=True):
                written[target] = written.get(target, transcoder.b_dec[target]) + part.view(x.shape)

        return hook_function

    def write(layer: int):
        return lambda output, hook: written.pop(layer).to(output)

    hooks = [(f"blocks.{layer}.{cfg.input_hook}", read(layer)) for layer in range(cfg.n_layers)]
    hooks += [(f"blocks.{layer}.{OUTPUT_HOOK}", write(layer)) for layer in range(cfg.n_layers)]
    with model.hooks(fwd_hooks=hooks):
        yield model


@torch.no_grad()
def score_transcoder(
    model: Transformer,
    transcoder: Transcoder,
    windows: Int[Tensor, "n pos_and_one"],
    batch_size: int = 32,
    loss: Loss = next_token_loss,
) -> TranscoderScores:
    """Measure a transcoder on held-out windows of tokens.

    Parameters
    ----------
    model : Transformer
        Its model.
    transcoder : Transcoder
        In units of the model's activations, as `train_transcoder` returns it.
    windows : int tensor, shape (n, pos + 1)
        As for `held_out_loss`.
    batch_size : int
        Windows in a run.
    loss : callable
        As in `objectives.NextToken`.

    Raises
    ------
    ValueError
        If there is no window, or the transcoder is not one of this model.
    """
    if windows.ndim != 2 or not len(windows):
        raise ValueError(f"windows have shape {tuple(windows.shape)}; give at least one, shape (n, pos + 1).")
    check_belongs(transcoder, model)
    modes = model.training, transcoder.training
    model.eval(), transcoder.eval()
    try:
        totals, losses = _Totals(transcoder), torch.zeros(3, dtype=torch.float64)
        for batch in windows.split(batch_size):
            tokens = batch[:, :-1].to(model.W_E.device)
            totals.add(mlp_activations(model, tokens, transcoder.cfg.input_hook).flatten(0, 1))
            own = model(tokens)
            with spliced(model, transcoder):
                replaced = model(tokens)
            divergence = kl_divergence(own.double(), replaced.double()).mean()
            losses += len(batch) * torch.stack([loss(own, batch), loss(replaced, batch), divergence]).double().cpu()
    finally:
        model.train(modes[0]), transcoder.train(modes[1])
    return TranscoderScores(*totals.result(), *(losses / len(windows)).tolist(), totals.n)


@torch.no_grad()
def reconstruction_scores(
    transcoder: Transcoder, activations: Float[Tensor, "n side layer d_model"]
) -> tuple[Float[Tensor, " layer"], Float[Tensor, " layer"], Float[Tensor, " layer"]]:
    """Return FVU, L0 and dead share by layer, as `TranscoderScores` defines them, on given activations."""
    totals = _Totals(transcoder)
    for part in activations.split(4096):
        totals.add(part)
    return totals.result()


class _Totals:
    """Sums over positions, in float64, from which the scores of a transcoder follow."""

    def __init__(self, transcoder: Transcoder) -> None:
        cfg = transcoder.cfg
        self.transcoder, self.n = transcoder, 0
        self.squared_error, self.l0 = torch.zeros(2, cfg.n_layers, dtype=torch.float64)
        self.sums, self.squares = torch.zeros(2, cfg.n_layers, cfg.d_model, dtype=torch.float64)
        self.shift: Tensor | None = None
        self.active = torch.zeros(cfg.n_layers, cfg.d_transcoder, dtype=torch.long)

    def add(self, activations: Float[Tensor, "n side layer d_model"]) -> None:
        targets = activations[:, TARGETS]
        coded = self.transcoder(activations[:, INPUTS].to(self.transcoder.W_enc))
        self.squared_error += (targets - coded.reconstruction).double().pow(2).sum((0, 2)).cpu()
        # Sums of distances from the first position: they lose no digits where the mean is far from 0.
        self.shift = targets[0].double().cpu() if self.shift is None else self.shift
        from_shift = targets.double().cpu() - self.shift
        self.sums += from_shift.sum(0)
        self.squares += from_shift.pow(2).sum(0)
        fired = coded.activations != 0
        self.l0 += fired.sum((0, 2)).cpu()
        self.active += fired.sum(0).cpu()
        self.n += len(targets)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        variance = (self.squares - self.sums.pow(2) / self.n).sum(-1)
        return (
            self.squared_error / torch.where(variance > 0, variance, torch.nan),
            self.l0 / self.n,
            (self.active == 0).double().mean(1),
        )
