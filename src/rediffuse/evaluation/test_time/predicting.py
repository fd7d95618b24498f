"""An ensemble over a whole set of images: block by block, so that what is done stays done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.kept import Kept, fingerprint, in_noted_blocks, numbers_of
from rediffuse.evaluation.test_time.ensembles import Ensemble, image_seeds
from rediffuse.evaluation.test_time.predictions import Predictions

BLOCK = 256
"""Images whose predictions are kept together; a smaller set is not kept on the way."""


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
        keep: folder for the predictions of finished blocks; the same call again continues from it. The caller removes it (`kept.forget`).
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
    kept = Kept(keep, settings) if keep is not None and len(images) > BLOCK else None

    def make(rows: slice) -> tuple[dict[str, Tensor], dict[str, str]]:
        part = _predict(ensemble, images[rows], shape, rows.start, len(images), progress)
        return {"probabilities": part.probabilities, "decisions": part.decisions, "asked": part.asked}, {"seconds": repr(part.seconds)}

    parts = []
    for rows, tensors, notes in in_noted_blocks(len(images), BLOCK, make, kept):
        parts.append(Predictions(members=ensemble.members, settings=ensemble.settings, seconds=float(notes["seconds"]), **tensors))
        if progress is not None:
            progress(rows.stop, len(images))
    return Predictions.cat(parts)


def _predict(
    ensemble: Ensemble, images: ImageSet, shape: Fit, start: int, total: int, progress: Callable[[int, int], None] | None
) -> Predictions:
    batch = torch.stack([shape.to_model(example.image)[0] for example in images])
    seeds = image_seeds(ensemble.seed, images.digests)
    return ensemble.predict(batch, seeds, None if progress is None else lambda done, _: progress(start + done, total))
