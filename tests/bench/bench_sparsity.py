"""CPU time of a sparse training step, as a ratio to a dense step of the same shape, beside sort-based top-k.

    python tests/bench/bench_sparsity.py [--preset code] [--rounds 5]

The contenders run the book's own training loop on the same shape and the same batch: dense, with sparse weights, and
with sparse weights and activations (AbsTopK at all eight locations). The rivals are the same, with the selection done
by a full sort. They take turns, so that other work on the machine slows all of them; the unit is CPU time of one
thread. The target is at most 1.3 for every step that does not sort.

After them, without a target, a step of the shipped sparse model of code against one of its dense control of equal loss:
what the sparsity costs in time when the losses meet, and not the shapes.
"""

import argparse
import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch
from sparse_circuits.checkpoints import data_path
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.recipes import Recipe
from sparse_circuits.sparsity import WeightSparsity
from sparse_circuits.training import TrainingConfig, train

BATCH_SIZE, STEPS, TARGET = 32, 8, 1.3
PAIR = ("code-matched-0", "code-sparse-0")
SPARSITY = WeightSparsity(density=1 / 16, expansion=2, anneal_from=0, anneal_to=0)


def mask_by_sorting(x, k, dim=None):
    """Return what `largest_mask` returns, from a stable sort."""
    if dim is None:
        return mask_by_sorting(x.flatten(), k, 0).view(x.shape)
    order = x.detach().abs().sort(dim=dim, descending=True, stable=True).indices.narrow(dim, 0, k)
    return torch.zeros_like(x, dtype=torch.bool).scatter_(dim, order, True)


@contextmanager
def sorting():
    package = "sparse_circuits.sparsity"
    with (
        mock.patch(f"{package}.selection.largest_mask", mask_by_sorting),
        mock.patch(f"{package}.weights.largest_mask", mask_by_sorting),
    ):
        yield


def cpu_seconds(function):
    started = time.process_time()
    function()
    return time.process_time() - started


def seconds_per_step(contenders, rounds):
    """Return the median over rounds in which the contenders take turns, after one round that does not count."""
    seconds = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            seconds[name].append(cpu_seconds(run) / STEPS)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def shipped_contender(name):
    """Return the first steps of the training of a shipped model."""
    recipe = Recipe.read(data_path("models", name) / "recipe.toml")
    config = replace(recipe.training, steps=STEPS, warmup_steps=1, log_every=STEPS, checkpoint_every=STEPS)
    shape = (config.batch_size, recipe.model.n_ctx + 1)
    tokens = torch.randint(recipe.model.d_vocab, shape, generator=torch.Generator().manual_seed(0))
    model = Transformer(recipe.model)
    return lambda: train(model, lambda step: tokens, config, progress=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="code")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = TransformerConfig.preset(options.preset, d_vocab=2048)
    tokens = torch.randint(shape.d_vocab, (BATCH_SIZE, shape.n_ctx + 1), generator=torch.Generator().manual_seed(0))

    def contender(activation_density, sparsity):
        cfg = TransformerConfig.preset(options.preset, d_vocab=2048, activation_density=activation_density)
        config = TrainingConfig(
            steps=STEPS,
            batch_size=BATCH_SIZE,
            learning_rate=1e-3,
            log_every=STEPS,
            checkpoint_every=STEPS,
            sparsity=sparsity,
        )
        model = Transformer(cfg)
        return lambda: train(model, lambda step: tokens, config, progress=False)

    def sorted_contender(run):
        def sorted_run():
            with sorting():
                run()

        return sorted_run

    weights, both = contender(1.0, SPARSITY), contender(0.25, SPARSITY)
    contenders = {
        "dense": contender(1.0, None),
        "sparse weights": weights,
        "sparse weights and activations": both,
        "sparse weights, by sorting": sorted_contender(weights),
        "sparse weights and activations, by sorting": sorted_contender(both),
    }
    seconds = seconds_per_step(contenders, options.rounds)
    dense = seconds["dense"]
    ratios = {name: median / dense for name, median in seconds.items()}
    for name, ratio in ratios.items():
        print(f"{name:44} {1e3 * dense * ratio:7.0f} ms of CPU time per step   {ratio:5.2f} of dense")
    worst = max(ratio for name, ratio in ratios.items() if "sorting" not in name)
    print(f"worst ratio without sorting {worst:.2f}; target {TARGET} (median of {options.rounds})")
    pair = seconds_per_step({name: shipped_contender(name) for name in PAIR}, options.rounds)
    print(f"{PAIR[1]} over {PAIR[0]}: {pair[PAIR[1]] / pair[PAIR[0]]:.1f} times the CPU time per step")
    raise SystemExit(worst > TARGET)


if __name__ == "__main__":
    main()
