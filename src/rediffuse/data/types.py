"""What every reader gives: a sequence of examples that were all decoded once, and the list of those that could not be."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, overload

from rediffuse.data.images import hash_pixels, to_rgb
from rediffuse.errors import DataError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) while a set is opened."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture with its label.

    Args:
        id: unique and stable in its set, such as the path relative to the folder.
        image: upright RGB.
        label: index into the set's classes; None in an unlabelled set.
        source: id of the real image that a synthetic one was made from.
        copy: number of the synthetic copy; -1 for real images.
    """

    id: str
    image: Image.Image
    label: int | None
    source: str | None = None
    copy: int = -1


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A file or row that is left out, and why."""

    id: str
    reason: str


class Payload(Protocol):
    """Where a picture's pixels come from; small and picklable. `read` gives RGB or raises DataError with the bare reason."""

    def read(self) -> Image.Image: ...


@dataclass(frozen=True, slots=True)
class PixelPayload:
    """Decoded RGB bytes held in memory; every read is a fresh image, so that no caller can change another's."""

    width: int
    height: int
    pixels: bytes

    def read(self) -> Image.Image:
        from PIL import Image

        return Image.frombytes("RGB", (self.width, self.height), self.pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row of an ImageSet: what is known of an image without holding it decoded, in less than a kilobyte.

    source_digest: of the real image that a synthetic one was made from, where that is known.
    """

    id: str
    payload: Payload
    label: int | None
    digest: str
    size: tuple[int, int]
    source: str | None = None
    copy: int = -1
    source_digest: str | None = None


class ImageSet(Sequence[Example]):
    """A labelled (or unlabelled) set of images, in a fixed order.

    Readers (`folder`, `table`, `digits`, `open_images`) make these; `ImageSet.of` takes images that are in memory already.

    Attributes:
        classes: true class names; a label is an index into them. () when unlabelled.
        ids, labels, digests, sizes, sources, copies, source_digests: one value an image. Digests are `pixels_sha256`, sizes (width,
            height); the digest of a source is None where it is not known.
        rejected: what could not be read, with reasons. Subsets carry the whole list.
        flips: whether a horizontal flip keeps the label.
        name: for humans.
    """

    def __init__(
        self,
        records: Iterable[Record],
        *,
        classes: Sequence[str],
        name: str,
        flips: bool = True,
        rejected: Sequence[Rejected] = (),
    ) -> None:
        self._records = tuple(records)
        self.classes: tuple[str, ...] = tuple(classes)
        self.name = name
        self.flips = flips
        self.rejected: tuple[Rejected, ...] = tuple(rejected)
        self.ids: tuple[str, ...] = tuple(record.id for record in self._records)
        self.labels: tuple[int | None, ...] = tuple(record.label for record in self._records)
        self.digests: tuple[str, ...] = tuple(record.digest for record in self._records)
        self.sizes: tuple[tuple[int, int], ...] = tuple(record.size for record in self._records)
        self.sources: tuple[str | None, ...] = tuple(record.source for record in self._records)
        self.copies: tuple[int, ...] = tuple(record.copy for record in self._records)
        self.source_digests: tuple[str | None, ...] = tuple(record.source_digest for record in self._records)
        _check(self)

    @classmethod
    def of(cls, examples: Iterable[Example], *, classes: Sequence[str], name: str = "images", flips: bool = True) -> ImageSet:
        """A set of examples that are in memory; images of another mode are converted to RGB."""
        records = []
        for example in examples:
            image = to_rgb(example.image)
            payload = PixelPayload(image.width, image.height, image.tobytes())
            records.append(
                Record(
                    id=example.id,
                    payload=payload,
                    label=example.label,
                    digest=hash_pixels(image.width, image.height, payload.pixels),
                    size=image.size,
                    source=example.source,
                    copy=example.copy,
                )
            )
        return cls(records, classes=classes, name=name, flips=flips)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ImageSet: ...
    def __getitem__(self, index: int | slice) -> Example | ImageSet:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        record = self._records[index]
        return Example(id=record.id, image=_read(record), label=record.label, source=record.source, copy=record.copy)

    def subset(self, rows: Sequence[int]) -> ImageSet:
        """The images at these rows, in their order; classes and the rejected list stay. A row given twice is an error.

        Raises TypeError for a mask: give the rows where it is true.
        """
        rows = list(rows)
        if any(isinstance(row, bool) or type(row).__name__ in ("bool", "bool_") for row in rows):  # numpy's two names
            raise TypeError("subset takes row numbers, got a mask; give the rows where it is true: numpy.flatnonzero(mask)")
        records = [self._records[operator.index(row)] for row in rows]
        return ImageSet(records, classes=self.classes, name=self.name, flips=self.flips, rejected=self.rejected)

    def with_classes(self, classes: Sequence[str], means: Mapping[str, str] | None = None) -> ImageSet:
        """The same images with labels counted in another class list, matched by name.

        Use it where two folders meet, such as train and test: a class that one of them lacks would shift every later index.

        Args:
            classes: the other list.
            means: how classes of this set are called there, where that is otherwise.
        Raises:
            DataError: an image's class is not in the list.
        """
        called = {name: (means or {}).get(name, name) for name in self.classes}
        there = {name: place for place, name in enumerate(classes)}
        places = {name: there[other] for name, other in called.items() if other in there}
        missing = sorted({self.classes[label] for label in self.labels if label is not None} - set(places))
        if missing:
            known = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
            raise DataError(
                f"{self.name} holds classes that the other list lacks: {', '.join(map(repr, missing[:5]))}; that list is {known}: rename "
                "or remove them"
            )
        records = [replace(record, label=None if record.label is None else places[self.classes[record.label]]) for record in self._records]
        return ImageSet(records, classes=classes, name=self.name, flips=self.flips, rejected=self.rejected)

    def fitted(self, size: int, *, mode: str = "pad", multiple_of: int = 1) -> Iterator[Tensor]:
        """Each image in order as a model's square, (3, size, size) float in [0, 1]; see `geometry.Fit`, which also gives the way back."""
        from rediffuse.data.geometry import Fit

        fit = Fit(mode=mode, size=size, multiple_of=multiple_of)
        return (fit.to_model(example.image)[0] for example in self)

    def counts(self) -> tuple[int, ...]:
        """Images of each class."""
        found = Counter(self.labels)
        return tuple(found[label] for label in range(len(self.classes)))

    def __repr__(self) -> str:
        return f"ImageSet({self.name!r}: {len(self)} images, {len(self.classes)} classes, {len(self.rejected)} rejected)"


def _read(record: Record) -> Image.Image:
    try:
        image = record.payload.read()
    except DataError as error:
        raise DataError(f"{record.id} can no longer be read: {error}; open the set again") from error
    if not isinstance(record.payload, PixelPayload) and hash_pixels(image.width, image.height, image.tobytes()) != record.digest:
        raise DataError(f"{record.id} has changed since the set was opened; open the set again")
    return image


def _check(images: ImageSet) -> None:
    if len(set(images.ids)) != len(images.ids):
        twice, _ = Counter(images.ids).most_common(1)[0]
        raise DataError(f"the id {twice!r} occurs twice in {images.name}; ids must be unique")
    if len(set(images.classes)) != len(images.classes):
        raise DataError(f"class names of {images.name} must be unique, got {list(images.classes)}")
    wrong = [label for label in images.labels if label is not None and not 0 <= label < len(images.classes)]
    if wrong:
        raise DataError(f"label {wrong[0]} of {images.name} is outside its {len(images.classes)} classes")
