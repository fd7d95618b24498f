"""Which images: few shots of each class, a share held out, so many of all. Functions of a seed and of names or pixels, not of any order."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Mapping

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.progress import counted


def few_shot(images: ImageSet, n: int, seed: int = 0, *, allow_fewer: bool = False) -> ImageSet:
    """n images of each class: the first n of a permutation that seed, class name and ids alone decide.

    So fewer shots of a seed lie within more shots of it, whatever the order of the files; a new photo moves none of the others.

    Args:
        n: images a class, at least 1.
        seed: another seed, another permutation.
        allow_fewer: take what there is of a class that has less than n.
    Raises:
        DataError: an unlabelled set, or a class with fewer images.
    Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944 (nested shots).
    """
    if n < 1:
        raise ConfigError(f"shots must be at least 1, got {n}")
    rows: list[int] = []
    for name, ranked in _ranked(images, "few_shot", seed):
        if len(ranked) < (1 if allow_fewer else n):
            fix = "ask for fewer shots, add images, or leave the class out" if ranked else "add images or remove the class"
            raise DataError(f"class {name!r} has {counted(len(ranked), 'image')}, {n} {'was' if n == 1 else 'were'} asked for; {fix}")
        rows.extend(ranked[:n])
    return images.subset(rows)


def holdout(images: ImageSet, fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Cut a set in two, class by class: (what stays, the share held out), both in the set's order.

    A class of two or more pictures has at least one on either side; a single one stays. Equal pictures, in whichever class, are on one
    side, even where that is another number of images.

    Args:
        fraction: share of each class that is held out, in (0, 1).
        seed: another seed, another cut.
    Raises:
        DataError: an unlabelled set.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction must be in (0, 1), got {fraction}")
    out: set[int] = set()
    sides: dict[str, bool] = {}  # of each picture: whether it is held out
    for _, ranked in _ranked(images, "holdout", seed):
        equal: dict[str, list[int]] = {}
        for row in ranked:
            equal.setdefault(images.digests[row], []).append(row)
        count = min(max(1, round(fraction * len(ranked))), len(ranked) - 1)
        sides |= _sides({digest: len(rows) for digest, rows in equal.items()}, count, sides)
        out.update(row for digest, rows in equal.items() if sides[digest] for row in rows)
    if not out:
        raise DataError(f"no class of {images.name} has two images that differ, so nothing can be held out; add images")
    return images.subset([row for row in range(len(images)) if row not in out]), images.subset(sorted(out))


def _sides(sizes: Mapping[str, int], count: int, known: Mapping[str, bool]) -> dict[str, bool]:
    """Whether each picture of a class is held out: those that fit into a number of images, in order; never all where one can stay.

    Args:
        sizes: how many images are that picture, in the order of the draw.
        known: what another class has decided.
    """
    found = {digest: known.get(digest, False) for digest in sizes}
    left = count - sum(sizes[digest] for digest, out in found.items() if out)
    free = [digest for digest in sizes if digest not in known]
    for digest in free:
        if sizes[digest] <= left:
            found[digest] = True
            left -= sizes[digest]
    if free and len(sizes) > 1 and not any(found.values()):
        found[min(free, key=sizes.__getitem__)] = True  # each picture is there more often than would be held out
    return found


def held_out_line(images: ImageSet, held: ImageSet, fraction: float, verb: str = "are") -> str:
    """What is said of a `holdout` that nobody asked for, and of classes that it leaves untested. verb: are, or were."""
    alone = [name for name, whole, out in zip(images.classes, images.counts(), held.counts(), strict=True) if whole and not out]
    told = f"No test photos were given: {len(held):,} of {len(images):,} {verb} held out, {fraction:.0%} of each class, at least one."
    if not alone:
        return told
    names = ", ".join(map(repr, alone[:5])) + (f" and {len(alone) - 5} more" if len(alone) > 5 else "")
    own = "has a single photo, which stays" if len(alone) == 1 else "have a single photo each, which stays"
    return f"{told} {names} {own} to learn from: {'that class is' if len(alone) == 1 else 'those classes are'} not judged; add photos."


def chosen(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """So many images of a set, in its order: those with the lowest hash of seed and pixels. None asks for all."""
    if count is None or count >= len(images):
        return images
    if count < 1:
        raise ConfigError(f"the number of images must be at least 1, got {count}")

    def key(row: int) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed} {images.digests[row]}".encode()).digest(), images.ids[row]

    return images.subset(sorted(heapq.nsmallest(count, range(len(images)), key=key)))


def _ranked(images: ImageSet, purpose: str, seed: int) -> Iterator[tuple[str, list[int]]]:
    if not images.classes:
        raise DataError(f"{images.name} has no labels; sort the images into one folder a class, or give a table of file and label")
    members: list[list[int]] = [[] for _ in images.classes]
    for row, own in enumerate(images.labels):
        if own is not None:
            members[own].append(row)
    for name, rows in zip(images.classes, members, strict=True):
        keys = {row: hashlib.sha256(repr((purpose, seed, name, images.ids[row])).encode("utf-8", "surrogatepass")).digest() for row in rows}
        yield name, sorted(rows, key=keys.__getitem__)
