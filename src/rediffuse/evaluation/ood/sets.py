"""Which images are unknown: sets without the classes that the classifier knows, and without its own pictures."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence

from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.progress import are, counted

SHARED = 0.01
"""Of an unknown set: pictures that collections from the same sources share by chance, CIFAR-10 and CIFAR-100 two of them. More of them mean
that both show the same things."""
NAMED = 3
"""Pictures that a note names, at most."""


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


def without_own(
    known: ImageSet, unknown: Mapping[str, ImageSet], train: ImageSet | None = None, others: Collection[str] = ()
) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """(the unknown sets without pictures that are the classifier's own, told by their pixels; a note for each that lost some).

    Test images that are training images too are refused: their neighbours are themselves, and they look known beyond measure.

    Args:
        known, train: what the classifier is tested and trained on.
        others: digests of more that it knows, such as test images that are not asked about.
    Raises:
        DataError: an empty set, one of which more than `SHARED` is the classifier's own, or one that is a part of another.
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
    own = {*known.digests, *seen, *others}
    found = {name: _without(images, name, own) for name, images in unknown.items()}
    left = {name: images for name, (images, _) in found.items()}
    _check_different(left)
    return left, tuple(note for _, note in found.values() if note)


def _without(images: ImageSet, name: str, own: Collection[str]) -> tuple[ImageSet, str]:
    """(the images that are not among the classifier's own, what is to be said of those that are; empty of none)."""
    if not len(images):
        raise DataError(f"the unknown set {name!r} ({images.name}) holds no images; leave it out, or give it some")
    shared = [row for row, digest in enumerate(images.digests) if digest in own]
    if not shared:
        return images, ""
    said = (
        f"{len(shared):,} of {counted(len(images), 'image')} of the unknown set {name!r} {are(len(shared))} also among the classifier's own"
    )
    if len(shared) > SHARED * len(images):
        raise DataError(f"{said}, such as {images.ids[shared[0]]}; remove them, or what is called unknown is known")
    named = ", ".join(images.ids[row] for row in shared[:NAMED])
    taken = set(shared)
    rest = images.subset([row for row in range(len(images)) if row not in taken])
    return rest, f"{said} ({named}{', ...' if len(shared) > NAMED else ''}) and left out"


def _check_different(unknown: Mapping[str, ImageSet]) -> None:
    """A set that is named twice, near and far perhaps, would count in both means."""
    own = {name: set(images.digests) for name, images in unknown.items()}
    for first, second in itertools.combinations(own, 2):
        part, whole = sorted((first, second), key=lambda name: len(own[name]))
        if own[part] <= own[whole]:
            raise DataError(
                f"all pictures of the unknown set {part!r} are in {whole!r} too and would count twice; leave one of the two out"
            )
