"""Published sets read as they are published, and folders that show some of a model's classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.evaluation.corruptions.toys import network, pictures
from tests.evaluation.ood.toys import noise

from rediffuse.data.folder import folder
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions import subsets
from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
from rediffuse.evaluation.corruptions.apply import corrupt
from rediffuse.evaluation.corruptions.frost import photo_folder
from rediffuse.evaluation.corruptions.published import CIFAR10, CifarC, ImageNetC
from rediffuse.evaluation.corruptions.sources import Live
from rediffuse.evaluation.corruptions.subsets import subset_accuracy
from rediffuse.evaluation.results import read_result

PIXELS = pictures(20)
LABELS = np.arange(20) % 10


def cifar_c(place: Path, names: tuple[str, ...] = ("fog", "contrast")) -> Path:
    place.mkdir(exist_ok=True)
    np.save(place / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    for name in names:
        made = torch.cat([corrupt(PIXELS, name, severity) for severity in range(1, 6)])
        np.save(place / f"{name}.npy", made.permute(0, 2, 3, 1).numpy())
    return place


def test_cifar_c_is_what_it_was_made_from(tmp_path: Path) -> None:
    source = CifarC(cifar_c(tmp_path))
    assert (source.corruptions, len(source), source.side) == (("fog", "contrast"), 20, 32)
    parts = list(source.under("contrast", 4, batch=7))
    assert [len(part) for part in parts] == [7, 7, 6]
    assert torch.equal(torch.cat(parts), corrupt(PIXELS, "contrast", 4))
    model = network(list(CIFAR10[::-1]))
    found = corruption_accuracy(model, source, corruptions=source.corruptions, keep=tmp_path / "kept")
    truth = torch.tensor([model.classes.index(CIFAR10[label]) for label in LABELS])
    assert (found.right[0, 0, 2] == (model.logits(corrupt(PIXELS, "fog", 3) / 255).argmax(1) == truth).numpy()).all()
    assert found.clean is None
    assert found.clean_accuracy() is None
    assert "clean" not in {row["corruption"] for row in found.rows()}
    with pytest.raises(ConfigError, match="lacks snow"):
        corruption_accuracy(model, source, corruptions=["snow"])
    with pytest.raises(DataError, match=r"holds 'airplane', .* which net 0 does not know"):
        corruption_accuracy(network(["x", "y"]), source, corruptions=["fog"])


def test_pictures_too_small_to_corrupt_are_enlarged_with_a_note() -> None:
    small, large = noise(3, seed=1, name="small"), noise(2, seed=2, size=32)
    both = ImageSet.of([*small, *large], classes=(), name="both")
    assert "3 of 5 pictures have a side below 32 px and were scaled to be corrupted" in Live(both, size=32).notes
    assert not any("below 32 px" in note for note in Live(large).notes)


def test_what_notes_call_a_departure_is_not_comparable() -> None:
    """Constants of another size, and pictures that were scaled up; frost's photos are a matter of their own."""
    model = network(["a", "b"])
    for side, wanted in ((32, True), (48, False), (64, True)):
        images = noise(2, seed=1, size=side)
        labelled = ImageSet.of([replace(each, label=0) for each in images], classes=["a", "b"], name="set")
        found = corruption_accuracy(model, labelled, corruptions=("fog", "contrast", "frost"), severities=(5,))
        assert found.comparable[:2] == (wanted, wanted)
        assert found.comparable[2] is (wanted and photo_folder() is not None)
        assert [row["comparable"] for row in found.rows() if row["corruption"] == "fog"] == [wanted]
    assert Live(noise(2, seed=2, size=32), size=224).comparable("fog")
    assert not Live(noise(2, seed=2, size=16), size=32).comparable("fog")


def test_foreign_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.npy is missing"):
        CifarC(tmp_path)
    cifar_c(tmp_path, ())
    with pytest.raises(DataError, match="holds no corruption"):
        CifarC(tmp_path)
    file = tmp_path / "fog.npy"
    for array, match in (
        (np.zeros((100, 32, 32, 3)), r"must be uint8 \(100, side, side, 3\), got float64"),
        (np.zeros((99, 32, 32, 3), np.uint8), r"got uint8 \(99, 32, 32, 3\)"),
        (np.zeros((100, 3, 32, 32), np.uint8), "must be uint8"),
        (np.array([{}], dtype=object), "not an array of numbers"),
    ):
        np.save(file, array, allow_pickle=True)
        with pytest.raises(DataError, match=match):
            CifarC(tmp_path)
    file.write_bytes(b"no array")
    with pytest.raises(DataError, match="not an array of numbers"):
        CifarC(tmp_path)
    cifar_c(tmp_path)
    with pytest.raises(DataError, match="has label 9, but 3 classes are named"):
        CifarC(tmp_path, classes=["a", "b", "c"])
    for labels, match in ((np.repeat(LABELS, 5), "differs between severities"), (np.zeros(7, np.uint8), "five times as many")):
        np.save(tmp_path / "labels.npy", labels)
        with pytest.raises(DataError, match=match):
            CifarC(tmp_path)


def write(place: Path, images: torch.Tensor, names: list[str]) -> None:
    for row, image in enumerate(images):
        file = place / names[row % len(names)] / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)


def test_imagenet_c_is_read_by_its_folders(tmp_path: Path) -> None:
    wnids = ["n01", "n02", "n03"]
    for severity in (1, 2):
        write(tmp_path / "weather" / "fog" / str(severity), corrupt(PIXELS, "fog", severity), wnids)
        write(tmp_path / "contrast" / str(severity), corrupt(PIXELS, "contrast", severity), wnids)
    source = ImageNetC(tmp_path, size=32, spelled=["n03", "n01", "n02"])
    assert (set(source.corruptions), source.severities, len(source)) == ({"fog", "contrast"}, (1, 2), 20)
    model = network(["c", "a", "b"])
    found = corruption_accuracy(model, source, corruptions=["fog"], severities=[2], batch=6)
    order = sorted(range(20), key=lambda row: (row % 3, row))
    truth = torch.tensor([(row % 3 + 1) % 3 for row in order])
    assert (found.right[0, 0, 0] == (model.logits(corrupt(PIXELS, "fog", 2)[order] / 255).argmax(1) == truth).numpy()).all()
    with pytest.raises(DataError, match=r"holds 'n01', 'n02', 'n03', which net 0 does not know \(c, a, b\)"):
        corruption_accuracy(model, ImageNetC(tmp_path, size=32), corruptions=["fog"], severities=[1])
    (tmp_path / "contrast" / "2" / "n01" / "000.png").unlink()
    with pytest.raises(DataError, match="holds other pictures than"):
        corruption_accuracy(model, source, corruptions=["fog", "contrast"], severities=[1, 2])
    with pytest.raises(DataError, match="holds no corruption"):
        ImageNetC(tmp_path / "contrast")
    with pytest.raises(DataError, match="is no folder"):
        ImageNetC(tmp_path / "nothing")


class _KilledError(Exception):
    pass


def test_a_killed_judgement_of_a_subset_goes_on_to_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsets, "BLOCK", 6)
    write(tmp_path / "set", PIXELS, ["b", "d", "e"])
    images, models = folder(tmp_path / "set"), [network(list("abcde"), 1), network(list("edcba"), 2)]
    whole = subset_accuracy(models, images, size=32)
    assert 0 < whole.right.mean() < 1

    def kill(done: int, _: int) -> None:
        if done >= 12:
            raise _KilledError

    with pytest.raises(_KilledError):
        subset_accuracy(models, images, size=32, keep=tmp_path / "kept", progress=kill)
    asked = [0, 0]
    hooks = []
    for place, model in enumerate(models):

        def count(_: object, given: tuple[torch.Tensor], __: object, place: int = place) -> None:
            asked[place] += len(given[0])

        hooks.append(model.network.register_forward_hook(count))
    told: list[tuple[int, int]] = []
    again = subset_accuracy(models, images, size=32, keep=tmp_path / "kept", progress=lambda *count: told.append(count))
    for hook in hooks:
        hook.remove()
    assert asked == [8, 8]  # the two blocks before the kill are there
    assert told == [(6, 20), (12, 20), (18, 20), (20, 20)]
    assert (again.right == whole.right).all()
    assert (again.rows(), again.notes) == (whole.rows(), whole.notes)
    assert again.difference("net 1", "net 2") == whole.difference("net 1", "net 2")


def test_only_the_classes_that_are_shown_can_be_answers(tmp_path: Path) -> None:
    write(tmp_path / "set", PIXELS, ["b", "d"])
    images = folder(tmp_path / "set")
    models = [network(list("abcde"), 1), network(list("edcba"), 2)]
    calls: list[tuple[int, int]] = []
    found = subset_accuracy(models, images, size=32, keep=tmp_path / "kept", progress=lambda *count: calls.append(count))
    order = sorted(range(20), key=lambda row: (row % 2, row))
    for row, model in enumerate(models):
        logits = model.logits(PIXELS[order] / 255)
        answers = logits[:, model.classes.index("d")] > logits[:, model.classes.index("b")]
        assert (found.right[row] == (answers == torch.tensor([place % 2 == 1 for place in order])).numpy()).all()
    assert calls == [(20, 20)]
    assert (subset_accuracy(models, images, size=32, keep=tmp_path / "kept").right == found.right).all()
    assert found.difference("net 1", "net 2").value == pytest.approx(found.right[0].mean() - found.right[1].mean())
    assert read_result(found.save("subset", tmp_path, command="test")).headline["accuracy_net 1"].value == found.right[0].mean()
    with pytest.raises(ConfigError, match="belongs to another call"):
        subset_accuracy(models, images, size=40, keep=tmp_path / "kept")
    with pytest.raises(DataError, match="two classes"):
        subset_accuracy(models, images.subset(range(5)), size=32)


def test_published_pictures_that_are_resized_are_not_comparable(tmp_path: Path) -> None:
    write(tmp_path / "fog" / "1", PIXELS, ["n01", "n02"])
    assert ImageNetC(tmp_path, size=32).comparable("fog")
    resized = ImageNetC(tmp_path, size=40)
    found = corruption_accuracy(network(["n01", "n02"]), resized, corruptions=["fog"], severities=[1])
    assert found.comparable == (False,)
    assert "resized from 32 x 32 to 40 pixels: not comparable with published figures" in found.notes
