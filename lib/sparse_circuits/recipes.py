"""Recipes: a model, its data and its training in one TOML file, and the run that such a file asks for.

Run one with `python -m sparse_circuits.train`, which says what the tables of the file are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from .attention_objective import AttentionSparsity
from .checkpoints import load_model, save_model
from .low_rank import LowRank
from .model import Transformer, TransformerConfig
from .objectives import NextToken
from .post_training import held_out_loss, post_train
from .sources import SOURCES
from .sparsity.weights import WeightSparsity
from .training import TrainingConfig, TrainingRun, train

TABLES = {"model": set(), "data": {"stream", "held_out_windows"}, "training": {"seed"}}


@dataclass(frozen=True)
class Recipe:
    """A model, its data and its training, as a TOML file states them.

    Parameters
    ----------
    name, text : str
        Name of the recipe (of its folder, where the file is called `recipe.toml`), and the file's text.
    model : TransformerConfig
        What is trained; its vocabulary is that of the stream.
    training : TrainingConfig
        How it is trained.
    stream : str
        Where the tokens come from: a name in `sources.SOURCES`.
    held_out_windows : int
        Windows of `n_ctx` tokens of the held-out split that are evaluated at each log row.
    seed : int
        Seed of the initial weights and of the order of the batches.
    start : str, optional
        Name of a model in `data/models`, or a folder: its weights are trained on, in place of initial ones.
    attention : AttentionSparsity, optional
        Post-train the attention of `start`, see `post_training`.

    Raises
    ------
    ValueError
        If a table or a field is missing or unknown.
    """

    name: str
    text: str
    model: TransformerConfig
    training: TrainingConfig
    stream: str
    held_out_windows: int
    seed: int
    start: str | None = None
    attention: AttentionSparsity | None = None

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read and check a recipe file."""
        text = path.read_text()
        try:
            tables = read_tables(text, TABLES, {"sparsity", "attention"})
            model, data, training = tables["model"], tables["data"], tables["training"]
            if not model.keys() & {"preset", "start"}:
                raise ValueError("missing: ['[model] preset']; a model needs a preset, or another to start from")
            if "attention" in tables and "start" not in model:
                raise ValueError("[attention] post-trains a model; name it as [model] start")
            start, seed = model.pop("start", None), training.pop("seed")
            return cls(
                name=name_of(path),
                text=text,
                model=_shape(start, model, data["stream"]),
                stream=data["stream"],
                held_out_windows=data["held_out_windows"],
                seed=seed,
                start=start,
                attention=_attention(tables["attention"]) if "attention" in tables else None,
                training=TrainingConfig(
                    **training, sparsity=WeightSparsity(**tables["sparsity"]) if "sparsity" in tables else None
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no recipe: {error}. See the recipes beside the models in data/models."
            ) from error


def read_tables(text: str, required: Mapping[str, Set[str]], optional: Set[str]) -> dict[str, dict]:
    """Return the tables of a recipe's text, among them `data` with a stream.

    Parameters
    ----------
    text : str
        TOML.
    required : mapping of str to set of str
        The tables that must be there, and the keys that each must have.
    optional : set of str
        The tables that may be there.

    Raises
    ------
    ValueError
        If the text is no TOML, a table or a key is missing, a table is unknown, or the stream is.
    """
    tables = tomllib.loads(text)
    missing = [f"[{table}] {key}" for table, keys in required.items() for key in keys - tables.get(table, {}).keys()]
    missing += [f"[{table}]" for table in required.keys() - tables.keys()]
    unknown = tables.keys() - required.keys() - optional
    if missing or unknown:
        raise ValueError(f"missing: {sorted(missing)}; unknown tables: {sorted(unknown)}")
    if tables["data"]["stream"] not in SOURCES:
        raise ValueError(f"[data] stream is {tables['data']['stream']!r}; choose one of {sorted(SOURCES)}")
    return tables


def name_of(path: Path) -> str:
    """Return the name of a recipe: that of its folder, where the file is called `recipe.toml`."""
    return path.parent.name if path.stem == "recipe" else path.stem


def run_recipe(recipe: Recipe, output: Path, progress: bool | None = None) -> TrainingRun:
    """Train what a recipe states and save it as `output/model`, with the recipe and the log beside the weights.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    output : Path
        Folder of the log, the checkpoints and, at the end, the model.
    progress : bool, optional
        Show a progress bar; if not given, where somebody watches.
    """
    source, length = SOURCES[recipe.stream], recipe.model.n_ctx + 1
    batches = source.batches(length, recipe.training.batch_size, recipe.seed)
    held_out = source.held_out(length, recipe.held_out_windows)
    model = Transformer(recipe.model, seed=recipe.seed)
    if recipe.start:
        model.load_state_dict(load_model(recipe.start).state_dict())
    if recipe.attention:
        run = post_train(
            model, batches, recipe.training, recipe.attention, held_out, output, source.loss, progress=progress
        )
    else:
        run = train(
            model,
            batches,
            recipe.training,
            directory=output,
            evaluate=lambda model: {"held_out_loss": held_out_loss(model, held_out, source.loss)},
            progress=progress,
            objective=NextToken(source.loss),
        )
    save_model(
        run.model, output / "model", recipe__toml=recipe.text.encode(), log__csv=(output / "log.csv").read_bytes()
    )
    return run


def _attention(table: dict) -> AttentionSparsity:
    """Return the settings of a table `[attention]`, in which `low_rank` is a table of its own."""
    low_rank = table.pop("low_rank", None)
    return AttentionSparsity(**table, low_rank=None if low_rank is None else LowRank(**low_rank))


def _shape(start: str | None, model: dict, stream: str) -> TransformerConfig:
    """Return the shape of the model that is gone on with, or that of a preset."""
    if start is None:
        return TransformerConfig.preset(model.pop("preset"), d_vocab=SOURCES[stream].d_vocab(), **model)
    if model:
        raise ValueError(f"[model] has {sorted(model)} beside start; a model that is gone on with keeps its shape")
    return load_model(start).cfg
