"""One door: which reader a spec leads to, and what is said when none fits."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rediffuse.data
from rediffuse.data import digits, few_shot, folder, open_images
from rediffuse.data.export import export_folders
from rediffuse.errors import DataError


def test_each_spec_finds_its_reader(collect, fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 2, "dog": 1})
    assert open_images(str(root)).ids == open_images(root).ids == folder(root).ids
    (root / "t.csv").write_text("file,label\ncat/0.png,x\n")
    assert open_images(root / "t.csv").classes == ("x",)
    assert open_images("digits").ids == digits().ids
    assert open_images("digits", split="test").ids == digits(split="test").ids
    assert open_images("digits", flips=True).flips is False
    images = collect({"a": 1})
    assert open_images(images) is images


def test_a_split_may_be_a_subfolder(fill, tmp_path):
    fill(tmp_path / "train", {"cat": 2, "dog": 1})
    fill(tmp_path / "test", {"cat": 1, "dog": 1})
    assert len(open_images(tmp_path, split="train")) == 3
    with pytest.raises(DataError, match=r"looks like splits \(test, train\).*split='test' \(--split test\)"):
        open_images(tmp_path)
    with pytest.raises(DataError, match=r"no split 'val'.*test, train"):
        open_images(tmp_path, split="val")


@pytest.mark.parametrize("beside", ["test/0.png", "sample/cat/0.png", "train/sheet.png", "cat/0.png"])
def test_a_split_is_no_class_whatever_lies_beside_it(draw, fill, tmp_path, beside):
    """Such as photos to be told without classes, a further folder, or a picture beside the classes of the split."""
    fill(tmp_path / "train", {"cat": 2, "dog": 1})
    (tmp_path / beside).parent.mkdir(parents=True, exist_ok=True)
    draw(9).save(tmp_path / beside)
    for labelled in (True, None):
        with pytest.raises(DataError, match=r"looks like splits \(train\).*split='train' \(--split train\).* --test"):
            open_images(tmp_path, labelled=labelled)
    assert open_images(tmp_path, split="train").classes == ("cat", "dog")
    assert "train" in folder(tmp_path).classes


def test_a_class_called_like_a_split_may_have_folders(fill, tmp_path):
    """Trains by kind, beside other classes."""
    fill(tmp_path, {"cat": 1, "dog": 1, "train/steam": 1, "train/diesel": 2})
    assert open_images(tmp_path).counts() == (1, 1, 3)
    fill(tmp_path, {"test/steam": 1})
    with pytest.raises(DataError, match=r"looks like splits \(test, train\)"):
        open_images(tmp_path)


def test_tables_beside_photos_are_never_taken_for_them_in_silence(fill, tmp_path):
    root = fill(tmp_path / "p", {"cat": 2, "dog": 1})
    pq.write_table(pa.table({"file": ["cat/0.png"], "label": ["x"]}), root / "predictions.parquet")
    with pytest.raises(DataError, match=r"tables \(predictions.parquet\) and photos \(cat, dog\).*move the tables"):
        open_images(root)
    assert open_images(root / "predictions.parquet").classes == ("x",)
    assert open_images(root, split="predictions").classes == ("x",)
    assert len(open_images(root, split="cat")) == 2
    for name in ("cat", "dog"):
        (root / name / "0.png").rename(root / f"{name}.png")
        shutil.rmtree(root / name)
    with pytest.raises(DataError, match=r"and photos \(cat.png, dog.png\)"):
        open_images(root)


def test_classes_called_like_splits_are_classes(fill, tmp_path):
    root = fill(tmp_path / "p", {"train": 1, "test": 1, "val": 1})
    assert open_images(root).classes == ("test", "train", "val")


def test_nothing_fits(draw, fill, tmp_path):
    fill(tmp_path / "photos", {"cat": 1})
    with pytest.raises(DataError, match=r"no images at .*did you mean 'photos'.*hub:NAME"):
        open_images(tmp_path / "photo")
    draw().save(tmp_path / "one.png")
    with pytest.raises(DataError, match="is one picture"):
        open_images(tmp_path / "one.png")
    with pytest.raises(DataError, match="got int"):
        open_images(3)


def test_the_package_loads_nothing_heavy_and_names_stay_functions():
    """In a fresh interpreter, with submodules imported before the names are used."""
    code = (
        "import sys, rediffuse.data as data\n"
        "assert not {'torch', 'PIL', 'numpy', 'pyarrow', 'sklearn'} & set(sys.modules), sorted(sys.modules)\n"
        "import rediffuse.data.folder, rediffuse.data.table, rediffuse.data.digits\n"
        "from rediffuse.data.folder import folder\n"
        "assert data.folder is folder and callable(data.table) and callable(data.digits)\n"
        "assert all(callable(getattr(data, name)) for name in data.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(next(iter(rediffuse.__path__)) + "/..")})


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        rediffuse.data.nothing  # noqa: B018


def test_real_sets_through_the_door_and_back(shared_data, tmp_path):
    images = open_images(shared_data / "flowers17-64", split="test")
    assert (len(images), len(images.classes)) == (680, 17)
    again = open_images(export_folders(images[:60], tmp_path / "out"))
    assert sorted(again.digests) == sorted(images[:60].digests)


@pytest.mark.slow
def test_every_real_set_opens(shared_data):
    sizes = {"cifar10": (50000, 10), "tiny-imagenet-base": (51000, 170), "caltech101-64": (1600, 100), "tiny-imagenet-known": (2000, 20)}
    for name, (count, classes) in sizes.items():
        images = open_images(shared_data / name, split="train")
        assert (len(images), len(images.classes), images.rejected) == (count, classes, ())


def test_fixes_are_named_in_words_that_fit_every_caller(draw, fill, tmp_path):
    """What a reader says reaches people who type commands: an argument of Python is no fix there."""
    photos = fill(tmp_path / "p", {"cat": 1})
    draw(5).save(tmp_path / "out.png")
    (photos / "cat" / "link.png").symlink_to(tmp_path / "out.png")
    (photos / "t.csv").write_text("file,label\ncat/0.png,cat\n../out.png,cat\n")
    said = [line.reason for spec in (photos, photos / "t.csv") for line in open_images(spec).rejected if "leaves the folder" in line.reason]
    with pytest.raises(DataError, match=r"'cat' has 1 .*2 were asked for") as short:
        few_shot(open_images(photos), 2, 0)
    assert len(said) == 2
    assert not [text for text in (*said, str(short.value)) if "=" in text]
