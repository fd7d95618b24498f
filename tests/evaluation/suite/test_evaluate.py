"""The whole suite on small things: every part, after being killed, and with what cannot be judged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.suite.toys import DATA, DENOISER, FAR, MODELS, NAMES, NEAR, SHORT, TRAIN, asked, blocks, timeless
from tests.evaluation.test_time.views import gaussians
from torch import Tensor, nn

from rediffuse.data.splits import chosen
from rediffuse.denoisers.nothing import NoDenoiser
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.adversarial import Attack
from rediffuse.evaluation.corruptions import frost as frosts
from rediffuse.evaluation.corruptions.constants import COMMON
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.suite import parts
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking
from rediffuse.evaluation.suite.checks import lacking, named
from rediffuse.evaluation.suite.cost import Calls, Cost, PartCost, Rates
from rediffuse.evaluation.suite.evaluate import Bench, evaluate
from rediffuse.evaluation.suite.parts import build
from rediffuse.evaluation.suite.result import FIELDS, Evaluation
from rediffuse.evaluation.suite.settings import PARTS, SuiteSettings, usual_attacks
from rediffuse.evaluation.test_time.diffaug import DiffAugSettings
from rediffuse.training.cost import IMAGE_PASSES


def plain(found: Evaluation) -> dict[str, Any]:
    cleaned: dict[str, Any] = timeless(found.to_json())
    return cleaned


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """A full evaluation of two models, and the folder of what it kept."""
    keep = tmp_path_factory.mktemp("whole") / "work"
    return evaluate(MODELS, DATA, keep=keep, **asked()), keep


def test_every_part_is_there_and_agrees_with_the_others(whole: tuple[Evaluation, Path], tmp_path: Path) -> None:
    found, _ = whole
    assert found.skipped == ()
    assert all(getattr(found, name) is not None for name in FIELDS.values())
    truth, logits = MODELS[0].truth(DATA), MODELS[0].logits(torch.stack(list(DATA.fitted(32))))
    right = float((logits.argmax(1) == truth).float().mean())
    assert found.accuracy is not None
    assert found.calibration is not None
    assert found.corruptions is not None
    assert found.accuracy["first"].top1 == pytest.approx(right)
    assert found.calibration.find("first").row()["accuracy"] == pytest.approx(right)
    assert found.corruptions.clean_accuracy("first") == pytest.approx(right)
    assert found.corruptions.right.shape == (2, 15, 5, 9)
    assert found.ensemble is not None
    assert found.ensemble.images == 4
    assert found.ensemble.corrupted is not None
    assert found.ensemble.corrupted.severities == (5,)
    assert found.attacked is not None
    assert list(found.attacked) == ["linf", "l2"]
    for attacked in found.attacked.values():
        assert len(attacked.victims) == 4
        assert all(0 < victim.moved.max() <= attacked.attack.epsilon + 1e-5 for victim in attacked.victims)
    before = [[victim.clean.tolist() for victim in attacked.victims] for attacked in found.attacked.values()]
    assert before[0] == before[1]
    read = json.loads(found.save(tmp_path).read_text())
    assert read["accuracy"]["first"]["top1"] == pytest.approx(right)
    assert {norm: each["attack"]["norm"] for norm, each in read["attacked"].items()} == {"linf": "linf", "l2": "l2"}
    assert read["settings"]["suite"] == "full"
    assert set(FIELDS.values()) <= set(read)
    apart = found.corruptions.difference("first", "second", corruptions=("fog",), severities=(5,))
    fog = [row for row in read["corruptions"]["differences"] if row["corruption"] == "fog" and row["severities"] == [5]]
    assert [(row["model"], row["over"], row["value"]) for row in fog] == [("first", "second", pytest.approx(apart.value))]
    assert len(read["entropy"]["differences"]) == len(read["entropy"]["table"]) // 2
    ensembles = found.ensemble.pairs[0][1], found.ensemble.pairs[1][1]
    assert [(row["model"], row["over"]) for row in read["ensemble"]["differences"]] == [ensembles]
    assert read["ensemble"]["differences"][0]["clean"]["value"] == pytest.approx(found.ensemble.clean_gain(*ensembles).value)


def test_what_is_done_is_not_asked_again(whole: tuple[Evaluation, Path]) -> None:
    found, keep = whole
    bench = Bench.prepare(MODELS, DATA, keep=keep, fit="pad", images=None, seed=0, **asked())
    assert bench.price().seconds == 0
    calls = [0]
    hooks = [model.network.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1)) for model in MODELS]
    again = bench.run()
    for hook in hooks:
        hook.remove()
    assert plain(again) == plain(found)
    assert calls[0] <= 2 * 2 + 2  # those of a set too small to be kept, and the look that scores are chosen by


def renewed(keep: Path, **changes: Any) -> Evaluation:
    """Asked with changes where something was kept before; nothing may count as done that is not."""
    bench = Bench.prepare(MODELS[:1], DATA, keep=keep, fit="pad", images=2, seed=0, **asked(**changes))
    assert {part.part: part.done for part in bench.price().parts} == {part.name: 0 for part in bench.parts}
    found = bench.run()
    assert found.failures() == ()
    return found


def test_other_photos_of_frost_are_other_corruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "robust", (names.CORRUPTIONS, names.ENSEMBLE))  # type: ignore[index]
    for frost in (None, tmp_path):
        monkeypatch.setattr(frosts, "photo_folder", lambda frost=frost: frost)
        monkeypatch.setattr(frosts, "_read", lambda _: frosts._draw(99))
        frosts.frost_overlays.cache_clear()
        found = renewed(tmp_path / "work", suite="robust", near=[], far=[], train=None)
        assert found.corruptions is not None
        assert found.corruptions.comparable[COMMON.index("frost")] is (frost is not None)
    frosts.frost_overlays.cache_clear()


def test_a_denoiser_of_other_numbers_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.ENTROPY, names.ENSEMBLE, names.CERTIFICATES, names.ATTACK, names.ADAPTED))  # type: ignore[index]
    for dtype in (torch.float32, torch.bfloat16):
        denoiser = NoDenoiser(DENOISER.schedule, size=32)
        denoiser.dtype = dtype  # type: ignore[assignment]  # of the trunk, as networks have it
        renewed(tmp_path / "work", denoiser=denoiser)


def test_further_sigmas_are_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.CERTIFICATES,))  # type: ignore[index]
    kept = set()
    for sigmas in ((0.25,), (0.5, 0.25)):
        found = renewed(tmp_path / "work", settings=replace(SHORT, smoothing=replace(SHORT.smoothing, sigmas=sigmas)))
        assert found.certified is not None
        kept.add(tuple((row.predict, row.radius) for row in found.certified.find("first", 0.25).rows))
    assert len(kept) == 1


class _KilledError(Exception):
    pass


def test_killed_and_resumed_gives_the_same_numbers(whole: tuple[Evaluation, Path], tmp_path: Path) -> None:
    found, _ = whole
    keep, lives = tmp_path / "work", 0
    for after in (2, 40, 12, 10_000):
        count = [0]

        def watch(_: str, count: list[int] = count, after: int = after) -> Callable[[int, int], None]:
            def tick(*_: int) -> None:
                count[0] += 1
                if count[0] > after:
                    raise _KilledError

            return tick

        try:
            resumed = evaluate(MODELS, DATA, keep=keep, watch=watch, **asked())
        except _KilledError:
            lives += 1
    assert lives >= 2
    assert plain(resumed) == plain(found)


def test_a_denoiser_that_cannot_be_asked_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("division by zero")

    denoiser = NoDenoiser(DENOISER.schedule, size=32)
    monkeypatch.setattr(denoiser, "forward", broken)
    with pytest.raises(ModelError, match=r"the denoiser fails on a picture of 32 px: ZeroDivisionError: division by zero; name another"):
        evaluate(MODELS[:1], DATA, **asked(denoiser=denoiser))
    monkeypatch.setattr(denoiser, "forward", lambda x, *_: x * torch.nan)
    with pytest.raises(ModelError, match="the denoiser makes pictures that are NaN or infinite; try --dtype float32"):
        evaluate(MODELS[:1], DATA, **asked(denoiser=denoiser))


def test_a_part_that_fails_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise DataError("no corruptions today")

    monkeypatch.setattr(parts, "corruption_accuracy", broken)
    few = evaluate(MODELS[:1], DATA, keep=tmp_path, **asked("robust", train=None, near=[], denoiser=None))
    reasons = {part.part: part for part in few.skipped}
    assert reasons[names.CORRUPTIONS].failed
    assert "no corruptions today" in reasons[names.CORRUPTIONS].reason
    assert not reasons[names.ENTROPY].failed
    assert "--denoiser" in reasons[names.ENTROPY].reason
    assert few.accuracy is not None
    assert few.calibration is not None
    assert few.unknown is not None
    assert "knn" not in few.unknown.scores
    assert "energy" in few.unknown.scores
    assert few.corruptions is None
    assert few.entropy is None


def test_pictures_too_small_to_corrupt_are_said_before_the_price_and_are_no_failure() -> None:
    """The ensemble is asked about clean pictures alone, and priced so."""
    denoiser = NoDenoiser(DENOISER.schedule, size=16)
    bench = Bench.prepare(
        MODELS[:1], DATA, keep=None, fit="pad", images=None, seed=0, **asked("robust", train=None, near=[], size=16, denoiser=denoiser)
    )
    assert {part.part: part.failed for part in bench.skipped} == {names.CORRUPTIONS: False}
    assert "16 px are too small to corrupt, 32 px is the least" in bench.skipped[0].reason
    (ensemble,) = (part for part in bench.parts if part.name == names.ENSEMBLE)
    assert all(part.calls.corrupted == 0 for part in bench.parts)
    counted, shares = {"classifier": 0, "denoiser": 0}, []

    def counter(name: str) -> Callable[..., None]:
        return lambda _, inputs, *rest: counted.__setitem__(name, counted[name] + len(inputs[0]))

    hooks = [MODELS[0].network.register_forward_hook(counter("classifier")), denoiser.register_forward_hook(counter("denoiser"))]
    found: Any = ensemble.run(None, lambda done, total: shares.append(done / total))
    for hook in hooks:
        hook.remove()
    assert "too small to corrupt" in found.reason
    assert counted == {"classifier": ensemble.calls.classifier, "denoiser": ensemble.calls.denoiser}
    assert shares[-1] == 1


class _Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), torch.nan)


@pytest.mark.parametrize(
    ("models", "changes", "error", "said"),
    [
        ([Judged(_Broken(), NAMES, name="broken")], {}, ModelError, "broken gives logits that are NaN"),
        ([Judged(MODELS[0].network, [*NAMES, "more"], name="four")], {}, ModelError, r"gives logits \(1, 3\) where .* are \(1, 4\)"),
        ([Judged(MODELS[0].network, ["cat", "dog", "owl"], name="owls")], {}, DataError, "which owls does not know"),
        ([MODELS[0], MODELS[0]], {}, ConfigError, "different names"),
        (MODELS, {"near": [chosen(NEAR, 1, 0).subset([])]}, DataError, "holds no images"),
        (MODELS, {"far": [DATA]}, DataError, "are also among the classifier's own"),
        (MODELS, {"near": [FAR]}, DataError, r"unknown set 'far' are in 'far \(2\)' too and would count twice; leave one"),
        (MODELS, {"far": [FAR, FAR[2:4]]}, DataError, r"set 'far \(2\)' are in 'far' too"),
        (MODELS, {"train": DATA}, DataError, "are also"),
        (MODELS, {"suite": "all"}, ConfigError, "suite must be one of few-shot, robust, full"),
        (MODELS, {"images": 0}, ConfigError, "at least 1"),
        (MODELS, {"hours": 1e-9}, ConfigError, "--hours allows"),
    ],
)
def test_what_makes_every_figure_worthless_is_said_before_any_work(
    tmp_path: Path, models: list[Judged], changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        evaluate(models, DATA, keep=tmp_path / "work", **asked(**changes))
    assert not (tmp_path / "work").exists()


def test_unlabelled_images_cannot_be_judged_by() -> None:
    with pytest.raises(DataError, match="has no label"):
        evaluate(MODELS, FAR, **asked("few-shot"))


def test_the_chosen_images_depend_on_seed_and_pixels_alone() -> None:
    few = chosen(DATA, 4, 0)
    turned = chosen(DATA.subset(range(len(DATA))[::-1]), 4, 0)
    assert len(few) == 4
    assert set(few.ids) == set(turned.ids)
    assert few.ids == tuple(sorted(few.ids))
    assert any(set(chosen(DATA, 4, seed).ids) != set(few.ids) for seed in range(1, 5))
    assert chosen(DATA, 100, 0) is DATA


def test_names_of_unknown_sets_are_made_different() -> None:
    near, far = named("blocks", [blocks(1, 5, "a"), blocks(1, 6, "a")], [blocks(1, 7, "blocks"), blocks(1, 8, "b")])
    assert list(near) == ["a", "a (2)"]
    assert list(far) == ["blocks (2)", "b"]


@pytest.mark.parametrize("suite", list(PARTS))
def test_each_suite_holds_the_smaller_ones(suite: names.Suite) -> None:
    parts = SuiteSettings(suite=suite, size=32).parts
    assert parts[: len(names.FEW_SHOT)] == names.FEW_SHOT
    assert len(set(parts)) == len(parts)


@pytest.mark.parametrize("part", [names.ENSEMBLE, names.ENTROPY, names.CORRUPTIONS, names.CERTIFICATES])
def test_calls_are_counted_as_they_are_made(part: str) -> None:
    """Against hooks on the classifier and the denoiser, image by image."""
    given = asked()
    denoiser, asking = given["denoiser"], Asking(models=MODELS[:1], data=DATA, settings=SHORT, denoiser=given["denoiser"], train=TRAIN)
    counted = {"classifier": 0, "denoiser": 0}

    def counter(name: str) -> Callable[..., None]:
        return lambda _, inputs, *rest: counted.__setitem__(name, counted[name] + len(inputs[0]))

    built = build(asking, part)
    hooks = [MODELS[0].network.register_forward_hook(counter("classifier")), denoiser.register_forward_hook(counter("denoiser"))]
    try:
        built.run(None, None)
    finally:
        for hook in hooks:
            hook.remove()
    assert counted == {"classifier": built.calls.classifier, "denoiser": built.calls.denoiser}


def test_a_second_model_costs_an_ensemble_no_denoiser_call() -> None:
    one, two = (build(Asking(models=MODELS[:count], data=DATA, settings=SHORT, denoiser=DENOISER), names.ENSEMBLE) for count in (1, 2))
    assert two.calls.denoiser == one.calls.denoiser
    made = []
    for built in (one, two):
        rows: list[int] = []
        hook = DENOISER.register_forward_hook(lambda _, inputs, *rest, rows=rows: rows.append(len(inputs[0])))
        built.run(None, None)
        hook.remove()
        made.append(sum(rows))
    again = len(DATA[: SHORT.ensemble_images]) * (len(SHORT.diffaug.times) - 1)  # clean images come twice, and so few are remembered
    assert made[1] == made[0] - again == one.calls.denoiser - again


def test_attacks_have_the_usual_radii_and_cost_what_each_costs() -> None:
    radii = {side: {attack.norm: attack.epsilon for attack in SuiteSettings(size=side).plans} for side in (32, 64, 84, 85, 224, 384)}
    assert radii[32] == radii[64] == radii[84] == {"linf": 8 / 255, "l2": 0.5}
    assert radii[85] == radii[224] == radii[384] == {"linf": 4 / 255, "l2": 3.0}
    assert {attack.seed for attack in SuiteSettings(size=32, seed=7).plans} == {7}
    asked_for = []
    for attacks in (SHORT.attacks, *((attack,) for attack in SHORT.attacks or ())):
        asking = Asking(models=MODELS, data=DATA, settings=replace(SHORT, attacks=attacks), denoiser=DENOISER)
        asked_for.append(build(asking, names.ATTACK).calls)
    assert asked_for[0].classifier == asked_for[1].classifier + asked_for[2].classifier
    assert asked_for[0].denoiser == asked_for[1].denoiser + asked_for[2].denoiser > 0
    for attacks in ((), (Attack(), Attack(steps=3))):
        with pytest.raises(ConfigError, match="at least one, of different norms"):
            SuiteSettings(size=32, attacks=attacks)


def test_the_usual_attack_leaves_an_ensemble_no_more_than_its_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacked on one draw of its noise, this ensemble keeps .54."""
    monkeypatch.setattr(parts, "ATTACKED_TOGETHER", 64)
    judged, images, denoiser = gaussians(24)
    (attack,) = (replace(each, epsilon=1.0) for each in usual_attacks(8) if each.norm == "l2")
    own = SuiteSettings(size=8, diffaug=DiffAugSettings(reference_size=None), attacks=(attack,))
    built = build(Asking(models=[judged], data=images, settings=own, denoiser=denoiser), names.ATTACK)
    found: Any = built.run(None, None)
    bare, views = found["l2"].table()
    assert (bare["draws"], views["draws"]) == (1, 8)
    assert bare["clean_accuracy"] == views["clean_accuracy"] == 1
    assert bare["attacked_accuracy"] == 0
    assert views["attacked_accuracy"] < 0.2
    once, members = IMAGE_PASSES * 24 * 11, len(own.diffaug.times)
    assert built.calls == Calls(classifier=once * (1 + 8 * members), denoiser=once * 8 * (members - 1) * 4 // 3)


def test_costs_add_up() -> None:
    rates = Rates(classifier=0.5, denoiser=2.0, corrupted=0.25)
    assert rates.seconds(Calls(classifier=4, denoiser=3, corrupted=8)) == pytest.approx(10.0)
    part = PartCost(part="entropy", images=4, calls=Calls(classifier=4000, denoiser=3), done=0.25, seconds=7200)
    cost = Cost(parts=(part, part))
    assert cost.seconds == 14400
    assert "entropy: 4 images, 4,000 classifier calls and 3 denoiser calls (25% is there already): about 2.0 h" in cost.summary()
    with pytest.raises(ConfigError, match=r"about 4.0 h here, 2.0 h of it for entropy; --hours allows 3 h"):
        cost.check(3)
    cost.check(None)


def test_what_is_lacking_is_named() -> None:
    asking = Asking(models=MODELS, data=DATA, settings=SHORT)
    assert "--near" in lacking(asking, names.UNKNOWN)
    assert "--denoiser" in lacking(asking, names.CERTIFICATES)
    assert lacking(asking, names.ATTACK) == ""
