"""An ensemble over a whole set of images: block by block, so that what is done stays done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.results import write_json
from rediffuse.evaluation.test_time.ensembles import Ensemble, image_seeds
from rediffuse.evaluation.test_time.predictions import Predictions

BLOCK = 256
"""Images whose predictions are kept together; a smaller set is not kept on the way."""
_IDENTITY = "identity.json"
_DIGITS = 9


def predict_images(
    ensemble: Ensemble,
    images: ImageSet,
    *,
    size: int,
    fit: Literal["pad", "crop", "squash"] = "pad",
    keep: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Ask an ensemble about every image of a set.

    An image's noise is a function of the ensemble's seed and its pixels, so neither order nor company changes its prediction.

    Args:
        size: side in pixels of the square that images become, a multiple of `ensemble.multiple_of`.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        keep: folder for the predictions of finished blocks; the same call again continues from it. The caller removes it (`forget`).
        identity: what else decides the predictions, such as a hash of the classifier's weights; kept predictions of others are refused.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: kept predictions of another call, a size that does not fit.
        DataError: no images.
    """
    if not len(images):
        raise DataError(f"{images.name} holds no images to predict")
    shape = Fit(mode=fit, size=size, multiple_of=ensemble.multiple_of)
    kept = keep if len(images) > BLOCK else None
    if kept is not None:
        settings = {"ensemble": ensemble.settings, "size": size, "fit": fit, "images": _fingerprint(images), **(identity or {})}
        claim(kept, settings)
    parts = []
    for start in range(0, len(images), BLOCK):
        file = None if kept is None else kept / f"{start:0{_DIGITS}d}.safetensors"
        if file is not None and file.exists():
            part = _read(file, ensemble)
        else:
            part = _predict(ensemble, images[start : start + BLOCK], shape, start, len(images), progress)
            if file is not None:
                _write(file, part)
        parts.append(part)
        if progress is not None:
            progress(min(start + BLOCK, len(images)), len(images))
    return Predictions.cat(parts)


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Take a folder for kept predictions, or find it taken by the same call. Raises ConfigError with the difference."""
    file = folder / _IDENTITY
    wanted = json.loads(json.dumps(identity))
    if folder.exists() and not file.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is or holds something else; remove it, or give another place for the predictions")
    if not file.exists():
        write_json(file, wanted)
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read ({error}); remove {folder}, and its images are asked again") from error
    if there != wanted:
        raise ConfigError(
            f"{folder} belongs to other predictions ({'; '.join(_differences(there, wanted))}); remove it, or give another place"
        )


def forget(folder: Path) -> None:
    """Remove kept predictions, and nothing else."""
    if not (folder / _IDENTITY).exists():
        return
    for file in (*folder.glob("[0-9]" * _DIGITS + ".safetensors"), *folder.glob("*.partial"), folder / _IDENTITY):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _predict(
    ensemble: Ensemble, images: ImageSet, shape: Fit, start: int, total: int, progress: Callable[[int, int], None] | None
) -> Predictions:
    batch = torch.stack([shape.to_model(example.image)[0] for example in images])
    seeds = image_seeds(ensemble.seed, images.digests)
    return ensemble.predict(batch, seeds, None if progress is None else lambda done, _: progress(start + done, total))


def _write(file: Path, part: Predictions) -> None:
    from safetensors.torch import save_file

    partial = file.with_suffix(f".{os.getpid()}.partial")
    tensors = {"probabilities": part.probabilities, "decisions": part.decisions, "asked": part.asked}
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata={"seconds": repr(part.seconds)})
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _read(file: Path, ensemble: Ensemble) -> Predictions:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in ("probabilities", "decisions", "asked")}
            seconds = float(stored.metadata()["seconds"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; remove it, and its images are asked again") from error
    return Predictions(members=ensemble.members, settings=ensemble.settings, seconds=seconds, **tensors)


def _fingerprint(images: ImageSet) -> str:
    return hashlib.sha256("\n".join((*images.ids, *images.digests)).encode("utf-8", "surrogatepass")).hexdigest()


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Sequence[str]:
    """Flat names and both values; of a hash its beginning."""
    left, right = _flat(there), _flat(here)
    names = [name for name in dict.fromkeys((*left, *right)) if left.get(name) != right.get(name)]
    return [f"{name} {str(left.get(name))[:12]} there, {str(right.get(name))[:12]} here" for name in names]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value) if isinstance(value, dict) else {name: value})
    return flat
