"""What an evaluation may be written over: the same one, and what joins it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rediffuse.errors import ConfigError
from rediffuse.evaluation.suite.result import FILE_NAME, Asked, check_vacant
from rediffuse.evaluation.suite.settings import SuiteSettings

ASKED = Asked(
    models={"net": "a"},
    name="test",
    photos="p",
    images=9,
    parts=["accuracy", "unknown inputs"],
    unknown={"birds": "b"},
    settings=SuiteSettings(size=32).to_json(),
    denoiser={"kind": "PixelDDPM", "hash": "d" * 64, "name": "ddpm"},
)


def there(folder: Path, **changes: Any) -> Path:
    """A folder that holds what ASKED asks for, but for some entries of evaluation.json."""
    held = {
        "models": ["net"], "weights": {"net": "a"}, "name": "test", "photos": "p", "images": 9, "settings": ASKED.settings,
        "denoiser": ASKED.denoiser, "unknown_sets": {"birds": "b"}, "accuracy": {}, "unknown": {"rows": [{"set": "birds"}]},
    }  # fmt: skip
    left = {name: value for name, value in {**held, **changes}.items() if value is not None}
    (folder / FILE_NAME).write_text(json.dumps(left), encoding="utf-8")
    return folder


def test_the_same_and_what_joins_may_be_written(tmp_path: Path) -> None:
    check_vacant(tmp_path, ASKED)  # nothing is there
    check_vacant(there(tmp_path), ASKED)
    check_vacant(tmp_path, replace(ASKED, name="./test", unknown={"./birds": "b"}))  # the same photos by other names
    check_vacant(tmp_path, replace(ASKED, models={"net": "a", "other": "c"}, unknown={"birds": "b", "cars": "c"}))
    check_vacant(tmp_path, replace(ASKED, settings=SuiteSettings(size=32, suite="full").to_json()))
    check_vacant(there(tmp_path, denoiser={}), ASKED)  # a denoiser joins where there was none
    check_vacant(there(tmp_path, settings={"size": 32, "gone": 1}), ASKED)  # what one of them does not know tells nothing


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"photos": "q"}, "is another evaluation: 9 photos then, 9 others now. Give another folder for this one with --out"),
        ({"photos": "q", "images": 5}, "9 photos then, 5 now"),
        ({"photos": "q", "images": 1200, "name": "more"}, "9 photos of test then, 1,200 of more now"),
        ({"settings": SuiteSettings(size=16, seed=2).to_json()}, "seed was 0, now 2; size was 32, now 16"),
        ({"denoiser": {"kind": "PixelDDPM", "hash": "e" * 64}}, "the denoiser was ddpm (dddddddddddd), now PixelDDPM (eeeeeeeeeeee)"),
        ({"unknown": {"birds": "c"}}, "birds held other photos"),
        ({"unknown": {"cars": "c"}}, "holds birds, which this command does not ask for"),
        ({"models": {"net": "b"}}, "net of other weights"),
    ],
)
def test_another_evaluation_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_vacant(there(tmp_path), replace(ASKED, **changes))
    assert said in str(refused.value)
    assert "--out" in str(refused.value)


def test_an_older_file_knows_its_photos_by_name_alone(tmp_path: Path) -> None:
    older = there(tmp_path, photos=None, unknown_sets=None)
    check_vacant(older, replace(ASKED, images=5, photos="q", settings=SuiteSettings(size=16).to_json()))
    with pytest.raises(ConfigError, match="judges net by test, and this would write net by other over it; give another folder"):
        check_vacant(older, replace(ASKED, name="other"))
