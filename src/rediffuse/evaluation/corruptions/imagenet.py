"""The 1,000 classes of ImageNet by their WordNet ids, the 200 of them that ImageNet-R and ImageNet-A show, and what ImageNet-D shows.

`imagenet.txt` has a line a class, in the order of labels, which is that of the ids; `r` and `a` mark the classes of the two sets.
`imagenet_d.txt` has a line a folder of ImageNet-D: its name, and the ids of all classes that count as right for its pictures.

References: Russakovsky et al., IJCV 2015, arXiv 1409.0575; Hendrycks et al., ICCV 2021, arXiv 2006.16241 (R), and CVPR 2021, arXiv
1907.07174 (A); Zhang et al., CVPR 2024, arXiv 2403.18775 (D), with the programs that their authors published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from rediffuse.errors import ConfigError

Subset = Literal["imagenet-r", "imagenet-a"]
_MARKS: Mapping[str, str] = {"imagenet-r": "r", "imagenet-a": "a"}
_NAMED: Mapping[int, str] = {0: "tench", 1: "goldfish", 207: "golden retriever", 340: "zebra", 954: "banana", 980: "volcano"}
"""A few classes whose names are spelled alike everywhere."""


@cache
def _lines(file: str = "imagenet.txt") -> tuple[tuple[str, ...], ...]:
    text = files(__package__).joinpath(file).read_text(encoding="ascii")
    return tuple(tuple(line.split()) for line in text.splitlines())


def wnids() -> tuple[str, ...]:
    """The ids of all classes, such as n01440764, in the order of labels."""
    return tuple(line[0] for line in _lines())


def known_subset(name: Subset) -> tuple[str, ...]:
    """The ids of the 200 classes of "imagenet-r" or "imagenet-a", in order. Raises ConfigError for another name."""
    if name not in _MARKS:
        raise ConfigError(f"the classes of {', '.join(_MARKS)} are known, got {name!r}; other sets say theirs by their folders")
    return tuple(line[0] for line in _lines() if _MARKS[name] in line[1:])


def imagenet_d() -> dict[str, tuple[str, ...]]:
    """The ids of the classes that each of the 113 folders of ImageNet-D stands for; any of them is right. For `subsets.subset_accuracy`."""
    return {folder: tuple(ids) for folder, *ids in _lines("imagenet_d.txt")}


def in_order(classes: Sequence[str]) -> bool:
    """Whether a model's classes are all of ImageNet in the order of labels: 1,000 ids, numbers (0, LABEL_0) or names such as "tench, Tinca
    tinca". Names are looked at in a few places only."""
    if len(classes) != len(_lines()):
        return False
    if tuple(classes) == wnids():
        return True
    if all(name.upper().removeprefix("LABEL_") == str(place) for place, name in enumerate(classes)):
        return True
    plain = [name.casefold().replace("_", " ") for name in classes]
    return all(name in [part.strip() for part in plain[place].split(",")] for place, name in _NAMED.items())
