"""Where frost comes from, and that it says so."""

from __future__ import annotations

import numpy as np
import pytest

from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.frost import frost_overlays, photo_folder


def test_drawn_frost_is_always_there_and_the_same() -> None:
    found = frost_overlays(32, "drawn")
    frost_overlays.cache_clear()
    assert (found.comparable, found.source, len(found.photos)) == (False, "drawn", 5)
    assert found.digest == frost_overlays(32, "drawn").digest
    assert len({photo.tobytes() for photo in found.photos}) == 5
    for photo in found.photos:
        assert photo.dtype == np.uint8
        assert photo.shape[0] == 3
        assert photo.std() > 10


@pytest.mark.parametrize("side", [32, 100, 224, 700])
def test_no_picture_is_larger_than_its_frost(side: int) -> None:
    assert all(min(photo.shape[1:]) > side for photo in frost_overlays(side, "auto").photos)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="auto, photos or drawn"):
        frost_overlays(32, "real")
    if photo_folder() is None:
        with pytest.raises(ConfigError, match=r"\.\[corruptions\]"):
            frost_overlays(32, "photos")
    else:
        assert frost_overlays(32, "photos").comparable
