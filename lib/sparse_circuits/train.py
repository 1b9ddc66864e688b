"""Train a model from a recipe: `python -m sparse_circuits.train RECIPE [--output FOLDER]`.

A recipe is a TOML file with three tables: `[model]` (a preset, and fields of `TransformerConfig` to change), `[data]`
(the stream, and how many windows of its held-out split are evaluated at each log row) and `[training]` (the seed, and
fields of `TrainingConfig`). A fourth, `[sparsity]`, makes the weights sparse (fields of `WeightSparsity`). Run it again
after a kill and it goes on where it stopped; run it under `accelerate launch` and it uses every process.
"""

from __future__ import annotations

import argparse
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


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.train", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="the TOML file")
    parser.add_argument("--output", type=Path, help="folder for log, checkpoints and model (default: runs/NAME)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    try:
        recipe = Recipe.read(options.recipe)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    output = options.output or Path("runs") / recipe.name
    run = run_recipe(recipe, output, progress=False if options.quiet else None)
    loss = run.log[-1]["held_out_loss"]
    print(f"{recipe.name}: held-out loss {loss:.4f} nats per token; saved as {output / 'model'}")


if __name__ == "__main__":
    main()
