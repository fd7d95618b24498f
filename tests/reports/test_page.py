"""The page: every figure that it should hold, every name escaped, nothing from outside, what is missing said."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.reports.made_up import CLASSES, comparison, sample

from rediffuse.evaluation.few_shot.comparison import Comparison
from rediffuse.evaluation.few_shot.generator import DIGITS_NOTE
from rediffuse.evaluation.few_shot.settings import Cell
from rediffuse.reports.page import render_page, write_page
from rediffuse.reports.rendering import flatten
from rediffuse.reports.words import accuracy_range, percent, points, points_range

GAIN = {"scratch": 0.08, "forty": 0.0, "resnet-64": -0.1, "pixels": 0.0}
EVIL = "<script>alert('x')</script>"


def share(cell: Cell) -> float:
    wobble = (0.0, 0.02, 0.04, -0.02)[cell.seed]
    return 0.5 + 0.1 * (cell.shots > 1) + wobble + (GAIN[cell.level] + wobble / 2 if cell.arm == "da-fusion" else 0.0)


class Text(HTMLParser):
    """What is read on the page, and every address in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "path", "use", "rect"):
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(found: Comparison) -> Text:
    return Text(render_page(found))


def test_every_figure_of_the_table_is_on_the_page() -> None:
    found = comparison(share, levels=("scratch", "forty", "resnet-64"), arms=("pixels", "standard", "real-guidance", "da-fusion"))
    text = read(found).text
    checked = 0
    for level in found.levels:
        for arm in ("standard", "real-guidance", "da-fusion"):
            for shots in (1, 2, None):
                value = found.accuracy(level, arm, shots)
                assert value is not None
                assert f"{percent(value.value)} {accuracy_range(value)}" in text
                checked += 1
                if arm == "da-fusion":
                    gain = found.gain(level, arm, "standard", shots)
                    assert gain is not None
                    assert f"{points(gain.value)} {points_range(gain)}" in text
    pixels = found.accuracy("pixels", "pixels", 1)
    assert pixels is not None
    assert checked == 27
    assert f"Raw pixels {percent(pixels.value)}" in text


def test_the_verdict_of_each_level_is_said_in_words() -> None:
    text = read(comparison(share, levels=("scratch", "forty", "resnet-64"))).text
    assert "DA-Fusion helps a classifier that starts from random weights, compared with standard augmentation." in text
    assert "DA-Fusion hurts a linear classifier on the bundled features" in text
    forty = comparison(lambda cell: 0.5 + 0.02 * cell.seed, levels=("forty",))
    assert (
        "No evidence that DA-Fusion differs from standard augmentation for a linear classifier on features of 40 base classes."
        in read(forty).text
    )


def test_a_classifier_from_scratch_is_one_under_any_name() -> None:
    found = comparison(lambda cell: 0.5 + 0.02 * cell.seed, levels=("small", "scratch"))
    found = replace(found, settings={**found.settings, "levels": [["small", "scratch"], ["scratch", "0f"]]})
    text = read(found).text
    assert "No evidence that DA-Fusion differs from standard augmentation for a classifier that starts from random weights." in text
    assert "small: a classifier that starts from random weights" in text
    assert "scratch: a linear classifier on the features of scratch" in text


def test_effort_settings_machine_and_command_are_there() -> None:
    text = read(comparison(share)).text
    for said in (
        "1,234",
        "5,678",
        "1 min 5 s",
        "rediffuse compare 'my pets'",
        "Abacus 9000",
        "c0ffee",
        "2.13.0",
        "making.strengths 0.25, 1.0",
    ):
        assert said in text, said


def test_names_are_text_whatever_they_hold() -> None:
    classes = (EVIL, 'a"b', "c&d", "{{ 7 * 7 }}")
    found = comparison(lambda cell: 0.5, classes=classes, name=EVIL, levels=(f"net {EVIL}",))
    found = replace(
        found,
        notes=(EVIL,),
        failures={Cell(level="scratch", arm="standard", shots=1, seed=0): EVIL},
        samples=tuple(sample(name, arm, strength) for name in classes for arm, strength in ((None, None), ("da-fusion", 0.5))),
        provenance=replace(found.provenance, command=EVIL),
    )
    page = render_page(found)
    parsed = Text(page)
    assert "script" not in parsed.tags
    assert "<script" not in page
    assert parsed.text.count("alert('x')") >= 5
    assert "{{ 7 * 7 }}" in parsed.text
    assert 'a"b' in parsed.text


def test_nothing_comes_from_outside() -> None:
    found = replace(comparison(share), samples=(sample("cat", None, None), sample("cat", "da-fusion", 1.0)))
    page = render_page(found)
    parsed = Text(page)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in parsed.addresses)
    assert sum(address.startswith("data:") for address in parsed.addresses) == 2
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"' <)]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "default-src 'none'" in page


def test_ids_are_unique_and_tags_closed() -> None:
    parsed = read(comparison(share, levels=("scratch", "forty", "resnet-64")))
    assert len(parsed.ids) == len(set(parsed.ids)) > 10
    assert parsed.open == []
    assert parsed.tags.count("svg") == 3


def test_colours_are_the_pages_own() -> None:
    page = render_page(comparison(share))
    charts = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--da-fusion)" in charts
    assert "var(--ink)" in charts
    assert re.findall(r"#0[1-6]0[1-6]0[1-6]", charts) == []
    assert "DejaVu" not in charts


def test_what_is_missing_is_visibly_missing() -> None:
    def holes(cell: Cell) -> float | None:
        if cell.arm == "da-fusion" and cell.shots == 2 and cell.seed == 3:
            return None
        return None if cell.arm == "real-guidance" and cell.shots == 1 and cell.level == "scratch" else share(cell)

    found = comparison(holes)
    text = read(found).text
    assert "Not finished. 6 of 48 classifiers are missing" in text
    assert "3 of 4 seeds" in text
    assert "Real Guidance missing" in text
    assert "seed 3, 2 shots, da-fusion, scratch" in text
    assert "missing" not in read(comparison(share)).text.replace("a missing mark has none", "")


def test_a_page_of_nothing_says_so() -> None:
    text = read(comparison(lambda cell: None)).text
    assert "48 of 48 classifiers are missing" in text


def test_a_weak_generator_heads_the_page() -> None:
    found = comparison(share)
    for score, weak in ((0.31, True), (0.5, False), (None, False)):
        card = {} if score is None else {"classification_accuracy_score": score}
        assert ("Weak generator." in read(replace(found, card=card)).text) is weak
    assert "reaches 31.0 % of what as many real images give" in read(replace(found, card={"classification_accuracy_score": 0.31})).text


def test_the_digits_say_what_they_show() -> None:
    text = read(replace(comparison(share), notes=(DIGITS_NOTE, "Another note."))).text
    assert text.count(DIGITS_NOTE) == 2  # at the head and among the limits
    assert text.count("Another note.") == 1


def test_strengths_of_the_methods_are_told_apart() -> None:
    said = "redraws at one strength, 0.5; DA-Fusion at 0.25, 1."
    assert said in read(comparison(share)).text
    assert said not in read(comparison(share, arms=("standard", "da-fusion"))).text


def test_standard_augmentation_is_named_as_it_is_at_each_level() -> None:
    found = comparison(share, levels=("scratch", "resnet-64"))
    said = "crops and turns, and flips, from random weights; on frozen features the photo and its mirror image."
    assert said in read(found).text
    still = replace(found, settings={**found.settings, "photos": {"flips": False}})
    assert "crops and turns, from random weights; on frozen features the photo as it is." in read(still).text
    assert "frozen features the photo" not in read(comparison(share, levels=("scratch",))).text


def test_few_seeds_are_labelled() -> None:
    text = read(comparison(share, seeds=1)).text
    assert "interval over test images, one training run" in text
    assert "nothing of what another training run would" in text


def test_the_contact_sheet_is_a_grid_of_strengths() -> None:
    pictures = [
        sample(name, arm, s)
        for name in CLASSES
        for arm, s in ((None, None), ("real-guidance", 0.5), ("da-fusion", 0.25), ("da-fusion", 1.0))
    ]
    found = replace(comparison(share), samples=tuple(pictures[:-1]))
    parsed = read(found)
    assert "Photo Real Guidance strength 0.5 DA-Fusion strength 0.25 DA-Fusion strength 1" in parsed.text
    assert parsed.tags.count("img") == 15
    assert "missing" in parsed.text


def test_the_file_is_whole(tmp_path: Path) -> None:
    path = write_page(comparison(share), tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.parametrize(("value", "text"), [(0.0312, "+3.1"), (-0.0312, "−3.1"), (0.0001, "0.0"), (-0.0001, "0.0")])
def test_points_carry_their_sign(value: float, text: str) -> None:
    assert points(value) == text


def test_settings_are_flattened() -> None:
    assert flatten({"a": {"b": [1, 2], "c": None}, "d": [["x", "y"], ["z", "w"]]}) == {"a.b": "1, 2", "a.c": "", "d": "x y, z w"}


def test_what_a_table_is_called_does_not_scroll_away_with_it() -> None:
    page = render_page(comparison(share))
    assert page.count('<p class="soft">scratch: a classifier that starts from random weights</p>\n<div class="scroll">') == 1
