"""The check of pictures: good ones pass as they are, bad ones are named with a fix that works."""

from __future__ import annotations

import pytest
import torch

from rediffuse.checking import check_bytes, check_labels, check_tensor
from rediffuse.errors import DataError


@pytest.mark.parametrize("good", [torch.rand(3, 4, 5), torch.rand(2, 3, 4, 5).half(), torch.rand(0, 3, 4, 5), torch.rand(3, 4, 5).double()])
def test_good_tensors_pass_as_they_are(good):
    assert check_tensor(good) is good


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"uint8.*/ 255"),
        (torch.rand(3, 4, 4) * 2 - 1, r"\(images \+ 1\) / 2"),
        (torch.rand(3, 4, 4) * 255, r"images / 255"),
        (torch.rand(3, 4, 4) * 5 - 2.5, "normalisation"),
        (torch.full((3, 4, 4), torch.nan), "finite"),
        (torch.full((3, 4, 4), torch.inf), "finite"),
        (torch.rand(4, 4, 3), "movedim"),
        (torch.rand(1, 4, 4), "grey"),
        (torch.rand(2, 4, 8, 8), "alpha"),
        (torch.rand(4, 4), r"\(4, 4\)"),
    ],
)
def test_bad_tensors_are_named_with_the_fix(bad, says):
    with pytest.raises(DataError, match=says):
        check_tensor(bad)


def test_the_fixes_work():
    signed, raw, last = torch.rand(3, 4, 4) * 2 - 1, torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8), torch.rand(5, 4, 3)
    for mended in ((signed + 1) / 2, raw.float() / 255, last.movedim(-1, -3), torch.rand(1, 4, 4).expand(3, -1, -1)):
        check_tensor(mended)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.rand(2, 3, 4, 4) * 2 - 1, r"pictures must be uint8, got torch.float32 .*\(\(images \+ 1\) \* 127\.5\)"),
        (torch.rand(2, 3, 4, 4), r"use \(images \* 255\)"),
        (torch.rand(2, 3, 4, 4) * 255, r"use images\.round\(\)"),
        (torch.rand(2, 3, 4, 4) * 600 - 300, "normalisation"),
        (torch.full((2, 3, 4, 4), torch.nan), "from nan to nan; leave out"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), r"int64; .*to\(torch.uint8\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "grey"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), "movedim"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"shape \(N, 3, H, W\), got \(3, 4, 4\)"),
    ],
)
def test_bytes_of_another_kind_are_named_with_the_fix(bad, says):
    with pytest.raises(DataError, match=says):
        check_bytes(bad)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.tensor([0, 5]), "label 5 is outside the 3 classes; labels count from 0 to 2"),
        (torch.tensor([-1, 0]), "label -1 is outside"),
        (torch.eye(3), r"argmax\(1\)"),
        (torch.tensor([0.0, 1.0]), r"float32 \(2,\); use labels.to\(torch.int64\)"),
    ],
)
def test_labels_that_are_no_class_are_named(bad, says):
    with pytest.raises(DataError, match=says):
        check_labels(bad, 3)


def test_sound_training_sets_pass_as_they_are():
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 2])
    assert check_bytes(images) is images
    assert check_labels(labels, 3) is labels
