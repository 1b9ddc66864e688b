"""Save and load models: safetensors, a JSON configuration, and a manifest with the SHA-256 of each file.

A model is a folder, written all at once and read only after its manifest has vouched for every file: a folder that
is not whole is never half-loaded. Sparse weights are stored sparsely; see `sparsity.storage`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Transformer

# 1: every weight whole. 2: a weight may be stored as its values and their indices.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, FORMAT_VERSION)
RESTORE = "copy the whole folder again, or restore it from git."
CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"


class CheckpointError(ValueError):
    """A stored model is missing, damaged or of another kind; the message names the file and the remedy."""


def data_path(*parts: str) -> Path:
    """Return a path below the project's `data` folder, in a checkout as in an installed package."""
    package = Path(__file__).parent
    shipped = package / "data"
    return (shipped if shipped.is_dir() else package.parents[1] / "data").joinpath(*parts)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` all at once: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def canonical_json(content: object) -> bytes:
    """Return the one JSON text that the manifest and the configuration use for `content`."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_folder(directory: Path, files: Mapping[str, bytes], kind: str) -> None:
    """Write a folder of `files` and the manifest that vouches for them, all at once.

    The folder is staged beside its place and then renamed into it, so a run that is killed leaves the old folder or
    the new one. A folder that is replaced is renamed away first and deleted last.

    Parameters
    ----------
    directory : Path
        The folder; its parents are made if missing.
    files : mapping of str to bytes
        File name to content.
    kind : str
        What the folder holds; `read_folder` asks for the same word.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"files": hashes, "format_version": FORMAT_VERSION, "kind": kind}
    manifest["manifest_sha256"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
    directory.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.new."))
    try:
        staged.chmod(0o755)
        for name, content in {**files, MANIFEST: canonical_json(manifest)}.items():
            write_atomically(staged / name, content)
        if not directory.exists():
            staged.rename(directory)
            return
        replaced = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.old."))
        directory.rename(replaced / directory.name)
        staged.rename(directory)
        shutil.rmtree(replaced)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def read_folder(directory: Path, kind: str) -> dict[str, bytes]:
    """Return the verified files of a folder made by `write_folder`.

    Raises
    ------
    CheckpointError
        If the manifest or a file is missing, damaged, of an unknown version or of another kind.
    """
    manifest = _read_manifest(directory, kind)
    files = {}
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; {RESTORE}")
        files[name] = path.read_bytes()
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; {RESTORE}"
            )
    return files


def _read_manifest(directory: Path, kind: str) -> dict:
    path = directory / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; {directory} is not a saved {kind}. Give the folder that holds one.")
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
        stated = manifest.pop("manifest_sha256")
        body = canonical_json(manifest)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); {RESTORE}") from error
    whole = raw == canonical_json({**manifest, "manifest_sha256": stated})
    if not whole or hashlib.sha256(body).hexdigest() != stated:
        raise CheckpointError(f"{path} is damaged: it does not match its own SHA-256; {RESTORE}")
    if manifest["format_version"] not in READABLE_VERSIONS:
        raise CheckpointError(
            f"{path} has format version {manifest['format_version']!r}, this package reads {READABLE_VERSIONS}; "
            "install the newest sparse-circuits."
        )
    if manifest["kind"] != kind:
        raise CheckpointError(f"{path} holds a {manifest['kind']!r}, not a {kind!r}; give another folder.")
    return manifest


def save_model(model: Transformer, directory: str | os.PathLike, **extra_files: bytes) -> None:
    """Save a model as a folder of `model.safetensors`, `config.json` and `manifest.json`.

    Parameters
    ----------
    model : Transformer
        The model; its weights are stored in their own precision, and sparsely where that is smaller.
    directory : path
        The folder; made if missing, replaced as a whole if not.
    **extra_files : bytes
        Further files by name, with `__` for the dot (`recipe__toml=...`); the manifest covers them too.
    """
    from safetensors.torch import save

    from .sparsity.storage import pack

    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    files = {CONFIG: canonical_json(model.cfg.to_dict()), WEIGHTS: save(pack(weights))}
    files |= {name.replace("__", "."): content for name, content in extra_files.items()}
    write_folder(Path(directory), files, kind="model")


def folder_of(source: str | os.PathLike, kind: str) -> Path:
    """Return a folder that is there, or the one of that name among those of its kind that the book ships."""
    directory, shipped = Path(source), data_path(f"{kind}s")
    if directory.is_dir():
        return directory
    if not (shipped / source).is_dir():
        names = sorted(path.parent.name for path in shipped.glob(f"*/{MANIFEST}"))
        raise CheckpointError(
            f"There is no folder {str(source)!r} and no shipped {kind} of that name; shipped: {names}."
        )
    return shipped / source


def load_model(source: str | os.PathLike) -> Transformer:
    """Load a model that `save_model` wrote, or one of the models that the book ships.

    Parameters
    ----------
    source : path or str
        A folder, or the name of a folder in `data/models`.

    Returns
    -------
    Transformer
        In evaluation mode, on the CPU, in the stored precision.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, the format or a field is unknown, or a weight has the wrong name or shape.
        Nothing is returned then: the model is built only after every check has passed.
    """
    directory = folder_of(source, "model")
    files = read_folder(directory, kind="model")
    return build_model(files[CONFIG], files[WEIGHTS], directory)


def build_model(config: bytes, weights: bytes, directory: Path) -> Transformer:
    """Build the model from the verified content of its two files, checking names and shapes first."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from .model import Transformer, TransformerConfig
    from .sparsity.storage import unpack

    try:
        cfg = TransformerConfig(**json.loads(config))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{directory / CONFIG} is no configuration of this package: {error}") from error
    try:
        state = unpack(load(weights))
    except SafetensorError as error:
        raise CheckpointError(f"{directory / WEIGHTS} is no safetensors file: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{directory / WEIGHTS}: {error}; {RESTORE}") from error
    model = Transformer(cfg)
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{directory / WEIGHTS}: weight {name!r} has shape {found.get(name)}, "
                f"{CONFIG} asks for {expected.get(name)}; the two files do not belong together."
            )
    dtypes = {weight.dtype for weight in state.values()}
    model = model.to(dtypes.pop()) if len(dtypes) == 1 else model
    model.load_state_dict(state)
    return model.eval()
