"""Rows that are functions of their own source; shards that keep sources together; prices before anything runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.generation.conftest import CLASSES, SIDE, Varied, mixture, picture, take_photos

from rediffuse.data import Example, ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.generation.difference import difference
from rediffuse.generation.plan import REAL, Plan, Settings, Variant, copies_of_each, cut, draw_of, file_stem, tabulate, variant_from_row
from rediffuse.generation.pricing import gigabytes, price
from rediffuse.methods.real_guidance import RealGuidance

METHOD = Varied(mixture(), CLASSES)


def settings(**options) -> Settings:
    return Settings(**({"side": SIDE, "copies": 5} | options))


def by_name(variants: tuple[Variant, ...]) -> dict[str, Variant]:
    return {variant.file_name: replace(variant, shard=0) for variant in variants}


def planned(variants: tuple[Variant, ...], batch: int = 2, **options) -> Plan:
    facts = {"settings": {}, "classes": CLASSES, "denoiser": "", "threads": 1, "dtype": "float32"} | options
    return Plan(variants=cut(variants, batch, 0), batch=batch, **facts)


def test_a_further_photo_changes_no_other_row():
    fewer, more = take_photos(each=3), take_photos(each=5)
    before, after = by_name(tabulate(fewer, METHOD, settings())), by_name(tabulate(more, METHOD, settings()))
    assert before.keys() < after.keys()
    assert {name: after[name] for name in before} == before


def test_neither_do_order_and_further_copies_change_the_noise():
    photos = take_photos()
    rows = tabulate(photos, METHOD, settings())
    backwards = tabulate(photos.subset(range(len(photos))[::-1]), METHOD, settings())
    assert by_name(rows) == by_name(backwards)
    more = by_name(tabulate(photos, METHOD, settings(copies=9)))
    assert all(more[name].seed == row.seed for name, row in by_name(rows).items())


def test_other_pixels_names_or_seeds_are_other_noise():
    def rows(name: str = "a.png", pixels: int = 0, seed: int = 0) -> list[int | None]:
        photos = ImageSet.of([Example(id=name, image=picture(pixels), label=0)], classes=CLASSES)
        return [row.seed for row in tabulate(photos, METHOD, settings(seed=seed))]

    same, others = rows(), [rows("b.png"), rows(pixels=1), rows(seed=1)]
    assert rows() == same
    assert len({*same, *(seed for other in others for seed in other)}) == 20
    assert all(seed is not None and 0 <= seed < 2**63 for seed in same)


def test_strengths_are_stratified_over_the_copies_of_a_photo():
    rows = tabulate(take_photos(), METHOD, settings(copies=8))
    for source in {row.source_id for row in rows}:
        assert set(Counter(row.strength for row in rows if row.source_id == source).values()) == {2}
    assert {row.calls for row in rows} == {2, 4, 6, 8}
    assert {row.prompt for row in rows} == {"a photo of a cat", "a photo of a dog"}


def test_rows_survive_a_table_and_give_the_draw_back():
    rows = tabulate(take_photos(), METHOD, settings(keep_real=True))
    plan = planned(rows)
    assert tuple(variant_from_row(row) for row in plan.rows()) == plan.variants
    made = [row for row in rows if row.copy != REAL]
    draw = draw_of(made, METHOD)
    assert draw.seed.tolist() == [row.seed for row in made]
    assert draw.label.tolist() == [row.label for row in made]
    real = next(row for row in rows if row.copy == REAL)
    assert (real.strength, real.seed, real.prompt, real.calls) == (None, None, None, 0)


def test_labels_are_matched_by_name():
    photos = take_photos(("dog", "cat"), each=1)
    rows = tabulate(photos, METHOD, settings())
    assert {(row.label, row.class_name, row.prompt) for row in rows} == {(0, "dog", "a photo of a dog"), (1, "cat", "a photo of a cat")}
    assert set(draw_of([row for row in rows if row.class_name == "dog"], METHOD).label.tolist()) == {1}


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 40), st.integers(0, 200))
def test_shards_keep_sources_together_and_are_no_smaller_than_four_batches(each: int, batch: int, copies: int, steps: int):
    some = tabulate(take_photos(each=1), METHOD, settings())[0]
    rows = [replace(some, file_name=f"{n}-{m}", source_id=str(n), copy=m, calls=3) for n in range(each) for m in range(copies)]
    shards = Plan(settings={}, variants=cut(rows, batch, steps), classes=(), denoiser="", batch=batch, threads=1, dtype="").shards()
    assert [replace(row, shard=0) for shard in shards for row in shard] == rows
    homes = [{row.source_id for row in shard} for shard in shards]
    assert sum(map(len, homes)) == len(set().union(*homes)) == each
    assert len(shards) == 1 or min(map(len, shards)) >= 4 * batch
    assert all(len(shard) <= max(32 * batch, copies) + 4 * batch for shard in shards)
    assert all(3 * len(shard) >= min(steps, 3 * 28 * batch) - 3 * copies for shard in shards[:-1])


def test_an_equal_plan_has_an_equal_hash_however_it_is_cut():
    rows = tabulate(take_photos(), METHOD, settings())
    assert planned(rows).hash == planned(rows, batch=1).hash
    assert planned(rows).hash != planned(rows[1:]).hash
    assert planned(rows).hash != planned(rows, settings={"copies": 4}).hash


def test_a_target_fills_every_class():
    examples = [Example(id=str(row), image=picture(row), label=int(row > 1)) for row in range(9)]  # two cats, seven dogs
    photos = ImageSet.of(examples, classes=CLASSES)
    for keep in (False, True):
        rows = tabulate(photos, METHOD, settings(target_per_class=9, keep_real=keep))
        assert Counter(row.class_name for row in rows) == {"cat": 9, "dog": 9}
    copies = copies_of_each(photos, settings(target_per_class=9))
    assert sorted(copies[:2]) == [4, 5]
    assert sorted(copies[2:]) == [1, 1, 1, 1, 1, 2, 2]
    full = tabulate(photos, METHOD, settings(target_per_class=4, keep_real=True))
    assert Counter(row.class_name for row in full) == {"cat": 4, "dog": 7}  # a class that has more keeps its photos


def test_file_names_are_safe_and_distinct():
    odd = [
        "a b.png",
        "A B.png",
        "-rf.png",
        "../up.png",
        "x/../../y.png",
        'quote".png',
        "naïve.png",
        "日本.png",
        "con.png",
        "." * 5,
        "a" * 300,
        " ",
    ]
    stems = [file_stem(name) for name in odd]
    assert len({stem.casefold() for stem in stems}) == len(odd)
    for stem in stems:
        assert stem.isascii()
        assert len(stem) < 64
        assert not set(stem) & set("/\\:*?\"<>|. '")
        assert stem[0] not in "-."


def test_the_difference_is_told_in_words():
    photos, base = take_photos(), {"copies": 4, "method": {"steps": 24, "strengths": [0.25, 0.5]}}
    rows = tabulate(photos, METHOD, settings())
    assert difference((base, rows), (base, rows)) == []
    assert difference((base, rows), (base, rows[::-1])) == []
    other = {"copies": 5, "method": {"steps": 24, "strengths": [0.5]}}
    assert difference((base, rows), (other, rows)) == ["copies 4 there, 5 here", "method.strengths [0.25, 0.5] there, [0.5] here"]
    fewer = tabulate(photos.subset([0, 1]), METHOD, settings())
    assert difference((base, rows), (base, fewer)) == ["4 photos ('cat/2.png', 'dog/0.png', 'dog/1.png', ...) only there"]
    assert difference((base, fewer), (base, rows)) == ["4 photos ('cat/2.png', 'dog/0.png', 'dog/1.png', ...) only here"]
    changed = [replace(row, source_sha256="other") if row.source_id == "cat/0.png" else row for row in rows]
    assert difference((base, rows), (base, changed)) == ["1 photo ('cat/0.png') with other pixels"]
    drawn = [replace(rows[0], seed=1), *rows[1:]]
    assert difference((base, rows), (base, drawn)) == ["1 photo ('cat/0.png') with other classes or draws"]


def test_a_price_counts_what_is_left(tmp_path: Path):
    rows = tabulate(take_photos(), METHOD, settings(copies=4))
    plan = replace(planned(rows), rate=100.0, gigabytes=6.0)
    shards = len(plan.shards())
    whole, half = price(plan, tmp_path / "not" / "there"), price(plan, tmp_path, [0])
    assert (whole.images, whole.photos, whole.shards, whole.done) == (24, 6, shards, 0)
    assert whole.steps == 6 * (2 + 4 + 6 + 8) == plan.steps
    assert whole.slot_use == pytest.approx(whole.steps / whole.slots)
    assert whole.seconds == pytest.approx(whole.slots / 100)
    assert half.done == len(plan.shards()[0]) == 24 - half.images
    assert half.gigabytes == pytest.approx(6 * half.images / 24)
    assert "24 images from 6 photos\n" in whole.summary()
    assert f"; {half.done} are there" in half.summary()
    assert "\nabout 48 min and 6.0 GB" in replace(whole, seconds=2880.0).summary()
    assert "\nunknown time and 6.0 GB" in replace(whole, seconds=None).summary()


def test_slot_use_of_four_strengths_is_high():
    photos = take_photos(each=16)
    plan = planned(tabulate(photos, RealGuidanceOfFour(), settings(copies=8)), batch=32)
    assert price(plan, Path()).slot_use >= 0.95


class RealGuidanceOfFour(Varied):
    def __init__(self) -> None:
        super().__init__(mixture(), CLASSES)
        self.steps = 24


def test_gigabytes_are_those_of_files_like_photos():
    photos = take_photos(each=1, size=(100, 50))
    one = {"copies": 1, "side": 64}
    rows = tabulate(photos, METHOD, settings(**one))
    raw = 2 * 100 * 50 * 3 / 1e9
    assert gigabytes(photos, rows, settings(**one)) == pytest.approx(0.65 * raw)
    assert gigabytes(photos, rows, settings(**one, size="model")) == pytest.approx(0.65 * 2 * 64 * 32 * 3 / 1e9)
    assert gigabytes(photos, rows, settings(**one, fit="crop")) == pytest.approx(0.65 * 2 * 64 * 64 * 3 / 1e9)
    assert gigabytes(photos, rows, settings(**one, format="jpeg")) < gigabytes(photos, rows, settings(**one))


def test_mistakes_are_named():
    photos = take_photos()
    with pytest.raises(ConfigError, match="copies must be at least 1, got 0"):
        settings(copies=0)
    with pytest.raises(ConfigError, match=r"copies must be a whole number, got 2\.5"):
        settings(copies=2.5)
    with pytest.raises(ConfigError, match="format must be one of png, webp, jpeg, got 'gif'"):
        settings(format="gif")
    with pytest.raises(ConfigError, match="do not include 'dog'"):
        tabulate(photos, RealGuidance(mixture(("cat",)), ("cat",)), settings())
    with pytest.raises(DataError, match="holds no photos"):
        tabulate(photos.subset([]), METHOD, settings())
    wide = take_photos(size=(16_400, 2))
    with pytest.raises(ConfigError, match=r"webp holds up to 16,383 pixels along a side and cat/0\.png has 16,400; choose format png"):
        tabulate(wide, METHOD, settings(format="webp"))
    assert tabulate(wide, METHOD, settings(format="webp", size="model"))
    unlabelled = ImageSet.of([Example(id="a", image=picture(0), label=None)], classes=())
    with pytest.raises(DataError, match="without a label"):
        tabulate(unlabelled, METHOD, settings())
