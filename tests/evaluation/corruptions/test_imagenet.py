"""The classes of ImageNet, -R, -A and -D against the places that the authors of the sets published, and models that are matched by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.evaluation.corruptions.test_sources import PIXELS, write
from tests.evaluation.corruptions.toys import network, pictures

from rediffuse.data.folder import folder
from rediffuse.data.geometry import Fit
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
from rediffuse.evaluation.corruptions.imagenet import imagenet_d, in_order, known_subset, wnids
from rediffuse.evaluation.corruptions.published import ImageNetC
from rediffuse.evaluation.corruptions.subsets import subset_accuracy
from rediffuse.evaluation.matching import match_classes

# Places among the 1,000 classes, from the programs published with arXiv 2006.16241, 1907.07174, 2403.18775; files under test hold ids.
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
D = """alarm_clock 409 530; backpack 414; banana 954; band_aid 419; bath_towel 434; beer_bottle 440; bench 703; bicycle 671 444;
binder_closed 446; bottle_cap 455; bread_loaf 930; broom 462; bucket 463; can_opener 473; candle 470; cellphone 487; chair 423 559 765;
cleaver 499; clothes_hamper 588; coffee_or_french_press 550; combination_lock 507; computer_mouse 673; desk_lamp 846; dishcloth 533;
doormat 539; dress_shoe_men 630; drill 740; drying_rack_for_plates 729; envelope 549; fan 545; frying_pan 567; gown 578; hair_dryer 589;
hammer 587; helmet 560 518; iron_for_clothes 606; jeans 608; keyboard 508; ladle 618; lampshade 619; laptop_open 620; lemon 951;
letter_opener 623; lighter 626; lipstick 629; matchstick 644; measuring_cup 647; microwave 651; mixing_or_salad_bowl 659; monitor 664; mug
504; nail_fastener 677; necklace 679; orange 950; padlock 695; paintbrush 696; paper_towel 700; pen 418 749 563; pill_bottle 720; pillow
721; pitcher 725; plastic_bag 728; plate 923; plunger 731; pop_can 737; portable_heater 811; printer 742; remote_control 761; ruler 769;
running_shoe 770; safety_pin 772; salt_shaker 773; sandal 774; screw 783; shopping_basket 790; shovel 792; skirt 601 655 689; sleeping_bag
797; soap_dispenser 804; sock 806; soup_bowl 809; spatula 813; speaker 632; still_camera 732 759; strainer 828; suit_jacket 834;
sunglasses 837; sweater 841; swimming_trunks 842; t_shirt 610; tea_cup 968; teapot 849; teddy_bear 850; tennis_racket 752; tie 457 906;
toaster 859; toilet_paper_roll 999; trash_bin 412; tray 868; tv 851; umbrella 879; vacuum_cleaner 882; vase 883; wallet 893; watch 531;
water_bottle 898; weight_exercise 543; weight_scale 778; wheel 479 694; whistle 902; wine_bottle 907; winter_glove 658; wok 909"""
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


def test_folders_of_imagenet_d_stand_for_the_classes_that_were_published() -> None:
    published = {name: [int(place) for place in places] for name, *places in (line.split() for line in D.split(";"))}
    assert len(published) == 113
    assert {name: [wnids().index(each) for each in own] for name, own in imagenet_d().items()} == published
    assert published["chair"] == [423, 559, 765]


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
    write(tmp_path / "set", PIXELS, shown)
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


def test_pictures_are_cut_as_published_figures_have_them(tmp_path: Path) -> None:
    """The centre of a longer short side, told in the notes and in what is kept."""
    write(tmp_path / "set", pictures(40, 48), ["a", "b"])
    images, model, shape = folder(tmp_path / "set"), network(["a", "b"]), Fit(mode="crop:0.8", size=32)
    shown = torch.stack([shape.to_model(each.image)[0] for each in images])
    with torch.no_grad():
        model.network[-1].bias -= model.logits(shown).median(0).values  # so that little decides
    found, answers = subset_accuracy(model, images, size=32, fit="crop:0.8", keep=tmp_path / "kept"), model.logits(shown).argmax(1)
    whole = subset_accuracy(model, images, size=32)
    assert found.right[0].tolist() == [answer == each.label for answer, each in zip(answers.tolist(), images, strict=True)]
    assert found.right.tolist() != whole.right.tolist()
    assert found.notes[-1] == "pictures: the short side scaled to 40 px, the centre 32 cut out"
    assert whole.notes[-1] == "pictures: the short side scaled to 32 px, the centre 32 cut out"
    assert subset_accuracy(model, images, size=32, fit="pad").content().notes[-1] == "pictures: pad to 32 px"
    with pytest.raises(ConfigError, match="belongs to another call"):
        subset_accuracy(model, images, size=32, keep=tmp_path / "kept")


def test_any_class_that_a_folder_stands_for_is_right(tmp_path: Path) -> None:
    """Answers of a real network against its own logits: unmasked as ImageNet-D is published, and masked to what is shown."""
    shown = ["alarm_clock", "banana", "chair"]
    meant = {"alarm_clock": [409, 530], "banana": [954], "chair": [423, 559, 765]}
    write(tmp_path / "background", PIXELS, shown)
    images, model = folder(tmp_path / "background"), network([str(place) for place in range(1000)])
    order = sorted(range(20), key=lambda row: (row % 3, row))
    with torch.no_grad():  # by chance one of a thousand would hardly ever be right
        head, few = model.network[-1], [7, 409, 530, 559, 954]
        head.weight[few] -= head.weight[few].mean(0)
        head.bias[few] = -(model.features(PIXELS / 255)[0] @ head.weight[few].T).mean(0) + 1e4
    logits, labels = model.logits(PIXELS[order] / 255), [shown[row % 3] for row in order]
    places = sorted(place for own in meant.values() for place in own)
    for among, can_be in ((wnids(), list(range(1000))), (None, places)):
        found = subset_accuracy(model, images, size=32, means=imagenet_d(), among=among)
        answers = [can_be[int(place)] for place in logits[:, can_be].argmax(1)]
        assert found.right[0].tolist() == [answer in meant[label] for answer, label in zip(answers, labels, strict=True)]
        assert found.classes == len(can_be)
        assert any("2 of 3 folders stand for several classes" in note for note in found.notes)
        assert any(("none is masked" if among else "others are masked") in note for note in found.notes)
        assert 0 < found.right.sum() < 20


def test_what_folders_mean_is_checked(tmp_path: Path) -> None:
    write(tmp_path / "set", PIXELS, ["band_aid", "tench"])
    images, model = folder(tmp_path / "set"), network(["tench", "Band Aid", "plaster"])
    found = subset_accuracy(model, images, size=32, means={"band_aid": ["Band Aid", "plaster"]}, keep=tmp_path / "kept")
    assert found.classes == 3
    with pytest.raises(ConfigError, match="belongs to another call"):
        subset_accuracy(model, images, size=32, keep=tmp_path / "kept")
    for means, match in (({"band_aid": "plaster"}, "that 'band_aid' stands for, got 'plaster'"), ({"tench": []}, "got")):
        with pytest.raises(ConfigError, match=match):
            subset_accuracy(model, images, size=32, means=means)
    with pytest.raises(DataError, match="set shows 'band_aid', which means 'plaster', which is not among the 2 classes"):
        subset_accuracy(model, images, size=32, means={"band_aid": ["plaster"]}, among=["tench", "Band Aid"])
    with pytest.raises(DataError, match="among holds 'whale', which net 0 does not know"):
        subset_accuracy(model, images, size=32, among=["tench", "band_aid", "whale"])


@pytest.mark.parametrize(
    ("spelled", "match"),
    [(["a", "b", "b"], "several classes of net 0 'b'; .* means="), (["a", "b"], "all 3 classes of net 0 in label order, got 2 names")],
)
def test_spelled_names_each_class_once(tmp_path: Path, spelled: list[str], match: str) -> None:
    """A name that stood twice was its last class alone, and figures were wrong without an error."""
    write(tmp_path / "set", PIXELS, ["a", "b"])
    write(tmp_path / "fog" / "1", PIXELS, ["a", "b"])
    model = network(["tench", "chair", "rocking chair"])
    with pytest.raises(ConfigError, match=match):
        subset_accuracy(model, folder(tmp_path / "set"), size=32, spelled=spelled)
    with pytest.raises(ConfigError, match=match):
        corruption_accuracy(model, ImageNetC(tmp_path, size=32, spelled=spelled), corruptions=["fog"], severities=[1])
