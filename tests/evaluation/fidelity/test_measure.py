"""Fidelity of sets of images: figures of the features that they have, by class, resumed, stored, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.toys import copies_of, striped
from torch import Tensor, nn

from rediffuse.errors import ConfigError, DataError, ModelError, PlanError
from rediffuse.evaluation.fidelity import features as room
from rediffuse.evaluation.fidelity.features import Taken, identity_of, take_features
from rediffuse.evaluation.fidelity.kernel import kid, mmd
from rediffuse.evaluation.fidelity.manifold import manifold
from rediffuse.evaluation.fidelity.measure import Fidelity, compare_features, measure_fidelity
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.judged import Judged, batches
from rediffuse.evaluation.kept import Kept
from rediffuse.lock import Lock

REAL, MADE = striped(9, size=8, seed=1), striped(8, size=8, seed=2)
OWN = Fidelity(taken=Taken(size=8, batch=5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body, self.head = nn.Linear(192, 6), nn.Linear(6, 4)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body(images.flatten(1)).relu())


def pooled(images: Tensor) -> Tensor:
    """Six numbers of a picture, of no network at all."""
    return torch.cat([images.mean((2, 3)), images.std((2, 3))], dim=1)


def plain(images, extractor) -> Tensor:  # type: ignore[no-untyped-def]
    return extractor(torch.cat([part for _, part in batches(images, size=8)]))


def test_figures_are_those_of_the_features_by_class_too() -> None:
    found = measure_fidelity(REAL, MADE, extractor=pooled, settings=OWN)
    real, made = plain(REAL, pooled), plain(MADE, pooled)
    assert (found.extractor, found.width, found.whole.real, found.whole.made) == ("pooled", 6, 36, 32)
    assert found.whole.fid_like == pytest.approx(frechet(real, made))
    assert found.whole.kid_like is not None
    assert found.whole.kid_like.value == pytest.approx(mmd(real, made))
    assert found.whole.manifold == manifold(real, made)
    assert found.inception is None
    assert [row.name for row in found.classes] == list(REAL.classes)
    rows = [row for row, label in enumerate(REAL.labels) if label == 2], [row for row, label in enumerate(MADE.labels) if label == 2]
    assert found.classes[2].fid_like == pytest.approx(frechet(real[rows[0]], made[rows[1]]))
    assert found.classes[2].manifold == manifold(real[rows[0]], made[rows[1]])


def test_labels_are_walked_once_whatever_the_number_of_classes() -> None:
    """A million labels of a thousand classes would else be two thousand million steps."""

    class Walked(tuple):  # type: ignore[type-arg]
        walks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Walked.walks += 1
            return super().__iter__()

    both = [
        images.with_classes([*images.classes[::turn], *(f"other {place}" for place in range(60))])
        for images, turn in ((REAL, 1), (MADE, -1))
    ]
    for images in both:
        images.labels = Walked(images.labels)
    found = measure_fidelity(*both, extractor=pooled, settings=OWN)
    assert found.classes == measure_fidelity(REAL, MADE, extractor=pooled, settings=OWN).classes
    assert [row.name for row in found.classes] == list(REAL.classes)
    assert Walked.walks < 10


def test_classes_are_matched_by_name_and_those_with_few_images_have_no_figures() -> None:
    made = MADE.subset([0, *range(8, 14)]).with_classes(["other", *reversed(MADE.classes)])
    found = measure_fidelity(REAL, made, extractor=pooled, settings=OWN)
    assert [(row.name, row.real, row.made) for row in found.classes] == [("stripes 0", 9, 1), ("stripes 1", 9, 6)]
    assert (found.classes[0].fid_like, found.classes[0].kid_like, found.classes[0].manifold) == (None, None, None)
    assert found.classes[1].manifold is not None
    assert not measure_fidelity(REAL, made, extractor=pooled, settings=replace(OWN, per_class=False)).classes


def test_kid_is_drawn_as_the_settings_say() -> None:
    real, made = plain(REAL, pooled), plain(MADE, pooled)
    found = compare_features("all", real, made, Fidelity(subsets=3, subset=10, seed=1))
    assert found.kid_like == kid(real, made, subsets=3, size=10, seed=1)


def test_a_set_beside_itself() -> None:
    judged = Judged(Net(), REAL.classes, name="net")
    found = measure_fidelity(REAL, REAL, extractor=judged, settings=OWN)
    assert found.headline()["fid_like"] == pytest.approx(0, abs=1e-9)
    assert found.headline()["precision"] == found.headline()["recall"] == found.headline()["coverage"] == 1
    assert found.inception == found.inception_real
    assert found.extractor == "net"


@pytest.mark.parametrize("at", [2, 12, 40, 67])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(room, "BLOCK", 10)
    whole = measure_fidelity(REAL, MADE, extractor=Judged(Net(), REAL.classes), settings=OWN)

    def kill(done: int, total: int) -> None:
        assert total == 68
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_fidelity(REAL, MADE, extractor=Judged(Net(), REAL.classes), settings=OWN, keep=tmp_path / "kept", progress=kill)
    again = measure_fidelity(REAL, MADE, extractor=Judged(Net(), REAL.classes), settings=OWN, keep=tmp_path / "kept")
    assert replace(again, seconds=0) == replace(whole, seconds=0)
    net = Net()
    smaller = replace(OWN, taken=Taken(size=8, batch=2))  # such as after a run that ended for want of memory
    measure_fidelity(REAL, MADE, extractor=Judged(net, REAL.classes), settings=smaller, keep=tmp_path / "kept")
    assert net.calls == 0
    (tmp_path / "kept" / "real-000000000.kept").unlink()  # as the error of a broken block says; the others must stay
    again = measure_fidelity(REAL, MADE, extractor=Judged(Net(), REAL.classes), settings=OWN, keep=tmp_path / "kept")
    assert replace(again, seconds=0) == replace(whole, seconds=0)
    (tmp_path / "kept" / "real-features.kept").unlink()
    with pytest.raises(DataError, match=r"real-features\.kept is gone"):
        measure_fidelity(REAL, MADE, extractor=Judged(Net(), REAL.classes), settings=OWN, keep=tmp_path / "kept")
    with pytest.raises(ConfigError, match="another call"):
        measure_fidelity(MADE, REAL, extractor=Judged(Net(), REAL.classes), settings=OWN, keep=tmp_path / "kept")


def test_features_lie_in_a_file_and_in_half_the_room(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", {})
    half = take_features(REAL, pooled, Taken(size=8, numbers="float16"), kept=kept)
    assert (tmp_path / "kept" / "features-features.kept").stat().st_size == 36 * 6 * 2
    assert half.values.dtype == torch.float16
    assert torch.allclose(half.values.float(), plain(REAL, pooled), rtol=1e-3)
    kept.forget()
    assert not (tmp_path / "kept").exists()
    with pytest.raises(ModelError, match="infinite in float16"):
        take_features(REAL, lambda images: 1e6 * pooled(images), Taken(size=8, numbers="float16"))


def test_any_module_is_an_extractor_and_is_asked_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(192, 5)).train()
    found = take_features(REAL, module, Taken(size=8)).values
    assert torch.allclose(found, plain(REAL, module.eval()).detach(), atol=1e-5)
    assert set(identity_of(module)) == {"network", "weights"}


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        measure_fidelity(REAL, MADE.subset([]), extractor=pooled, settings=OWN)
    with pytest.raises(ConfigError, match="identity="):
        measure_fidelity(REAL, MADE, extractor=pooled, settings=OWN, keep=tmp_path / "kept")
    measure_fidelity(REAL, MADE, extractor=pooled, settings=OWN, keep=tmp_path / "kept", identity={"features": "pooled"})
    with pytest.raises(ModelError, match=r"gives \(B, D\) for 5 images"):
        take_features(REAL, lambda images: images, Taken(size=8, batch=5))
    with pytest.raises(ModelError, match="NaN"):
        take_features(REAL, lambda images: pooled(images) * float("nan"), Taken(size=8))
    with pytest.raises(ConfigError, match="float32, float16"):
        Taken(numbers="int8")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="splits"):
        Fidelity(splits=0)


def test_the_file_holds_a_row_a_class_and_says_whose_features(tmp_path: Path) -> None:
    noisy = copies_of(REAL, 1, noise=40)
    found = measure_fidelity(REAL, noisy, extractor=Judged(Net(), REAL.classes, name="net"), settings=OWN)
    stored = json.loads(found.save("fidelity_toy", tmp_path, command="none").read_text())
    assert set(stored["headline"]) == {"fid_like", "kid_like", "precision", "recall", "density", "coverage", "inception_like"}
    assert [row["name"] for row in stored["rows"]] == ["all", *REAL.classes]
    assert stored["notes"][0].startswith("Features: net, 6 values")
    assert np.isfinite(stored["rows"][0]["kid_like"]["value"])
    assert json.loads(json.dumps(found.to_json()))["whole"]["real"] == 36


def test_one_process_at_a_time_fills_a_place(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", {"kind": "test"})
    file = tmp_path / "kept" / "real-features.lock"
    with Lock(file), pytest.raises(PlanError, match=r"is being written by .*remove .*real-features\.lock"):
        take_features(REAL, pooled, OWN.taken, kept=kept, name="real")
    found = take_features(REAL, pooled, OWN.taken, kept=kept, name="real")
    assert torch.equal(found.values, plain(REAL, pooled))
    assert not file.exists()
