"""Where corrupted pictures come from: made as they are asked for, or read from the sets that were published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.constants import ALL, SEVERITIES, SMALLEST, published_size
from rediffuse.evaluation.corruptions.frost import FrostSource, frost_overlays
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.kept import fingerprint
from rediffuse.evaluation.matching import match_classes, spelled_classes

HELD = 256 << 20
"""Bytes of clean pictures that are held, so that they are decoded once; a larger set is decoded anew for each corruption."""
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Classes of CIFAR-10-C, in label order."""


class Corrupted(Protocol):
    """Pictures under corruptions: the same ones, in the same order, under each.

    Attributes:
        name: for humans.
        side: of the pictures, px.
        corruptions, severities: what there is.
        notes: what whoever reads the figures must know.
    """

    name: str
    side: int
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...
    def clean(self, batch: int) -> Iterator[Tensor] | None: ...
    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]: ...
    def comparable(self, corruption: str) -> bool: ...
    def truth(self, judged: Judged) -> Tensor: ...
    def identity(self) -> dict[str, Any]: ...


class Live:
    """Corruptions made on the way, a batch at a time.

    Args:
        images: labelled.
        size: side that pictures are fitted to; None takes the side that they all have.
        fit: how other shapes become that square; see `data.geometry.Fit`.
        seed, frost: as in `apply.corrupt`.
    Raises:
        DataError: no images; without a size: pictures that are not square, too small, or of several sizes.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        size: int | None = None,
        fit: Literal["pad", "crop", "squash"] = "pad",
        seed: int = 0,
        frost: FrostSource = "auto",
    ) -> None:
        if not len(images):
            raise DataError(f"{images.name} holds no images")
        self.images, self.fit, self.seed = images, fit, seed
        self.side = size if size is not None else common_side(images)
        self.constants_of = published_size(self.side)
        self.name, self.corruptions, self.severities = images.name, ALL, SEVERITIES
        self._overlays, self._frost = frost_overlays(self.side, frost), frost
        self._held: NDArray[np.uint8] | None = None
        self.notes: tuple[str, ...] = ()
        if self.side != self.constants_of:
            self.notes += (f"pictures of {self.side} px, constants published for {self.constants_of} px",)
        if small := sum(min(own) < SMALLEST for own in images.sizes):
            self.notes += (f"{small:,} of {len(self):,} pictures have a side below {SMALLEST} px and were scaled to be corrupted",)
        self._as_published = not self.notes
        if not self._overlays.comparable:
            self.notes += (
                "frost is drawn, not photographed: it is not comparable with published figures (extra `corruptions` has the photos)",
            )

    def __len__(self) -> int:
        return len(self.images)

    def clean(self, batch: int) -> Iterator[Tensor]:
        """(B, 3, side, side) uint8, in order."""
        if self._held is not None:
            for start in range(0, len(self), batch):
                yield torch.from_numpy(self._held[start : start + batch])
            return
        small = len(self) * 3 * self.side**2 <= HELD
        held = np.empty((len(self), 3, self.side, self.side), dtype=np.uint8) if small else None
        for rows, pictures in batches(self.images, size=self.side, fit=self.fit, batch=batch):
            levels = pictures.mul(255).round().to(torch.uint8)
            if held is not None:
                held[rows[0] : rows[-1] + 1] = levels.numpy()
            yield levels
        self._held = held

    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]:
        for pictures in self.clean(batch):
            yield corrupt(pictures, corruption, severity, seed=self.seed, frost=self._frost)

    def comparable(self, corruption: str) -> bool:
        return self._as_published and (corruption != "frost" or self._overlays.comparable)

    def truth(self, judged: Judged) -> Tensor:
        return judged.truth(self.images)

    def identity(self) -> dict[str, Any]:
        frost = self._overlays.digest
        return {"images": fingerprint(self.images), "side": self.side, "fit": self.fit, "seed": self.seed, "frost": frost}


def common_side(images: ImageSet) -> int:
    """The side of all pictures. Raises DataError with one that has another, or that is not square."""
    side = images.sizes[0][0]
    for name, (width, height) in zip(images.ids, images.sizes, strict=True):
        if width != height:
            raise DataError(
                f"{name} of {images.name} is {width} x {height} px and corruptions want squares; give the size to fit pictures to"
            )
        if width != side:
            raise DataError(f"{images.name} has pictures of {side} and of {width} px ({name}); give the size to fit them to")
    return side


class CifarC:
    """CIFAR-10-C or CIFAR-100-C as it is published: `labels.npy`, and for each corruption `NAME.npy` of (5 N, 32, 32, 3) uint8.

    The first fifth of a file is severity 1. Files are mapped, not loaded.

    Args:
        folder: that holds them; corruptions without a file are left out.
        classes: names in label order; those of CIFAR-10 unless given.
    Raises:
        DataError: no labels, no corruption, or an array of another shape or type, by file.
    """

    def __init__(self, folder: str | Path, *, classes: Sequence[str] = CIFAR10) -> None:
        self.folder, self.classes = Path(folder).expanduser(), tuple(classes)
        self.name, self.severities, self.notes = str(folder), SEVERITIES, ("corrupted pictures as published",)
        labels = self._array("labels").reshape(-1)
        if labels.dtype.kind not in "ui" or not labels.size or labels.size % len(SEVERITIES):
            raise DataError(f"{self.folder / 'labels.npy'} must hold whole numbers, five times as many as pictures, got {_told(labels)}")
        blocks = labels.reshape(len(SEVERITIES), -1)
        if (blocks != blocks[0]).any():
            raise DataError(f"{self.folder / 'labels.npy'} differs between severities; the published one repeats itself five times")
        if int(blocks.max()) >= len(self.classes) or int(blocks.min()) < 0:
            raise DataError(
                f"{self.folder / 'labels.npy'} has label {int(blocks.max())}, but {len(self.classes)} classes are named; name all"
            )
        self._labels = blocks[0].astype(np.int64)
        self.corruptions = tuple(name for name in ALL if (self.folder / f"{name}.npy").is_file())
        if not self.corruptions:
            raise DataError(f"{self.folder} holds no corruption, such as fog.npy")
        self._arrays = {name: self._checked(name, labels.size) for name in self.corruptions}
        self.side = int(self._arrays[self.corruptions[0]].shape[1])

    def __len__(self) -> int:
        return len(self._labels)

    def clean(self, batch: int) -> None:
        """The set holds none."""

    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]:
        first = (severity - 1) * len(self)
        for start in range(0, len(self), batch):
            rows = self._arrays[corruption][first + start : first + min(start + batch, len(self))]
            yield torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))

    def comparable(self, corruption: str) -> bool:
        return True

    def truth(self, judged: Judged) -> Tensor:
        return torch.tensor(match_classes(self.classes, judged.classes, judged.name, self.name))[torch.from_numpy(self._labels)]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._labels.tobytes())
        for name, array in self._arrays.items():  # a thousand pictures of each tell files apart without reading gigabytes
            digest.update(name.encode() + np.ascontiguousarray(array[:: max(1, len(array) // 1000)]).tobytes())
        return {"images": digest.hexdigest(), "side": self.side, "classes": list(self.classes)}

    def _array(self, name: str) -> NDArray[Any]:
        file = self.folder / f"{name}.npy"
        try:
            found: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise DataError(f"{file} is missing; give the folder of labels.npy and the corruptions' files") from error
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{file} is not an array of numbers in NumPy's format ({error}); fetch it again") from error
        if not isinstance(found, np.ndarray):
            raise DataError(f"{file} holds several arrays; the published files hold one each")
        return found

    def _checked(self, name: str, rows: int) -> NDArray[Any]:
        found = self._array(name)
        if found.dtype != np.uint8 or found.ndim != 4 or found.shape[0] != rows or found.shape[1] != found.shape[2] or found.shape[3] != 3:
            raise DataError(f"{self.folder / name}.npy must be uint8 ({rows}, side, side, 3), got {_told(found)}")
        return found


class ImageNetC:
    """ImageNet-C or Tiny-ImageNet-C as it is published: folders CORRUPTION/SEVERITY/CLASS/picture, also below noise, blur and so on.

    Args:
        folder: that holds them.
        size: side of the pictures; other shapes are squashed to it.
        spelled: the model's classes as the folders are called (such as wnids), in label order; None where model and folders agree.
    Raises:
        DataError: no corruption, or severities with other pictures than the rest.
    """

    def __init__(self, folder: str | Path, *, size: int = 224, spelled: Sequence[str] | None = None) -> None:
        self.folder, self.side, self.name = Path(folder).expanduser(), size, str(folder)
        self.spelled, self.notes = spelled, ("corrupted pictures as published",)
        self._roots = self._find()
        severities = [{severity for severity in SEVERITIES if (root / str(severity)).is_dir()} for root in self._roots.values()]
        self.corruptions, self.severities = tuple(self._roots), tuple(sorted(set.intersection(*severities)))
        if not self.severities:
            raise DataError(f"{self.folder} has no severity (folders 1 to 5) that all of {', '.join(self.corruptions)} have")
        self._files = self._listed(self.corruptions[0], self.severities[0])

    def _find(self) -> Mapping[str, Path]:
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder; give the one that holds fog/1/CLASS/picture")
        places = [self.folder, *sorted(child for child in self.folder.iterdir() if child.is_dir())]
        found = {name: place / name for name in ALL for place in places if (place / name).is_dir()}
        if not found:
            raise DataError(f"{self.folder} holds no corruption; give the folder of fog/1/CLASS/picture")
        return found

    def _listed(self, corruption: str, severity: int) -> tuple[str, ...]:
        from rediffuse.data.folder import is_picture

        root = self._roots[corruption] / str(severity)
        found = (path.relative_to(root).as_posix() for path in root.glob("*/*") if is_picture(path.name) and not path.name.startswith("."))
        files = tuple(sorted(found))
        if not files:
            raise DataError(f"{root} holds no CLASS/picture")
        return files

    def __len__(self) -> int:
        return len(self._files)

    def clean(self, batch: int) -> None:
        """The set holds none."""

    def under(self, corruption: str, severity: int, batch: int) -> Iterator[Tensor]:
        from rediffuse.data.images import read_image

        files, root = self._listed(corruption, severity), self._roots[corruption] / str(severity)
        if files != self._files:
            odd = sorted(set(files) ^ set(self._files))
            raise DataError(
                f"{root} holds other pictures than {self.corruptions[0]}/{self.severities[0]}, such as {odd[0]}; fetch it again"
            )
        shape = Fit(mode="squash", size=self.side)
        for start in range(0, len(files), batch):
            yield torch.stack([shape.to_model(read_image(root / name))[0] for name in files[start : start + batch]])

    def comparable(self, corruption: str) -> bool:
        return True

    def truth(self, judged: Judged) -> Tensor:
        names = [name.partition("/")[0] for name in self._files]
        folders = sorted(set(names))
        classes = spelled_classes(judged.classes, self.spelled, judged.name)
        place = dict(zip(folders, match_classes(folders, classes, judged.name, self.name), strict=True))
        return torch.tensor([place[name] for name in names])

    def identity(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for corruption, root in self._roots.items():  # names and sizes; to read half a terabyte twice would help nobody
            for severity in self.severities:
                for name in self._files:
                    file = root / str(severity) / name
                    size = file.stat().st_size if file.exists() else -1
                    digest.update(f"{corruption}/{severity}/{name} {size}\n".encode("utf-8", "surrogatepass"))
        return {"images": digest.hexdigest(), "side": self.side, "spelled": list(self.spelled or ())}


def _told(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
