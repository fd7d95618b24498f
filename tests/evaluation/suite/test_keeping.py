"""What joins what is done: a second classifier, further sets. Nothing is asked twice, and figures are those of one call for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.suite.test_unknown import Headless
from tests.evaluation.suite.toys import DATA, FAR, MODELS, NAMES, NEAR, SHORT, asked, blocks, network, timeless

from rediffuse.evaluation import attacking, calibrating, entropy
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.ood import scoring
from rediffuse.evaluation.suite import evaluate as room
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.cost import Rates
from rediffuse.evaluation.suite.evaluate import Bench
from rediffuse.evaluation.suite.settings import PARTS
from rediffuse.evaluation.test_time import predicting

FIRST, SECOND = MODELS
RATES = Rates(classifier=1.0, denoiser=10.0, corrupted=1.0)


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices do not hang on a clock."""
    monkeypatch.setattr(room, "measure", lambda *_, **__: RATES)


def bench(models: Sequence[Judged], keep: Path | None, **changes: Any) -> Bench:
    return Bench.prepare(models, DATA, keep=keep, fit="pad", images=None, seed=0, **asked(**changes))


def done(given: Bench) -> dict[str, float]:
    return {part.part: part.done for part in given.price().parts}


@contextmanager
def counted(*models: Judged) -> Iterator[list[int]]:
    """Pictures that each is asked about."""
    calls = [0] * len(models)

    def counter(place: int) -> Callable[..., None]:
        return lambda _, inputs, __: calls.__setitem__(place, calls[place] + len(inputs[0]))

    hooks = [model.network.register_forward_hook(counter(place)) for place, model in enumerate(models)]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.fixture(scope="module")
def whole() -> Any:
    """Every part of both, asked together with nothing kept."""
    return timeless(bench(MODELS, None).run().to_json())


def test_a_second_classifier_costs_its_own_share_alone(whole: Any, tmp_path: Path) -> None:
    alone = bench([FIRST], tmp_path).run()
    assert set(done(bench([FIRST], tmp_path)).values()) == {1}
    joining = bench(MODELS, tmp_path)
    assert all(part.done == pytest.approx(0.5) for part in joining.price().parts)
    assert joining.price().seconds == pytest.approx(bench([SECOND], None).price().seconds)
    with counted(FIRST, SECOND) as calls:
        found = joining.run()
    assert calls[0] == len(DATA)  # accuracy on a set that is too small to be kept
    assert calls[1] > 1000
    assert timeless(found.to_json()) == whole
    assert set(done(bench(MODELS, tmp_path)).values()) == {1}
    assert set(done(bench([SECOND], tmp_path)).values()) == {1}  # as it was asked alone
    assert found.certified is not None
    assert alone.certified is not None
    own = sum(row.seconds for row in found.certified.find("second", 0.25).rows)
    assert found.certified.seconds == pytest.approx(alone.certified.seconds + own, rel=1e-2)  # tables round
    assert all(found.seconds[part] >= alone.seconds[part] for part in PARTS["full"])


def test_killed_while_it_joins_it_goes_on_to_the_same_figures(whole: Any, tmp_path: Path) -> None:
    bench([FIRST], tmp_path).run()
    for after in (3, 30, 200):
        count = [0]

        def tick(*_: int, count: list[int] = count, after: int = after) -> None:
            count[0] += 1
            if count[0] > after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bench(MODELS, tmp_path).run(lambda _, tick=tick: tick)  # type: ignore[misc]
    assert timeless(bench(MODELS, tmp_path).run().to_json()) == whole


def test_those_asked_together_go_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.CERTIFICATES,))  # type: ignore[index]
    bench(MODELS, tmp_path).run()
    assert done(bench(MODELS, tmp_path)) == {names.CERTIFICATES: 1}
    assert done(bench(MODELS[::-1], tmp_path)) == {names.CERTIFICATES: 1}
    assert done(bench([FIRST], tmp_path)) == {names.CERTIFICATES: 0}
    third = network(NAMES, 5, "third")
    bench([third], tmp_path).run()
    (part,) = bench([third, *MODELS], tmp_path).parts
    assert [[model.name for model in each.models] for each in bench([third, *MODELS], tmp_path).keeping.groups(part)] == [
        ["third"],
        ["first", "second"],
    ]
    other = Judged(third.network, NAMES, name="first")  # of one's name and another's weights
    assert done(bench([other, SECOND], tmp_path)) == {names.CERTIFICATES: 0}


def test_classifiers_in_another_order_are_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (attacking, calibrating, entropy, scoring, predicting):
        monkeypatch.setattr(module, "BLOCK", 2)  # so that every part keeps what it did
    found = bench(MODELS, tmp_path).run()
    turned = bench(MODELS[::-1], tmp_path)
    assert set(done(turned).values()) == {1}
    with counted(*MODELS) as calls:
        again = turned.run()
    assert again.skipped == ()
    assert max(calls) <= 1  # the look that scores of unknown inputs are chosen by
    assert again.accuracy == found.accuracy
    assert timeless(again.to_json()) == timeless(bench(MODELS[::-1], None).run().to_json())


def test_a_further_set_costs_its_own_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.UNKNOWN,))  # type: ignore[index]
    more = blocks(7, 9, "more", labelled=False)
    bench([FIRST], tmp_path, near=[NEAR], far=[FAR]).run()
    further = {"near": [more], "far": [NEAR, FAR]}  # one that was near is far now
    before = len(DATA) + 15 + len(NEAR) + len(FAR)
    assert done(bench([FIRST], tmp_path, **further)) == {names.UNKNOWN: pytest.approx(before / (before + 7))}
    with counted(FIRST) as calls:
        found = bench([FIRST], tmp_path, **further)
        looked = calls[0]
        result = found.run()
    assert calls[0] - looked == 7
    assert timeless(result.to_json()) == timeless(bench([FIRST], None, **further).run().to_json())
    assert done(bench([FIRST], tmp_path, near=[NEAR], far=[FAR])) == {names.UNKNOWN: 1}


def test_one_of_which_fewer_scores_can_be_had_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.UNKNOWN,))  # type: ignore[index]
    headless = Judged(Headless(), [*NAMES, "more"], name="headless")
    bench([FIRST], tmp_path).run()
    assert done(bench([FIRST, headless], tmp_path)) == {names.UNKNOWN: 0}
    found = bench([FIRST, headless], tmp_path).run()
    assert timeless(found.to_json()) == timeless(bench([FIRST, headless], None).run().to_json())


def test_other_settings_are_never_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "full", (names.ENSEMBLE, names.ADAPTED, names.ATTACK))  # type: ignore[index]
    bench([FIRST], tmp_path).run()
    other = replace(SHORT, diffaug=replace(SHORT.diffaug, step=100), dda=replace(SHORT.dda, steps=3))
    assert done(bench(MODELS, tmp_path, settings=other)) == dict.fromkeys(PARTS["full"], 0)
