"""Real and synthetic items of one training set as tensors in memory, drawn by the law of `data.Mixed` many at a time.

The index is uniform over real images; with probability alpha one of its copies stands in for it.

Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944, section on balancing real and synthetic data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.checking import check_memory
from rediffuse.data.geometry import Fit
from rediffuse.data.mixing import Mixed
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class PoolDraw:
    """What a batch holds. index: (B,) int64, the real image of each; row: (B,) int64, the item that stands for it."""

    index: Tensor
    row: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """A training set that fits into memory: pictures (uint8) or their features (float32).

    Args:
        items: (N + S, ...) the N real ones first, then S synthetic.
        labels: (N,) int64, of the real ones; a copy has its source's.
        copies: (N, M) int64 rows of `items`, those of each real one first; what is behind `counts` is not read.
        counts: (N,) int64, how many copies each real one has.
        alpha: probability of a copy where there is one, in [0, 1].
        fit: how photos of other shapes became these squares, as in `data.geometry.Fit`; None where that is not known.
        middle: side in pixels of the middle that such a picture is judged by, where more of it is held for crops; None: all of it.
    """

    items: Tensor
    labels: Tensor
    copies: Tensor
    counts: Tensor
    alpha: float = 0.5
    fit: str | None = None
    middle: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is the probability of a synthetic image and must be in [0, 1], got {self.alpha}")
        if len(self.labels) == 0:
            raise DataError("a training set needs at least one image, got none")
        if self.items.dtype not in (torch.uint8, torch.float32):
            raise DataError(f"a pool holds pictures as uint8 or features as float32, got {self.items.dtype}; convert them")
        if self.labels.ndim != 1 or len(self.labels) > len(self.items):
            raise DataError(f"labels must be (N,), one a real item of {len(self.items)} items in all, got {tuple(self.labels.shape)}")

    @classmethod
    def build(cls, real: Tensor, labels: Tensor, synthetic: Tensor | None, copies: Sequence[Sequence[int]], alpha: float) -> Pool:
        """From items and, for each real one, the rows of `synthetic` that were made from it (as `data.Mixed.copies`)."""
        most = max([1, *map(len, copies)])
        table = torch.zeros(len(labels), most, dtype=torch.int64)
        for index, own in enumerate(copies):
            table[index, : len(own)] = torch.tensor(own, dtype=torch.int64) + len(labels)
        items = real if synthetic is None else torch.cat([real, synthetic])
        counts = torch.tensor([len(own) for own in copies], dtype=torch.int64)
        return cls(items=items, labels=labels, copies=table, counts=counts, alpha=alpha)

    @property
    def side(self) -> int:
        """Side in pixels of what is judged."""
        return self.middle or max(self.items.shape[-2:])

    def judged(self) -> Tensor:
        """(N, 3, side, side), the real pictures as they are judged."""
        return middle_of(self.items[: len(self.labels)], self.middle)

    def draw(self, batch: int, generator: torch.Generator, index: Tensor | None = None) -> PoolDraw:
        """`batch` draws with replacement: i uniform over the real images, then with probability alpha one of its copies, uniform.

        index: (batch,) int64, which real images, where that is decided already (epochs).
        """
        index = torch.randint(len(self.labels), (batch,), generator=generator) if index is None else index
        coin = torch.rand(batch, generator=generator, dtype=torch.float64) < self.alpha
        count = self.counts[index]
        place = (torch.rand(batch, generator=generator, dtype=torch.float64) * count).long()
        row = torch.where(coin & (count > 0), self.copies[index, place], index)
        return PoolDraw(index=index, row=row)

    def take(self, draw: PoolDraw) -> tuple[Tensor, Tensor]:
        """(items, labels) of a draw."""
        return self.items[draw.row], self.labels[draw.index]

    def joined(self, other: Pool) -> Pool:
        """Both training sets in one, this one's images first; labels count in one list of classes. alpha is this one's."""
        own, more = len(self.labels), len(other.labels)
        made = len(self.items) - own
        items = torch.cat([self.items[:own], other.items[:more], self.items[own:], other.items[more:]])
        wide = max(self.copies.shape[1], other.copies.shape[1])
        copies = torch.zeros(own + more, wide, dtype=torch.int64)
        copies[:own, : self.copies.shape[1]] = self.copies + more
        copies[own:, : other.copies.shape[1]] = other.copies + own + made
        return Pool(
            items=items,
            labels=torch.cat([self.labels, other.labels]),
            copies=copies,
            counts=torch.cat([self.counts, other.counts]),
            alpha=self.alpha,
            fit=self.fit if self.fit == other.fit else None,
            middle=self.middle,
        )

    def fingerprint(self) -> str:
        """A hash of everything that a draw depends on, so that a training can tell whether a checkpoint is its own."""
        digest = hashlib.sha256(repr((tuple(self.items.shape), str(self.items.dtype), self.alpha)).encode())
        for part in (self.items, self.labels, self.copies, self.counts):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


class PixelBank:
    """Pictures as uint8 squares, each decoded once however many training sets it is part of.

    Args:
        size: side of the square in pixels.
        fit: how other shapes become it; see `data.geometry.Fit`.
        margin: hold all of the short side where a crop takes a share of it, at the same scale: crops of a training may lie anywhere.
    """

    def __init__(self, size: int, fit: str = "pad", *, margin: bool = False) -> None:
        self.fit = Fit(mode=fit, size=size)
        self.middle = size if margin and self.fit.short_side > size else None
        self._held: dict[str, Tensor] = {}

    @property
    def size(self) -> int:
        """Side in pixels of what is held."""
        return self.fit.size if self.middle is None else self.fit.short_side

    def of(self, images: ImageSet, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """(N, 3, size, size) uint8, in the set's order, not to be written to. Pictures are told apart by their pixels' hash.

        Args:
            progress: called with (pictures done, in all).
        """
        found = torch.empty(len(images), 3, self.size, self.size, dtype=torch.uint8)
        self.fill(found, images, progress)
        return found

    def fill(self, rows: Tensor, images: ImageSet, progress: Callable[[int, int], None] | None = None) -> None:
        """Put the pictures of a set into rows that lie there already; see `of`. What is new is held where it lies, once in memory."""
        new = len(set(images.digests) - self._held.keys()) * 3 * self.size**2
        most = 2 * new >= rows.untyped_storage().nbytes()  # else a few would keep all of it alive
        for row, digest in enumerate(images.digests):
            if digest in self._held:
                rows[row] = self._held[digest]
            else:
                image = images[row].image
                square = self.fit.to_model(image)[0] if self.middle is None else self.fit.with_margin(image)
                rows[row] = square.mul(255).round()
                self._held[digest] = rows[row] if most else rows[row].clone()
            if progress is not None:
                progress(row + 1, len(images))

    def forget(self) -> None:
        """Let go of all pictures."""
        self._held.clear()


def pool_of(real: ImageSet, synthetic: ImageSet | None, bank: PixelBank, alpha: float = 0.5) -> Pool:
    """The pool of a labelled set and, if given, what was made from it: those copies alone whose source is in the set.

    Raises:
        DataError: an unlabelled set, or synthetic images none of which belongs to a real one.
    """
    mixed = Mixed(real, synthetic, alpha)
    rows = sorted(row for own in mixed.copies for row in own)
    made = real.subset([]) if synthetic is None else synthetic.subset(rows)  # no other copy is ever drawn
    place = {row: number for number, row in enumerate(rows)}
    copies = [[place[row] for row in own] for own in mixed.copies]
    count = len(real) + len(made)
    check_memory(count * 3 * bank.size**2, f"{count:,} pictures of {bank.size} x {bank.size}", "a smaller size, or fewer pictures")
    items = torch.empty(count, 3, bank.size, bank.size, dtype=torch.uint8)  # one block: small ones fragment the memory
    bank.fill(items[: len(real)], real)
    bank.fill(items[len(real) :], made)
    return replace(Pool.build(items[: len(real)], labels_of(real), None, copies, alpha), items=items, fit=bank.fit.mode, middle=bank.middle)


def aligned_copies(real: ImageSet, made: ImageSet, bank: PixelBank) -> Tensor:
    """(N, 3, size, size) uint8: for each image of a set the one that was made from it before, such as DeepAugment's copies in a folder.

    They belong together by the copy's source or, where it names none, by equal ids (paths relative to the two folders), with or
    without their suffix.

    Raises:
        DataError: an image without a copy, with several, or with one that is known to be of another picture.
    """
    rows: dict[str, list[int]] = {}
    for row, (name, source) in enumerate(zip(made.ids, made.sources, strict=True)):
        rows.setdefault(_stem(name) if source is None else _stem(source), []).append(row)
    chosen = []
    for name, digest in zip(real.ids, real.digests, strict=True):
        own = rows.get(_stem(name), [])
        if len(own) != 1:
            what = "has no copy" if not own else f"has {len(own)} copies"
            raise DataError(f"{name} of {real.name} {what} in {made.name}; each image needs one, under the same name")
        if made.source_digests[own[0]] not in (None, digest):
            raise DataError(f"the copy of {name} in {made.name} was made from another picture of that name than the one of {real.name}")
        chosen.append(own[0])
    return bank.of(made)[chosen]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if "." in name.rsplit("/", 1)[-1] else name


def middle_of(pictures: Tensor, side: int | None) -> Tensor:
    """(..., side, side), what lies in the middle of (..., H, W); all of it for None. Raises DataError for smaller ones."""
    if side is None:
        return pictures
    if min(pictures.shape[-2:]) < side:
        raise DataError(f"pictures of {tuple(pictures.shape[-2:])} have no middle of {side} pixels; hold them at that side or larger")
    top, left = (round((have - side) / 2) for have in pictures.shape[-2:])  # as `Fit` rounds
    return pictures[..., top : top + side, left : left + side]


def labels_of(images: ImageSet) -> Tensor:
    """(N,) int64. Raises DataError where one is missing."""
    missing = [name for name, label in zip(images.ids, images.labels, strict=True) if label is None]
    if missing:
        raise DataError(
            f"{missing[0]} of {images.name} has no label; sort the images into one folder a class, or give a table of file and label"
        )
    return torch.tensor([label for label in images.labels if label is not None], dtype=torch.int64)
