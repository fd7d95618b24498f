"""Mixing against its definition: i uniform over real images, a copy with probability alpha, j uniform over the copies of i."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest, chisquare
from torch.utils.data import DataLoader

from rediffuse.data import Example, ImageSet, Mixed
from rediffuse.data.images import to_tensor
from rediffuse.errors import ConfigError, DataError

REAL, COPIES = 6, 5


def flat(red: int, green: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (red, green, 0))


@pytest.fixture(scope="module")
def real():
    return ImageSet.of([Example(id=f"r{i}", image=flat(i, 255), label=i % 2) for i in range(REAL)], classes=["a", "b"])


@pytest.fixture(scope="module")
def synthetic():
    """Five copies of every real image but the last, which has none; red tells the source, green the copy."""
    copies = [
        Example(id=f"s{i}-{j}", image=flat(i, j), label=i % 2, source=f"r{i}", copy=j) for i in range(REAL - 1) for j in range(COPIES)
    ]
    return ImageSet.of(copies[::-1], classes=["a", "b"])


def what(mixed, index):
    """(source, copy or None) of the image that an item really shows."""
    image, label = mixed[index]
    red, green = (int(value) for value in (image[:2, 0, 0] * 255).round())
    assert label == red % 2
    return red, None if green == 255 else green


def test_copies_of_other_pictures_of_the_same_names_stay_out(real, synthetic):
    known = {f"r{i}": digest for i, digest in enumerate(real.digests)}
    made = ImageSet(
        [replace(record, source_digest=known[record.source]) for record in synthetic._records], classes=synthetic.classes, name="made"
    )
    assert Mixed(real, made).copies == Mixed(real, synthetic).copies
    other = [Example(id=f"r{i}", image=flat(i, 255 if i < 2 else 7), label=i % 2) for i in range(REAL)]
    with pytest.warns(UserWarning, match="copies in made of 3 images, such as 'r2', were made from other pictures"):
        mixed = Mixed(ImageSet.of(other, classes=["a", "b"]), made)
    assert [len(own) for own in mixed.copies] == [COPIES, COPIES, 0, 0, 0, 0]
    none = ImageSet.of([replace(example, image=flat(9, 9)) for example in real], classes=["a", "b"])
    with pytest.raises(DataError, match="share names such as 'r0', but the pictures are others"):
        Mixed(none, made)


def test_one_index_is_asked_for(real):
    with pytest.raises(TypeError, match="takes one index"):
        Mixed(real, None)[0:2]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8])
def test_frequencies(real, synthetic, alpha):
    mixed = Mixed(real, synthetic, alpha=alpha, seed=3)
    passes = 1500
    shown = Counter()
    for epoch in range(passes):
        mixed.set_epoch(epoch)
        shown.update(what(mixed, index) for index in range(REAL))
    assert all(sum(count for (source, _), count in shown.items() if source == i) == passes for i in range(REAL))  # i is uniform
    assert shown[REAL - 1, None] == passes  # no copies: always real
    copies = sum(count for (_, copy), count in shown.items() if copy is not None)
    assert binomtest(copies, passes * (REAL - 1), alpha).pvalue > 0.001
    assert chisquare([shown[i, j] for i in range(REAL - 1) for j in range(COPIES)]).pvalue > 0.001  # j is uniform, for each i


def test_draws_of_one_index_are_independent(real, synthetic):
    """Pairs of successive epochs, and of neighbours: the four outcomes of two fair coins."""
    mixed = Mixed(real, synthetic, alpha=0.5)
    coins = [[mixed.choose(index, epoch) is not None for index in range(REAL - 1)] for epoch in range(2000)]
    in_time = Counter((coins[epoch][0], coins[epoch + 1][0]) for epoch in range(0, 2000, 2))
    in_place = Counter((row[1], row[2]) for row in coins)
    for pairs in (in_time, in_place):
        assert chisquare([pairs[a, b] for a in (False, True) for b in (False, True)]).pvalue > 0.001


def test_extremes(real, synthetic):
    for epoch in range(20):
        assert all(Mixed(real, synthetic, alpha=0).choose(index, epoch) is None for index in range(REAL))
        assert all(Mixed(real, synthetic, alpha=1).choose(index, epoch) is not None for index in range(REAL - 1))
    nothing = Mixed(real, None, alpha=1)
    assert [what(nothing, index) for index in range(REAL)] == [(index, None) for index in range(REAL)]


def test_a_pure_function_of_seed_epoch_and_index(real, synthetic):
    def table(mixed):
        return [[mixed.choose(index, epoch) for index in range(REAL)] for epoch in range(30)]

    torch.manual_seed(1)
    first = table(Mixed(real, synthetic))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert table(Mixed(real, synthetic)) == first
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert table(Mixed(real, synthetic, seed=1)) != first
    reordered = Mixed(real, synthetic[::-1])  # the order of the synthetic set does not matter
    ids = [[None if row is None else synthetic[::-1].ids[row] for row in line] for line in table(reordered)]
    assert ids == [[None if row is None else synthetic.ids[row] for row in line] for line in first]


def run(mixed, **options):
    seen = []
    loader = DataLoader(mixed, batch_size=2, **options)
    for epoch in range(3):
        mixed.set_epoch(epoch)
        seen.append([(images.tolist(), labels.tolist()) for images, labels in loader])
    return seen


def test_workers_change_nothing(real, synthetic):
    alone = run(Mixed(real, synthetic))
    assert alone[0] != alone[1]
    assert run(Mixed(real, synthetic), num_workers=2) == alone
    assert run(Mixed(real, synthetic), num_workers=2, persistent_workers=True) == alone  # they outlive set_epoch


def test_a_sampler_may_give_pairs(real, synthetic):
    mixed = Mixed(real, synthetic)
    pairs = [(draw, index) for draw in range(40) for index in range(REAL)]
    got = [what(mixed, pair) for pair in pairs]
    for (draw, index), shown in zip(pairs, got, strict=True):
        mixed.set_epoch(draw)
        assert what(mixed, index) == shown


def test_items_are_tensors_or_what_the_transform_gives(real, synthetic):
    image, label = Mixed(real, None)[3]
    assert torch.equal(image, to_tensor(real[3].image))
    assert (image.shape, image.dtype, label) == ((3, 2, 2), torch.float32, 1)
    kinds = {Mixed(real, synthetic, alpha=alpha, transform=lambda image: (type(image), image.size))[0][0] for alpha in (0.0, 1.0)}
    assert kinds == {(Image.Image, (2, 2))}  # the same transform on either


def test_indices(real):
    mixed = Mixed(real, None)
    assert len(list(mixed)) == len(mixed) == REAL
    assert what(mixed, -1) == (REAL - 1, None)
    with pytest.raises(IndexError):
        mixed[REAL]


def test_what_cannot_be_mixed(real, synthetic, collect):
    with pytest.raises(ConfigError, match=r"alpha .* \[0, 1\], got 1.5"):
        Mixed(real, synthetic, alpha=1.5)
    with pytest.raises(DataError, match=r"sources such as 'r0'.*'cat/0'"):
        Mixed(collect({"cat": 2}), synthetic)
    with pytest.raises(DataError, match="none of them names a source"):
        Mixed(real, real)
    unlabelled = ImageSet.of([Example(id="x", image=flat(0, 0), label=None)], classes=())
    with pytest.raises(DataError, match="without a label"):
        Mixed(unlabelled, None)


def test_copies_of_other_sources_are_left_out(real, synthetic):
    mixed = Mixed(real.subset([0, 1]), synthetic, alpha=1)
    assert {what(mixed, (draw, index))[0] for draw in range(20) for index in range(2)} == {0, 1}
