"""A name, folder, file or spec becomes a denoiser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch

from rediffuse.denoisers import stable_folder
from rediffuse.denoisers.base import Denoiser, DenoiserSpec
from rediffuse.denoisers.precision import resolve_device, resolve_dtype
from rediffuse.errors import ModelError

# Pipeline class in model_index.json -> (reader of the folder, its weight files). Any other class is refused: a folder never brings code.
FAMILIES: Mapping[str, tuple[Callable[..., Denoiser], Callable[[Path], Sequence[Path]]]] = {
    "StableDiffusionPipeline": (stable_folder.open_folder, stable_folder.all_weight_files),
    "StableDiffusionImg2ImgPipeline": (stable_folder.open_folder, stable_folder.all_weight_files),
}
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def load(
    spec: str | Path | DenoiserSpec,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tokenizer: str | Path | None = None,
) -> Denoiser:
    """The denoiser that a spec names, frozen, ready to call.

    Args:
        spec: a bundled name ("tiny-imagenet-64"; write ./NAME for a folder of that name), a pipeline folder, or the `spec` of a denoiser
            that was loaded before: then the weights must be the same to the bit.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: numbers of the network's trunk: auto (half precision where the hardware computes it), float32, bfloat16, float16.
        tokenizer: folder of a CLIP tokenizer, for models that bring none.
    Raises:
        ModelError: nothing of that name, a part that is missing, pickled weights, code in the folder, other weights than the spec's.
        ConfigError: a device or dtype that is not there.
    """
    wanted = spec if isinstance(spec, DenoiserSpec) else None
    if wanted is not None:
        options = dict(wanted.options)
        tokenizer = tokenizer or options.get("tokenizer")
        dtype = options.get("dtype", dtype) if dtype == "auto" else dtype
    where = resolve_device(device)
    numbers = resolve_dtype(dtype, where)
    name = wanted.name if wanted is not None else str(spec)
    folder = Path(wanted.path) if wanted is not None and Path(wanted.path).exists() else resolve(name)
    index = stable_folder.read_json(folder / "model_index.json")
    family = index.get("_class_name")
    if family not in FAMILIES:
        raise ModelError(f"{folder} is a {family!r}; supported are {', '.join(FAMILIES)}. Custom pipelines are never run")
    read, weights = FAMILIES[family]
    found = weights_hash(weights(folder))
    if wanted is not None and wanted.weights_hash and wanted.weights_hash != found:
        raise ModelError(
            f"{folder} holds other weights ({found[:12]}) than those asked for ({wanted.weights_hash[:12]}); give the right folder"
        )
    denoiser = read(folder, dtype=numbers, tokenizer=None if tokenizer is None else Path(tokenizer))
    told = {"dtype": str(numbers).removeprefix("torch."), **({} if tokenizer is None else {"tokenizer": str(tokenizer)})}
    base = wanted or DenoiserSpec(name=name, path=str(folder))
    denoiser.spec = replace(base, path=str(folder), weights_hash=found, options=tuple(sorted(told.items())))
    return denoiser.to(where)


def bundled() -> dict[str, Path]:
    """Folders of the denoisers that the package carries, by name."""
    home = Path(str(files("rediffuse"))) / "weights"
    found = sorted(home.iterdir()) if home.is_dir() else []
    return {folder.name: folder for folder in found if (folder / "model_index.json").is_file()}


def resolve(name: str) -> Path:
    """The folder of a bundled name or a path. Raises ModelError with what would have been found."""
    known = bundled()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    raise ModelError(f"there is no model {name!r}: neither a folder nor a bundled name ({', '.join(known) or 'none are installed'})")


def weights_hash(weights: Sequence[Path]) -> str:
    """sha256 over the contents of these files, in this order; of a file that did not change it is computed once."""
    digest = hashlib.sha256()
    for file in weights:
        status = file.stat()
        digest.update(_file_hash(file.resolve(), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(file: Path, _size: int, _changed: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
