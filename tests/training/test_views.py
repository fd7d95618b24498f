"""Views of a step: where they start, whose label they have, and that arms which differ in one view share all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.augmix import AugMix, SeedDraw
from rediffuse.methods.bank import Bank
from rediffuse.methods.base import Method
from rediffuse.methods.diffaug import DiffAug
from rediffuse.methods.noise_times import Fixed
from rediffuse.training import objectives
from rediffuse.training.augment import CropViews, StandardViews, ViewLaw, generator_of
from rediffuse.training.objectives import Extra, Objective, Views, plain
from rediffuse.training.preprocessing import resize
from rediffuse.training.views import Batch, fill_bank, make_views

COUNT, SIDE = 12, 16
IMAGES = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(COUNT) % 4


class Same(Method[SeedDraw]):
    """Gives back what it is given, so that one sees what that was."""

    name = "same"

    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> SeedDraw:
        return SeedDraw.of(batch_size, self.generator() if generator is None else generator)

    def apply(self, images: Tensor, draw: SeedDraw) -> Tensor:
        return images


def batch(step: int = 0, law: ViewLaw | None = None, size: int = SIDE, images: Tensor = IMAGES, **other: Any) -> Batch:
    law = CropViews(padding=2) if law is None else law
    crops = law.draw(len(images), generator_of("test", step))
    values: dict[str, Any] = {"labels": LABELS[: len(images)], "index": torch.arange(len(images)), "key": (0, step)} | other
    return Batch(images=images, crops=crops, law=law, size=(size, size), classes=4, device=torch.device("cpu"), **values)


def noise_only(t: int = 0) -> DiffAug:
    return DiffAug(NoDenoiser(NoiseSchedule.from_betas(linear_betas())), times=Fixed(t=t), reference_size=None)


def test_the_middle_is_what_a_centre_view_starts_from_where_more_is_held() -> None:
    found = make_views(Objective(extras=(Extra(), Extra(source="independent"))), batch(middle=12, size=12))
    assert torch.equal(found.extras[0][0], IMAGES[..., 2:14, 2:14].float() / 255)
    alone = make_views(Objective(extras=(Extra(), Extra(source="independent"))), batch(size=12))
    assert torch.equal(found.extras[1][0], alone.extras[1][0])
    assert torch.equal(found.clean, alone.clean)


def test_what_a_view_starts_from() -> None:
    makers = tuple(Extra(method=method, source=source) for source in ("centre", "aligned", "independent") for method in (Same(), None))
    found = make_views(Objective(extras=makers), batch())
    for place in (0, 1):
        assert torch.equal(found.extras[place][0], IMAGES.float() / 255)
    for place in (2, 3):
        assert torch.equal(found.extras[place][0], found.clean)
    for place in (4, 5):
        own = found.extras[place][0]
        assert not torch.equal(own, found.clean)
        # It is another window of the same picture: its pixels are the picture's, or padding.
        assert all(set(view.unique().tolist()) <= {0.0, *whole.unique().tolist()} for view, whole in zip(own, IMAGES / 255, strict=True))
    assert not torch.equal(found.extras[4][0], found.extras[5][0])
    assert all(torch.equal(labels, LABELS) for _, labels in found.extras)


def test_arms_share_everything_but_their_own_view() -> None:
    """What makes a comparison paired: clean views, crops of other views and noise do not depend on what else there is."""
    alone = make_views(plain(), batch())
    two = make_views(plain(2), batch())
    noisy = make_views(objectives.base(noise_only()), batch())
    mixed = make_views(objectives.augmix(AugMix(), Extra(method=noise_only())), batch())
    assert torch.equal(alone.clean, two.clean)
    assert torch.equal(alone.clean, noisy.clean)
    assert torch.equal(alone.clean, mixed.clean)
    assert torch.equal(noisy.extras[0][0], mixed.extras[0][0])
    assert float((noisy.extras[0][0] - IMAGES / 255).abs().max()) < 0.05  # sigma .01 in [-1, 1]


def test_views_are_a_function_of_their_key() -> None:
    objective = objectives.augmix(AugMix(), Extra(method=noise_only(300)), Extra(source="independent", share=0.5))

    def flat(views: Views) -> list[Tensor]:
        return [views.clean, *views.mixes, *(tensor for pair in views.extras for tensor in pair)]

    before = torch.get_rng_state()
    first, again, other = (flat(make_views(objective, batch(step))) for step in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.ndim == 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first[1], first[2])  # two different mixtures


def test_views_are_made_at_the_size_asked_for() -> None:
    for law in (CropViews(), StandardViews()):
        found = make_views(objectives.base(Same()), batch(law=law, size=24))
        assert found.clean.shape == (COUNT, 3, 24, 24)
        assert torch.equal(found.extras[0][0], resize(IMAGES / 255, (24, 24)))


def test_a_part_of_the_batch() -> None:
    sizes = []
    for step in range(40):
        ((images, labels),) = make_views(Objective(extras=(Extra(share=0.3),)), batch(step)).extras
        sizes.append(len(images))
        rows = [int((image == IMAGES / 255).all((1, 2, 3)).nonzero()) for image in images]
        assert torch.equal(labels, LABELS[rows])
        assert rows == sorted(set(rows))
    assert set(sizes) == {3, 4}
    assert abs(sum(sizes) / 40 - 3.6) < 0.3  # on average .3 of 12


def test_copies_made_before_take_the_pictures_place() -> None:
    copies = 255 - IMAGES
    chosen = torch.tensor([5, 2, 9])
    found = make_views(Objective(extras=(Extra(pictures=copies),)), batch(images=IMAGES[chosen], labels=LABELS[chosen], index=chosen))
    assert torch.equal(found.extras[0][0], copies[chosen] / 255)


def test_stand_ins_come_alike_often_and_leave_other_views_alone() -> None:
    """Two kinds of copies: a third each; the denoised view still comes from the picture itself, and AugMix from what stands in."""
    copies = [torch.full_like(IMAGES, value) for value in (0, 255)]
    stand_ins = tuple(Extra(pictures=pictures, source="independent") for pictures in copies)
    objective = objectives.deepaugment_augmix(stand_ins, Same(), Extra(method=Same()))
    counts = [0, 0, 0]
    for step in range(60):
        found = make_views(objective, batch(step, CropViews(padding=0)))
        own = make_views(plain(), batch(step, CropViews(padding=0))).clean
        kind = [2 if torch.equal(view, mine) else int(view[0, 0, 0]) for view, mine in zip(found.clean, own, strict=True)]
        for one in kind:
            counts[one] += 1
        assert torch.equal(found.extras[0][0], IMAGES / 255)
        assert torch.equal(found.mixes[0], found.clean)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_bank_gives_views_with_labels_of_their_own() -> None:
    bank = Bank(noise_only(), rate=0.25, warmup=COUNT, padding=0, flips=False)
    objective = objectives.base(bank)
    make_views(objective, batch(0))  # fills it
    images, labels = make_views(objective, batch(1)).extras[0]
    near = (images.unsqueeze(1) - IMAGES / 255).abs().mean((2, 3, 4)).argmin(1)  # which picture each view shows
    assert torch.equal(labels, LABELS[near])
    assert bool((near != torch.arange(COUNT)).any())


def test_a_filled_bank_gives_each_picture_its_own_views(tmp_path: Path) -> None:
    values = torch.arange(COUNT, dtype=torch.uint8) * 20
    images = values.view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE).contiguous()
    path = tmp_path / "views.bank"
    writer = Bank(noise_only(), rate=1, capacity=3 * COUNT, path=path, spare=0, padding=0)
    seen: list[int] = []

    def stop(done: int, _: int) -> None:
        seen.append(done)
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_bank(writer, images, LABELS, 3, (SIDE, SIDE), chunk=5, progress=stop)
    del writer
    again = Bank(noise_only(), rate=1, path=path, padding=0)
    fill_bank(again, images, LABELS, 3, (SIDE, SIDE), chunk=5)
    at_once = Bank(noise_only(), rate=1, capacity=3 * COUNT, padding=0)
    fill_bank(at_once, images, LABELS, 3, (SIDE, SIDE), chunk=5)
    other = Bank(noise_only(), rate=1, capacity=3 * COUNT, padding=0, seed=1)
    fill_bank(other, images, LABELS, 3, (SIDE, SIDE), chunk=5)
    assert not torch.equal(other._store.images, at_once._store.images)  # type: ignore[union-attr]
    every = torch.arange(3 * COUNT)
    assert torch.equal(again.read(again.draw_of(every))[1], LABELS.repeat(3))
    assert torch.equal(again._store.images, at_once._store.images)  # type: ignore[union-attr]

    reader = Bank(None, rate=0, path=path, padding=0, flips=False)
    objective = Objective(extras=(Extra(method=reader, draws=3),))
    turns = set()
    for step in range(25):
        found, labels = make_views(objective, batch(step, images=images)).extras[0]
        assert torch.equal((found.mean((1, 2, 3)) * 255 / 20).round().long(), torch.arange(COUNT))
        assert torch.equal(labels, LABELS)
        turns.add(round(float(found[3].std()), 6))
    assert len(turns) == 3  # three views of the picture, each again and again
    with pytest.raises(DataError, match="another training set"):
        make_views(objective, batch(images=images, labels=LABELS.flip(0)))
    with pytest.raises(DataError, match="not 5 of each picture"):
        make_views(Objective(extras=(Extra(method=reader, draws=5),)), batch(images=images))
    with pytest.raises(ConfigError, match="need a bank of capacity 48, got 36"):
        fill_bank(again, images, LABELS, 4, (SIDE, SIDE))


def test_soft_labels_mix_the_clean_view_alone() -> None:
    found = make_views(objectives.soft_stage(Extra(method=Same(), source="aligned")), batch())
    unmixed = make_views(plain(), batch()).clean
    assert found.target is not None
    assert found.target.shape == (COUNT, 4)
    assert not torch.equal(found.clean, unmixed)
    assert torch.equal(found.extras[0][0], unmixed)
    assert torch.equal(found.extras[0][1], LABELS)


def test_a_small_share_is_a_picture_at_least() -> None:
    """Else the term would be left out of most steps, and weigh less than it says."""
    rows = []
    for step in range(60):
        ((images, labels),) = make_views(Objective(extras=(Extra(share=0.01),)), batch(step)).extras
        assert len(images) == len(labels) == 1
        rows.append(int(labels))
    assert set(rows) == {0, 1, 2, 3}
