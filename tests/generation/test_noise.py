"""Runs without photos: named by class and number, without a source, continued like any other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.generation.conftest import CLASSES, RESULT, SIDE, Make, Varied, mixture, pixels, take_photos

from rediffuse.data import Mixed, folder
from rediffuse.errors import ConfigError, DataError
from rediffuse.generation import local
from rediffuse.generation.noise import noise_sources
from rediffuse.generation.provenance import report, verify
from rediffuse.generation.store import finished_shards, read_plan
from rediffuse.methods.from_noise import FromNoise


def drawn(make: Make, name: str = "out", each: int = 12, **options):
    return make(noise_sources(CLASSES, each, SIDE), name, FromNoise(mixture(), CLASSES, steps=4), **({"copies": 1} | options))


def test_pictures_have_a_class_and_no_source(make: Make):
    run = drawn(make)
    assert {child.name for child in run.folder.iterdir()} == RESULT
    assert Counter(run.labels) == {0: 12, 1: 12}
    assert set(run.sources) == {None}
    assert set(run.copies) == {0}
    assert len(set(run.digests)) == 24
    assert sorted(Path(name).name[:5] for name in run.ids if name.startswith("cat")) == [f"{number:05d}" for number in range(12)]
    rows = run.manifest.to_pylist()
    assert {row["source_id"] for row in rows} == {None}
    assert {(row["method"], row["strength"], row["geometry"]) for row in rows} == {("from_noise", 1.0, "unknown")}
    assert {variant.source_id for variant in read_plan(run.folder)} == {f"{name}/{number:05d}" for name in CLASSES for number in range(12)}
    assert folder(run.folder).sources == run.sources
    assert "drawn from noise" in (run.folder / "README.md").read_text()
    assert "changed copy" not in (run.folder / "README.md").read_text()
    assert "photos: noise (0 used), 2 classes" in report(run.folder)
    assert verify(run.folder) == []
    with pytest.raises(DataError, match="none of them names a source"):
        Mixed(take_photos(), run)


def test_a_run_from_noise_is_cut_and_continued(make: Make, monkeypatch):
    whole = drawn(make, "whole")
    monkeypatch.setattr(local, "SHARD_SECONDS", 0)
    run = drawn(make)
    assert len(finished_shards(run.folder)) == 3
    (run.folder / "manifest" / "shard-00001.parquet").unlink()
    (run.folder / "run.json").write_text((run.folder / "run.json").read_text().replace('"complete"', '"open"'))
    assert pixels(drawn(make)) == pixels(whole)
    more = drawn(make, "more", each=13)
    assert pixels(whole).items() <= pixels(more).items()


def test_the_price_says_that_there_are_no_photos(make: Make, capsys):
    drawn(make, dry_run=True, progress=True)
    assert "24 images from noise\n" in capsys.readouterr().err


def test_photos_and_noise_are_not_confused(make: Make):
    with pytest.raises(ConfigError, match="keep_real keeps the photos"):
        drawn(make, keep_real=True)
    with pytest.raises(ConfigError, match="takes no photos"):
        make(method=FromNoise(mixture(), CLASSES))
    with pytest.raises(ConfigError, match="holds blanks"):
        make(noise_sources(CLASSES, 2, SIDE), method=Varied(mixture(), CLASSES))
    with pytest.raises(ConfigError, match="copies must be at least 1, got 0"):
        noise_sources(CLASSES, 0, SIDE)
