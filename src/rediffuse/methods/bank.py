"""A bank of denoised pictures: most views of a batch are old ones under a new crop, few are made anew.

`views, labels = bank(images, labels)` stands wherever `views, labels = diffaug(images, labels)` does, at `rate` of its cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.methods.bank_file import BankShape, BankStore, create, in_memory, open_store
from rediffuse.methods.base import check_images
from rediffuse.methods.crops import CropDraw, crop, draw_crops
from rediffuse.methods.diffaug import DiffAug, part_of

CAPACITY = 8192
WARMUP = 1024

Source = Literal["denoised", "original"]
"""What the bank holds. original: the control, the same pictures, repetitions and crops without diffusion; the denoiser is not called."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ReuseDraw(CropDraw):
    """Which pictures come again, and how they are cropped. entry: (B,) int64, the how-manieth picture ever written."""

    entry: Tensor = field(metadata={"dtype": torch.int64})


class Bank:
    """A ring of the latest denoised pictures, each with its own label, from which views are taken again and again.

    Choose it where the denoiser costs more than the classifier. Of each batch a random part is denoised, returned in its place and
    written to the ring; the other rows are pictures of the ring, uniform over it, padded, cropped, perhaps mirrored, and come with the
    labels that they have. rate=1 is DiffAug itself. Until `warmup` pictures are there, whole batches are denoised.

    It belongs in the loop, not in the workers of a DataLoader, which would each have a copy of it.

    It lives in memory, or over a file: what that holds is taken up, `clear` empties it. A file has one writer, so a
    second Bank with a method is refused as long as the first one lives; of those without a method there may be many.

    Args:
        method: makes the views; its own fraction must be 1. None only reads a file that is there.
        rate: share of a batch that is denoised, in [0, 1]; 0 only reads what `add` or a file brought.
        capacity: pictures that are held; default: the file's, or 8,192.
        warmup: pictures that must be there before any comes again; at most the capacity counts.
        padding: pixels around a picture before it is cropped; default: an eighth of its side.
        flips: mirror half of what comes again; False where a mirror image has another label (digits).
        source: "denoised", or "original" for the control.
        path: a file to keep the pictures in, a byte a number.
        spare: old pictures that a file keeps beside those held, so that training can go back to a checkpoint since which no more were
            written; default: as many as the capacity. 0 for a bank that is filled once.
        seed: of all that the bank decides by chance, method included.
    Raises:
        ConfigError: a setting out of range; a file that another method, or other settings, filled, or that another Bank writes; a call in
            a DataLoader worker.
        DataError: a file that is no bank, is damaged, or does not fit on the disk.
    """

    def __init__(
        self,
        method: DiffAug | None,
        rate: float = 0.25,
        capacity: int | None = None,
        *,
        warmup: int = WARMUP,
        padding: int | None = None,
        flips: bool = True,
        source: Source = "denoised",
        path: str | Path | None = None,
        spare: int | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ConfigError(f"rate is a share of the batch and must be in [0, 1], got {rate}")
        if source not in get_args(Source):
            raise ConfigError(f"source must be one of {', '.join(get_args(Source))}, got {source!r}")
        for name, value, least in (("capacity", capacity, 1), ("warmup", warmup, 0), ("padding", padding, 0), ("spare", spare, 0)):
            if value is not None and value < least:
                raise ConfigError(f"{name} is a number and must be at least {least}, got {value}")
        if method is not None and method.fraction != 1:
            raise ConfigError(f"a bank decides by its rate what is denoised; give it a DiffAug of fraction 1, got {method.fraction}")
        self.path = None if path is None else Path(path).expanduser()
        if method is None and (rate > 0 or self.path is None):
            raise ConfigError("a bank without a method only reads: give rate=0 and the path of a bank that is there")
        self.method, self.rate, self.source, self.flips = method, float(rate), source, flips
        self.warmup, self.padding, self.spare, self.seed = warmup, padding, spare, seed
        self.written = self._begun = 0
        self._store: BankStore | None = None
        if self.path is not None and (method is None or self.path.exists()):
            self._store = open_store(self.path, writable=method is not None)
            self.written = int(self._store.counts[0])
            self._begun = int(self._store.counts[1])
        self.capacity = (CAPACITY if self._store is None else self._store.shape.capacity) if capacity is None else capacity
        self._check_store()
        self.manual_seed(seed)

    @property
    def held(self) -> int:
        """Pictures that can come again."""
        if self._store is None:
            return 0
        torn = max(0, self._begun - self.written)  # a killed writer touched so many slots beyond what it finished
        return max(0, min(self.written, self.capacity, self._store.shape.slots - torn))

    @property
    def lacking(self) -> int:
        """Pictures that are yet to be made before any comes again."""
        return 0 if self.rate == 0 else max(0, min(self.warmup, self.capacity) - self.held)

    def manual_seed(self, seed: int) -> Self:
        """Start the stream of chance anew. With a seed for each step, what a step does does not depend on how the run got there."""
        self._stream = torch.Generator().manual_seed(seed)
        return self

    def clear(self) -> None:
        """Forget all pictures."""
        self.written = self._begun = 0
        if self._store is not None:
            self._store.counts.zero_()

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Views and their labels, in the place of a batch. images: (B, 3, H, W) in [0, 1]; labels: (B,) int64."""
        labels = self._check(images, labels)
        count, device = len(images), images.device if self.method is None else self.method.denoiser.device
        rows = torch.arange(count) if self.lacking else part_of(count, self.rate, self._stream)
        views = torch.empty(images.shape, device=device)
        found = labels.clone()
        if len(rows):
            views[rows.to(device)] = self.add(images[rows.to(images.device)], labels[rows.to(labels.device)]).to(device)
        again = torch.ones(count, dtype=torch.bool).index_fill(0, rows, False).nonzero().flatten()
        if len(again):
            views[again.to(device)], own = self.read(self.draw(len(again)), device)
            found[again.to(labels.device)] = own.to(labels.device)
        return views, found

    def add(self, images: Tensor, labels: Tensor) -> Tensor:
        """Make a view of every picture, write it with its label, and return it. (B, 3, H, W) -> the same."""
        labels = self._check(images, labels)
        if self.method is None:
            raise ConfigError("this bank was opened without a method and only reads; open it with the DiffAug that fills it")
        if len(images) > self.capacity:
            raise ConfigError(f"a bank of {self.capacity} pictures cannot take {len(images)} at once; raise its capacity")
        draw = self.method.draw(len(images), self._stream, size=min(images.shape[2:]))  # also for the control: the same chance decides
        views = images.float() if self.source == "original" else self.method.apply(images, draw)
        if self._store is None:
            shape = self._shape(images)
            self._store = in_memory(shape) if self.path is None else create(self.path, shape)
        self._store.write(self.written, views.detach().cpu().mul(255).round().clamp(0, 255).to(torch.uint8), labels.cpu())
        self.written += len(images)
        return views

    def draw(self, count: int, generator: torch.Generator | None = None) -> ReuseDraw:
        """Pictures that come again, uniform over what is held, and their crops."""
        self._shown()
        generator, held = self._stream if generator is None else generator, self.held
        return self.draw_of(self.written - held + torch.randint(held, (count,), generator=generator), generator)

    def draw_of(self, entry: Tensor, generator: torch.Generator | None = None) -> ReuseDraw:
        """Crops of pictures that are given: entry (B,) int64, i for the i-th that was ever written, from 0."""
        crops = draw_crops(len(entry), self._around(), self.flips, self._stream if generator is None else generator)
        return ReuseDraw(entry=entry, top=crops.top, left=crops.left, mirror=crops.mirror)

    def read(self, draw: ReuseDraw, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Views (B, 3, H, W) float32 in [0, 1] and labels (B,) int64 of a draw."""
        store, first = self._shown(), self.written - self.held
        if bool((draw.entry < first).any() or (draw.entry >= self.written).any()):
            raise DataError(f"the bank holds the pictures {first} to {self.written - 1}, asked for were others")
        slots = draw.entry % store.shape.slots
        pictures = crop(store.images[slots].to(device), draw, self._around())
        return pictures.float() / 255, store.labels[slots].to(device)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: count, stream and, where they lie in memory, the pictures."""
        state: dict[str, Any] = {"made_by": self.made_by, "capacity": self.capacity, "written": self.written}
        state["stream"] = self._stream.get_state()
        if self._store is not None and self.path is None:
            state["images"], state["labels"] = self._store.images[: self.held].clone(), self._store.labels[: self.held].clone()
        elif self._store is not None:
            self._store.flush()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as if nothing had happened. Raises ModelError where that cannot be."""
        for name in ("made_by", "capacity"):
            if state[name] != getattr(self, name):
                raise ModelError(f"this state belongs to a bank with {name} {state[name]}; here it is {getattr(self, name)}")
        written = int(state["written"])
        if written and ("images" in state) != (self.path is None):
            raise ModelError("this state is of a bank in memory and here is one over a file, or the other way round; open it as it was")
        if "images" in state:
            self._store, held = in_memory(self._shape(state["images"])), len(state["images"])
            self._store.images[:held], self._store.labels[:held] = state["images"], state["labels"]
            self._store.counts.fill_(written)
        elif not written:
            self.clear()
        else:
            self._check_past(written)
        self.written = written
        self._stream.set_state(state["stream"])

    @property
    def made_by(self) -> str:
        """What the pictures are: the denoiser and its numbers, the method's settings and the source, as JSON."""
        if self.method is None:
            return "" if self._store is None else self._store.shape.made_by
        denoiser = self.method.denoiser
        numbers = str(getattr(denoiser, "dtype", torch.float32)).removeprefix("torch.")  # of which its fingerprint says nothing
        made = {"source": self.source, "denoiser": denoiser.fingerprint(), "numbers": numbers, **self.method.settings()}
        return json.dumps(made, sort_keys=True)

    def _shape(self, images: Tensor) -> BankShape:
        spare = 0 if self.path is None else self.capacity if self.spare is None else self.spare
        height, width = images.shape[2:]
        return BankShape(capacity=self.capacity, slots=self.capacity + spare, height=height, width=width, made_by=self.made_by)

    def _around(self) -> int:
        """Pixels of padding."""
        return min(self._shown().images.shape[2:]) // 8 if self.padding is None else self.padding

    def _shown(self) -> BankStore:
        if self._store is None or not self.held:
            raise DataError("the bank is empty: nothing can come again; fill it with `add`, or give a rate above 0")
        return self._store

    def _check(self, images: Tensor, labels: Tensor) -> Tensor:
        """The labels as int64."""
        if get_worker_info() is not None:  # a copy of the ring and of the stream: other pictures than the loop's, the same chance each time
            raise ConfigError(
                "a bank in a DataLoader worker would be a copy that forgets what it made; take it out of the data set and call it on whole "
                "batches:\n    for images, labels in loader:\n        views, labels = bank(images, labels)"
            )
        check_images(images)
        if not isinstance(labels, Tensor) or labels.shape != images.shape[:1] or labels.dtype.is_floating_point:
            found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise DataError(f"a bank needs one whole number a picture as its label, ({len(images)},) here, got {found}")
        if self._store is not None and images.shape[1:] != self._store.images.shape[1:]:
            raise DataError(f"the bank holds pictures {tuple(self._store.images.shape[1:])}, got {tuple(images.shape[1:])}; give one size")
        return labels.to(torch.int64)

    def _check_store(self) -> None:
        """Whether the file that was there is this bank's."""
        if self._store is None:
            return
        shape = self._store.shape
        if shape.capacity != self.capacity:
            raise ConfigError(f"the bank {self.path} has a capacity of {shape.capacity}, asked for was {self.capacity}; leave it out")
        if shape.made_by != self.made_by:
            raise ConfigError(
                f"the bank {self.path} was filled by {shape.made_by}, this one is filled by {self.made_by}; give another path"
            )

    def _check_past(self, written: int) -> None:
        """Whether the file still holds all that it held when `written` pictures had been written."""
        if self._store is None:
            raise ModelError(f"the bank {self.path} is gone, which held pictures when this state was saved; begin again")
        spare, past = self._store.shape.slots - self.capacity, int(self._store.counts[1])
        if not written <= past <= written + spare:
            raise ModelError(
                f"the bank {self.path} no longer holds what it held when this state was saved: {written} pictures had been written then, "
                f"{past} have now, and it keeps {spare} old ones; begin again, with a larger spare or more checkpoints"
            )
