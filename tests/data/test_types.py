"""The set itself: a sequence that keeps what it knows, decoded once, and notices files that change."""

from __future__ import annotations

import gc
import pickle
import threading
from copy import deepcopy

import numpy as np
import pytest

from rediffuse.data import Example, ImageSet, decoding, folder
from rediffuse.data.decoding import BytesPayload, Entry, FilePayload, decode
from rediffuse.data.images import pixels_sha256
from rediffuse.data.types import PixelPayload
from rediffuse.errors import DataError


def test_it_is_a_sequence(collect):
    images = collect({"cat": 3, "dog": 2}, name="pets")
    assert len(images) == 5
    assert [example.id for example in images] == list(images.ids)
    assert images.ids == ("cat/0", "cat/1", "cat/2", "dog/0", "dog/1")
    assert images.labels == (0, 0, 0, 1, 1)
    assert images.counts() == (3, 2)
    assert images[-1].id == "dog/1"
    assert images[1:4].ids == ("cat/1", "cat/2", "dog/0")
    assert images[::-2].ids == ("dog/1", "cat/2", "cat/0")
    with pytest.raises(IndexError):
        images[5]


def test_digests_and_sizes_are_those_of_the_images(collect):
    images = collect({"cat": 3})
    assert images.digests == tuple(pixels_sha256(example.image) for example in images)
    assert images.sizes == tuple(example.image.size for example in images) == ((12, 10),) * 3


def test_subsets_keep_classes_and_order(collect):
    images = collect({"cat": 3, "dog": 2}, flips=False)
    part = images.subset([4, 0])
    assert part.ids == ("dog/1", "cat/0")
    assert part.classes == ("cat", "dog")
    assert part.flips is False
    assert part[0].image.tobytes() == images[4].image.tobytes()
    with pytest.raises(DataError, match="twice"):
        images.subset([1, 1])
    for mask in ([True, False] * 2, np.array([True, False])):
        with pytest.raises(TypeError, match="got a mask"):
            images.subset(mask)
    assert images.subset(np.flatnonzero([False, True])).ids == ("cat/1",)


def test_images_given_out_are_copies(collect):
    images = collect({"cat": 1})
    images[0].image.putpixel((0, 0), (1, 2, 3))
    assert pixels_sha256(images[0].image) == images.digests[0]


def test_ids_classes_and_labels_are_checked(draw):
    image = draw()
    one = Example(id="a", image=image, label=0)
    with pytest.raises(DataError, match="'a' occurs twice"):
        ImageSet.of([one, one], classes=["cat"])
    with pytest.raises(DataError, match="unique"):
        ImageSet.of([one], classes=["cat", "cat"])
    with pytest.raises(DataError, match=r"label 0 .* 0 classes"):
        ImageSet.of([one], classes=[])


def test_labels_follow_names_into_another_class_list(collect):
    images = collect({"cat": 1, "dog": 2})
    other = images.with_classes(["ape", "dog", "cat"])
    assert [other.classes[label] for label in other.labels] == ["cat", "dog", "dog"]
    assert other.labels == (2, 1, 1)
    with pytest.raises(DataError, match="'dog'"):
        images.with_classes(["cat", "ape"])


def test_a_small_budget_decodes_again_to_the_same(fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 6})
    whole = folder(root)
    entries = [Entry(id=name, payload=FilePayload(root / name), label=0) for name in whole.ids]
    for budget in (0, 3 * 12 * 10 * 2):  # none, two pictures
        lean = decode(entries, classes=["cat"], name="lean", budget=budget)
        assert lean.digests == whole.digests
        assert [a.image.tobytes() for a in lean] == [b.image.tobytes() for b in whole]


def test_sets_share_one_budget_and_give_it_back(fill, tmp_path, monkeypatch):
    def kept(images):
        return sum(isinstance(record.payload, PixelPayload) for record in images._records)

    gc.collect()  # sets of earlier tests
    before = decoding._EVERYBODYS.taken
    monkeypatch.setattr(decoding, "MEMORY_BUDGET", before + 3 * 12 * 10 * 4)  # four pictures
    first, second = folder(fill(tmp_path / "a", {"cat": 3})), folder(fill(tmp_path / "b", {"cat": 3}))
    assert (kept(first), kept(second)) == (3, 1)
    copy, part = pickle.loads(pickle.dumps(first)), deepcopy(first[:1])  # noqa: S301  (made here)
    assert [example.image.tobytes() for example in copy] == [example.image.tobytes() for example in first]
    del copy, first
    assert decoding._EVERYBODYS.taken == before + 3 * 12 * 10 * 2  # what is still shown: one of the first, one of the second
    assert kept(folder(tmp_path / "b")) == 2
    del part, second
    assert decoding._EVERYBODYS.taken == before


def test_files_that_change_or_go_are_noticed(draw, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 2})
    entries = [Entry(id=str(number), payload=FilePayload(root / "cat" / f"{number}.png"), label=0) for number in range(2)]
    lean = decode(entries, classes=["cat"], name="lean", budget=0)
    draw(77).save(root / "cat" / "0.png")
    (root / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match="0 has changed"):
        lean[0]
    with pytest.raises(DataError, match="1 can no longer be read"):
        lean[1]


def test_order_survives_the_pool_and_progress_is_told(draw, encode):
    entries = [Entry(id=str(number), payload=BytesPayload(encode(draw(number))), label=None) for number in range(600)]
    told = []
    images = decode(entries, classes=(), name="many", progress=lambda done, whole: told.append((done, whole)))
    assert images.ids == tuple(str(number) for number in range(600))
    assert told == [(number, 600) for number in range(1, 601)]


def test_an_interrupt_begins_no_further_picture(draw, monkeypatch):
    read, told = [], threading.Event()
    monkeypatch.setattr(decoding, "coding_threads", lambda: 2)

    class Slow:
        def read(self):
            read.append(1)
            if len(read) > 1:
                told.wait(60)
            return draw(1)

    def interrupted(done, _):
        threading.Timer(0.2, told.set).start()  # what is under way ends when the rest has been called off
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode([Entry(id=str(number), payload=Slow(), label=None) for number in range(300)], classes=(), name="a", progress=interrupted)
    assert len(read) <= 4  # of 256 in the window: two threads, and what they took up between


def test_nothing_readable_is_an_error_with_reasons():
    with pytest.raises(DataError, match=r"none of the 1 .*'a': empty file"):
        decode([Entry(id="a", payload=BytesPayload(b""), label=None)], classes=(), name="bad")


def test_sets_travel_to_other_processes(fill, tmp_path):
    images = folder(fill(tmp_path / "p", {"cat": 2}))
    copy = pickle.loads(pickle.dumps(images))  # noqa: S301  (made here, as a loader's workers do)
    assert copy.ids == images.ids
    assert copy[1].image.tobytes() == images[1].image.tobytes()


def test_classes_of_another_spelling_are_counted_where_it_is_said_what_they_mean(collect):
    images = collect({"Cat": 1, "dog": 2})
    found = images.with_classes(("dog", "cat"), {"Cat": "cat"})
    assert found.classes == ("dog", "cat")
    assert [found.classes[label] for label in found.labels] == ["cat", "dog", "dog"]
    with pytest.raises(DataError, match=r"classes that the other list lacks: 'Cat'; that list is 'dog', 'cat'"):
        images.with_classes(("dog", "cat"))
