"""CPU time of edge attribution, as ratios to the bare passes that it needs, and memory as ratio to its buffer.

    python tests/bench/bench_attribution.py [--shapes small gpt2] [--rounds 5]

The bare passes are two forward passes and one backward pass on the same prompts, logits at the answer positions alone,
gradients of the activations and not of the weights. They take turns with EAP, so that other work on the machine slows
both; the unit is CPU time of one thread. On the small shape (4 layers, 4 heads, width 128, 64 pairs of 32 tokens, 479
edges) EAP-IG, exact ablation of every edge and a faithfulness curve of 11 circuits are timed as well. Targets: EAP at
most 1.7 times the bare passes on the small shape and 2.3 times on GPT-2's (64 pairs of 16 tokens, 16 at a time); exact
ablation in 14 CPU seconds, the curve in 2. Memory is what live tensors take at most for one batch; the target is one
buffer of what all sources write for a batch plus what one bare pass takes. The resident size above entry is printed
beside it: there the allocator's own gaps and what PyTorch loads on first use come on top.
"""

import argparse
import itertools
import resource
import statistics
import time

import torch
from sparse_circuits.attribution import eap, eap_ig
from sparse_circuits.component_runs import answer_logits, source_bytes
from sparse_circuits.component_scores import ComponentScore
from sparse_circuits.exact_edges import exact_edge_scores
from sparse_circuits.faithfulness_curves import faithfulness_curve
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.prompt_pairs import PromptPairs
from sparse_circuits.two_way import TwoWayPrompts
from torch.profiler import ProfilerActivity, profile

PAIRS = 64
SHAPES = {
    "small": ({"n_layers": 4, "d_model": 128, "n_heads": 4, "d_head": 32, "d_mlp": 512, "d_vocab": 500}, 32, 64, 1.7),
    "gpt2": (
        {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_mlp": 3072, "d_vocab": 50257},
        16,
        16,
        2.3,
    ),
}
EXACT_TARGET, CURVE_TARGET = 14, 2


def cpu_seconds(function):
    started = time.process_time()
    result = function()
    return time.process_time() - started, result


def live_peak_bytes(function) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    changes = [event for event in run.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))


def resident_peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def random_pairs(cfg: TransformerConfig) -> PromptPairs:
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = (torch.randint(cfg.d_vocab, (PAIRS, cfg.n_ctx), generator=generator) for _ in range(2))
    right, wrong = (torch.randint(cfg.d_vocab, (PAIRS,), generator=generator) for _ in range(2))
    return PromptPairs(TwoWayPrompts(clean, torch.full((PAIRS,), cfg.n_ctx - 1), right, wrong), corrupted)


def bare_passes(model: Transformer, pairs: PromptPairs) -> None:
    with torch.no_grad():
        answer_logits(model, pairs.corrupted_prompts, [])
    start = []

    def begin(activation, hook):
        start.append(activation.detach().requires_grad_())
        return start[0]

    logits = answer_logits(model, pairs.clean, [("blocks.0.hook_resid_pre", begin)])
    torch.autograd.grad(pairs.clean.margins(logits).sum(), start)


def measure(name: str, rounds: int) -> bool:
    shape, length, batch, target = SHAPES[name]
    model = Transformer(TransformerConfig(n_ctx=length, **shape)).eval()
    pairs, one = random_pairs(model.cfg), source_bytes(model, length)
    contenders = {
        "bare passes": lambda: [bare_passes(model, part) for part in pairs.batches(1, batch)],
        "EAP": lambda: eap(model, pairs, memory=batch * one),
    }
    seconds, resident, entry = {key: [] for key in contenders}, {}, resident_peak_bytes()
    for _ in range(rounds):
        for key, contender in contenders.items():
            seconds[key].append(cpu_seconds(contender)[0])
            resident.setdefault(key, resident_peak_bytes() - entry)
    middle = {key: statistics.median(times) for key, times in seconds.items()}
    one_batch = next(iter(pairs.batches(1, batch)))
    ratio, buffer = middle["EAP"] / middle["bare passes"], batch * one
    live = live_peak_bytes(lambda: eap(model, one_batch, memory=buffer))
    allowed = buffer + live_peak_bytes(lambda: bare_passes(model, one_batch))
    print(f"{name}: bare passes {middle['bare passes']:.2f} CPU s, EAP {middle['EAP']:.2f} (medians of {rounds})")
    print(f"  ratio {ratio:.2f}; target {target}")
    print(f"  live memory {live / 2**20:.1f} MiB, buffer plus a bare pass {allowed / 2**20:.1f} MiB (target)")
    beside = (buffer + resident["bare passes"]) / 2**20
    print(f"  resident {resident['EAP'] / 2**20:.0f} MiB, buffer plus a bare pass {beside:.0f} MiB")
    met = ratio <= target and live <= allowed
    if name == "small":
        steps, _ = cpu_seconds(lambda: eap_ig(model, pairs))
        exact, scores = cpu_seconds(lambda: exact_edge_scores(model, pairs))
        curve, _ = cpu_seconds(lambda: faithfulness_curve(ComponentScore(model, pairs), scores))
        bare = middle["bare passes"]
        print(f"  EAP-IG, 5 steps {steps:.2f} CPU s, {steps / bare:.1f} bare passes")
        print(
            f"  exact, {len(scores)} edges {exact:.2f} CPU s, {exact / bare:.0f} bare passes; target {EXACT_TARGET} s"
        )
        print(f"  curve of 11 circuits {curve:.2f} CPU s, {curve / bare:.1f} bare passes; target {CURVE_TARGET} s")
        met = met and exact < EXACT_TARGET and curve < CURVE_TARGET
    return met


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    met = [measure(name, options.rounds) for name in options.shapes]
    raise SystemExit(not all(met))


if __name__ == "__main__":
    main()
