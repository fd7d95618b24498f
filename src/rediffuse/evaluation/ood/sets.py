"""Which images are unknown: sets without the classes that the classifier knows, and without its own pictures."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError


def without_classes(images: ImageSet, names: Sequence[str]) -> ImageSet:
    """The images whose class is none of these, in order: a set of unknown inputs must hold nothing that the classifier knows.

    Args:
        names: classes as the set spells them, such as those of `tiny-imagenet-base` that are CIFAR-10 classes.
    Raises:
        DataError: a name that is no class of the set, an image without a label, or nothing left.
    """
    missing = [name for name in names if name not in images.classes]
    if missing:
        near = difflib.get_close_matches(missing[0], images.classes, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise DataError(f"{images.name} has no class {missing[0]!r}{hint}; name the classes to leave out as the set does")
    left_out = {images.classes.index(name) for name in names}
    rows = []
    for row, label in enumerate(images.labels):
        if label is None:
            raise DataError(f"{images.ids[row]} of {images.name} has no label, so it cannot be told whether it is of a class to leave out")
        if label not in left_out:
            rows.append(row)
    if not rows:
        raise DataError(f"no image of {images.name} is left without {', '.join(map(repr, names))}")
    return images.subset(rows)


def check_unknown(known: ImageSet, unknown: Mapping[str, ImageSet], train: ImageSet | None = None) -> None:
    """Raise DataError for an empty set, one that shares pictures with what the classifier is tested or trained on, or a part of another.

    Test images that are training images too are refused as well: their neighbours are themselves, and they look known beyond measure.
    """
    if not unknown:
        raise DataError("unknown images are needed: give at least one set, near or far")
    if not len(known):
        raise DataError(f"{known.name} holds no images; the classifier's own test set is needed beside the unknown ones")
    seen = set() if train is None else set(train.digests)
    learned = [place for place, digest in zip(known.ids, known.digests, strict=True) if digest in seen]
    if learned:
        raise DataError(
            f"{len(learned)} of {len(known)} images of {known.name} are also training images, such as {learned[0]}; remove them"
        )
    own = {*known.digests, *seen}
    for name, images in unknown.items():
        if not len(images):
            raise DataError(f"the unknown set {name!r} ({images.name}) holds no images; leave it out, or give it some")
        shared = [place for place, digest in zip(images.ids, images.digests, strict=True) if digest in own]
        if shared:
            raise DataError(
                f"{len(shared)} of {len(images)} images of the unknown set {name!r} are also among the classifier's own, such as "
                f"{shared[0]}; remove them, or what is called unknown is known"
            )
    _check_different(unknown)


def _check_different(unknown: Mapping[str, ImageSet]) -> None:
    """A set that is named twice, near and far perhaps, would count in both means."""
    own = {name: set(images.digests) for name, images in unknown.items()}
    for first, second in itertools.combinations(own, 2):
        part, whole = sorted((first, second), key=lambda name: len(own[name]))
        if own[part] <= own[whole]:
            raise DataError(
                f"all pictures of the unknown set {part!r} are in {whole!r} too and would count twice; leave one of the two out"
            )
