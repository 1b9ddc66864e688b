"""Store transcoders: in a folder of this library, and in the safetensors layout of circuit-tracer.

First used in chapter 10.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .checkpoints import (
    CONFIG,
    MANIFEST,
    RESTORE,
    CheckpointError,
    canonical_json,
    folder_of,
    read_folder,
    write_folder,
)
from .model import Transformer
from .transcoder import INPUT_HOOKS, OUTPUT_HOOK, Transcoder, TranscoderConfig, check_belongs

KIND, WEIGHTS = "transcoder", "transcoder.safetensors"
TRACER_KIND, TRACER_CONFIG, CROSS_LAYER = "circuit-tracer transcoder", "config.yaml", "cross_layer_transcoder"
ENTRY = re.compile(r"""^(\w+):[ \t]*["']?([^"'#\n]*?)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


def save_transcoder(transcoder: Transcoder, directory: str | os.PathLike, **extra_files: bytes) -> None:
    """Save a transcoder as a folder of `transcoder.safetensors`, `config.json` and `manifest.json`.

    Parameters
    ----------
    transcoder : Transcoder
        The transcoder.
    directory, **extra_files
        As in `save_model`.
    """
    from safetensors.torch import save

    weights = {name: weight.detach().cpu().contiguous() for name, weight in transcoder.state_dict().items()}
    files = {CONFIG: canonical_json(transcoder.cfg.to_dict()), WEIGHTS: save(weights)}
    files |= {name.replace("__", "."): content for name, content in extra_files.items()}
    write_folder(Path(directory), files, KIND)


def load_transcoder(source: str | os.PathLike, model: Transformer | None = None) -> Transcoder:
    """Load a transcoder that `save_transcoder` wrote, or one of the transcoders that the book ships.

    Parameters
    ----------
    source : path or str
        A folder, or the name of a folder in `data/transcoders`.
    model : Transformer, optional
        The model that it must belong to.

    Returns
    -------
    Transcoder
        In evaluation mode, on the CPU, in the stored precision (float16 is for storage; it comes back as float32),
        without gradients.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or the two files do not belong together.
    ValueError
        If the transcoder is not one of `model`.
    """
    directory = folder_of(source, KIND)
    files = read_folder(directory, KIND)
    try:
        cfg = TranscoderConfig(**json.loads(files[CONFIG]))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{directory / CONFIG} is no configuration of a transcoder: {error}") from error
    return _built(cfg, _tensors(files[WEIGHTS], directory / WEIGHTS), directory / WEIGHTS, model)


def export_circuit_tracer(transcoder: Transcoder, directory: str | os.PathLike, model_name: str) -> None:
    """Write a transcoder as circuit-tracer's cross-layer transcoders are stored.

    For each layer i there is `W_enc_{i}.safetensors` with `W_enc_{i}` (feature, d_model), `b_enc_{i}`, `b_dec_{i}` and
    `threshold_{i}`, and `W_dec_{i}.safetensors` with `W_dec_{i}` (feature, n_layers - i, d_model); `config.yaml` names
    the hooks. A per-layer transcoder is written as a cross-layer one whose later decoders are zero, because
    circuit-tracer's own per-layer layout has no thresholds. A manifest with hashes is added, which circuit-tracer does
    not read.

    Parameters
    ----------
    transcoder : Transcoder
        In units of the model's activations, as `train_transcoder` returns it.
    directory : path
        The folder; made if missing, replaced as a whole if not.
    model_name : str
        What `config.yaml` calls the model.

    Raises
    ------
    ValueError
        If the name has quotes or line breaks in it.
    """
    from safetensors.torch import save

    if re.search(r"[\"'\n#]", model_name):
        raise ValueError(f"model_name is {model_name!r}; give a name without quotes, # and line breaks.")
    cfg = transcoder.cfg
    names = {
        "model_name": model_name,
        "model_kind": CROSS_LAYER,
        "feature_input_hook": cfg.input_hook,
        "feature_output_hook": OUTPUT_HOOK,
    }
    files = {TRACER_CONFIG: "".join(f'{key}: "{value}"\n' for key, value in names.items()).encode()}
    weights = {name: weight.detach().cpu() for name, weight in transcoder.state_dict().items()}
    for i in range(cfg.n_layers):
        encoder = {f"{name}_{i}": weights[name][i].contiguous() for name in ("W_enc", "b_enc", "b_dec", "threshold")}
        own = weights[f"W_dec.{i}"]
        decoder = own.new_zeros(len(own), cfg.n_layers - i, cfg.d_model)
        decoder[:, : own.shape[1]] = own
        files |= {f"W_enc_{i}.safetensors": save(encoder), f"W_dec_{i}.safetensors": save({f"W_dec_{i}": decoder})}
    write_folder(Path(directory), files, TRACER_KIND)


def import_circuit_tracer(directory: str | os.PathLike, model: Transformer | None = None) -> Transcoder:
    """Read a cross-layer transcoder that is stored as circuit-tracer's are, by this library or by others.

    Parameters
    ----------
    directory : path
        The folder. If it has a manifest, that has to vouch for every file.
    model : Transformer, optional
        The model whose shape it must fit. The layout does not say which weights it was trained on.

    Returns
    -------
    Transcoder
        A cross-layer one with JumpReLU thresholds, which are 0 where none are stored (ReLU), in evaluation mode.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, a tensor has the wrong name or shape or is not finite, the layers are not
        numbered without gaps, or the folder is of another kind or has skip connections.
    ValueError
        If the transcoder is not one of `model`.
    """
    directory = Path(directory)
    stored = read_folder(directory, TRACER_KIND) if (directory / MANIFEST).is_file() else None

    def content(name: str) -> bytes:
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; {RESTORE}")
        return stored[name] if stored else path.read_bytes()

    names = dict(ENTRY.findall(content(TRACER_CONFIG).decode("utf-8", errors="replace")))
    if names.get("model_kind") != CROSS_LAYER:
        raise CheckpointError(
            f"{directory / TRACER_CONFIG} has model_kind {names.get('model_kind')!r}; this reads {CROSS_LAYER!r}."
        )
    hooks = names.get("feature_input_hook"), names.get("feature_output_hook")
    if hooks[0] not in INPUT_HOOKS or hooks[1] != OUTPUT_HOOK:
        raise CheckpointError(
            f"{directory / TRACER_CONFIG} has hooks {hooks}; this library reads features at {list(INPUT_HOOKS)} that "
            f"write at {OUTPUT_HOOK!r}."
        )
    n_layers = len(list(directory.glob("W_enc_*.safetensors")))
    if not n_layers:
        raise CheckpointError(f"{directory / 'W_enc_0.safetensors'} is missing; {RESTORE}")
    weights: dict[str, Tensor] = {}
    for i in range(n_layers):
        for name in (f"W_enc_{i}.safetensors", f"W_dec_{i}.safetensors"):
            weights |= _tensors(content(name), directory / name)
    return _built(*_from_tracer(weights, n_layers, hooks[0], directory), directory, model)


def _from_tracer(
    weights: Mapping[str, Tensor], n_layers: int, input_hook: str, directory: Path
) -> tuple[TranscoderConfig, dict[str, Tensor]]:
    if any(name.startswith("W_skip") for name in weights):
        raise CheckpointError(f"{directory} has skip connections, which this library's transcoders have not.")
    kinds = ["W_enc", "b_enc", "b_dec", *(["threshold"] if "threshold_0" in weights else [])]
    expected = {f"{kind}_{i}" for kind in (*kinds, "W_dec") for i in range(n_layers)}
    if odd := expected.symmetric_difference(weights):
        raise CheckpointError(f"{directory} should hold {sorted(expected)[:4]}…; {sorted(odd)} are missing or unknown.")
    features, d_model = weights["W_enc_0"].shape if weights["W_enc_0"].ndim == 2 else (0, 0)
    shapes = {"W_enc": (features, d_model), "b_enc": (features,), "b_dec": (d_model,), "threshold": (features,)}
    for i in range(n_layers):
        for kind, shape in {**shapes, "W_dec": (features, n_layers - i, d_model)}.items():
            found = tuple(weights[f"{kind}_{i}"].shape) if kind in (*kinds, "W_dec") else shape
            if found != shape:
                raise CheckpointError(f"{directory}: {kind}_{i} has shape {found}; W_enc_0 asks for {shape}.")
    state = {kind: torch.stack([weights[f"{kind}_{i}"] for i in range(n_layers)]) for kind in kinds}
    state.setdefault("threshold", torch.zeros_like(state["b_enc"]))
    state |= {f"W_dec.{i}": weights[f"W_dec_{i}"] for i in range(n_layers)}
    shape = {"n_layers": n_layers, "d_model": d_model, "d_transcoder": features}
    return TranscoderConfig(**shape, k=1, activation="jumprelu", input_hook=input_hook), state


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}; {RESTORE}") from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} has the value {tensor[~tensor.isfinite()][0].item()}; {RESTORE}")
    return tensors


def _built(cfg: TranscoderConfig, state: Mapping[str, Tensor], path: Path, model: Transformer | None) -> Transcoder:
    transcoder = Transcoder(cfg)
    expected = {name: tuple(weight.shape) for name, weight in transcoder.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: {name!r} has shape {found.get(name)}, the configuration asks for {expected.get(name)}."
            )
    stored = state["W_enc"].dtype
    transcoder = transcoder.to(torch.float32 if stored == torch.float16 else stored)
    transcoder.load_state_dict(dict(state))
    if model is not None:
        check_belongs(transcoder, model)
    return transcoder.eval().requires_grad_(False)
