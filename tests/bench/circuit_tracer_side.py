"""The side of circuit-tracer in `bench_circuit_tracer`, for an environment that has it and not this library.

Reads from a folder what the other side has written (`model.safetensors` and `job.json`, the exported transcoder in
`clt`), builds a TransformerLens model of these weights, attributes the prompt and writes `tracer.safetensors` and
`tracer.json`.
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from circuit_tracer import attribute
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.cross_layer_transcoder import load_clt
from safetensors.torch import load_file, save_file
from transformer_lens import HookedTransformerConfig

NAMES = {"W_E": "embed.W_E", "W_pos": "pos_embed.W_pos", "W_U": "unembed.W_U", "b_U": "unembed.b_U"}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    shape = {key: job["config"][key] for key in ("n_layers", "d_model", "n_ctx", "d_head", "n_heads", "d_mlp")}
    config = HookedTransformerConfig(
        **shape,
        d_vocab=job["config"]["d_vocab"],
        act_fn=job["config"]["act_fn"],
        eps=job["config"]["rms_eps"],
        normalization_type="RMSPre",
        device="cpu",
    )
    transcoder = load_clt(
        str(folder / "clt"),
        feature_input_hook=job["input_hook"],
        device=torch.device("cpu"),
        dtype=torch.float32,
        lazy_decoder=False,
    )
    model = TransformerLensReplacementModel.from_config(config, transcoder)
    weights = {NAMES.get(name, name): value for name, value in load_file(folder / "model.safetensors").items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("transcoders."):
                parameter.copy_(weights.pop(name.replace(".old_mlp", "").replace(".old_unembed", "")))
    assert not weights, f"without a place in the model: {sorted(weights)}"
    # It asks the tokenizer which tokens are special, and for the words of the prompt.
    special = {
        "vocab_size": config.d_vocab,
        "all_special_ids": [0],
        "bos_token_id": 0,
        "pad_token_id": None,
        "eos_token_id": None,
    }
    model.tokenizer = SimpleNamespace(**special, padding_side="right", decode=lambda ids: str(ids))
    tokens = torch.tensor(job["tokens"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(job["rounds"]):
        started = time.process_time()
        graph = attribute(tokens, model, batch_size=job["batch_size"])
        times.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    tensors = {"adjacency": graph.adjacency_matrix, "features": graph.active_features, "logits": graph.logit_tokens}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tracer.safetensors")
    (folder / "tracer.json").write_text(json.dumps({"seconds": times, "kilobytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
