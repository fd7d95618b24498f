"""Which of a classifier's classes a label means: by name, by one that is the same but for its spelling, or by an id of ImageNet."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.imagenet import in_order, wnids

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet

LISTED = 5
"""Names that an error tells."""
FROM_PYTHON = " (from Python, `Judged` takes the names that images are labelled by)"


def in_classes(images: ImageSet, classes: Sequence[str], whose: str) -> ImageSet:
    """A set whose labels count in other classes of photos, matched as `match_classes` does.

    Args:
        classes: different ones. whose: they are, for errors.
    Raises:
        DataError: a class of an image that means none of the others, or several; two classes that mean one.
    """
    names = [images.classes[label] for label in sorted({label for label in images.labels if label is not None})]
    found = match_classes(names, classes, whose, images.name, "")
    return images.with_classes(classes, {name: classes[place] for name, place in zip(names, found, strict=True)})


def match_classes(
    names: Sequence[str], classes: Sequence[str], model: str = "the model", images: str = "the set", hint: str = FROM_PYTHON
) -> list[int]:
    """The place among a model's classes of each name that images are labelled by, see `places`.

    Args:
        names: different ones, such as those of class folders. classes: the model's, in label order; names that repeat may be among them.
        model, images: names for errors. hint: what else mends a name that means no class.
    Raises:
        DataError: a name that means no class, or several, such as "crane" among the 1,000 of ImageNet; two names that mean one.
    """
    found = places(names, classes)
    unknown = [name for name, own in zip(names, found, strict=True) if not own]
    if unknown:
        known = ", ".join(classes[:LISTED]) + (", ..." if len(classes) > LISTED else "")
        raise DataError(
            f"{images} holds {_listed(unknown)}, which {model} does not know ({known}); leave that out, or rename it as "
            f"{'the model' if hint else model} does{hint}"
        )
    for name, own in zip(names, found, strict=True):
        if len(own) > 1:
            raise DataError(
                f"{images} holds {name!r}, which is several classes of {model}: {_listed([f'{classes[k]} #{k}' for k in own])}; "
                f"{_apart(own, classes)}"
            )
    first: dict[int, str] = {}
    for name, (place,) in zip(names, found, strict=True):
        if place in first:
            raise DataError(f"{images} holds {first[place]!r} and {name!r}, which are one class of {model}; rename or join them")
        first[place] = name
    return [place for (place,) in found]


def spelled_classes(classes: Sequence[str], spelled: Sequence[str] | None, model: str = "the model") -> Sequence[str]:
    """A model's classes as a set spells them, in label order; its own names where `spelled` is None.

    Raises ConfigError for another number of names than classes, and for a name that repeats: images of it would be of one class alone.
    """
    if spelled is None:
        return classes
    if len(spelled) != len(classes):
        raise ConfigError(f"spelled must name all {len(classes)} classes of {model} in label order, got {len(spelled)} names")
    twice = [name for name, often in Counter(spelled).items() if often > 1]
    if twice:
        raise ConfigError(
            f"spelled names several classes of {model} {_listed(twice)}; give each a name of its own, and say by means= what a folder of "
            "several classes stands for"
        )
    return spelled


def places(names: Sequence[str], classes: Sequence[str]) -> list[tuple[int, ...]]:
    """The classes that each name means, () where it means none.

    A name means the classes that are called so; else, where the classes are those of ImageNet (`imagenet.in_order`), that of its id, such
    as n01440764; else all whose name, or a synonym of it such as one of "tench, Tinca tinca", is the same but for case, `_` and `-`.
    """
    exact = _by_spelling((name, place) for place, name in enumerate(classes))
    ids = {wnid: (place,) for place, wnid in enumerate(wnids())} if in_order(classes) else {}
    found = [exact.get(name, ids.get(name, ())) for name in names]
    if all(found):  # which spares the dear table
        return found
    spelled = ((_plain(each), place) for place, name in enumerate(classes) for each in {name, *name.split(",")})
    loose = _by_spelling(spelled)
    return [own or loose.get(_plain(name), ()) for own, name in zip(found, names, strict=True)]


def told_apart(classes: Sequence[str]) -> tuple[str, ...]:
    """The names, those that several classes bear with their place: owl, crane #134, crane #517."""
    often = Counter(classes)
    return tuple(name if often[name] == 1 else f"{name} #{place}" for place, name in enumerate(classes))


def _by_spelling(pairs: Iterable[tuple[str, int]]) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, dict[int, None]] = defaultdict(dict)  # a class may have two synonyms that are spelled alike
    for spelling, place in pairs:
        found[spelling][place] = None
    return {spelling: tuple(own) for spelling, own in found.items()}


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more


def _apart(own: Sequence[int], classes: Sequence[str]) -> str:
    """How to label images of one of several classes."""
    if in_order(classes):
        return f"label them by id, {' or '.join(wnids()[place] for place in own)}"
    return "label them by the whole name of one, or give the model's classes names that differ"
