"""Copies of a picture are found through noise, mirror and another size; look-alikes are not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tests.training.toys import striped
from torch import Tensor

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError
from rediffuse.evaluation.fidelity import duplicates as room
from rediffuse.evaluation.fidelity.duplicates import near_duplicates, similar
from rediffuse.evaluation.fidelity.features import Taken
from rediffuse.evaluation.results import read_result

TAKEN = Taken(size=16)


def coarse(images: Tensor) -> Tensor:
    """Colours of a grid of nine fields, and of its mirror image."""
    fields = torch.nn.functional.adaptive_avg_pool2d(images - 0.5, 3)
    return torch.cat([fields.flatten(1) + fields.flip(-1).flatten(1), (fields - fields.flip(-1)).abs().flatten(1)], dim=1)


def pictures() -> ImageSet:
    generator = np.random.default_rng(0)
    examples = []
    for row in range(12):
        small = Image.fromarray(generator.integers(0, 256, (4, 4, 3)).astype(np.uint8))
        examples.append(Example(id=f"p{row}", image=small.resize((16, 16), Image.Resampling.BICUBIC), label=None))
    return ImageSet.of(examples, classes=(), name="pictures")


def test_copies_are_found_and_look_alikes_are_not() -> None:
    originals = pictures()
    noisy = np.asarray(originals[3].image, dtype=np.float64) + np.random.default_rng(1).normal(0, 4, (16, 16, 3))
    changed = ImageSet.of(
        [
            Example(id="same", image=originals[1].image, label=None),
            Example(id="noisy", image=Image.fromarray(noisy.clip(0, 255).astype(np.uint8)), label=None),
            Example(id="mirror", image=ImageOps.mirror(originals[5].image), label=None),
            Example(id="larger", image=originals[7].image.resize((31, 31), Image.Resampling.BICUBIC), label=None),
            *(replace(example, id=f"s{row}") for row, example in enumerate(striped(1, size=16))),
        ],
        classes=[f"stripes {label}" for label in range(4)],
    )
    found = {pair.first: pair for pair in near_duplicates(changed, originals, extractor=coarse, taken=TAKEN)}
    assert {name: pair.second for name, pair in found.items()} == {"same": "p1", "noisy": "p3", "mirror": "p5", "larger": "p7"}
    assert [name for name, pair in found.items() if pair.identical] == ["same"]
    assert [name for name, pair in found.items() if pair.mirrored] == ["mirror"]
    assert (found["same"].rms, found["mirror"].rms) == (0, 0)
    assert found["noisy"].rms == pytest.approx(4 / 255, rel=0.15)
    loose = near_duplicates(changed, originals, extractor=coarse, taken=TAKEN, cosine=-1, rms=1, share=math.inf, neighbours=2)
    assert len(loose) == 2 * len(changed)
    assert [pair.cosine for pair in loose] == sorted((pair.cosine for pair in loose), reverse=True)
    assert loose.to_json()["settings"]["share"] is None  # JSON has no infinity


def test_pairs_save_themselves(tmp_path: Path) -> None:
    originals = pictures()
    more = [replace(example, id=f"s{row}") for row, example in enumerate(striped(1, size=16))]
    made = ImageSet.of([*originals[:2], *more], classes=[f"stripes {label}" for label in range(4)])
    found = near_duplicates(made, originals, extractor=coarse, taken=TAKEN)
    assert [pair.second for pair in found] == ["p0", "p1"]
    assert found[-1] == found.pairs[1]
    assert found[:1] == found.pairs[:1]
    there = read_result(found.save("pairs", tmp_path, command="test"))
    assert there.headline["pairs"].value == 2
    shared = there.headline["share"]
    assert shared.low is not None
    assert shared.high is not None
    assert shared.value == pytest.approx(2 / 6)
    assert shared.low < shared.value < shared.high
    assert [(row["first"], row["second"], row["identical"]) for row in there.rows] == [("p0", "p0", True), ("p1", "p1", True)]
    assert "6 pictures beside 12" in there.notes
    assert any("cosine: 0.85; rms: 0.12; share: 0.8; neighbours: 10; size: 16" in note for note in there.notes)
    assert found.to_json()["share"]["value"] == pytest.approx(2 / 6)


def test_flat_pictures_of_one_colour_are_no_copies(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    grounds = [np.array([30, 80, 60]) + generator.normal(0, 4, (16, 16, 3)).cumsum(0) / 2 for _ in range(8)]
    flat = [
        Example(id=f"f{row}", image=Image.fromarray(each.clip(0, 255).astype(np.uint8)), label=None) for row, each in enumerate(grounds)
    ]
    first, second = (ImageSet.of(flat[part], classes=(), name="flat") for part in (slice(0, 4), slice(4, 8)))
    given = {"extractor": coarse, "taken": TAKEN}
    assert len(near_duplicates(first, second, **given, share=math.inf)) == 16  # type: ignore[arg-type]
    assert not near_duplicates(first, second, **given)  # type: ignore[arg-type]
    noisy = [replace(each, image=each.image.point([max(0, level - 1) for level in range(256)] * 3)) for each in first]  # a level darker
    found = near_duplicates(ImageSet.of(noisy, classes=(), name="darker"), first, **given)  # type: ignore[arg-type]
    assert {(pair.first, pair.second) for pair in found} == {(name, name) for name in first.ids}
    plain, other = (
        ImageSet.of([replace(flat[0], image=Image.new("RGB", (16, 16), colour))], classes=(), name=colour) for colour in ("green", "blue")
    )
    apart = near_duplicates(plain, other, extractor=coarse, taken=TAKEN, cosine=-1, rms=1, share=math.inf)
    assert [pair.share for pair in apart] == [math.inf]
    assert [row["share"] for row in read_result(apart.save("flat", tmp_path, command="test")).rows] == [None]
    assert [pair.share for pair in near_duplicates(plain, plain, **given)] == [0]  # type: ignore[arg-type]


def test_neighbours_are_those_of_a_plain_sort_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(30, 5, generator=generator), torch.randn(41, 5, generator=generator)
    likeness = torch.nn.functional.cosine_similarity(first[:, None].double(), second[None].double(), dim=2)
    wanted = []
    for row, values in enumerate(likeness):
        near = [(int(place), float(values[place])) for place in values.argsort(descending=True)[:3] if values[place] >= 0.6]
        wanted += [(row, near)] if near else []
    assert wanted
    monkeypatch.setattr(room, "ROWS", 4)
    monkeypatch.setattr(room, "COLUMNS", 6)
    found = similar(first, second, 0.6, 3)
    assert [(row, [other for other, _ in near]) for row, near in found] == [(row, [other for other, _ in near]) for row, near in wanted]
    assert [value for _, near in found for _, value in near] == pytest.approx([value for _, near in wanted for _, value in near])


def test_features_are_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return coarse(images)

    originals = pictures()
    given = {"extractor": counted, "taken": TAKEN, "keep": tmp_path / "kept", "identity": {"features": "coarse"}}
    first = near_duplicates(originals, originals, **given)  # type: ignore[arg-type]
    assert sum(calls) == 24
    assert near_duplicates(originals, originals, **given) == first  # type: ignore[arg-type]
    assert sum(calls) == 24
    assert {(pair.first, pair.second) for pair in first if pair.identical} == {(name, name) for name in originals.ids}
    with pytest.raises(ConfigError, match="rms in"):
        near_duplicates(originals, originals, extractor=coarse, rms=2)
