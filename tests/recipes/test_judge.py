"""What the bundled generator is asked: every look on two classes, against the same said by hand; and which looks there are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rediffuse.denoisers.load import load
from rediffuse.errors import ConfigError, DataError
from rediffuse.recipes.bundled import features
from rediffuse.recipes.bundled.common import Pictures
from rediffuse.recipes.bundled.draws import edits
from rediffuse.recipes.bundled.judge import LOOKS, Court, classify, judge, looks_of, round_trips, samples

NAMES = ("goldfish", "school bus")
COUNT = 64


def pictures(seed: int) -> Pictures:
    images = torch.randint(0, 256, (2 * COUNT, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Pictures(images=images, labels=torch.arange(2).repeat(COUNT), terms=("",) * (2 * COUNT), names=NAMES)


def net(seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return features.build("forty", NAMES).eval()


@pytest.fixture
def given(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        model="tiny-imagenet-64", recogniser="net", features="other", out=tmp_path, guidance=2.0, steps=2, images=4, survival=2,
        per_class=32, per_class_guidance=1, cas_steps=3, looks=None,
    )  # fmt: skip


@pytest.fixture
def court(given: argparse.Namespace) -> Court:
    return Court(
        given=given, model=load("tiny-imagenet-64", device="cpu"), recogniser=net(0), describer=net(1), held=pictures(2), train=pictures(3)
    )


def named(court: Court, images: Tensor, truth: Tensor) -> float:
    return float((classify(court.recogniser, images) == truth).float().mean())


def test_each_look_says_what_it_looked_at(court: Court, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = judge(court)
    back = round_trips(court.model, court.held.images[:4])
    assert facts["recogniser"] == pytest.approx(named(court, court.held.images[:4], court.held.labels[:4]))
    assert facts["recogniser_held_out"] == pytest.approx(named(court, court.held.images, court.held.labels))
    assert facts["kept"] == pytest.approx(named(court, back, court.held.labels[:4]) / facts["recogniser"])
    assert (facts["kept_images"], facts["survival_images"]) == (4, 2)
    made = samples(court).all()
    assert facts["recognised_at_use"] == pytest.approx(named(court, made, torch.arange(2).repeat_interleave(32)))
    assert facts["recognised_low"] < facts["recognised_at_use"] < facts["recognised_high"]
    assert (facts["recognised_samples"], facts["samples"], facts["recognised_guidance_samples"]) == (64, 64, 2)
    once = edits(court.model, list(NAMES), None, strength=1.0, guidance=7.0, steps=2, seed=2)
    assert facts["recognised"]["7.0"] == pytest.approx(named(court, once, torch.arange(2)))
    assert 0 < facts["fid_like_real"] < facts["fid_like"]
    assert facts["classification_accuracy_score"] == facts["cas_accuracy_made"] / facts["cas_accuracy_real"]
    assert (tmp_path / "samples.png").exists()
    lines = [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if "top1" not in line]
    assert len(lines) == len(LOOKS)
    assert {name: value for line in lines for name, value in line.items()}.items() <= facts.items()


def test_looks_alone_say_the_same_and_no_more(court: Court) -> None:
    court.given.looks = ["survival", "round-trips"]
    found = judge(court)
    assert found.keys() == {
        "model", "weights_hash", "recogniser_hash", "judged", "steps", "guidance", "psnr", "recogniser", "recogniser_held_out", "kept",
        "kept_images", "survival", "survival_images",
    }  # fmt: skip
    court.given.looks = ["round-trips"]
    fewer = judge(court)
    assert [part["looks"] for part in (*found.pop("judged"), *fewer.pop("judged"))] == [["round-trips", "survival"], ["round-trips"]]
    assert fewer.items() <= found.items()


def test_a_recogniser_that_knows_nothing_is_named(court: Court) -> None:
    court.given.looks, court.given.images = ["round-trips"], 1
    court.held.labels[0] = 1 - int(classify(court.recogniser, court.held.images[:1]))
    with pytest.raises(DataError, match="names none of 1 pictures rightly"):
        judge(court)


def test_what_takes_a_recogniser_is_left_out_or_refused(given: argparse.Namespace) -> None:
    assert looks_of(given) == tuple(LOOKS)
    given.recogniser = None
    assert looks_of(given) == ("round-trips", "score")
    given.looks = ["score", "recognised", "survival"]
    with pytest.raises(ConfigError, match="--looks recognised survival asks a recogniser"):
        looks_of(given)
