"""Few shots: nested, a function of names and seed alone, uniform; held-out shares: stratified."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rediffuse.data import Example, ImageSet, few_shot, folder, holdout
from rediffuse.data.splits import held_out_line
from rediffuse.errors import ConfigError, DataError


def test_fewer_shots_lie_within_more(collect):
    images = collect({"cat": 20, "dog": 17})
    for seed in range(3):
        per_class = {n: few_shot(images, n, seed).ids for n in (1, 2, 4, 8, 16)}
        for fewer, more in ((1, 2), (2, 4), (4, 8), (8, 16)):
            for name in ("cat", "dog"):
                few = [id for id in per_class[fewer] if id.startswith(name)]
                many = [id for id in per_class[more] if id.startswith(name)]
                assert few == many[:fewer]  # a prefix, in order
                assert len(many) == more


@given(st.permutations(range(12)))
def test_the_order_of_the_set_does_not_matter(collect, order):
    images = collect({"cat": 7, "dog": 5})
    shuffled = images.subset(order)
    assert few_shot(shuffled, 3, 5).ids == few_shot(images, 3, 5).ids


def test_files_written_in_another_order_give_the_same_shots(draw, tmp_path):
    for where, order in (("a", range(9)), ("b", reversed(range(9)))):
        (tmp_path / where / "cat").mkdir(parents=True)
        for number in order:
            draw(number).save(tmp_path / where / "cat" / f"{number}.png")
    assert few_shot(folder(tmp_path / "a"), 4, 1).ids == few_shot(folder(tmp_path / "b"), 4, 1).ids


def test_another_photo_or_class_moves_no_other_shot(collect):
    before = few_shot(collect({"cat": 10}), 10, 3).ids
    after = [id for id in few_shot(collect({"cat": 11, "ape": 4}), 11, 3, allow_fewer=True).ids if id in before]
    assert tuple(after) == before


def test_classes_come_in_order_with_n_each(collect):
    shots = few_shot(collect({"b": 5, "a": 5, "c": 5}), 2, 0)
    assert shots.labels == (0, 0, 1, 1, 2, 2)
    assert shots.classes == ("b", "a", "c")


def test_every_image_is_as_likely():
    """Which of 5 images is the one shot, over 2,000 seeds: uniform."""
    from PIL import Image

    from rediffuse.data import Example, ImageSet

    images = ImageSet.of([Example(id=str(n), image=Image.new("RGB", (1, 1)), label=0) for n in range(5)], classes=["x"])
    drawn = Counter(few_shot(images, 1, seed).ids[0] for seed in range(2000))
    assert chisquare([drawn[str(n)] for n in range(5)]).pvalue > 0.001


def test_classes_are_drawn_apart(collect):
    """The permutation depends on the class name: equal numbers do not come together."""
    ids = few_shot(collect({"cat": 20, "dog": 20}), 20, 0).ids
    assert [id.split("/")[1] for id in ids[:20]] != [id.split("/")[1] for id in ids[20:]]


def test_too_few_images(collect):
    images = collect({"cat": 5, "dog": 3})
    with pytest.raises(DataError, match="class 'dog' has 3 images, 4 were asked for"):
        few_shot(images, 4, 0)
    assert few_shot(images, 4, 0, allow_fewer=True).counts() == (4, 3)
    empty = images.subset(range(5))
    with pytest.raises(DataError, match="class 'dog' has 0 images"):
        few_shot(empty, 1, 0, allow_fewer=True)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        few_shot(images, 0, 0)


def test_unlabelled_sets_have_no_shots(draw, tmp_path):
    draw().save(tmp_path / "x.png")
    for cut in (lambda images: few_shot(images, 1, 0), lambda images: holdout(images, 0.5, 0)):
        with pytest.raises(DataError, match="no labels"):
            cut(folder(tmp_path))


@given(fraction=st.floats(0.01, 0.99), seed=st.integers(0, 10**9))
def test_holdout_is_stratified(collect, fraction, seed):
    images = collect({"a": 20, "b": 7, "c": 2, "d": 1})
    stays, out = holdout(images, fraction, seed)
    assert sorted((*stays.ids, *out.ids)) == sorted(images.ids)
    assert list(stays.ids) == [id for id in images.ids if id in stays.ids]
    assert stays.counts()[3] == 1
    for whole, part in zip(images.counts()[:3], out.counts()[:3], strict=True):
        assert 1 <= part < whole
        assert abs(part - fraction * whole) <= 1


def test_holdout_depends_on_names_and_seed(collect):
    images = collect({"a": 20, "b": 7})
    again = holdout(images.subset(range(26, -1, -1)), 0.3, 1)
    assert set(again[1].ids) == set(holdout(images, 0.3, 1)[1].ids)
    assert set(again[1].ids) != set(holdout(images, 0.3, 2)[1].ids)
    with pytest.raises(ConfigError, match=r"\(0, 1\), got 1"):
        holdout(images, 1, 0)
    with pytest.raises(DataError, match="two images"):
        holdout(collect({"a": 1, "b": 1}), 0.5, 0)


@given(counts=st.lists(st.integers(1, 4), min_size=2, max_size=6), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 10**9))
def test_equal_pictures_are_on_one_side(draw, counts, fraction, seed):
    """Also where two classes hold one picture; with two pictures or more a class has some on either side."""
    examples = [
        Example(id=f"{label}/{picture}/{number}", image=draw(picture if picture < 1 else 100 * label + picture), label=label)
        for label in range(2)
        for picture, count in enumerate(counts)
        for number in range(count)
    ]
    images = ImageSet.of(examples, classes=["a", "b"])
    stays, out = holdout(images, fraction, seed)
    assert sorted((*stays.ids, *out.ids)) == sorted(images.ids)
    assert not set(stays.digests) & set(out.digests)
    assert min(*stays.counts(), *out.counts()) >= 1


def test_without_equal_pictures_the_first_of_the_draw_are_held_out(collect):
    """What every figure of this library was measured on."""
    images = collect({"a": 20, "b": 7})
    _, out = holdout(images, 0.3, 1)
    for name, count in (("a", 6), ("b", 2)):
        rank = {id: sha256(repr(("holdout", 1, name, id)).encode()).digest() for id in images.ids if id.startswith(name)}
        assert {id for id in out.ids if id.startswith(name)} == set(sorted(rank, key=rank.get)[:count])


def test_one_picture_alone_stays_however_often(draw):
    same = [Example(id=f"a/{number}", image=draw(0), label=0) for number in range(4)]
    images = ImageSet.of([*same, *(Example(id=f"b/{number}", image=draw(9 + number), label=1) for number in range(4))], classes=["a", "b"])
    stays, out = holdout(images, 0.2)
    assert (stays.counts(), out.counts()) == ((4, 3), (0, 1))
    with pytest.raises(DataError, match="two images that differ"):
        holdout(images.subset(range(4)), 0.2)


def test_a_class_that_cannot_be_judged_is_named(collect):
    images = collect({"cat": 4, "dog": 4, "owl": 1})
    _, held = holdout(images, 0.25)
    assert held_out_line(images, held, 0.25) == (
        "No test photos were given: 2 of 9 are held out, 25% of each class, at least one. 'owl' has a single photo, which stays to learn "
        "from: that class is not judged; add photos."
    )
    images = collect({"cat": 4, "dog": 4})
    assert held_out_line(images, holdout(images, 0.25)[1], 0.25).endswith("at least one.")
