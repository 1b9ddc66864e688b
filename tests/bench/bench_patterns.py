"""CPU time of an N:M mask, as a ratio to the dense matmul of the layer whose input it prunes, beside two rivals.

    python tests/bench/bench_patterns.py [--tokens 4096] [--rounds 9]

For every shape of a layer of the shipped gated models and every pattern: the mask of the input, and for comparison the
same mask from `topk` in each group and from a full sort. They take turns, so that other work on the machine slows all
of them; the unit is CPU time of one thread, the least of the rounds. The target is a ratio of at most 1.5 for every
shape and pattern. The mask comes on top of the matmul and replaces none of it: nothing here runs faster.
"""

import argparse
import time

import torch
from sparse_circuits.sparsity import PATTERNS, pattern_mask

TARGET = 1.5
SHAPES = {"q, k, v, o": (128, 128), "gate, up": (128, 384), "down": (384, 128)}


def mask_by_topk(x, pattern):
    keep, group = pattern.sizes(x.shape[-1])
    groups = x.abs().view(-1, group)
    kept = groups.topk(keep, dim=1).indices
    return torch.zeros(groups.shape, dtype=torch.bool).scatter_(1, kept, True).view(x.shape)


def mask_by_sorting(x, pattern):
    keep, group = pattern.sizes(x.shape[-1])
    groups = x.abs().view(-1, group)
    kept = groups.sort(dim=1, descending=True, stable=True).indices[:, :keep]
    return torch.zeros(groups.shape, dtype=torch.bool).scatter_(1, kept, True).view(x.shape)


def least_seconds(contenders, rounds):
    """Return the least CPU time over rounds in which the contenders take turns, after one that does not count."""
    least = dict.fromkeys(contenders, float("inf"))
    for counted in [False] + [True] * rounds:
        for name, run in contenders.items():
            started = time.process_time()
            run()
            if counted:
                least[name] = min(least[name], time.process_time() - started)
    return least


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    print(
        f"{'layer':12}{'pattern':>14}{'matmul':>10}{'mask':>8}{'topk':>8}{'sort':>8}   (matmul in ms, masks as ratios)"
    )
    for name, (channels, outputs) in SHAPES.items():
        x = torch.randn(options.tokens, channels, generator=torch.Generator().manual_seed(0))
        weight = torch.randn(channels, outputs, generator=torch.Generator().manual_seed(1))
        for pattern in PATTERNS:
            expected = mask_by_sorting(x, pattern)
            assert torch.equal(pattern_mask(x, pattern), expected)
            contenders = {
                "matmul": lambda x=x, weight=weight: x @ weight,
                "mask": lambda x=x, pattern=pattern: pattern_mask(x, pattern),
                "topk": lambda x=x, pattern=pattern: mask_by_topk(x, pattern),
                "sort": lambda x=x, pattern=pattern: mask_by_sorting(x, pattern),
            }
            seconds = least_seconds(contenders, options.rounds)
            ratios = {rival: seconds[rival] / seconds["matmul"] for rival in ("mask", "topk", "sort")}
            worst = max(worst, ratios["mask"])
            print(
                f"{name:12}{pattern!s:>14}{1e3 * seconds['matmul']:10.2f}"
                + "".join(f"{ratio:8.2f}" for ratio in ratios.values())
            )
    print(f"worst ratio of a mask {worst:.2f}; target {TARGET}")
    raise SystemExit(worst > TARGET)


if __name__ == "__main__":
    main()
