"""Time and memory of an attribution graph of a 64-token prompt, its pruning and its loadings.

Run with: python tests/bench/bench_attribution_graph.py
"""

import resource
import time

import torch
from sparse_circuits.activation_cache import mlp_activations
from sparse_circuits.attribution_graph import attribute
from sparse_circuits.graph_pruning import graph_scores, prune_graph
from sparse_circuits.loadings import attention_terms
from sparse_circuits.model import Transformer, TransformerConfig
from sparse_circuits.transcoder import Transcoder, TranscoderConfig


def main() -> None:
    model = Transformer(TransformerConfig.preset("code-4-layer", d_vocab=512)).eval().requires_grad_(False)
    tokens = torch.randint(512, (64,), generator=torch.Generator().manual_seed(0))
    transcoder = Transcoder(TranscoderConfig.of(model, 1024, k=8)).requires_grad_(False).eval()
    for W_dec in transcoder.W_dec:
        W_dec.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
    transcoder.calibrate(mlp_activations(model, tokens[None])[0, :, 0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps = {
        "graph": lambda: attribute(model, transcoder, tokens),
        "prune": lambda: prune_graph(made["graph"]),
        "scores": lambda: graph_scores(made["graph"]),
        "terms of the pruned graph": lambda: attention_terms(made["graph"], made["prune"]),
    }
    made = {}
    for name, step in steps.items():
        wall, cpu = time.perf_counter(), time.process_time()
        made[name] = step()
        print(f"{name}: {time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} CPU-s, {made[name]}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"closure error {made['graph'].closure_error():.1e}, peak memory {peak / 1024:.0f} MB above the start")
    print({by: made["terms of the pruned graph"].count(0.8, by) for by in ("term", "head and source", "head")})


if __name__ == "__main__":
    main()
