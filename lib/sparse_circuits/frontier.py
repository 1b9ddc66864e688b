"""Training runs as a table: how much of each model is not zero, what its training cost, and how low its loss came.

And the control of a post-trained one: the dense run that saw the same batches.

First used in chapter 4.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .checkpoints import data_path
from .model import Transformer
from .recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

RECIPE, LOG = "recipe.toml", "log.csv"
# Two operations per parameter forward and four backward, for each token: arXiv 2001.08361, section 2.1.
FLOPS_PER_PARAMETER_AND_TOKEN = 6
# Two runs that agree in these, from one start, saw the same batches.
SAME_BATCHES = ("seed", "steps", "batch_size")


def read_runs(folder: str | os.PathLike) -> pd.DataFrame:
    """Return one row for each training run below a folder.

    A run is a folder with a recipe and the log of its training: what `python -m sparse_circuits.train` writes, and what
    each shipped model has beside its weights.

    Parameters
    ----------
    folder : path
        Holds the folders of the runs.

    Returns
    -------
    pandas.DataFrame
        Ordered by name, with the columns

        - `name`, `seed`, `learning_rate`: of the recipe;
        - `width`: coordinates of the residual stream;
        - `density`, `embedding_density`, `activation_density`: shares kept of matrices, embeddings and activations, 1
          where nothing is set to zero;
        - `parameters`: numbers that the model has, zeros and biases included;
        - `nonzeros`: those that may differ from zero at the end;
        - `steps`, `tokens`: of the training so far;
        - `flops`: 6 x `parameters` x `tokens`, in floating-point operations. Zeros are counted: on ordinary hardware a
          multiplication by zero takes as long as any other;
        - `seconds`: wall clock, as the log has it;
        - `held_out_loss`: nats per token, the last one in the log;
        - `finished`: whether the log reaches the last step of the recipe.

    Raises
    ------
    ValueError
        If there is no run in the folder, or the recipe or the log of one cannot be read.
    """
    import pandas as pd

    paths = sorted(path.parent for path in Path(folder).glob(f"*/{RECIPE}") if (path.parent / LOG).is_file())
    if not paths:
        raise ValueError(
            f"{os.fspath(folder)!r} holds no training run; give a folder of folders with {RECIPE} and {LOG} in each."
        )
    return pd.DataFrame([_row(path) for path in paths])


def control_of(run: str | os.PathLike) -> Path:
    """Return the folder of the dense run that is the control of a post-trained one.

    It goes on from the same model with the same batches, as many of them, and has neither gates nor sparse weights. It
    is looked for beside the run and among the shipped models.

    Parameters
    ----------
    run : path
        Folder of the post-trained run, with its recipe.

    Raises
    ------
    FileNotFoundError
        If there is no recipe in the folder.
    ValueError
        If there is no such control, or more than one.
    """
    directory = Path(run)
    wanted = _batches_of(_tables(directory / RECIPE))
    recipes = {
        path.resolve() for folder in (directory.parent, data_path("models")) for path in folder.glob(f"*/{RECIPE}")
    }
    controls = sorted(path.parent for path in recipes if _is_control(_tables(path), wanted))
    if len(controls) != 1:
        raise ValueError(
            f"{os.fspath(run)!r} has {len(controls)} controls ({[path.name for path in controls]}), runs without gates "
            f"that saw the batches {wanted}; train one, beside it or in data/models."
        )
    return controls[0]


@cache
def _parsed(text: str) -> dict[str, dict]:
    return tomllib.loads(text)


def _tables(recipe: Path) -> dict[str, dict]:
    return _parsed(recipe.read_text())


def _is_control(tables: dict[str, dict], wanted: dict[str, object]) -> bool:
    return not tables.keys() & {"attention", "sparsity"} and _batches_of(tables) == wanted


def _batches_of(tables: dict[str, dict]) -> dict[str, object]:
    """Return what decides which batches a run sees, and from which model on."""
    model, data, training = (tables.get(name, {}) for name in ("model", "data", "training"))
    return {"start": model.get("start"), "data": data} | {name: training.get(name) for name in SAME_BATCHES}


def _row(directory: Path) -> dict[str, object]:
    import pandas as pd

    recipe = Recipe.read(directory / RECIPE)
    try:
        last = pd.read_csv(directory / LOG).iloc[-1]
        steps, tokens, seconds, loss = (last[column] for column in ("step", "tokens", "seconds", "held_out_loss"))
    except (ValueError, LookupError) as error:
        raise ValueError(
            f"{directory / LOG} is no log of a training run with held-out losses ({error!r}); train the run again."
        ) from error
    model, sparsity = Transformer(recipe.model), recipe.training.sparsity
    parameters = sum(weight.numel() for weight in model.parameters())
    counts = sparsity.counts(model) if sparsity else {}
    set_to_zero = sum(model.get_parameter(name).numel() - count for name, count in counts.items())
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "learning_rate": recipe.training.learning_rate,
        "width": recipe.model.d_model,
        "density": sparsity.density if sparsity else 1.0,
        "embedding_density": sparsity.embedding_density if sparsity else 1.0,
        "activation_density": recipe.model.activation_density,
        "parameters": parameters,
        "nonzeros": parameters - set_to_zero,
        "steps": int(steps),
        "tokens": int(tokens),
        "flops": FLOPS_PER_PARAMETER_AND_TOKEN * parameters * int(tokens),
        "seconds": float(seconds),
        "held_out_loss": float(loss),
        "finished": int(steps) == recipe.training.steps,
    }
