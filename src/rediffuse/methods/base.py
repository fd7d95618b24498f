"""Draw, then apply: what every augmentation is made of.

A `Draw` holds what chance decided, one value a sample; `apply` is a pure function of images and draw. A manifest stores the draw and a
replay reads it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from rediffuse.checking import check_tensor
from rediffuse.denoisers.pixel import fitting
from rediffuse.errors import ConfigError, DataError


class Draw:
    """Base of frozen dataclasses whose fields are tensors with one entry a sample.

    A field names its type: `seed: Tensor = field(metadata={"dtype": torch.int64})`.
    """

    def __post_init__(self) -> None:
        lengths = set()
        for name, dtype in self._dtypes().items():
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.ndim != 1 or value.dtype != dtype:
                found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ConfigError(f"{name} of {type(self).__name__} must be a (B,) tensor of {dtype}, got {found}")
            lengths.add(len(value))
        if len(lengths) != 1:
            raise ConfigError(f"the fields of {type(self).__name__} must have one length, got {sorted(lengths)}")

    @classmethod
    def _dtypes(cls) -> dict[str, torch.dtype]:
        return {f.name: f.metadata["dtype"] for f in fields(cls)}  # type: ignore[arg-type]  # subclasses are dataclasses

    def __len__(self) -> int:
        return len(getattr(self, next(iter(self._dtypes()))))

    def index(self, rows: Tensor | Sequence[int] | slice) -> Self:
        """The samples asked for, in that order; a row may come twice. A tensor of bool is a mask."""
        mask = isinstance(rows, Tensor) and rows.dtype is torch.bool
        picked = rows if isinstance(rows, slice) or mask else torch.as_tensor(rows, dtype=torch.int64)
        return type(self)(**{name: getattr(self, name)[picked] for name in self._dtypes()})

    def to_rows(self) -> list[dict[str, Any]]:
        """One dictionary of plain numbers a sample, for a table or JSON."""
        columns = {name: plain(getattr(self, name)) for name in self._dtypes()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Self:
        """Back from `to_rows`; further columns are ignored."""
        rows = list(rows)
        return cls(**{name: torch.tensor([row[name] for row in rows], dtype=dtype) for name, dtype in cls._dtypes().items()})


@dataclass(frozen=True, eq=False, kw_only=True)
class SeedDraw(Draw):
    """A view as one number an image: seed (B,) int64, of which everything else about the view is a function."""

    seed: Tensor = field(metadata={"dtype": torch.int64})

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.seed < 0).any()):
            raise ConfigError(f"a seed must not be negative, got {int(self.seed.min())}")

    @classmethod
    def of(cls, count: int, generator: torch.Generator) -> SeedDraw:
        """`count` seeds."""
        return cls(seed=torch.randint(2**63 - 1, (count,), generator=generator))


def plain(values: Tensor) -> list[Any]:
    """Python numbers; a float32 becomes the shortest decimal that reads back as the same float32.

    0.7 stays 0.7 and not 0.699999988: with 50 steps that is one step more or less.
    """
    if values.dtype == torch.float32:
        return [float(str(value)) for value in values.detach().cpu().numpy().astype(np.float32)]
    return values.tolist()


D = TypeVar("D", bound=Draw)


class Method(nn.Module, ABC, Generic[D]):
    """Base class of every augmentation: an nn.Module that draws and applies.

    Called as `images, labels = method(images, labels)` it sits in a training loop, a collate function or
    `torchvision.transforms.v2.Compose`. Without a generator, draws come from a stream of its own (`manual_seed`), never from the global
    random state; each worker of a DataLoader gets its own stream.
    """

    name: ClassVar[str]
    citation: ClassVar[str]
    built_on: ClassVar[tuple[str, ...]] = ()
    """BibTeX of the methods that this one is made of."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "apply" in vars(cls):
            cls.apply = _beside_modules(cls.apply)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self._seed = secrets.randbits(63)
        self._stream: torch.Generator | None = None
        self._owner: tuple[int, int] = (-1, -1)

    def manual_seed(self, seed: int) -> Self:
        """Start the stream of draws anew, so that a loop can be repeated."""
        self._seed, self._stream = seed, None
        return self

    def generator(self) -> torch.Generator:
        """The stream that draws come from when none is given."""
        worker = get_worker_info()
        owner = (os.getpid(), -1 if worker is None else worker.seed)
        if self._stream is None or owner != self._owner:  # a copy of the parent's stream would give every worker the same draws
            key = f"{self._seed}/{owner[1]}"
            self._stream = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1)
            self._owner = owner
        return self._stream

    @abstractmethod
    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> D:
        """Decide by chance what happens to each sample. labels: (B,) int64, where the method needs them."""

    @abstractmethod
    def apply(self, images: Tensor, draw: D) -> Tensor:  # type: ignore[override]
        """Do what was drawn: a pure function. images: float (B, 3, H, W) in [0, 1]; returns the same shape.

        With a function alone it is the `apply(fn)` of torch modules, which models call on all that they hold.
        """

    def forward(self, images: Tensor, *rest: Any) -> Any:
        """Draw and apply.

        Images: (B, 3, H, W) or (3, H, W). The rest passes through, whatever it is; methods that steer by class take its first for labels.
        """
        if not isinstance(images, Tensor):
            raise DataError(
                f"{type(self).__name__} takes tensors in [0, 1], got {type(images).__name__}; make it one: pixels / 255, channels first"
            )
        batch = images if images.ndim == 4 else images.unsqueeze(0)
        views = self.apply(batch, self._draw_for(batch, rest))
        views = views if images.ndim == 4 else views.squeeze(0)
        return (views, *rest) if rest else views

    def _draw_for(self, images: Tensor, rest: tuple[Any, ...]) -> D:
        """The draw of `forward`, which knows the batch itself and all that came with it."""
        return self.draw(len(images))


def _beside_modules(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A method's `apply` that still is the one of torch modules where a function comes alone."""

    @wraps(apply)
    def either(self: Method[Any], images: Any, *draw: Any, **named: Any) -> Any:
        if callable(images) and not (draw or named):
            return nn.Module.apply(self, images)
        return apply(self, images, *draw, **named)

    return either


def check_images(images: Tensor, multiple_of: int = 1) -> Tensor:
    """Return a batch as it came, or raise DataError with what is wrong and the fix. images: float (B, 3, H, W) in [0, 1]."""
    shape = tuple(images.shape)
    if images.ndim != 4:
        raise DataError(f"images must have shape (B, 3, H, W), got {shape}; one image is images[None], channels come first")
    check_tensor(images)
    if shape[2] % multiple_of or shape[3] % multiple_of:
        near = " x ".join(str(fitting(side, multiple_of)) for side in shape[2:])
        raise DataError(
            f"height and width must be multiples of {multiple_of} for this model, got {shape[2]} x {shape[3]}; resize to {near}"
        )
    return images


def check_draw(images: Tensor, draw: Draw) -> None:
    """Raise ConfigError unless there is a draw for each image of the batch."""
    if len(draw) != len(images):
        raise ConfigError(f"there are {len(images)} images for {len(draw)} draws; one each is needed")
