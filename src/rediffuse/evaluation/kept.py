"""What is done stays done: the tensors of finished blocks of a long evaluation, kept in a folder that belongs to one call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.differences import unequal
from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.diffaug import DiffAug
from rediffuse.writing import holds_nothing, whole, write_json

_IDENTITY = "identity.json"
_ENDING = ".kept"
KEPT_BLOCKS = f"*{_ENDING}"
"""Pattern of the files of finished blocks."""
LINES = 4096
"""Of a set's hash that are put together at a time."""


class Kept:
    """A folder of finished blocks. The same call again finds them; another call is refused with the difference.

    Args:
        folder: where blocks lie; made at the first one.
        identity: all that decides what is in them, as JSON: hashes of images (`fingerprint`) and weights (`weights_hash`), settings, seeds.
    Raises:
        ConfigError: the folder holds something else, or blocks of another identity.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        claim(self.folder, identity)

    def names(self) -> list[str]:
        """Blocks that are done, sorted."""
        return sorted(file.name.removesuffix(_ENDING) for file in self.folder.glob(f"*{_ENDING}") if not file.name.startswith("."))

    def has(self, name: str) -> bool:
        """Whether a block is done."""
        return self._file(name).exists()

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """(tensors, notes) of a block, or None where it is not done. Raises DataError for a file that cannot be read, by name."""
        from safetensors import SafetensorError, safe_open

        file = self._file(name)
        if not file.exists():
            return None
        try:
            with safe_open(file, framework="pt") as stored:
                return {key: stored.get_tensor(key) for key in stored.keys()}, dict(stored.metadata() or {})  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}; remove it, and its images are asked again") from error

    def write(self, name: str, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
        """Keep a block, whole or not at all."""
        from safetensors.torch import save_file

        with whole(self._file(name)) as partial:
            save_file({key: value.contiguous() for key, value in tensors.items()}, partial, metadata=dict(notes or {}))

    def forget(self) -> None:
        """Remove the blocks, and nothing else."""
        forget(self.folder)

    def _file(self, name: str) -> Path:
        if not name or any(letter in name for letter in "/\\\0") or name.startswith("."):
            raise ConfigError(f"a block is named like 000000512 or fog-3, got {name!r}")
        return self.folder / f"{name}{_ENDING}"


def in_blocks(
    images: int, block: int, make: Callable[[slice], Mapping[str, Tensor]], kept: Kept | None, before: str = ""
) -> Iterator[tuple[slice, Mapping[str, Tensor]]]:
    """(rows, tensors) of each block of so many images, in order: as it is kept where it is done, else made and kept at once.

    Args:
        block: images in one.
        make: rows -> tensors.
        before: what the names of blocks begin with, where one place holds those of several sets.
    """
    for rows, tensors, _ in in_noted_blocks(images, block, lambda rows: (make(rows), {}), kept, before):
        yield rows, tensors


def in_noted_blocks(
    images: int, block: int, make: Callable[[slice], tuple[Mapping[str, Tensor], Mapping[str, str]]], kept: Kept | None, before: str = ""
) -> Iterator[tuple[slice, Mapping[str, Tensor], Mapping[str, str]]]:
    """(rows, tensors, notes) of each block, where notes are kept too. Args as in `in_blocks`; make: rows -> (tensors, notes)."""
    for start in range(0, images, block):
        rows, name = slice(start, min(start + block, images)), f"{before}{start:09d}"
        found = None if kept is None else kept.read(name)
        tensors, notes = make(rows) if found is None else found
        if kept is not None and found is None:
            kept.write(name, tensors, notes)
        yield rows, tensors, notes


def kept_images(folder: Path, images: int, block: int, before: str = "") -> int:
    """How many of so many images lie in finished blocks of a folder. Args as in `in_blocks`."""
    starts = (start for start in range(0, images, block) if (folder / f"{before}{start:09d}{_ENDING}").exists())
    return sum(min(block, images - start) for start in starts)


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Take a folder for kept blocks, or find it taken by the same call. Raises ConfigError with the difference."""
    file = folder / _IDENTITY
    wanted = json.loads(json.dumps(identity))
    if folder.exists() and not file.exists() and not (folder.is_dir() and holds_nothing(folder)):
        raise ConfigError(f"{folder} is or holds something else; remove it, or give another place for what is kept")
    if not file.exists():
        write_json(file, wanted)
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read ({error}); remove {folder}, and its images are asked again") from error
    differences = [f"{name} {str(old)[:12]} there, {str(new)[:12]} here" for name, old, new in unequal(there, wanted, " > ")]
    if differences:  # of a hash its beginning
        raise ConfigError(f"{folder} belongs to another call ({'; '.join(differences)}); remove it, or give another place")


def forget(folder: Path) -> None:
    """Remove kept blocks, and nothing else."""
    if not (folder / _IDENTITY).exists():
        return
    for file in (*folder.glob(f"*{_ENDING}"), *folder.glob("*.partial"), folder / _IDENTITY):
        file.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def fingerprint(images: ImageSet) -> str:
    """A hash of a set's ids, pixels and labels (by name), in order."""
    labels = ("" if label is None else repr(images.classes[label]) for label in images.labels)
    lines, digest, before = chain(images.ids, images.digests, labels), hashlib.sha256(), ""
    while part := list(islice(lines, LINES)):
        digest.update((before + "\n".join(part)).encode("utf-8", "surrogatepass"))
        before = "\n"
    return digest.hexdigest()


def numbers_of(module: nn.Module) -> list[str]:
    """In which numbers the denoisers of a module work: their fingerprints say nothing of it."""
    parts = [part.denoiser if isinstance(part, DiffAug) else part for part in module.modules()]  # which holds its own as no submodule
    return [str(getattr(part, "dtype", None)).removeprefix("torch.") for part in parts if isinstance(part, Denoiser)]
