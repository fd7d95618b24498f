"""Views that several classifiers are asked about: made once, however many classifiers look at them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ROOM = 2**29
"""Bytes of views that are held, by default: 10 views of each of 64 images at 224 pixels take 385 MB."""


class SharedViews:
    """The views that were made last, for ensembles of different classifiers.

    Choose it where classifiers are compared: the denoiser, nearly all of the cost, is then paid once, and all look at the very same views.
    Ensembles must be asked about the same images in turn; what was made longest ago is forgotten first.

    Args:
        room: bytes held, at most. With room for less than one turn nothing is ever found, and nothing is wrong.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.held = room, 0
        self._views: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, told: str, images: Tensor, member: Sequence[str], seeds: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """The view of each image, as it was made before or as `make` makes it.

        Args:
            told: all that decides a view but what follows: the settings of the ensemble, and in which numbers its denoiser works.
            images: (B, 3, H, W); member: B names of views; seeds: (B,) int64.
            make: rows (M,) int64 on the CPU -> their views (M, 3, H, W).
        """
        keys = self._keys(told, images, member, seeds)
        found = [self._views.get(key) for key in keys]
        missing = [row for row, view in enumerate(found) if view is None]
        if len(missing) == len(keys):
            made = views = make(torch.arange(len(keys)))
        else:
            made = make(torch.tensor(missing)) if missing else images[:0]
            for row, view in zip(missing, made, strict=True):
                found[row] = view
            views = torch.stack([view for view in found if view is not None])
        for row, view in zip(missing, made, strict=True):
            self._keep(keys[row], view)
        return views

    def clear(self) -> None:
        """Forget all."""
        self._views.clear()
        self.held = 0

    def _keep(self, key: bytes, view: Tensor) -> None:
        size = view.numel() * view.element_size()
        if size > self.room or key in self._views:
            return
        self._views[key], self.held = view.detach().clone(), self.held + size  # a part of a batch would hold all of it
        while self.held > self.room:
            _, oldest = self._views.popitem(last=False)
            self.held -= oldest.numel() * oldest.element_size()

    @staticmethod
    def _keys(told: str, images: Tensor, member: Sequence[str], seeds: Tensor) -> list[bytes]:
        head = hashlib.blake2b(f"{told} {tuple(images.shape[1:])} {images.dtype} {images.device}".encode(), digest_size=32)
        keys = []
        for image, name, seed in zip(images.detach().cpu(), member, seeds.tolist(), strict=True):
            digest = head.copy()
            digest.update(f" {name} {seed} ".encode())
            digest.update(image.contiguous().numpy().tobytes())
            keys.append(digest.digest())
        return keys
