"""Training of transcoders, on the training loop of the book.

First used in chapter 10. Activations are streamed from the model and scaled layer by layer; the trained transcoder is
given JumpReLU thresholds, and the scales are folded into its weights. Run one with `train_transcoder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .activation_cache import INPUTS, ActivationCache, mlp_activations
from .dictionary_objective import DictionaryLearning, Scales, SparseReconstruction, initialise
from .metrics import next_token_loss
from .model import Transformer
from .objectives import Loss
from .training import BatchSource, TrainingConfig, train
from .transcoder import Transcoder, TranscoderConfig, check_belongs
from .transcoder_scores import TranscoderScores, reconstruction_scores, score_transcoder


@dataclass
class TranscoderRun:
    """What `train_transcoder` leaves behind.

    Attributes
    ----------
    transcoder : Transcoder
        In units of the model's activations, with JumpReLU thresholds, in evaluation mode.
    log : list of dict
        As in `TrainingRun`, but `tokens` counts positions and `loss` is the unexplained share of the variance in
        training. `l0` and `dead_share` are those of training; `held_out_fvu`, `held_out_l0` and `held_out_dead_share`
        are measured with thresholds, on the held-out windows.
    scores : TranscoderScores
        Of the transcoder on the held-out windows.
    """

    transcoder: Transcoder
    log: list[dict[str, float]]
    scores: TranscoderScores


def train_transcoder(
    model: Transformer,
    tokens: BatchSource,
    config: TranscoderConfig,
    training: TrainingConfig,
    held_out: Int[Tensor, "n pos_and_one"],
    learning: DictionaryLearning | None = None,
    directory: Path | None = None,
    loss: Loss = next_token_loss,
    progress: bool | None = None,
) -> TranscoderRun:
    """Train a transcoder for a model.

    Parameters
    ----------
    model : Transformer
        The model; it is left as it is.
    tokens : callable
        `tokens(i)` returns windows of tokens, shape (batch, pos + 1), as for `training.train`.
    config : TranscoderConfig
        Shape and activation.
    training : TrainingConfig
        Steps and optimiser; `batch_size` counts positions. Give `weight_decay=0`.
    held_out : int tensor, shape (n, pos + 1)
        Windows on which each log row and the scores are measured.
    learning : DictionaryLearning, optional
        First weights, penalties and dead features.
    directory, progress
        As in `training.train`; a run found in the directory with the same settings is resumed.
    loss : callable
        As in `score_transcoder`.

    Raises
    ------
    ValueError
        If the configuration is not one of this model, or an activation is not finite.
    CheckpointError, FloatingPointError
        As in `training.train`.
    """
    learning = learning or DictionaryLearning()
    transcoder = Transcoder(config, learning.seed)
    check_belongs(transcoder, model)
    cache = ActivationCache(
        model, tokens, training.batch_size, config.input_hook, learning.steps_at_once, learning.seed
    )
    sample = cache.chunk(0)
    scales = Scales.of(sample)
    # float32 is what the loop trains in, whatever the model's precision.
    scales, sample = Scales(scales.inputs.float(), scales.targets.float()), scales.apply(sample).float()
    initialise(transcoder, sample, learning)
    measured = scales.apply(mlp_activations(model, held_out[:, :-1], config.input_hook).flatten(0, 1)).float()

    def evaluate(trained: Transcoder) -> dict[str, float]:
        _set_thresholds(trained, sample[:, INPUTS])
        names = ("held_out_fvu", "held_out_l0", "held_out_dead_share")
        parts = reconstruction_scores(trained, measured)
        return {name: float(part.mean()) for name, part in zip(names, parts, strict=True)}

    objective = SparseReconstruction(transcoder, scales, learning, training.steps)
    log = train(transcoder, cache, training, directory, evaluate, progress, objective).log
    _set_thresholds(transcoder, sample[:, INPUTS])
    finished = transcoder.as_jumprelu().folded(scales.inputs, scales.targets).eval().requires_grad_(False)
    return TranscoderRun(finished, log, score_transcoder(model, finished, held_out, loss=loss))


def _set_thresholds(transcoder: Transcoder, inputs: Tensor) -> None:
    if transcoder.cfg.activation == "batch_topk":
        with torch.no_grad():
            transcoder.calibrate(inputs)
