"""Training runs as a table: how much of each model is not zero, what its training cost, and how low its loss came.

First used in chapter 4.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .model import Transformer
from .recipes import Recipe

if TYPE_CHECKING:
    import pandas as pd

RECIPE, LOG = "recipe.toml", "log.csv"
# Two operations per parameter forward and four backward, for each token: arXiv 2001.08361, section 2.1.
FLOPS_PER_PARAMETER_AND_TOKEN = 6


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
