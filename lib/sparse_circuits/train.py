"""Train a model or a transcoder from a recipe: `python -m sparse_circuits.train RECIPE [--output FOLDER]`.

A recipe is a TOML file with three tables: `[model]` (a preset, and fields of `TransformerConfig` to change; or `start`,
the name or folder of a model to go on with), `[data]` (the stream, and how many windows of its held-out split are
evaluated at each log row) and `[training]` (the seed, and fields of `TrainingConfig`). A fourth, `[sparsity]`, makes
the weights sparse (fields of `WeightSparsity`), or `[attention]` closes attention edges (fields of
`AttentionSparsity`). A recipe with a table `[transcoder]` is one of a transcoder; `transcoder_recipes` says what stands
in it. Run it again after a kill and it goes on where it stopped; run it under `accelerate launch` and it
uses every process.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .post_training import PostTrainingRun
from .recipes import Recipe, run_recipe
from .transcoder_recipes import TranscoderRecipe, run_transcoder_recipe


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m sparse_circuits.train", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="the TOML file")
    parser.add_argument("--output", type=Path, help="folder for log, checkpoints and result (default: runs/NAME)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    try:
        kind = TranscoderRecipe if TranscoderRecipe.describes(options.recipe) else Recipe
        recipe = kind.read(options.recipe)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    output = options.output or Path("runs") / recipe.name
    progress = False if options.quiet else None
    if isinstance(recipe, TranscoderRecipe):
        scores = run_transcoder_recipe(recipe, output, progress).scores
        print(f"{recipe.name}: {scores}; saved as {output / 'transcoder'}")
        return
    run = run_recipe(recipe, output, progress)
    row = run.best if isinstance(run, PostTrainingRun) and run.best else run.log[-1]
    opened = f", {100 * row['open_density']:.3g} % of attention edges open" if "open_density" in row else ""
    print(
        f"{recipe.name}: held-out loss {row['held_out_loss']:.4f} nats per token{opened}; saved as {output / 'model'}"
    )


if __name__ == "__main__":
    main()
