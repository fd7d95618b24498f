"""Views that several classifiers are asked about: made once, however many classifiers look at them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

ROOM = 2**29
"""Bytes of views that are held, by default: 10 views of each of 64 images at 224 pixels take 385 MB."""


class SharedViews:
    """The views that were made last, for ensembles of one kind and of different classifiers.

    Choose it where classifiers are compared: the denoiser, nearly all of the cost, is then paid once, and all look at the very same views.
    Ensembles must be asked about the same images in turn; what was made longest ago is forgotten first.

    Args:
        room: bytes held, at most. With room for less than one turn nothing is ever found, and nothing is wrong.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self.held = room, 0
        self._views: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, told: str, images: Tensor, member: Tensor, seeds: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """The views of these images, as they were made before or as `make` makes them.

        Args:
            told: all that decides a view but what follows: the settings of the ensemble.
            images: (B, 3, H, W); member, seeds: (B,) int64.
        """
        key = self._key(told, images, member, seeds)
        found = self._views.get(key)
        if found is None:
            found = make()
            self._keep(key, found)
        return found

    def clear(self) -> None:
        """Forget all."""
        self._views.clear()
        self.held = 0

    def _keep(self, key: bytes, views: Tensor) -> None:
        size = views.numel() * views.element_size()
        if size > self.room:
            return
        self._views[key], self.held = views, self.held + size
        while self.held > self.room:
            _, oldest = self._views.popitem(last=False)
            self.held -= oldest.numel() * oldest.element_size()

    @staticmethod
    def _key(told: str, images: Tensor, member: Tensor, seeds: Tensor) -> bytes:
        digest = hashlib.blake2b(f"{told} {tuple(images.shape)} {images.dtype} {images.device}".encode(), digest_size=32)
        for part in (images, member, seeds):
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.digest()
