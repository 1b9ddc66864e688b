"""One training loop for every model of the book: CPU, one GPU, or several processes, the same code.

The batch of a step is a function of the seed and the step alone, and a checkpoint holds the optimiser's state, so a
run that was killed and resumed ends on the CPU with the same weights as one that was not.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from .model import Transformer
from .objectives import NextToken, Objective
from .optimisation import adamw, limit_gradients
from .run_state import read_checkpoint, run_identity, write_checkpoint, write_log
from .sparsity.weights import WeightSparsity, sparsify
from .vis import watched

if TYPE_CHECKING:
    from accelerate import Accelerator

BatchSource = Callable[[int], Int[Tensor, "batch pos"]]
Evaluation = Callable[[Transformer], dict[str, float]]


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; stored in every checkpoint.

    Parameters
    ----------
    steps : int
        Optimiser steps in all.
    batch_size : int
        Sequences per step, over all processes together.
    learning_rate : float
        Peak of the schedule: linear from 0 over `warmup_steps`, then linear to 0 at the last step. Annealing of weight
        sparsity lowers it further; see `WeightSparsity.learning_rate_factor`.
    warmup_steps : int
        Steps of the rise.
    weight_decay : float
        Decoupled decay (AdamW, arXiv 1711.05101v3) of matrices; biases and other vectors do not decay.
    betas, epsilon : tuple of float, float
        Decay rates of AdamW's two moments, and what is added to the root of the second.
    max_gradient_norm : float
        Global L2 norm to which gradients are clipped.
    normalize_gradients : bool
        Divide the gradients by their common root mean square instead of clipping them; see `optimisation`.
    sparsity : WeightSparsity, optional
        What is kept of the weights after every step; if not given, all of them.
    bfloat16 : bool
        Run the forward and backward pass under bfloat16 autocast; weights and optimiser stay float32.
    log_every, checkpoint_every : int
        Steps between log rows, and between checkpoints.

    Raises
    ------
    ValueError
        If a count or the learning rate is not positive, the warm-up is longer than the run, or `checkpoint_every` is
        no multiple of `log_every`.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 0
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0
    normalize_gradients: bool = False
    sparsity: WeightSparsity | None = None
    bfloat16: bool = False
    log_every: int = 50
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("steps", "batch_size", "learning_rate", "log_every", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a positive number.")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; give 0 to {self.steps}, the number of steps.")
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every is {self.checkpoint_every}; give a multiple of log_every ({self.log_every}), "
                "so that a resumed run logs what an uninterrupted one does."
            )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of optimiser step `step`, counted from 0."""
        peak = self.learning_rate
        if self.sparsity:
            peak *= self.sparsity.learning_rate_factor(step, self.steps)
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        return peak * (self.steps - step) / max(1, self.steps - self.warmup_steps)


@dataclass
class TrainingRun:
    """What a training run leaves behind.

    Attributes
    ----------
    model : Transformer
        The trained model, in evaluation mode.
    log : list of dict
        One row per logged step: `step`, `tokens`, `learning_rate`, `loss` (nats per token, mean since the last row) and
        what else the objective measures, `seconds`, and what the evaluation returned.
    """

    model: Transformer
    log: list[dict[str, float]] = field(default_factory=list)


def random_windows(stream: Int[Tensor, " n_tokens"], length: int, batch_size: int, seed: int) -> BatchSource:
    """Return a batch source that cuts random windows out of a token stream.

    Parameters
    ----------
    stream : int tensor, shape (n_tokens,)
        The tokens.
    length : int
        Tokens per window; one more than the positions that are trained on.
    batch_size : int
        Windows per batch.
    seed : int
        Together with the step it decides which windows: `source(step)` always returns the same batch.

    Returns
    -------
    callable
        `source(step)` gives int64 tokens of shape (batch_size, length).

    Raises
    ------
    ValueError
        If the stream is shorter than one window.
    """
    if len(stream) < length:
        raise ValueError(f"The stream has {len(stream)} tokens, a window needs {length}; give a longer stream.")
    offsets_in_window = torch.arange(length)

    def source(step: int) -> Int[Tensor, "batch pos"]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts = torch.randint(len(stream) - length + 1, (batch_size, 1), generator=generator)
        return stream[starts + offsets_in_window]

    return source


def train(
    model: Transformer,
    batches: BatchSource,
    config: TrainingConfig,
    directory: Path | None = None,
    evaluate: Evaluation | None = None,
    progress: bool | None = None,
    objective: Objective | None = None,
) -> TrainingRun:
    """Train a model, to predict the next token unless told otherwise.

    Under `accelerate launch` every process takes its share of each batch and gradients are averaged, so the losses
    are those of one process with the whole batch.

    Parameters
    ----------
    model : Transformer
        Trained in place.
    batches : callable
        `batches(step)` returns the whole batch of a step, shape (batch_size, pos); see `random_windows`.
    config : TrainingConfig
        Steps, batch size, optimiser.
    directory : Path, optional
        Where `log.csv` and checkpoints go. A run found there with the same configuration is resumed.
    evaluate : callable, optional
        Called with the model at every log row; what it returns joins the row.
    progress : bool, optional
        Show a progress bar; if not given, where somebody watches: in a terminal or a live notebook.
    objective : Objective, optional
        What is minimised; the loss of the next token if not given.

    Returns
    -------
    TrainingRun
        The model and its log.

    Raises
    ------
    ValueError
        If the batch does not divide by the number of processes, the batch source gives another batch size, the floor
        of the weight sparsity is above its budget, or all weights are frozen.
    CheckpointError
        If `directory` holds a checkpoint of another configuration, or a damaged one.
    FloatingPointError
        If the loss is no longer finite.
    """
    from accelerate import Accelerator
    from tqdm import tqdm

    if config.sparsity:
        config.sparsity.counts(model)
    objective = NextToken() if objective is None else objective
    accelerator = Accelerator()
    share = _process_share(config, accelerator.process_index, accelerator.num_processes)
    optimizer = adamw(model, config)
    run = TrainingRun(model)
    identity = run_identity(model, config) | objective.identity()
    first_step = read_checkpoint(model, optimizer, run.log, identity, directory, objective) if directory else 0
    wrapped, optimizer = accelerator.prepare(model.train(), optimizer)
    precision = torch.autocast(accelerator.device.type, torch.bfloat16) if config.bfloat16 else nullcontext()
    shown = accelerator.is_main_process and (_watched() if progress is None else progress)
    bar = tqdm(total=config.steps, initial=first_step, unit="step", disable=not shown)
    seconds_before = run.log[-1]["seconds"] if run.log else 0.0
    started, measured = time.perf_counter(), []
    for step in range(first_step, config.steps):
        tokens = _whole_batch(batches, step, config)[share].to(accelerator.device)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_at(step)
        with precision:
            loss, measures = objective(wrapped, tokens, step)
        accelerator.backward(loss)
        limit_gradients(wrapped, config, accelerator)
        optimizer.step()
        if config.sparsity:
            sparsify(model, config.sparsity, config.sparsity.progress(step, config.steps))
        optimizer.zero_grad()
        measured.append(measures)
        done = step + 1
        bar.update()
        if done % config.log_every and done < config.steps:
            continue
        row = {
            "step": done,
            "tokens": done * config.batch_size * (tokens.shape[1] - 1),
            "learning_rate": config.learning_rate_at(step),
            **_means(measured, accelerator),
            "seconds": seconds_before + time.perf_counter() - started,
        }
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"The loss is {row['loss']} at step {done}; lower learning_rate or warm up longer."
            )
        measured.clear()
        bar.set_postfix(loss=f"{row['loss']:.3f}")
        run.log.append(row | (_evaluated(model, evaluate) if evaluate else {}))
        if not directory or not accelerator.is_main_process:
            continue
        write_log(run.log, directory / "log.csv")
        if done % config.checkpoint_every == 0 or done == config.steps:
            write_checkpoint(model, optimizer, run.log, identity, directory, done, objective)
    bar.close()
    accelerator.free_memory()
    model.eval()
    return run


def _whole_batch(batches: BatchSource, step: int, config: TrainingConfig) -> Int[Tensor, "batch pos"]:
    tokens = batches(step)
    if len(tokens) != config.batch_size:
        raise ValueError(f"The batch source gave {len(tokens)} sequences, batch_size is {config.batch_size}.")
    return tokens


def _process_share(config: TrainingConfig, process: int, processes: int) -> slice:
    if config.batch_size % processes:
        raise ValueError(f"batch_size is {config.batch_size}, which {processes} processes cannot share evenly.")
    rows = config.batch_size // processes
    return slice(process * rows, (process + 1) * rows)


def _means(measured: list[dict[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Return the mean of each measure over steps and processes."""
    stacked = {name: torch.stack([measures[name] for measures in measured]).mean() for name in measured[0]}
    return {name: accelerator.reduce(mean, reduction="mean").item() for name, mean in stacked.items()}


def _evaluated(model: Transformer, evaluate: Evaluation) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        result = evaluate(model)
    model.train()
    return result


def _watched() -> bool:
    return sys.stderr.isatty() or watched()
