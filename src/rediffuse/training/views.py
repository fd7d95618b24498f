"""The views of one step, made from a batch: a function of (seed, step, process), but for what a Bank remembers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rediffuse.checking import check_bytes, check_labels
from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.bank import Bank
from rediffuse.methods.diffaug import part_of
from rediffuse.training.augment import ViewLaw, generator_of
from rediffuse.training.classifier import to_unit
from rediffuse.training.objectives import Extra, Objective, Views
from rediffuse.training.pool import middle_of
from rediffuse.training.preprocessing import resize


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Pictures of one step on one process.

    images: (B, 3, H, W) uint8; labels: (B,) int64; index: (B,) int64, places in the training set; crops: (B, ...) drawn by `law` for the
    clean view; key: what the step's chance is a function of; middle: side of what is judged, where more is held.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    crops: Tensor
    law: ViewLaw
    size: tuple[int, int]
    classes: int
    device: torch.device
    key: tuple[int | str, ...]
    middle: int | None = None

    def rows(self, rows: Tensor) -> Batch:
        """Some of the pictures."""
        parts = {name: getattr(self, name)[rows] for name in ("images", "labels", "index", "crops")}
        return replace(self, **parts)

    def generator(self, *purpose: int | str) -> torch.Generator:
        return generator_of(*purpose, *self.key)


def make_views(objective: Objective, batch: Batch) -> Views:
    """All views that the objective asks for, on the batch's device. No gradient passes into them."""
    own = batch.law.apply(to_unit(batch.images.to(batch.device)), batch.crops, batch.size)
    labels = batch.labels.to(batch.device)
    with torch.no_grad():
        extras = tuple(make_extra(extra, batch, own, f"extra {place}") for place, extra in enumerate(objective.extras))
        clean = _stand_in(objective, batch, own)
        mixes = () if objective.augmix is None else tuple(_seeded(objective.augmix, batch, f"augmix {k}")(clean) for k in range(2))
        if objective.soft is None:
            return Views(clean=clean, labels=labels, mixes=mixes, extras=extras)
        mixed, target = objective.soft.apply(clean, labels, batch.classes, batch.generator("soft"))
        return Views(clean=mixed, labels=labels, extras=extras, target=target)


def make_extra(extra: Extra, batch: Batch, own: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """A view and its labels. own: (B, 3, H, W), the clean crops, for views that are aligned with them."""
    if extra.share < 1:
        rows = _share_of(len(batch.labels), extra.share, batch.generator(name, "share"))
        batch, own = batch.rows(rows), own[rows.to(own.device)]
    labels = batch.labels.to(batch.device)
    if len(labels) == 0:
        return own, labels
    if extra.draws is not None and isinstance(extra.method, Bank):
        return read_own(extra.method, extra.draws, batch, name)
    images = _start(extra, batch, own, name)
    if extra.method is None:
        return images, labels
    if isinstance(extra.method, Bank):
        views, labels = _seeded(extra.method, batch, name)(images, labels)
        check_labels(labels, batch.classes, "the bank's label")
    else:
        views = _seeded(extra.method, batch, name)(images)
    return views.to(batch.device), labels.to(batch.device)


def read_own(bank: Bank, draws: int, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """For each picture one of its own views in a bank that `fill_bank` filled, newly cropped.

    Raises DataError where the bank holds other pictures than these.
    """
    generator = batch.generator(name)
    count, left = divmod(bank.written, draws)
    if left or bank.held != bank.written or bool((batch.index >= count).any()):
        raise DataError(
            f"the bank holds {bank.held} of {bank.written} views, which are not {draws} of each picture; fill it with fill_bank"
        )
    turn = torch.randint(draws, batch.index.shape, generator=generator)
    views, labels = bank.read(bank.draw_of(turn * count + batch.index, generator), batch.device)
    if not torch.equal(labels.cpu(), batch.labels.cpu()):
        raise DataError("the labels in the bank are not those of the pictures; it was filled from another training set")
    return views, labels


def check_training_set(objective: Objective, items: Tensor, labels: Tensor, classes: int) -> None:
    """Whether all that a training starts from is what it reads it as.

    Args:
        items: uint8 (N, 3, H, W), the real pictures first.
        labels: (M,) int64 in [0, classes), of the real ones.
    Raises:
        DataError: pictures of another type or shape, the extras' among them, a label outside the classes, or an extra's pictures that are
            more or fewer.
    """
    check_bytes(items, "pictures of a training set")
    check_labels(labels, classes)
    for extra in (*objective.extras, *objective.stand_ins):
        if extra.pictures is not None:
            check_bytes(extra.pictures, "pictures of an Extra")
            if len(extra.pictures) != len(labels):
                found = len(extra.pictures)
                raise DataError(f"an Extra's pictures take the place of {len(labels)} pictures, got {found}; give one for each")


@torch.no_grad()
def fill_bank(
    bank: Bank, images: Tensor, labels: Tensor, draws: int, size: tuple[int, int], *, chunk: int = 256, progress: Any = None
) -> None:
    """Put `draws` views of every picture into a bank, pass by pass in the order of the training set; what is there already stays.

    One such bank serves every arm and seed of a comparison: `Extra(method=Bank(None, rate=0, path=...), draws=draws)`.

    Args:
        bank: over a file, so that an interrupted filling goes on, in its seed if it is the same; its capacity at least draws * N.
        images: (N, 3, H, W) uint8, such as `Pool.judged` gives; labels: (N,) int64.
        size: (height, width) of the views.
        chunk: pictures a call.
        progress: called with (views made, in all).
    """
    total = draws * len(images)
    if bank.capacity < total:
        raise ConfigError(f"{draws} views of {len(images)} pictures need a bank of capacity {total}, got {bank.capacity}")
    while bank.written < total:
        first = bank.written % len(images)
        rows = slice(first, min(first + chunk, len(images)))
        key = (bank.seed, bank.written) if bank.seed else (bank.written,)  # so that files that seed 0 filled stay as they are
        bank.manual_seed(generator_of("fill", *key).initial_seed())
        bank.add(resize(to_unit(images[rows]), size), labels[rows])
        if progress is not None:
            progress(bank.written, total)


def _share_of(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Rows of a view's part of a batch: one at least, else its term would be left out now and then and weigh less than 1."""
    rows = part_of(count, share, generator)
    return rows if len(rows) or not count else torch.randint(count, (1,), generator=generator)


def _start(extra: Extra, batch: Batch, own: Tensor, name: str) -> Tensor:
    """The pixels that a view starts from."""
    if extra.source == "aligned":
        return own
    pictures = batch.images if extra.pictures is None else extra.pictures[batch.index]
    unit = to_unit(pictures.to(batch.device))
    if extra.source == "centre":
        return resize(middle_of(unit, batch.middle), batch.size)
    return batch.law.apply(unit, batch.law.draw(len(unit), batch.generator(name, "crop")), batch.size)


def _stand_in(objective: Objective, batch: Batch, own: Tensor) -> Tensor:
    """The clean view, where stand-ins may have taken a picture's place."""
    if not objective.stand_ins:
        return own
    chosen = torch.randint(len(objective.stand_ins) + 1, batch.labels.shape, generator=batch.generator("stand-in"))
    clean = own.clone()
    for place, extra in enumerate(objective.stand_ins):
        rows = (chosen == place + 1).nonzero().flatten()
        if len(rows):
            here = rows.to(own.device)
            clean[here], _ = make_extra(replace(extra, share=1.0), batch.rows(rows), own[here], f"stand-in {place}")
    return clean


def _seeded(method: Any, batch: Batch, name: str) -> Any:
    """The method, its stream at the place that belongs to this step."""
    return method.manual_seed(batch.generator(name, "method").initial_seed())
