"""Labels find their classes by name, spelling and id of ImageNet; what means none or several is told with the fix."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from rediffuse.data.types import Example, ImageSet
from rediffuse.errors import DataError
from rediffuse.evaluation.corruptions.imagenet import wnids
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.matching import match_classes, places, told_apart

CLASSES = ["tench, Tinca tinca", "crane", "Crane, bird", "great white-shark", "n04", "Owl, OWL"]
IMAGENET = {0: "tench, Tinca tinca", 1: "goldfish", 134: "crane", 207: "golden retriever", 340: "zebra", 517: "crane", 954: "banana",
            980: "volcano"}  # fmt: skip
ALL = [IMAGENET.get(place, f"thing {place}") for place in range(1000)]


def labelled(*names: str) -> ImageSet:
    """Two images of each class, and a class that shows none."""
    picture = Image.new("RGB", (8, 8))
    rows = [Example(id=f"{number}", image=picture, label=number % len(names)) for number in range(2 * len(names))]
    return ImageSet.of(rows, classes=(*names, "of no image"), name="photos")


def test_names_find_their_classes() -> None:
    assert match_classes(["n04", "great_white_shark", "tinca_tinca", "owl"], CLASSES) == [4, 3, 0, 5]
    assert match_classes(["crane"], CLASSES) == [1]  # the exact name first
    assert places(["crane", "CRANE", "whale"], CLASSES) == [(1,), (1, 2), ()]
    assert places(["crane"], ["crane", "owl", "crane"]) == [(0, 2)]
    assert match_classes([], CLASSES) == []
    assert told_apart(["crane", "owl", "crane"]) == ("crane #0", "owl", "crane #2")


@pytest.mark.parametrize(
    ("names", "classes", "match"),
    [
        (["whale"], CLASSES, r"holds 'whale', which net does not know \(tench, Tinca tinca, crane, .*, \.\.\.\); leave that out"),
        (list("abcdefg"), CLASSES, "'a', 'b', 'c', 'd', 'e' and 2 more, which net"),
        (["CRANE"], CLASSES, "'CRANE', which is several classes of net: 'crane #1', 'Crane, bird #2'; label them by the whole name of one"),
        (["owl"], ["owl", "cat", "owl"], "'owl #0', 'owl #2'; .* or give the model's classes names that differ"),
        (["crane"], ALL, "'crane #134', 'crane #517'; label them by id, n02012849 or n03126707"),
        (["Tench", "tinca tinca"], CLASSES, "holds 'Tench' and 'tinca tinca', which are one class of net; rename or join them"),
    ],
)  # fmt: skip
def test_what_means_none_or_several_is_told_with_the_fix(names: list[str], classes: list[str], match: str) -> None:
    with pytest.raises(DataError, match=match):
        match_classes(names, classes, "net", "photos")


def test_ids_stand_beside_names_where_a_name_means_two() -> None:
    assert match_classes(["n02012849", "zebra", "n03126707"], ALL) == [134, 340, 517]
    with pytest.raises(DataError, match="'n02012849', which the model does not know"):
        match_classes(["n02012849", "zebra"], ["zebra", "crane"])


def test_every_yardstick_takes_folders_of_ids_and_synonyms() -> None:
    judged = Judged(nn.Linear(2, 1000), wnids(), name="net")
    assert torch.equal(judged.truth(labelled("n01443537", "n09472597")), torch.tensor([1, 980, 1, 980]))
    names = Judged(nn.Linear(2, 6), CLASSES, name="net")
    assert torch.equal(names.truth(labelled("tinca_tinca", "crane")), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(DataError, match="'CRANE', which is several classes of net"):
        names.truth(labelled("CRANE"))
