"""Cards of the bundled models: their figures are those of the weights that lie beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rediffuse.denoisers.load import bundled
from rediffuse.errors import ConfigError
from rediffuse.evaluation.results import read_result
from rediffuse.recipes.bundled import card


def test_a_card_states_its_figures_and_its_weakness() -> None:
    facts = {
        "psnr": 34.5, "recogniser": 0.4, "kept": 0.99, "recognised_at_use": 0.2, "guidance": 4.0, "cas_per_class": 20, "samples": 340,
        "classification_accuracy_score": 0.3, "fid_like": 12.0, "fid_like_real": 2.0, "precision": 0.5, "recall": 0.4, "survival_images": 9,
        "kept_images": 500, "recogniser_held_out": 0.435, "recognised_samples": 2040, "recognised_guidance_samples": 680,
        "recognised_low": 0.18, "recognised_high": 0.223,
        "survival": {"0.25": 0.9, "0.5": 0.8, "0.75": 0.7, "1.0": 0.5}, "recognised": {"1.0": 0.1, "2.0": 0.2, "4.0": 0.3, "7.0": 0.4},
    }  # fmt: skip
    log = [{"step": 1000, "held_out": 0.5}, {"step": 2000, "held_out": 0.4}]
    text = card.text_to_image_card(facts, log, [{"step": 10}], "2 cores")
    assert "34.5 dB" in text
    assert "30% of real" in text
    assert "guidance 4, 2040 samples | 20.0 % (18.0 % to 22.3 %)" in text
    assert "names 43.5 % of all validation pictures" in text
    assert "Weak generator" in text
    assert "| 2000 | 0.4000 |" in text
    assert "{" not in text
    strong = card.text_to_image_card({**facts, "classification_accuracy_score": 0.6}, log, [{"step": 10}], "2 cores")
    assert "Weak generator" not in strong


def test_judgements_of_the_same_weights_are_one(tmp_path: Path) -> None:
    early = {"weights_hash": "a" * 64, "judge_seconds": 3.0, "kept": 0.9, "classification_accuracy_score": 0.3}
    later = {"weights_hash": "a" * 64, "judge_seconds": 4.0, "classification_accuracy_score": 0.2, "cas_low": 0.1, "cas_high": 0.4}
    facts = card.merged([early, later])
    assert facts == {**early, **later, "judge_seconds": 7.0, "judged": []}
    made = [{"looks": ["score"], "commit": "a", "date": "b"}], [{"looks": ["survival"], "commit": "c", "date": "d"}]
    assert card.merged([{"judged": each} for each in made])["judged"] == [*made[0], *made[1]]
    with pytest.raises(ConfigError, match=r"hold no recognised_at_use, psnr, survival, fid_like, recognised, .*kept_images; add --facts"):
        card.check_complete(facts)
    for name, said in (("guidance", "guidance"), ("steps", "steps of sampling"), ("recogniser_hash", "recognisers")):
        with pytest.raises(ConfigError, match=f"other {said} \\(4.0 and 2.0\\)"):
            card.merged([{**early, name: 4.0}, {**later, name: 2.0}])
    found = read_result(card.keep_result("tiny-imagenet-64", facts, [], 1.0, "judge", ["few"], tmp_path))
    score, kept = found.headline["cas"], found.headline["kept"]
    assert (score.value, score.low, score.high) == (0.2, 0.1, 0.4)
    assert (kept.value, kept.low, kept.high) == (0.9, None, None)
    with pytest.raises(ConfigError, match="other weights"):
        card.merged([early, {**later, "weights_hash": "b" * 64}])


def test_a_card_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "held_out": 0.5}\n')
    (tmp_path / "facts.json").write_text(json.dumps({"weights_hash": "51bea6f7" * 8, "fid_like": 3.0}))
    folder = bundled()["cifar10-32"]
    given = ["--facts", str(tmp_path / "facts.json"), "--log", str(tmp_path / "log.jsonl"), "--hardware", "1 core", "--out", str(folder)]
    monkeypatch.setattr("sys.argv", ["card", "cifar10-32", *given])
    before = (folder / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"of weights 51bea6f751be, .*cifar10-32 holds e93384095548"):
        card.main()
    assert (folder / "README.md").read_text() == before


def test_a_card_leaves_its_figures_as_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = [{"step": 500, "loss": 2.5}, {"step": 500, "top1": 0.25}, {"step": 1000, "top1": 0.375}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    given = ["--log", str(tmp_path / "log.jsonl"), "--hardware", "2 cores", "--out", str(tmp_path), "--results", str(tmp_path / "results")]
    monkeypatch.setattr("sys.argv", ["card", "resnet-64", *given, "--remark", "One run.", "--judged-by", "python -m features"])
    card.main()
    found = json.loads((tmp_path / "results" / "bundled_resnet_64.json").read_text())
    assert found["headline"] == {"top1": {"value": 0.375, "low": None, "high": None, "basis": "none"}}
    assert found["command"] == "python -m features"
    assert found["notes"] == ["One run."]
    assert [row["table"] for row in found["rows"]] == ["judge", "training", "training", "training"]
    assert "0.375" in (tmp_path / "README.md").read_text()
