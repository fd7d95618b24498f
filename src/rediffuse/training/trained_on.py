"""Which photos a classifier learned from, kept beside it, so that it is not judged by them without a word."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, ModelError
from rediffuse.progress import counted
from rediffuse.writing import write_json

FILE_NAME = "trained_on.json"
VERSION = 1


def write_learned(folder: Path, digests: Iterable[str]) -> Path:
    """Note the photos that a saved classifier learned from, by their pixels; returns the file. transformers passes over it."""
    path = folder / FILE_NAME
    write_json(path, {"version": VERSION, "pixels_sha256": sorted(set(digests))})
    return path


def read_learned(folder: Path) -> frozenset[str]:
    """Digests of the photos that a classifier is known to have learned from; empty where its folder says nothing.

    Raises:
        ModelError: the note is damaged or of another version.
    """
    path = folder / FILE_NAME
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); train again, or remove it: what was learned from is then unknown") from error
    version = found.get("version") if isinstance(found, dict) else None
    digests = found.get("pixels_sha256") if isinstance(found, dict) else None
    if version != VERSION or not isinstance(digests, list) or not all(isinstance(each, str) for each in digests):
        raise ModelError(
            f"{path} is damaged or of another version (wanted: {VERSION}); train again, or remove it: what was learned from is then unknown"
        )
    return frozenset(digests)


def learned_by(network: nn.Module) -> frozenset[str]:
    """Digests of the pictures that a network is known to have learned from: a `Classifier` in it says so, others do not."""
    said = (getattr(part, "learned", None) for part in network.modules())
    return frozenset().union(*(found for found in said if isinstance(found, frozenset)))


def check_unseen(unknown: Mapping[str, ImageSet], name: str, learned: Collection[str], share: float = 0.0) -> None:
    """Refuse as unknown what a classifier of this name is known to have learned from. Raises ConfigError.

    Args:
        unknown: sets by name. share: of a set that may be among what taught it, as the caller leaves it out.
    """
    for own, images in unknown.items():
        if (count := sum(digest in learned for digest in images.digests)) > share * len(images):
            raise ConfigError(
                f"{count:,} of {counted(len(images), 'photo')} of the unknown set {own!r} taught {name}: what is called unknown is known; "
                "give photos of other things (--near, --far)"
            )


def flattery(learned: Collection[str], name: str, images: ImageSet) -> str:
    """What is to be said where a classifier is judged by photos that it learned from; empty where none is known to be among them.

    Args:
        learned: digests of all that taught it. name: as it is called.
        images: all that judge it.
    """
    count = sum(digest in learned for digest in images.digests)
    if not count:
        return ""
    return (
        f"{count:,} of these {counted(len(images), 'photo')} taught {name}; its accuracy and all that follows are too good: judge by "
        "others, for instance --test photos kept apart when training."
    )
