"""An ensemble over a whole set of images: block by block, so that what is done stays done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.kept import Kept, fingerprint, numbers_of
from rediffuse.evaluation.test_time.ensembles import Ensemble, image_seeds
from rediffuse.evaluation.test_time.predictions import Predictions

BLOCK = 256
"""Images whose predictions are kept together, at most."""
MINUTE = {"cpu": 3e12}
"""Floating-point operations that take a minute at most, by the kind of device; on a processor that is left alone they take 15 seconds."""
ACCELERATED = 3e14
"""The same on any other device."""
FULL = 16
"""Images that a block has at least where calls of few leave most of the device idle."""


def predict_images(
    ensemble: Ensemble,
    images: ImageSet,
    *,
    size: int,
    fit: str = "pad",
    keep: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Ask an ensemble about every image of a set, and hold all that it says: N x K probabilities.

    Args and Raises as in `predict_blocks`.
    """
    blocks = predict_blocks(ensemble, images, size=size, fit=fit, keep=keep, identity=identity, progress=progress)
    return Predictions.cat(list(blocks))


def predict_blocks(
    ensemble: Ensemble,
    images: ImageSet,
    *,
    size: int,
    fit: str = "pad",
    keep: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Predictions]:
    """Ask an ensemble about every image of a set, block by block in order; for what needs less of each than all its probabilities.

    An image's noise is a function of the ensemble's seed and its pixels, so neither order nor company changes its prediction.

    Args:
        size: side in pixels of the square that images become, a multiple of `ensemble.multiple_of`.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        keep: folder for the predictions of finished blocks (`block_of`), of a set that has several; the same call again continues from it.
            The caller removes it (`kept.forget`).
        identity: what else decides the predictions, such as a hash of the classifier's weights; kept predictions of others are refused.
        progress: called with (images done, images in all).
    Raises:
        ConfigError: kept predictions of another call, a size that does not fit.
        DataError: no images.
    """
    if not len(images):
        raise DataError(f"{images.name} holds no images to predict")
    shape = Fit(mode=fit, size=size, multiple_of=ensemble.multiple_of)
    settings = {"ensemble": ensemble.settings, "size": size, "fit": fit, "images": fingerprint(images)}
    settings |= {"denoiser_numbers": numbers_of(ensemble), **(identity or {})}
    kept = Kept(keep, settings) if keep is not None and keep.exists() else None
    block = BLOCK if keep is None else block_of(ensemble, size)
    if kept is None and keep is not None and len(images) > block:
        kept = Kept(keep, settings)
    done = 0
    while done < len(images):
        name = f"{done:09d}"
        found = None if kept is None else kept.read(name)
        if found is None:
            part = _predict(ensemble, images[done : done + block], shape, done, len(images), progress)
            found = _tensors(part), {"seconds": repr(part.seconds)}
            if kept is not None:
                kept.write(name, *found)
        tensors, notes = found
        done += len(tensors["asked"])  # one that was kept may be of another length: of another device
        yield Predictions(members=ensemble.members, settings=ensemble.settings, seconds=float(notes["seconds"]), **tensors)
        if progress is not None:
            progress(done, len(images))


def block_of(ensemble: Ensemble, size: int) -> int:
    """Images in a block: as many as are asked about in a minute at most.

    It is counted, not timed, so that the same call cuts its images in the same way.
    """
    each = ensemble.operations(size)
    kind = ensemble.device.type
    fewest = 1 if kind in MINUTE else min(FULL, ensemble.chunk, BLOCK)
    return max(fewest, min(BLOCK, int(MINUTE.get(kind, ACCELERATED) / max(each, 1.0))))


def _tensors(part: Predictions) -> dict[str, Tensor]:
    return {"probabilities": part.probabilities, "decisions": part.decisions, "asked": part.asked}


def _predict(
    ensemble: Ensemble, images: ImageSet, shape: Fit, start: int, total: int, progress: Callable[[int, int], None] | None
) -> Predictions:
    batch = torch.stack([shape.to_model(example.image)[0] for example in images])
    seeds = image_seeds(ensemble.seed, images.digests)
    return ensemble.predict(batch, seeds, None if progress is None else lambda done, _: progress(start + done, total))
