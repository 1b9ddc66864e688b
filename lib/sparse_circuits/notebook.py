"""What the set-up cell of every chapter does."""

from __future__ import annotations

import os
import random
import warnings

SEED_VARIABLE = "SPARSE_CIRCUITS_SEED"


def chapter_seed() -> int:
    """Return the seed of this run: the environment variable `SPARSE_CIRCUITS_SEED`, or 0.

    Raises
    ------
    ValueError
        If the variable is not a whole number from 0 to 2³² - 1.
    """
    given = os.environ.get(SEED_VARIABLE, "0")
    if not (given.isascii() and given.isdigit() and int(given) < 2**32):
        raise ValueError(f"{SEED_VARIABLE} is {given!r}; give a whole number from 0 to {2**32 - 1}, or unset it.")
    return int(given)


def setup_notebook() -> None:
    """Seed `random`, NumPy and PyTorch, set the style of the figures, and say that the library is ready.

    Warnings of other packages about deprecated functions and missing widgets are silenced: no news to a reader.
    """
    import numpy as np
    import torch

    from sparse_circuits import __version__, plots

    seed = chapter_seed()
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that use the global generator must be repeatable too
    torch.manual_seed(seed)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # TransformerLens imports a progress bar for notebooks that this library does not use.
    warnings.filterwarnings("ignore", message="IProgress not found")
    warnings.filterwarnings("ignore", message="IProgress not found")
    plots.use_style()
    print(f"Sparse Circuits {__version__} is ready: seed {seed}")
