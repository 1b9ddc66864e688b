"""Recipes: a model, its data and its training in one TOML file, and the run that such a file asks for.

Run one with `python -m sparse_circuits.train`, which says what the tables of the file are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .checkpoints import save_model
from .metrics import stream_loss
from .model import Transformer, TransformerConfig
from .sparsity.weights import WeightSparsity
from .tasks.code import code_tokens
from .tasks.mini_python import mini_python_tokens
from .tasks.tokenizer import load_tokenizer
from .training import TrainingConfig, TrainingRun, random_windows, train

# Mini-Python has no end; this is what a recipe takes of it, from one seed for each split.
MINI_PYTHON_TOKENS = {"train": 4_000_000, "held_out": 200_000}


def _mini_python(split: str) -> Tensor:
    return mini_python_tokens(MINI_PYTHON_TOKENS[split], seed=list(MINI_PYTHON_TOKENS).index(split))


STREAMS: dict[str, Callable[[str], Tensor]] = {"stdlib": code_tokens, "mini_python": _mini_python}
TABLES = {"model": {"preset"}, "data": {"stream", "held_out_windows"}, "training": {"seed"}}


@dataclass(frozen=True)
class Recipe:
    """A model, its data and its training, as a TOML file states them.

    Parameters
    ----------
    name, text : str
        Name of the recipe (of its folder, where the file is called `recipe.toml`), and the file's text.
    model : TransformerConfig
        What is trained; its vocabulary is that of the shipped tokenizer.
    training : TrainingConfig
        How it is trained.
    stream : {"stdlib", "mini_python"}
        Where the tokens come from.
    held_out_windows : int
        Windows of `n_ctx` tokens of the held-out split that are evaluated at each log row.
    seed : int
        Seed of the initial weights and of the order of the batches.

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

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read and check a recipe file."""
        text = path.read_text()
        try:
            tables = tomllib.loads(text)
            missing = [f"[{table}] {key}" for table, keys in TABLES.items() for key in keys - tables[table].keys()]
            unknown = tables.keys() - TABLES.keys() - {"sparsity"}
            if missing or unknown:
                raise ValueError(f"missing: {sorted(missing)}; unknown tables: {sorted(unknown)}")
            model, data, training = tables["model"], tables["data"], tables["training"]
            if data["stream"] not in STREAMS:
                raise ValueError(f"[data] stream is {data['stream']!r}; choose one of {sorted(STREAMS)}")
            return cls(
                name=path.parent.name if path.stem == "recipe" else path.stem,
                text=text,
                model=TransformerConfig.preset(model.pop("preset"), d_vocab=load_tokenizer().d_vocab, **model),
                stream=data["stream"],
                held_out_windows=data["held_out_windows"],
                seed=training.pop("seed"),
                training=TrainingConfig(
                    **training, sparsity=WeightSparsity(**tables["sparsity"]) if "sparsity" in tables else None
                ),
            )
        except (tomllib.TOMLDecodeError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no recipe: {error}. See the recipes beside the models in data/models."
            ) from error


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
    n_ctx = recipe.model.n_ctx
    stream = STREAMS[recipe.stream]
    held_out = stream("held_out")[: recipe.held_out_windows * n_ctx + 1]
    run = train(
        Transformer(recipe.model, seed=recipe.seed),
        random_windows(stream("train"), n_ctx + 1, recipe.training.batch_size, recipe.seed),
        recipe.training,
        directory=output,
        evaluate=lambda model: {"held_out_loss": stream_loss(model, held_out, n_ctx)},
        progress=progress,
    )
    save_model(
        run.model, output / "model", recipe__toml=recipe.text.encode(), log__csv=(output / "log.csv").read_bytes()
    )
    return run
