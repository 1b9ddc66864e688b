"""CPU time and memory of an attribution graph, beside circuit-tracer and beside one backward pass per batch of targets.

    python tests/bench/bench_circuit_tracer.py [--tracer PYTHON] [--model mixed-tuned-0] [--tokens 64] [--rounds 3]

Same model, same transcoder, same prompt, one thread, float32. `PYTHON` is the interpreter of an environment of its own
that has circuit-tracer, which no environment can hold together with TransformerLens 4: the package of that name in the
index is a third-party fork (0.5.0, with TransformerLens 3.2). Without it only the second comparison is made: an
implementation of circuit-tracer's published algorithm in this file, a forward pass of as many copies of the prompt as a
batch has targets and one backward pass for the batch, contracted with what every node writes.

Where the definitions agree the edges are compared: all but those from and to position 0, which circuit-tracer sets to
zero; it has no nodes for positions and biases. Each side runs in a process of its own, and memory is the resident size
above that before the first graph.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sparse_circuits.attribution_graph import attribute
from sparse_circuits.checkpoints import data_path, load_model
from sparse_circuits.local_replacement import LocalReplacement, local_replacement_model
from sparse_circuits.model import Transformer
from sparse_circuits.tasks import MixedLanguage
from sparse_circuits.transcoder import Transcoder
from sparse_circuits.transcoder_files import export_circuit_tracer, load_transcoder

BATCH = 256
SIDE = Path(__file__).with_name("circuit_tracer_side.py")


def frozen_reads(model: Transformer, transcoder: Transcoder, local: LocalReplacement, copies: int):
    """Run copies of the prompt with all but the residual stream frozen; return leaves where nodes write, and reads."""
    leaves, inputs = [], []
    x = (model.W_E[local.tokens] + model.W_pos[: len(local.tokens)]).expand(copies, -1, -1).clone().requires_grad_()
    leaves.append(x)
    for layer, block in enumerate(model.blocks):
        attn = block.attn
        v = torch.einsum("npd,hde->nphe", x / local.at(layer, "ln1.hook_scale"), attn.W_V) + attn.b_V
        z = torch.einsum("hqk,nkhe->nqhe", local.at(layer, "attn.hook_pattern"), v)
        x = x + z.flatten(2) @ attn.W_O.flatten(0, 1) + attn.b_O
        inputs.append(x / local.at(layer, "ln2.hook_scale"))
        written = local.errors[layer] + transcoder.decode(local.activations.transpose(0, 1))[:, layer]
        leaves.append(written.expand(copies, -1, -1).clone().requires_grad_())
        x = x + leaves[-1]
    return leaves, inputs, x / local.seen["ln_final.hook_scale"]


def by_backward_passes(model: Transformer, transcoder: Transcoder, tokens: torch.Tensor, logits: torch.Tensor):
    """The edges from features, errors and tokens, in the order of `attribute`, one backward pass for each batch."""
    with torch.no_grad():
        local = local_replacement_model(model, transcoder, tokens)
    nodes, n = local.nodes, local.nodes.n_features
    adjacency = torch.zeros(n + len(logits), nodes.tokens.stop)
    leaves, inputs, last = frozen_reads(model, transcoder, local, BATCH)
    with torch.no_grad():
        written = [local.writes(layer) for layer in range(nodes.n_layers)]
        W_U = (model.W_U[:, logits] - model.W_U.mean(1, keepdim=True)).T
    rows = [*torch.arange(n).split(BATCH), torch.arange(n, n + len(logits))]
    for batch in rows:
        copies = torch.arange(len(batch))
        if batch[0] < n:
            layers, places = nodes.layer[batch], nodes.position[batch]
            streams = torch.stack(inputs)[layers, copies, places]
            value = (streams * transcoder.W_enc[layers, nodes.feature[batch]]).sum()
        else:
            value = (last[copies, -1] * W_U).sum()
        gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        with torch.no_grad():
            for layer, gradient in enumerate(gradients[1:]):
                if gradient is not None:
                    indices, vectors = written[layer]
                    found = (gradient[: len(batch), nodes.position[indices]] * vectors).sum(-1)
                    adjacency[batch[:, None], indices] += found
                    adjacency[batch, nodes.errors(layer)] = (gradient[: len(batch)] * local.errors[layer]).sum(-1)
            adjacency[batch, nodes.tokens] = (gradients[0][: len(batch)] * model.W_E[tokens]).sum(-1)
    return adjacency


def timed(function, rounds: int):
    """Return the result, CPU seconds of each round, and the kilobytes above those before."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        result = function()
        seconds.append(time.process_time() - started)
    return result, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def one_side(which: str, given: argparse.Namespace, folder: Path) -> None:
    """Measure one of this library's two sides, and store it."""
    torch.set_num_threads(1)
    model = load_model(given.model).eval().requires_grad_(False)
    transcoder = load_transcoder(data_path("transcoders", f"{given.model}-cross"), model)
    tokens = MixedLanguage().draw(1, given.tokens, seed=3).tokens[0]
    if which == "library":
        graph, seconds, peak = timed(lambda: attribute(model, transcoder, tokens, batch_size=BATCH), given.rounds)
        nodes = graph.nodes
        columns = nodes.tokens.stop
        rows = torch.cat([graph.adjacency[: nodes.n_features], graph.adjacency[-len(graph.logit_tokens) :]])
        kept = {"adjacency": rows[:, :columns], "logits": torch.tensor(graph.logit_tokens)}
        kept["features"] = torch.stack([nodes.layer, nodes.position, nodes.feature])[:, : nodes.n_features].T
        export_circuit_tracer(transcoder, folder / "clt", given.model)
        save_file(
            {name: weight.detach().clone() for name, weight in model.state_dict().items()}, folder / "model.safetensors"
        )
        job = {"config": model.cfg.to_dict(), "input_hook": transcoder.cfg.input_hook, "tokens": tokens.tolist()}
        (folder / "job.json").write_text(json.dumps(job | {"rounds": given.rounds, "batch_size": BATCH}))
    else:
        logits = load_file(folder / "library.safetensors")["logits"]
        found, seconds, peak = timed(lambda: by_backward_passes(model, transcoder, tokens, logits), given.rounds)
        kept = {"adjacency": found}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, folder / f"{which}.safetensors")
    (folder / f"{which}.json").write_text(json.dumps({"seconds": seconds, "kilobytes": peak}))


def same_order(tracer: dict, library: dict, n_pos: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return circuit-tracer's edges and the library's in one order, and which of them both define."""
    known = {tuple(feature): i for i, feature in enumerate(tracer["features"].tolist())}
    features = [known.get(tuple(feature), -1) for feature in library["features"].tolist()]
    n, width, theirs = len(features), library["adjacency"].shape[1], len(tracer["features"])
    places = {
        int(token): len(tracer["adjacency"]) - len(tracer["logits"]) + i for i, token in enumerate(tracer["logits"])
    }
    targets = torch.tensor([*features, *(places[int(token)] for token in library["logits"])])
    sources = torch.tensor([*features, *range(theirs, theirs + width - n)])
    defined = sources >= 0
    # Errors at position 0 are zero there.
    defined[n : width - n_pos : n_pos] = False
    return tracer["adjacency"][targets][:, sources], library["adjacency"], (targets >= 0)[:, None] & defined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tracer", help="interpreter of an environment with circuit-tracer")
    parser.add_argument("--model", default="mixed-tuned-0")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["library", "backward"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        one_side(given.side, given, given.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in ("library", "backward"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", name]
            subprocess.run(command, check=True)
        sides = ["library", "backward"]
        if given.tracer:
            # Without the search path of this library: the other environment has its own.
            subprocess.run([given.tracer, "-E", str(SIDE), name], check=True)
            sides.append("tracer")
        timings = {side: json.loads((folder / f"{side}.json").read_text()) for side in sides}
        best = {side: min(timing["seconds"]) for side, timing in timings.items()}
        for side, timing in timings.items():
            rounds = ", ".join(f"{seconds:.3f}" for seconds in timing["seconds"])
            ratio, megabytes = best[side] / best["library"], timing["kilobytes"] / 1024
            print(
                f"{side:8} {best[side]:.3f} CPU-s, {ratio:.2f} times the library (rounds {rounds}), {megabytes:.0f} MB"
            )
        library = load_file(folder / "library.safetensors")
        gap = (load_file(folder / "backward.safetensors")["adjacency"] - library["adjacency"]).abs().max()
        print(f"{len(library['features'])} features; largest difference from backward passes: {float(gap):.1e}")
        if given.tracer:
            found, own, both = same_order(load_file(folder / "tracer.safetensors"), library, given.tokens)
            gap = (found - own)[both].abs().max()
            print(f"circuit-tracer: {int(both.sum())} edges compared, largest difference {float(gap):.1e}")


if __name__ == "__main__":
    main()
