"""The classes of ImageNet, -R and -A against the places that the authors of the sets published, and models that are matched by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.evaluation.corruptions.test_sources import PIXELS, _write
from tests.evaluation.corruptions.toys import network

from rediffuse.data.folder import folder
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.imagenet import in_order, known_subset, wnids
from rediffuse.evaluation.corruptions.subsets import subset_accuracy
from rediffuse.evaluation.matching import match_classes

# Places among the 1,000 classes, from the programs published with arXiv 2006.16241 and 1907.07174; the file under test holds ids.
R = """1 2 4 6 8 9 11 13 22 23 26 29 31 39 47 63 71 76 79 84 90 94 96 97 99 100 105 107 113 122 125 130 132 144 145 147 148 150 151 155 160
161 162 163 171 172 178 187 195 199 203 207 208 219 231 232 234 235 242 245 247 250 251 254 259 260 263 265 267 269 276 277 281 288 289 291
292 293 296 299 301 308 309 310 311 314 315 319 323 327 330 334 335 337 338 340 341 344 347 353 355 361 362 365 366 367 368 372 388 390 393
397 401 407 413 414 425 428 430 435 437 441 447 448 457 462 463 469 470 471 472 476 483 487 515 546 555 558 570 579 583 587 593 594 596 609
613 617 621 629 637 657 658 701 717 724 763 768 774 776 779 780 787 805 812 815 820 824 833 847 852 866 875 883 889 895 907 928 931 932 933
934 936 937 943 945 947 948 949 951 953 954 957 963 965 967 980 981 983 988"""
A = """6 11 13 15 17 22 23 27 30 37 39 42 47 50 57 70 71 76 79 89 90 94 96 97 99 105 107 108 110 113 124 125 130 132 143 144 150 151 207 234
235 254 277 283 287 291 295 298 301 306 307 308 309 310 311 313 314 315 317 319 323 324 326 327 330 334 335 336 347 361 363 372 378 386 397
400 401 402 404 407 411 416 417 420 425 428 430 437 438 445 456 457 461 462 470 472 483 486 488 492 496 514 516 528 530 539 542 543 549 552
557 561 562 569 572 573 575 579 589 606 607 609 614 626 627 640 641 642 643 658 668 677 682 684 687 701 704 719 736 746 749 752 758 763 765
768 773 774 776 779 780 786 792 797 802 803 804 813 815 820 823 831 833 835 839 845 847 850 859 862 870 879 880 888 890 897 900 907 913 924
932 933 934 937 943 945 947 951 954 956 957 959 971 972 980 981 984 986 987 988"""
IDS = {0: "n01440764", 1: "n01443537", 207: "n02099601", 281: "n02123045", 340: "n02391049", 954: "n07753592", 980: "n09472597"}
NAMES = {0: "tench, Tinca tinca", 1: "goldfish", 207: "golden_retriever", 340: "Zebra", 954: "banana", 980: "volcano"}


def named(**changes: str) -> list[str]:
    return [changes.get(f"_{place}", NAMES.get(place, f"thing {place}")) for place in range(1000)]


def test_ids_stand_in_the_order_of_labels() -> None:
    every = wnids()
    assert len(set(every)) == 1000
    assert list(every) == sorted(every)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in every)
    assert {place: every[place] for place in IDS} == IDS  # as in WordNet 3.0


@pytest.mark.parametrize(("name", "published"), [("imagenet-r", R), ("imagenet-a", A)])
def test_subsets_are_those_that_were_published(name: str, published: str) -> None:
    places = [int(place) for place in published.split()]
    assert len(places) == 200
    assert [wnids().index(each) for each in known_subset(name)] == places  # type: ignore[arg-type]


def test_other_subsets_are_not_known() -> None:
    with pytest.raises(ConfigError, match="imagenet-r, imagenet-a are known, got 'imagenet-x'"):
        known_subset("imagenet-x")  # type: ignore[arg-type]


def test_a_model_of_all_classes_is_matched_by_place() -> None:
    folders = [IDS[980], IDS[1]]
    for classes in (wnids(), [str(k) for k in range(1000)], [f"LABEL_{k}" for k in range(1000)], named()):
        assert in_order(classes)
        assert match_classes(folders, classes) == [980, 1]
    for other in (named(_0="goldfish", _1="tench"), [str(k) for k in range(1, 1001)], wnids()[:999], wnids()[::-1]):
        assert not in_order(other)
    with pytest.raises(DataError, match="the model does not know"):
        match_classes(folders, named(_980="banana"))
    assert match_classes(folders, wnids()[::-1]) == [19, 998]  # by name, as ever
    with pytest.raises(DataError, match="the model does not know"):
        match_classes([IDS[1], "n00000000"], named())


def test_answers_may_be_more_than_are_shown(tmp_path: Path) -> None:
    shown = [IDS[1], IDS[207]]
    _write(tmp_path / "set", PIXELS, shown)
    images, model = folder(tmp_path / "set"), network([str(place) for place in range(1000)])
    places = [int(place) for place in R.split()]
    found = subset_accuracy(model, images, size=32, among=known_subset("imagenet-r"))
    order = sorted(range(20), key=lambda row: (row % 2, row))
    answers = model.logits(PIXELS[order] / 255)[:, places].argmax(1)
    truth = torch.tensor([places.index((1, 207)[row % 2]) for row in order])
    assert (found.right[0] == (answers == truth).numpy()).all()
    assert found.classes == 200
    assert subset_accuracy(model, images, size=32).classes == 2
    with pytest.raises(DataError, match=r"shows 'n01443537', which is not among the 200 classes"):
        subset_accuracy(model, images, size=32, among=known_subset("imagenet-a"))
