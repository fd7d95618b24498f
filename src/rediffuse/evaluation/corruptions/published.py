"""Corrupted sets read as they were published: CIFAR-10-C's arrays, and the folders of ImageNet-C."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.errors import DataError
from rediffuse.evaluation.corruptions.constants import ALL, SEVERITIES
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.matching import match_classes, spelled_classes

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Classes of CIFAR-10-C, in label order."""


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
        size: side of the pictures, 224 or 64 as published; others are squashed to it, and may not stand beside published figures.
        spelled: the model's classes as the folders are called (such as wnids), in label order; None where model and folders agree.
    Raises:
        DataError: no corruption, or severities with other pictures than the rest.
    """

    def __init__(self, folder: str | Path, *, size: int = 224, spelled: Sequence[str] | None = None) -> None:
        from rediffuse.data.images import read_image

        self.folder, self.side, self.name = Path(folder).expanduser(), size, str(folder)
        self.spelled = spelled
        self.notes: tuple[str, ...] = ("corrupted pictures as published",)
        self._roots = self._find()
        severities = [{severity for severity in SEVERITIES if (root / str(severity)).is_dir()} for root in self._roots.values()]
        self.corruptions, self.severities = tuple(self._roots), tuple(sorted(set.intersection(*severities)))
        if not self.severities:
            raise DataError(f"{self.folder} has no severity (folders 1 to 5) that all of {', '.join(self.corruptions)} have")
        self._files = self._listed(self.corruptions[0], self.severities[0])
        first = read_image(self._roots[self.corruptions[0]] / str(self.severities[0]) / self._files[0])
        self._as_published = set(first.size) == {size}
        if not self._as_published:
            self.notes += (f"resized from {first.size[0]} x {first.size[1]} to {size} pixels: not comparable with published figures",)

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
        return self._as_published

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
