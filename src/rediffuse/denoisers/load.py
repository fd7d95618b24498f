"""A name, folder, file or spec becomes a denoiser."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import torch

from rediffuse.denoisers import adm, adm_file, hub, stable_file, stable_folder, unet2d
from rediffuse.denoisers.base import Denoiser, DenoiserSpec, Prediction
from rediffuse.denoisers.precision import resolve_device, resolve_dtype
from rediffuse.errors import ConfigError, ModelError


@dataclass(frozen=True, kw_only=True)
class Family:
    """How folders of one kind are read.

    open: folder -> denoiser; weights: folder -> its weight files; settings: patterns of the other files that decide what it draws.
    """

    open: Callable[..., Denoiser]
    weights: Callable[[Path], Sequence[Path]]
    settings: tuple[str, ...]


STABLE = Family(
    open=stable_folder.open_folder,
    weights=stable_folder.all_weight_files,
    settings=("unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/*.json", "tokenizer/*", "known_words.json"),
)
UNET2D = Family(open=unet2d.open_folder, weights=unet2d.all_weight_files, settings=unet2d.SETTINGS)
# Class in model_index.json, or in the config.json of a bare network -> family. Any other is refused: a folder never brings code.
FAMILIES: Mapping[str, Family] = {
    "StableDiffusionPipeline": STABLE,
    "StableDiffusionImg2ImgPipeline": STABLE,
    "DDPMPipeline": UNET2D,
    "DDIMPipeline": UNET2D,
    "UNet2DModel": UNET2D,
}
HUB_FORM = "a hub model is written OWNER/NAME or OWNER/NAME@REVISION"


def load(
    spec: str | Path | DenoiserSpec,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    tokenizer: str | Path | None = None,
    prediction: Prediction | None = None,
) -> Denoiser:
    """The denoiser that a spec names, frozen, ready to call.

    Args:
        spec: a bundled name ("tiny-imagenet-64"; write ./NAME for a folder of that name), a folder of a pipeline or of a UNet2DModel, a
            single checkpoint (Stable Diffusion's `.safetensors`; OpenAI's pixel models as `.pt` or `.safetensors`), a hub name
            (OWNER/NAME, OWNER/NAME@REVISION), or the `spec` of a denoiser that was loaded before: then the weights must be the same to the
            bit.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: numbers of the network's trunk: auto (half precision where the hardware computes it), float32, bfloat16, float16.
        tokenizer: folder of a CLIP tokenizer, for single files, which bring none.
        prediction: what a single file's network puts out, where nothing else says so.
    Raises:
        ModelError: nothing of that name, a part that is missing, pickled weights, code in the folder, other weights than the spec's.
        ConfigError: a device or dtype that is not there.
    """
    wanted = spec if isinstance(spec, DenoiserSpec) else DenoiserSpec(name=str(spec), path="")
    told = dict(wanted.options)
    if tokenizer is not None:
        told["tokenizer"] = str(Path(tokenizer).expanduser().resolve())
    if prediction is not None:
        told["prediction"] = prediction
    where = resolve_device(device)
    numbers = resolve_dtype(told.get("dtype", "auto") if dtype == "auto" else dtype, where)
    told["dtype"] = str(numbers).removeprefix("torch.")
    path, revision = locate(wanted)
    family = None if path.is_file() else _family(path)
    if told.get("prediction", "epsilon") not in get_args(Prediction):
        raise ConfigError(f"prediction must be one of {', '.join(get_args(Prediction))}, got {told['prediction']!r}")
    if family is not None and "prediction" in told:
        raise ConfigError(f"prediction is for single files; {path} says it in scheduler/scheduler_config.json")
    words = Path(told["tokenizer"]) if "tokenizer" in told else None
    content = _file_content(path, "prediction" in told) if family is None else [*family.weights(path), *_settings(path, family.settings)]
    found = weights_hash([*content, *(_settings(words, ("*",)) if words is not None else [])], told.get("prediction", ""))
    if wanted.weights_hash and wanted.weights_hash != found:
        asked = wanted.weights_hash
        raise ModelError(f"{path} holds other weights ({found[:12]}) than those asked for ({asked[:12]}); give the right model")
    if family is None:
        kind = cast("Prediction | None", told.get("prediction"))
        denoiser = _open_file(path, numbers, words, kind)
    else:
        denoiser = family.open(path, dtype=numbers, tokenizer=words)
    denoiser.vouch(replace(wanted, path=str(path), revision=revision, weights_hash=found, options=tuple(sorted(told.items()))))
    return denoiser.to(where)


def bundled() -> dict[str, Path]:
    """Folders of the denoisers that the package carries, by name."""
    home = Path(str(files("rediffuse"))) / "weights"
    found = sorted(home.iterdir()) if home.is_dir() else []
    return {folder.name: folder for folder in found if (folder / hub.INDEX).is_file()}


def locate(spec: DenoiserSpec) -> tuple[Path, str | None]:
    """Where a spec's weights lie, and the hub commit if they come from one. A hub model is downloaded if the cache lacks it.

    Raises ModelError with the names that would have been found.
    """
    name, known = spec.name, bundled()
    if spec.revision is not None:
        return hub.fetch(name, spec.revision, needed_files)
    if spec.path and Path(spec.path).exists():
        return Path(spec.path), None
    if name in known:
        return known[name], None
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve(), None
    if path.is_file():
        return _checked_file(path.resolve()), None
    if (Path(str(files("rediffuse"))) / "weights" / name / "config.json").is_file() and "/" not in name:
        raise ModelError(f"{name} is a classifier, not a diffusion model; give it as a classifier (--classifier, level=, Judged.open)")
    bundle = f"bundled models: {', '.join(known) or 'none'}"
    if hub.parse(name) is None:
        raise ModelError(f"there is no model {name!r}: no such folder or file ({bundle}; {HUB_FORM})")
    try:
        return hub.fetch(name, None, needed_files)
    except ModelError as error:
        raise ModelError(f"there is no folder or file {name!r}, and {error} ({bundle})") from error


def needed_files(files: Sequence[str]) -> list[str]:
    """Which files of a repository of any family are needed. Raises ModelError where a part is missing or pickled."""
    return unet2d.needed_files(files) if unet2d.is_ours(files) else stable_folder.needed_files(files)


def weights_hash(content: Sequence[Path], told: str = "") -> str:
    """sha256 over the contents of these files, in this order, and what was told besides; of a file that did not change it is computed once.

    Vocabulary, schedule and configurations count as much as weights do: another one gives other pixels.
    """
    digest = hashlib.sha256(told.encode())
    for file in content:
        status = file.stat()
        digest.update(_file_hash(file.resolve(), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def _settings(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


@lru_cache(maxsize=256)
def _file_hash(file: Path, _size: int, _changed: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _file_content(file: Path, told: bool) -> list[Path]:
    """A checkpoint and what is read beside it; told: what it predicts was said, and is not looked for."""
    if adm_file.is_ours(file):
        return [file, *adm.settings_files(file)]
    return [file, *(() if told else stable_file.settings_files(file))]


def _open_file(file: Path, dtype: torch.dtype, tokenizer: Path | None, prediction: Prediction | None) -> Denoiser:
    if not adm_file.is_ours(file):
        return stable_file.open_file(file, dtype=dtype, tokenizer=tokenizer, prediction=prediction)
    if tokenizer is not None:
        raise ConfigError(f"{file} is a model of pixels, which takes no text and no tokenizer; leave it out")
    return adm.open_file(file, dtype=dtype, prediction=prediction)


def _checked_file(file: Path) -> Path:
    if file.suffix in (".safetensors", ".pt"):  # of a .pt nothing but tensors is read
        return file
    if file.suffix in stable_folder.PICKLES:
        raise ModelError(f"{file} is a pickle, which can run code and is never opened; take the .safetensors file of the same model")
    raise ModelError(f"{file} is not a model; give a pipeline folder, a .safetensors file or a .pt of OpenAI's pixel models")


def _family(folder: Path) -> Family:
    described = next((folder / name for name in hub.INDICES if (folder / name).is_file()), None)
    if described is None:
        inside = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise ModelError(f"{folder} is not a model folder: it lacks {hub.INDEX} and holds {inside}")
    index: Any = stable_folder.read_json(described)
    name = str(index.get("_class_name")) if isinstance(index, dict) else "?"
    if isinstance(index, dict) and "_class_name" not in index and index.get("architectures"):
        raise ModelError(f"{folder} is a {index['architectures'][0]!r} of transformers, not a denoiser; give a diffusion model")
    if name not in FAMILIES:
        raise ModelError(f"{folder} is a {name!r}, which is not supported: {', '.join(FAMILIES)} are. Custom pipelines are never run")
    return FAMILIES[name]
