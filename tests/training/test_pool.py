"""The pool draws by the law of data.Mixed; its pictures are those of the set."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from tests.training import toys

from rediffuse import checking
from rediffuse.checking import free_memory
from rediffuse.data import Mixed
from rediffuse.data.images import to_tensor
from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.training.augment import generator_of
from rediffuse.training.pool import PixelBank, Pool, aligned_copies, labels_of, middle_of, pool_of

DRAWS = 60_000


def uneven() -> tuple[object, object]:
    """Six real pictures with 3, 3, 1, 0, 2, 3 copies."""
    real = toys.striped(3, classes=2)
    made = toys.copies_of(real, 3)
    wanted = [3, 3, 1, 0, 2, 3]
    return real, made.subset([3 * index + copy for index, count in enumerate(wanted) for copy in range(count)])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_frequencies_are_those_of_mixed(alpha: float) -> None:
    real, made = uneven()
    bank = PixelBank(16)
    pool = pool_of(real, made, bank, alpha)
    draw = pool.draw(DRAWS, generator_of("frequencies"))
    mixed = Mixed(real, made, alpha)
    expected = torch.zeros(len(pool.items), dtype=torch.float64)
    passes = 4000
    for epoch in range(passes):
        for index in range(len(real)):
            row = mixed.choose(index, epoch)
            expected[index if row is None else len(real) + row] += 1 / (passes * len(real))
    found = torch.bincount(draw.row, minlength=len(pool.items)).double() / DRAWS
    noise = (expected * (1 - expected) * (1 / DRAWS + 1 / (passes * len(real)))).sqrt()
    assert bool(((found - expected).abs() <= 5 * noise + 1e-12).all())
    assert bool((found[expected == 0] == 0).all())


def test_the_law_by_hand() -> None:
    real, made = uneven()
    pool = pool_of(real, made, PixelBank(16), 0.5)
    draw = pool.draw(DRAWS, generator_of("hand"))
    counts = torch.bincount(draw.index, minlength=6)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4  # synthetic images never change the frequency of a real one
    first = draw.row[draw.index == 0]
    assert abs(float((first >= 6).double().mean()) - 0.5) < 5 * math.sqrt(0.25 / len(first))
    assert bool((draw.row[draw.index == 3] == 3).all())  # no copies: always real
    own = torch.bincount(first[first >= 6], minlength=9)[6:9]
    assert stats.chisquare(own.numpy()).pvalue > 1e-4  # copies of one image are drawn alike


def test_labels_and_pictures_belong_to_the_draw() -> None:
    real, made = uneven()
    pool = pool_of(real, made, PixelBank(16), 0.7)
    draw = pool.draw(200, generator_of("own"))
    images, labels = pool.take(draw)
    for index, row, image, label in zip(draw.index.tolist(), draw.row.tolist(), images, labels.tolist(), strict=True):
        example = real[index] if row < 6 else made[row - 6]
        assert label == real.labels[index]
        assert example.source in (None, real.ids[index])
        assert torch.equal(image.float() / 255, to_tensor(example.image))


def test_a_picture_of_another_shape_becomes_the_square() -> None:
    bank = PixelBank(16, "squash")
    found = bank.of(toys.striped(2, classes=2, size=24))
    assert found.shape == (4, 3, 16, 16)
    assert found.dtype == torch.uint8
    bank.forget()
    assert bank.of(toys.striped(1, classes=2)[:0]).shape == (0, 3, 16, 16)


def test_a_bank_with_a_margin_holds_what_lies_around_the_crop() -> None:
    images = toys.striped(3, classes=2, size=40)
    bank = PixelBank(16, "crop:0.8", margin=True)
    pool = pool_of(images, None, bank)
    assert (bank.size, bank.middle, pool.side, pool.fit, pool.items.shape) == (20, 16, 16, "crop:0.8", (6, 3, 20, 20))
    assert torch.equal(pool.judged(), PixelBank(16, "crop:0.8").of(images))
    assert pool.joined(pool).side == 16
    for fit in ("crop", "pad"):
        whole = pool_of(images, None, PixelBank(16, fit, margin=True))
        assert (whole.middle, whole.side) == (None, 16)
        assert torch.equal(whole.judged(), whole.items)


def test_pictures_without_a_middle_are_refused() -> None:
    assert middle_of(torch.zeros(1, 3, 9, 9), None).shape[-1] == 9
    for side in (15, 8, 4):
        with pytest.raises(DataError, match=rf"pictures of \({side}, {side}\) have no middle of 16 pixels"):
            middle_of(torch.zeros(2, 3, side, side), 16)


def test_more_pictures_than_memory_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (free_memory() or 1e9) > 1e6
    monkeypatch.setattr(checking, "free_memory", lambda: 10_000)
    with pytest.raises(ConfigError, match=r"32 pictures of 16 x 16 take 0\.0 GB of memory, and 0\.0 GB are free; give a smaller size, or"):
        pool_of(toys.striped(8), None, PixelBank(16))
    monkeypatch.setattr(checking, "free_memory", lambda: None)
    assert len(pool_of(toys.striped(8), None, PixelBank(16)).items) == 32


def test_the_fingerprint_knows_every_part() -> None:
    real, made = uneven()
    pool = pool_of(real, made, PixelBank(16))
    changed = pool.items.clone()
    changed[0, 0, 0, 0] += 1
    prints = {
        pool.fingerprint(),
        replace(pool, items=changed).fingerprint(),
        replace(pool, alpha=0.4).fingerprint(),
        replace(pool, labels=pool.labels.flip(0)).fingerprint(),
        replace(pool, counts=pool.counts.clamp(max=1)).fingerprint(),
    }
    assert len(prints) == 5
    assert pool_of(real, made, PixelBank(16)).fingerprint() == pool.fingerprint()


def test_copies_that_cannot_be_drawn_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run on all photos a few shots need few: those are read, and each draw gives the picture that it gave."""
    real = toys.striped(5, classes=2)
    made, few = toys.copies_of(real, 3), real.subset([1, 2, 8])
    full = Pool.build(PixelBank(16).of(few), labels_of(few), PixelBank(16).of(made), Mixed(few, made).copies, 0.5)
    read: list[str] = []
    take = ImageSet.__getitem__
    monkeypatch.setattr(ImageSet, "__getitem__", lambda images, row: read.append(images.ids[row]) or take(images, row))
    pool = pool_of(few, made, PixelBank(16), 0.5)
    assert (len(full.items), len(pool.items), len(set(read)), len(read)) == (3 + 30, 3 + 9, 3 + 9, 3 + 9)
    for each in ("few", "others"):
        ours, theirs = (one.take(one.draw(300, generator_of("drawn", each))) for one in (pool, full))
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_pictures_lie_in_memory_once() -> None:
    """The bank holds rows of what it gave; a few new ones among many old do not keep all alive."""
    images, bank = toys.striped(6, classes=2), PixelBank(16)
    first = bank.of(images.subset(range(10)))
    held = {value.untyped_storage().data_ptr() for value in bank._held.values()}
    assert held == {first.untyped_storage().data_ptr()}
    second = bank.of(images)
    assert torch.equal(second[:10], first)
    assert torch.equal(second, PixelBank(16).of(images))
    sizes = sorted(value.untyped_storage().nbytes() for value in bank._held.values())
    assert sizes == [first[0].numel()] * 2 + [first.numel()] * 10


def test_what_is_no_pool() -> None:
    real, made = uneven()
    with pytest.raises(ConfigError, match=r"got 1\.5"):
        pool_of(real, made, PixelBank(16), 1.5)
    with pytest.raises(DataError, match="mix a run with the set"):
        pool_of(toys.striped(1, classes=2, start=50), made, PixelBank(16))
    with pytest.raises(DataError, match="at least one image"):
        Pool.build(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), None, [], 0.5)


def test_two_sets_in_one_keep_their_labels_and_copies() -> None:
    """Each real image stands in for itself and its own copies as before, in either order of joining."""
    first = pool_of(*uneven(), PixelBank(16), 0.5)
    other_real = toys.striped(2, classes=2, start=50, seed=7)
    other = pool_of(other_real, toys.copies_of(other_real, 1), PixelBank(16), 0.9)
    both = first.joined(other)
    assert len(both.labels) == 10
    assert both.alpha == 0.5
    draw = both.draw(4000, generator_of("joined"))
    images, labels = both.take(draw)
    assert torch.equal(labels, torch.cat([first.labels, other.labels])[draw.index])
    own = [first.items[[index, *first.copies[index, : first.counts[index]].tolist()]] for index in range(6)]
    own += [other.items[[index, *other.copies[index, : other.counts[index]].tolist()]] for index in range(4)]
    for index in range(10):
        seen = images[draw.index == index]
        known = (seen.unsqueeze(1) == own[index]).flatten(2).all(2)  # (draws, candidates)
        assert bool((known.sum(1) >= 1).all())
        assert bool(known.any(0).all())  # every copy was drawn


def test_copies_made_before_are_found_by_name_or_source() -> None:
    real = toys.striped(2, classes=2)
    bank = PixelBank(16)
    made = toys.copies_of(real, 1)
    shuffled = made.subset([3, 0, 2, 1])
    assert torch.equal(aligned_copies(real, shuffled, bank), bank.of(made))
    named = ImageSet.of(
        [Example(id=name.replace(".png", ".jpg"), image=example.image, label=0) for name, example in zip(real.ids, made, strict=True)],
        classes=real.classes,
    )
    assert torch.equal(aligned_copies(real, named.subset([2, 1, 0, 3]), bank), bank.of(made))
    with pytest.raises(DataError, match="has no copy"):
        aligned_copies(real, named.subset([0, 1, 2]), bank)
    with pytest.raises(DataError, match="has 2 copies"):
        aligned_copies(real, toys.copies_of(real, 2), bank)
    made.source_digests = real.digests
    assert torch.equal(aligned_copies(real, made, bank), bank.of(made))
    with pytest.raises(DataError, match=r"copy of 0/000.png in copies was made from another picture of that name than the one of stripes"):
        aligned_copies(toys.striped(2, classes=2, seed=5), made, bank)
