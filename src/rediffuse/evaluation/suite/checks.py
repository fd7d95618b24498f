"""What is looked at before an evaluation begins: what would make its figures worthless, and what is left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.pixel import check_unconditional
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.corruptions.constants import SMALLEST
from rediffuse.evaluation.judged import Judged, batches, check_models, naming
from rediffuse.evaluation.matching import LISTED, told_apart
from rediffuse.evaluation.ood.sets import SHARED, without_own
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking
from rediffuse.progress import counted
from rediffuse.training.trained_on import check_unseen, learned_by


def without_training(images: ImageSet, train: ImageSet | None) -> tuple[ImageSet, tuple[str, ...]]:
    """(the test images that are no training images, by their pixels; a sentence where some are). Raises DataError where none is left."""
    if train is None or not (shared := set(train.digests) & set(images.digests)):
        return images, ()
    left = [row for row, digest in enumerate(images.digests) if digest not in shared]
    lost = [name for name, digest in zip(images.ids, images.digests, strict=True) if digest in shared]
    if not left:
        raise DataError(f"all {len(lost)} images of {images.name} are also training images, such as {lost[0]}; judge by others")
    listed = ", ".join(lost[:LISTED]) + (f" and {len(lost) - LISTED} more" if len(lost) > LISTED else "")
    said = f"{counted(len(lost), 'photo')} of {images.name} left out, because training photos have the same pixels: {listed}."
    return images.subset(left), (said,)


def check(asking: Asking) -> None:
    """All that would make every figure worthless; raised before any work."""
    own, models = asking.settings, check_models(asking.models)
    if not len(asking.data):
        raise DataError(f"{asking.data.name} holds no images")
    for model in models:
        model.truth(asking.data)
    if asking.denoiser is not None:
        check_unconditional(asking.denoiser, "an evaluation")
        step = asking.denoiser.multiple_of
        if own.size % step:
            raise ConfigError(f"the denoiser takes sides that are multiples of {step}, got --size {own.size}")
    _, pictures = next(batches(asking.data[:1], size=own.size, fit=own.fit))
    for model in models:
        model.logits(pictures)
    if asking.denoiser is not None:
        _ask(asking.denoiser, pictures)


@torch.no_grad()
def _ask(denoiser: Denoiser, pictures: Tensor) -> None:
    """Whether it can be asked at all. Raises ModelError."""
    t = torch.zeros(len(pictures), dtype=torch.int64, device=denoiser.device)
    with naming(f"the denoiser fails on a picture of {pictures.shape[-1]} px", "; name another"):
        believed = denoiser(denoiser.encode(pictures.to(denoiser.device)), t)
    if not bool(believed.isfinite().all()):
        raise ModelError("the denoiser makes pictures that are NaN or infinite; try --dtype float32, or name another")


def apart(asking: Asking, data: ImageSet) -> tuple[Asking, tuple[str, ...]]:
    """(what is asked, its unknown sets without the models' own pictures; a sentence for each set that lost some).

    data: all that `asking.data` was chosen from, so that a number of images changes no unknown set.
    """
    unknown = {**asking.near, **asking.far}
    if not unknown:
        return asking, ()
    learned = {model.name: learned_by(model.network) for model in asking.models}
    for name, own in learned.items():
        check_unseen(unknown, name, own, SHARED)
    left, notes = without_own(asking.data, unknown, asking.train, frozenset(data.digests).union(*learned.values()))
    near, far = ({name: left[name] for name in group} for group in (asking.near, asking.far))
    return replace(asking, near=near, far=far), tuple(f"{note}." for note in notes)


def lacking(asking: Asking, part: str) -> str:
    """Why a part cannot be run with what was given; empty where it can."""
    if part == names.CORRUPTIONS and not asking.settings.corruptible:
        return f"pictures of {asking.settings.size} px are too small to corrupt, {SMALLEST} px is the least (--size)"
    if part == names.UNKNOWN and not (asking.near or asking.far):
        return "no sets of unknown images were given (--near, --far)"
    if part in names.NEEDS_DENOISER and asking.denoiser is None:
        return "no denoiser was given (--denoiser)"
    return ""


def unseen(model: Judged, images: ImageSet) -> str:
    """Which classes of a classifier the images do not show, in a sentence; empty where they show all."""
    shown = set(model.truth(images).tolist())
    missing = [name for place, name in enumerate(told_apart(model.classes)) if place not in shown]
    if not missing:
        return ""
    listed = ", ".join(missing[:LISTED]) + (f" and {len(missing) - LISTED} more" if len(missing) > LISTED else "")
    found = f"{len(shown)} of the {len(model.classes):,} classes of {model.name}, none of {listed}"
    return f"these photos show {found}; means over classes leave them out"


def named(known: str, near: Sequence[ImageSet], far: Sequence[ImageSet]) -> tuple[dict[str, ImageSet], dict[str, ImageSet]]:
    """Sets by name; a name that is taken gets a number."""
    taken, found = {known}, []
    for group in (near, far):
        own: dict[str, ImageSet] = {}
        for images in group:
            name, number = images.name, 2
            while name in taken:
                name, number = f"{images.name} ({number})", number + 1
            taken.add(name)
            own[name] = images
        found.append(own)
    return found[0], found[1]
