"""Recipes of transcoders: model, transcoder and training in one TOML file, and the run that such a file asks for.

First used in chapter 10. Run one with `python -m sparse_circuits.train`, as a recipe of a model. The file has the
tables `[transcoder]` (`model`, the name or folder of the model, and fields of `TranscoderConfig`), `[data]` (the
stream, how many windows of it the model reads at once, and how many of its held-out split are measured), `[training]`
(the seed, and fields of `TrainingConfig`; `batch_size` counts positions) and, if wanted, `[learning]` (fields of
`DictionaryLearning`).
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .checkpoints import canonical_json, load_model
from .dictionary_objective import DictionaryLearning
from .recipes import name_of, read_tables
from .sources import SOURCES
from .training import TrainingConfig
from .transcoder import Transcoder, TranscoderConfig
from .transcoder_files import load_transcoder, save_transcoder
from .transcoder_scores import TranscoderScores, score_transcoder
from .transcoder_training import TranscoderRun, train_transcoder

TABLES = {
    "transcoder": {"model", "d_transcoder"},
    "data": {"stream", "windows_at_once", "held_out_windows"},
    "training": {"seed"},
}
SCORES = "scores.json"


@dataclass(frozen=True)
class TranscoderRecipe:
    """A transcoder, its model, its data and its training, as a TOML file states them.

    Parameters
    ----------
    name, text : str
        As in `Recipe`.
    model : str
        Name of a model in `data/models`, or a folder.
    config : TranscoderConfig
        What is trained.
    training : TrainingConfig
        How it is trained; without weight decay unless stated.
    learning : DictionaryLearning
        First weights, penalties and dead features.
    stream : str
        Where the tokens come from: a name in `sources.SOURCES`.
    windows_at_once, held_out_windows : int
        Windows that the model reads at once, and windows of the held-out split that are measured.
    seed : int
        Of the order of the windows, of the first weights and of the shuffling.

    Raises
    ------
    ValueError
        If a table or a field is missing or unknown.
    """

    name: str
    text: str
    model: str
    config: TranscoderConfig
    training: TrainingConfig
    learning: DictionaryLearning
    stream: str
    windows_at_once: int
    held_out_windows: int
    seed: int

    @staticmethod
    def describes(path: Path) -> bool:
        """Return whether a recipe file is one of a transcoder."""
        return "transcoder" in tomllib.loads(path.read_text())

    @classmethod
    def read(cls, path: Path) -> TranscoderRecipe:
        """Read and check a recipe file."""
        text = path.read_text()
        try:
            tables = read_tables(text, TABLES, {"learning"})
            transcoder, data, training = tables["transcoder"], tables["data"], tables["training"]
            model, seed = transcoder.pop("model"), training.pop("seed")
            return cls(
                name=name_of(path),
                text=text,
                model=model,
                config=TranscoderConfig.of(load_model(model), **transcoder),
                training=TrainingConfig(**{"weight_decay": 0.0} | training),
                learning=DictionaryLearning(**tables.get("learning", {}), seed=seed),
                seed=seed,
                **data,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no recipe of a transcoder: {error}. See the recipes in data/transcoders."
            ) from error


def run_transcoder_recipe(recipe: TranscoderRecipe, output: Path, progress: bool | None = None) -> TranscoderRun:
    """Train what a recipe states and save it as `output/transcoder`, in float16.

    Recipe, log and scores lie beside the weights; the scores are those of the rounded weights.

    Parameters
    ----------
    recipe : TranscoderRecipe
        What to train.
    output : Path
        Folder of the log, the checkpoints and, at the end, the transcoder.
    progress : bool, optional
        Show a progress bar; if not given, where somebody watches.
    """
    model = load_model(recipe.model).requires_grad_(False)
    source, length = SOURCES[recipe.stream], model.cfg.n_ctx + 1
    held_out = source.held_out(length, recipe.held_out_windows)
    run = train_transcoder(
        model,
        source.batches(length, recipe.windows_at_once, recipe.seed),
        recipe.config,
        recipe.training,
        held_out,
        recipe.learning,
        output,
        source.loss,
        progress,
    )
    rounded = in_half_precision(run.transcoder)
    scores = score_transcoder(model, rounded.float(), held_out, loss=source.loss)
    files = {
        "recipe__toml": recipe.text.encode(),
        "log__csv": (output / "log.csv").read_bytes(),
        "scores__json": canonical_json(scores_as_json(scores)),
    }
    save_transcoder(in_half_precision(run.transcoder), output / "transcoder", **files)
    return TranscoderRun(load_transcoder(output / "transcoder", model), run.log, scores)


def in_half_precision(transcoder: Transcoder) -> Transcoder:
    """Return a copy in float16; a threshold that no activation reaches becomes the largest finite number."""
    copy = Transcoder(transcoder.cfg).half()
    largest = torch.finfo(torch.float16).max
    copy.load_state_dict({name: w.clamp(-largest, largest).half() for name, w in transcoder.state_dict().items()})
    return copy.eval().requires_grad_(False)


def scores_as_json(scores: TranscoderScores) -> dict[str, float | list[float]]:
    """Return scores as plain JSON values, rounded to six digits after the point."""
    values = {
        name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in asdict(scores).items()
    }
    return json.loads(json.dumps(values), parse_float=lambda digits: round(float(digits), 6))


def read_scores(directory: Path) -> TranscoderScores:
    """Return the scores that `run_transcoder_recipe` stored beside a transcoder."""
    stored = json.loads((directory / SCORES).read_text())
    return TranscoderScores(
        **{
            name: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
            for name, value in stored.items()
        }
    )
