"""CPU time of one `prune` of a trained model, stage by stage, and as a ratio to as many bare passes as it takes steps.

    python tests/bench/bench_pruning.py MODEL [--tasks NAME ...] [--target-loss 0.15] [--rounds 7]

A bare pass is forward and backward of the whole model on one batch of a step, without masks, gradients of the weights
included. It takes turns with a step of the learning and with one evaluation of a circuit of 50 nodes, so that other
work on the machine slows each; the unit is CPU time of one thread. The target is 120 CPU seconds for a whole `prune`,
with what `PruningConfig` sets, on a model of the shipped shape.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from sparse_circuits.ablation_values import mean_values
from sparse_circuits.checkpoints import load_model
from sparse_circuits.graph import weight_graph
from sparse_circuits.mask_learning import PruningConfig, learn_mask
from sparse_circuits.mask_search import MaskSearch
from sparse_circuits.pruning import prune
from sparse_circuits.tasks import code_tokens
from sparse_circuits.training import random_windows
from sparse_circuits.two_way import task_prompts

LEARNING_PAIRS, SELECTION_PAIRS, REFERENCE_WINDOWS, NODES, TARGET_SECONDS = 256, 64, 256, 50, 120


def cpu_seconds(function) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a saved model, or name of a shipped one")
    parser.add_argument("--tasks", nargs="+", default=["single_double_quote", "while_return_true"])
    parser.add_argument("--target-loss", type=float, default=PruningConfig.target_loss)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(Path(options.model) if Path(options.model).is_dir() else options.model)
    reference = random_windows(code_tokens("train"), model.cfg.n_ctx, REFERENCE_WINDOWS, 0)(0)
    values = mean_values(model, reference, reference="standard library, training split")
    graph, config, slowest = weight_graph(model), PruningConfig(target_loss=options.target_loss), 0.0
    one_step = PruningConfig(steps=1, check_every=2)
    for task in options.tasks:
        learning, selection = task_prompts(task, LEARNING_PAIRS, 0), task_prompts(task, SELECTION_PAIRS, 1)
        batch = learning[torch.randperm(len(learning), generator=torch.Generator().manual_seed(0))]
        batch = batch[: config.prompts_per_step]
        rows = torch.arange(len(batch))
        search = MaskSearch(model, graph, selection, values, config.target_loss)
        kept = torch.zeros(graph.count_nodes(), dtype=torch.bool)
        kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))[:NODES]] = True

        def bare(batch=batch, rows=rows):
            batch.losses(model(batch.tokens)[rows, batch.position]).mean().backward()
            model.zero_grad()

        contenders = {
            "bare forward and backward": bare,
            "step of the learning": lambda b=batch, s=selection: learn_mask(model, graph, b, s, values, one_step),
            "evaluation of a circuit": lambda search=search, kept=kept: search.loss(kept),
        }
        seconds = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                seconds[name].append(cpu_seconds(contender))
        middle = {name: statistics.median(times) for name, times in seconds.items()}
        print(f"{task}: {len(selection)} selection prompts, {config.steps} steps of {len(batch)} prompts")
        for name, time_of_one in middle.items():
            print(f"  {name:26} {1000 * time_of_one:8.1f} CPU ms (median of {options.rounds})")
        found = []
        whole = cpu_seconds(
            lambda learning=learning, selection=selection, found=found: found.append(
                prune(model, learning, selection, values, config)
            )
        )
        passes = config.steps * middle["bare forward and backward"]
        print(
            f"  prune: {whole:.0f} CPU s, ratio to {config.steps} bare passes {whole / passes:.2f}; {found[0].circuit}"
        )
        slowest = max(slowest, whole)
    print(f"slowest prune {slowest:.0f} CPU s; target {TARGET_SECONDS}")
    raise SystemExit(slowest > TARGET_SECONDS)


if __name__ == "__main__":
    main()
