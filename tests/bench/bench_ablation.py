"""CPU time of a forward pass with all but 50 nodes at their means, as ratios to the bare and to a hand-written one.

    python tests/bench/bench_ablation.py [--preset code] [--rounds 15]

The rival is TransformerLens's `run_with_hooks` with one `torch.where` per location, its masks and means laid ready.
Ours is the whole `with ablated(...)` statement, entered anew for each pass with masks and values laid ready. All take
turns, so that other work on the machine slows each; the unit is CPU time of one thread. The target is a ratio of at
most 1.1 to the rival; the two give the same logits, which is checked first.
"""

import argparse
import statistics
import time

import torch
from sparse_circuits.ablation import ablated
from sparse_circuits.ablation_masks import nodes_outside
from sparse_circuits.ablation_values import mean_values
from sparse_circuits.circuit import Circuit
from sparse_circuits.graph import weight_graph
from sparse_circuits.model import Transformer, TransformerConfig

BATCH_SIZE, NODES, PASSES, TARGET = 8, 50, 4, 1.1


def circuit_of_random_nodes(model: Transformer) -> Circuit:
    graph = weight_graph(model)
    sizes = list(graph.sizes.values())
    kept = torch.zeros(sum(sizes), dtype=torch.bool)
    kept[torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))[:NODES]] = True
    return Circuit.induced(graph, dict(zip(graph.sizes, kept.split(sizes), strict=True)))


def replacing(mask: torch.Tensor, mean: torch.Tensor):
    def replace(activation, hook):
        shape = activation.shape[2:]
        return torch.where(mask.view(shape), mean.view(shape), activation)

    return replace


def cpu_seconds(function) -> float:
    started = time.process_time()
    for _ in range(PASSES):
        function()
    return time.process_time() - started


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="code")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cfg = TransformerConfig.preset(options.preset, d_vocab=2048)
    model = Transformer(cfg)
    generator = torch.Generator().manual_seed(0)
    reference, tokens = (torch.randint(cfg.d_vocab, (BATCH_SIZE, cfg.n_ctx), generator=generator) for _ in range(2))
    outside = nodes_outside(circuit_of_random_nodes(model))
    values = mean_values(model, reference, reference="uniform tokens")
    hooks = [(place, replacing(mask, values.activations[place].float())) for place, mask in outside.items()]

    def ours():
        with ablated(model, outside, values=values):
            return model(tokens)

    contenders = {
        "bare forward pass": lambda: model(tokens),
        "sparse_circuits.ablated": ours,
        "run_with_hooks by hand": lambda: model.run_with_hooks(tokens, fwd_hooks=hooks),
    }
    bare, own, by_hand = (contender() for contender in contenders.values())
    assert torch.equal(own, by_hand)
    assert not torch.allclose(own, bare)
    seconds = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            seconds[name].append(cpu_seconds(contender) / PASSES)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    for name, time_of_one in middle.items():
        print(f"{name:26} {1000 * time_of_one:8.1f} CPU ms a pass (median of {options.rounds})")
    ablated_pass = middle["sparse_circuits.ablated"]
    ratio = ablated_pass / middle["run_with_hooks by hand"]
    print(f"ratio to the bare pass {ablated_pass / middle['bare forward pass']:.2f}")
    print(f"ratio to run_with_hooks {ratio:.2f}; target {TARGET}")
    raise SystemExit(ratio > TARGET)


if __name__ == "__main__":
    main()
