"""Post-training of attention: as few open edges as the loss allows, on the training loop of the book.

First used in chapter 8. A trained model gets gates on its attention edges (`sparsity.attention`), and is trained on to
minimise the expected share of open edges while the loss of the next token stays within a limit, which a controller
(`sparsity.constraint`) enforces. After arXiv 2512.05865.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from .attention_objective import AttentionSparsity, SparseAttention
from .checkpoints import CheckpointError, canonical_json, load_model, read_folder, save_model
from .low_rank import add_adapters, merged
from .metrics import next_token_loss
from .model import Transformer
from .objectives import Loss
from .sparsity.attention import closed_attention, gated, open_edges
from .training import BatchSource, TrainingConfig, TrainingRun, train

BEST, ROW = "best", "row.json"


@dataclass
class PostTrainingRun(TrainingRun):
    """What post-training leaves behind.

    Attributes
    ----------
    model : Transformer
        In evaluation mode, with the weights of `best` if there is one, else with the last ones.
    log : list of dict
        As in `TrainingRun`; the evaluation adds `held_out_loss` (nats per token) and `open_density` (of causal pairs),
        both without noise.
    best : dict, optional
        The log row with the fewest open edges among those whose held-out loss was within `config.best_limit`; None if
        none was.
    """

    best: dict[str, float] | None = None


class DivergedError(FloatingPointError):
    """The loss of a run was no longer finite.

    Attributes
    ----------
    run : PostTrainingRun
        The best state before that; its log is empty.
    """

    def __init__(self, message: str, run: PostTrainingRun) -> None:
        super().__init__(message)
        self.run = run


def post_train(
    dense: Transformer,
    batches: BatchSource,
    training: TrainingConfig,
    config: AttentionSparsity,
    held_out: Int[Tensor, "n pos_and_one"],
    directory: Path | None = None,
    loss: Loss = next_token_loss,
    needed: float = 0.05,
    progress: bool | None = None,
) -> PostTrainingRun:
    """Post-train a model to few open attention edges, and return the best state on the way.

    Parameters
    ----------
    dense : Transformer
        The trained model; it is left as it is.
    batches, training, directory, progress
        As in `training.train`. A run found in `directory` with the same settings is resumed; the best state is in its
        folder `best`.
    config : AttentionSparsity
        Limit, gates, controller, and adapters if only these are to be trained.
    held_out : int tensor, shape (n, pos + 1)
        Windows on which each log row is measured and the best state chosen.
    loss : callable
        As in `SparseAttention`.
    needed : float
        What closing all edges must cost on `held_out`, in nats per token, before the run begins.

    Raises
    ------
    ValueError
        If closing all attention edges costs less than `needed`, the model has gates already, or adapters are asked for
        together with sparse weights.
    CheckpointError
        As in `training.train`.
    DivergedError
        If the loss is no longer finite. Its `run` has the best state so far, as has `directory`.
    """
    if config.low_rank and training.sparsity:
        raise ValueError("Adapters leave weights as they are, so that these cannot be made sparse; give one of both.")
    check_attention_is_needed(dense, held_out, needed, loss)
    model = gated(dense, config.bias)
    if config.low_rank:
        add_adapters(model, config.low_rank)
    objective = SparseAttention(model, config, dense if config.distillation else None, loss)
    best = _Best(config, held_out, loss, directory / BEST if directory else None)
    try:
        log = train(model, batches, training, directory, best.measure, progress, objective).log
    except FloatingPointError as error:
        raise DivergedError(f"{error} The best state so far: {best.row}.", best.restored(model, [])) from error
    return best.restored(model, log)


def check_attention_is_needed(
    model: Transformer, held_out: Int[Tensor, "n pos_and_one"], needed: float, loss: Loss = next_token_loss
) -> float:
    """Return what closing all attention edges costs a model, in nats per token.

    Raises
    ------
    ValueError
        If that is less than `needed`: sparsity of attention that does nothing would mean nothing.
    """
    with closed_attention(model):
        closed = held_out_loss(model, held_out, loss)
    cost = closed - held_out_loss(model, held_out, loss)
    if not cost >= needed:
        raise ValueError(
            f"Closing all attention edges costs {cost:.4g} nats per token, less than the {needed} asked for: the model "
            "does without attention. Train it longer, or on a task that needs attention."
        )
    return cost


@torch.no_grad()
def held_out_loss(
    model: Transformer, windows: Int[Tensor, "n pos_and_one"], loss: Loss = next_token_loss, batch_size: int = 64
) -> float:
    """Return the mean loss of a model over windows of tokens, in evaluation mode and so without noise."""
    training = model.training
    model.eval()
    try:
        parts = [
            (loss(model(w[:, :-1].to(model.W_E.device)), w.to(model.W_E.device)), len(w))
            for w in windows.split(batch_size)
        ]
    finally:
        model.train(training)
    return sum(float(part) * n for part, n in parts) / len(windows)


@dataclass
class _Best:
    """The evaluation of a log row; it keeps the weights with the fewest open edges within the limit."""

    config: AttentionSparsity
    held_out: Int[Tensor, "n pos_and_one"]
    loss: Loss
    directory: Path | None
    row: dict[str, float] | None = None
    weights: dict[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.directory and (self.directory / ROW).is_file():
            stored = json.loads(read_folder(self.directory, "model")[ROW])
            if stored["settings"] != self._settings:
                raise CheckpointError(
                    f"{self.directory} is the best state of another run, with {stored['settings']}; give another "
                    "directory, or delete this one."
                )
            self.row, self.weights = stored["row"], load_model(self.directory).state_dict()

    def measure(self, model: Transformer) -> dict[str, float]:
        """Return held-out loss and open density, and keep the weights if there are none better."""
        opened = open_edges(model, self.held_out[:, :-1])
        row = {"held_out_loss": held_out_loss(model, self.held_out, self.loss), "open_density": opened.of_allowed_pairs}
        fewer = self.row is None or row["open_density"] < self.row["open_density"]
        if row["held_out_loss"] <= self.config.best_limit and fewer:
            ordinary = merged(model)
            self.row, self.weights = row, {name: w.detach().cpu().clone() for name, w in ordinary.state_dict().items()}
            if self.directory:
                save_model(ordinary, self.directory, row__json=canonical_json({"row": row, "settings": self._settings}))
        return row

    def restored(self, model: Transformer, log: list[dict[str, float]]) -> PostTrainingRun:
        """Return the run, with the best weights in the model if there are any; adapters are merged."""
        model = merged(model)
        if self.weights is not None:
            model.load_state_dict(self.weights)
        return PostTrainingRun(model.eval(), log, self.row)

    @property
    def _settings(self) -> dict:
        return json.loads(json.dumps(asdict(self.config)))
