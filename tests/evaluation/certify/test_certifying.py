"""Certificates against closed forms; resuming, pairing, and what is refused."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from tests.evaluation.certify.toys import CLASSES, HalfSpace, half_space, noise_pictures
from tests.evaluation.test_time.views import Function, mixture
from torch import Tensor, nn

from rediffuse.errors import ConfigError, DataError, ModelError, PlanError
from rediffuse.evaluation.certify.certifying import LOCK, certify, count
from rediffuse.evaluation.certify.result import Certified
from rediffuse.evaluation.certify.rows import read_rows
from rediffuse.evaluation.certify.smoothing import Smoother, Smoothing
from rediffuse.evaluation.judged import Judged

SIZE = 4
IMAGES = noise_pictures(10, SIZE)
PLAN = Smoothing(sigmas=(0.3, 0.6), selection=10, draws=50, alpha=0.05)


def facts(result: Certified) -> list[tuple[str, float, int, int, float]]:
    return [(each.model, each.sigma, row.index, row.predict, row.radius) for each in result.series for row in each.rows]


def distances(size: int = SIZE, images: object = IMAGES) -> np.ndarray:  # type: ignore[type-arg]
    plane = HalfSpace(size)
    return np.array([float(plane.distance(image[None]).abs()) for image in images.fitted(size)])  # type: ignore[attr-defined]


def test_at_most_a_tenth_of_certificates_at_alpha_a_tenth_is_wrong() -> None:
    """2,000 certificates of half spaces, whose true radius is the distance to the plane; a wrong class counts as a wrong certificate.

    The chance of error is at most .1 for each, and less for most since counts are whole numbers. Fixed seeds, and no tolerance on top.
    """
    images = noise_pictures(2000, 2, seed=5)
    found = certify(half_space(2), images, smoothing=Smoothing(sigmas=(0.25,), selection=14, draws=50, alpha=0.1), size=2, chunk=12_800)
    rows, true = found.series[0].rows, distances(2, images)
    wrong = [row.predict >= 0 and (not row.correct or row.radius > distance) for row, distance in zip(rows, true, strict=True)]
    rate = float(np.mean(wrong))
    assert 0.02 < rate <= 0.1  # a bound that is never crossed would be none of alpha = .1
    assert np.mean([row.predict >= 0 for row in rows]) > 0.6


def test_many_draws_find_the_true_radius() -> None:
    images = noise_pictures(3, SIZE, seed=2)
    found = certify(half_space(SIZE), images, smoothing=Smoothing(sigmas=(0.5,), draws=20_000, seed=3), size=SIZE, chunk=10_000)
    for row, distance in zip(found.series[0].rows, distances(images=images), strict=True):
        assert row.correct
        assert row.radius <= distance
        assert row.radius == pytest.approx(distance, abs=0.03)


def test_draws_are_fresh_and_neither_calls_nor_company_change_them() -> None:
    judged = half_space(SIZE)
    pictures = torch.stack(list(IMAGES.fitted(SIZE)))
    smoother = Smoother(None, 0.3)
    (selection, estimation), *_ = whole = count([judged], pictures, IMAGES.digests, smoother, PLAN, 10_000)
    assert selection.sum(1).tolist() == [10] * 10
    assert estimation.sum(1).tolist() == [50] * 10
    network: HalfSpace = judged.network  # type: ignore[assignment]
    assert len(network.seen[0]) == 600
    assert len(network.seen[0].flatten(1).unique(dim=0)) == 600  # no draw is used twice
    for chunk in (7, 60, 61):
        network.seen.clear()
        again = count([judged], pictures, IMAGES.digests, smoother, PLAN, chunk)
        assert all(np.array_equal(a, b) for a, b in zip(again[0], whole[0], strict=True))
        assert max(map(len, network.seen)) <= chunk
        assert max(map(len, network.seen)) - min(map(len, network.seen)) <= 1
    alone = count([judged], pictures[3:4], IMAGES.digests[3:4], smoother, PLAN)[0]
    assert (alone[0][0].tolist(), alone[1][0].tolist()) == (selection[3].tolist(), estimation[3].tolist())


def test_every_sigma_scales_the_same_noise() -> None:
    judged, images = half_space(SIZE), IMAGES.subset([0])
    certify(judged, images, smoothing=Smoothing(sigmas=(0.3, 0.6), selection=5, draws=20), size=SIZE, chunk=25)
    x, (first, second) = next(iter(images.fitted(SIZE))), judged.network.seen  # type: ignore[misc]
    torch.testing.assert_close((first - x) / 0.3, (second - x) / 0.6, atol=1e-5, rtol=0)


def test_all_models_see_the_same_denoised_draws() -> None:
    calls: list[int] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x_t))
        return x_t

    judged = [half_space(SIZE, name="first"), half_space(SIZE, seed=4, name="second")]
    found = certify(judged, IMAGES, Function(denoise), PLAN, size=SIZE, chunk=120)
    assert sum(calls) == 2 * 10 * 60  # two sigmas, once for both models
    first, second = (torch.cat(model.network.seen) for model in judged)  # type: ignore[arg-type]
    assert torch.equal(first, second)
    alone = certify(judged[1], IMAGES, Function(denoise), PLAN, size=SIZE, chunk=120)
    assert facts(alone) == [fact for fact in facts(found) if fact[0] == "second"]
    assert found.models == ("first", "second")


@pytest.mark.parametrize("chunk", [50, 180])  # several calls an image; three images a call
def test_kill_and_resume_gives_the_same_numbers(tmp_path: Path, chunk: int) -> None:
    def run(folder: Path, stop: int = 99) -> Certified:
        def progress(done: int, total: int) -> None:
            assert total == 20
            if done >= stop:
                raise KeyboardInterrupt

        models = [half_space(SIZE, name="one"), half_space(SIZE, seed=1, name="two/three")]
        return certify(models, IMAGES, mixture(size=SIZE), PLAN, size=SIZE, chunk=chunk, keep=folder, progress=progress)

    whole = run(tmp_path / "whole")
    for stop in (4, 13):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, stop)
        torn = sorted(folder.glob("one-*.tsv"))[-1]
        torn.write_text(torn.read_text()[:-9])  # killed while it wrote
        resumed = run(folder)
        assert facts(resumed) == facts(whole)
        for file in folder.glob("*.tsv"):
            other = read_rows(tmp_path / "whole" / file.name)
            assert [(row.index, row.label, row.predict, row.radius) for row in read_rows(file)] == [
                (row.index, row.label, row.predict, row.radius) for row in other
            ]
        assert len(list(folder.glob("*.tsv"))) == 4
    network = HalfSpace(SIZE)
    done = certify([Judged(network, CLASSES, name="one"), half_space(SIZE, seed=1, name="two/three")], IMAGES, mixture(size=SIZE), PLAN,
                   size=SIZE, chunk=chunk, keep=tmp_path / "whole")  # fmt: skip
    assert facts(done) == facts(whole)
    assert network.seen == []
    assert done.seconds == pytest.approx(whole.seconds, abs=1e-4)


@pytest.mark.parametrize("chunk", [50, 180])  # several calls an image; three images a call
def test_a_short_or_lost_table_takes_nothing_from_the_others(tmp_path: Path, chunk: int) -> None:
    plan = replace(PLAN, sigmas=(0.3,))
    models = [half_space(SIZE, seed=seed, name=name) for seed, name in enumerate(("one", "two", "three"))]

    def run() -> tuple[list[int], list[int]]:
        """(draws that each model saw, images that were told as done), where the tables end as they should."""
        for model in models:
            model.network.seen.clear()  # type: ignore[operator, union-attr]
        told: list[int] = []
        certify(models, IMAGES, mixture(size=SIZE), plan, size=SIZE, chunk=chunk, keep=tmp_path / "run",
                progress=lambda done, _: told.append(done))  # fmt: skip
        return [sum(map(len, model.network.seen)) for model in models], told  # type: ignore[arg-type]

    def said(name: str) -> list[tuple[int, int, float]]:
        return [(row.index, row.predict, row.radius) for row in read_rows(tmp_path / "run" / f"{name}-0.3.tsv")]

    assert run()[0] == [600, 600, 600]
    files = {model.name: tmp_path / "run" / f"{model.name}-0.3.tsv" for model in models}
    bytes_of, whole = {name: file.read_bytes() for name, file in files.items()}, {name: said(name) for name in files}

    files["two"].unlink()
    draws, told = run()
    assert draws == [0, 600, 0]
    assert told[0] == 0
    assert told[-1] == 10
    assert said("two") == whole["two"]
    assert all(files[name].read_bytes() == bytes_of[name] for name in ("one", "three"))

    # A kill after the first model's line of the seventh image, and a table that lost more.
    for name, rows in (("one", 7), ("two", 6), ("three", 3)):
        files[name].write_text("".join(files[name].read_text().splitlines(keepends=True)[: 1 + rows]))
    first = files["one"].read_text()
    draws, told = run()
    assert draws == ([180, 240, 420] if chunk == 50 else [240, 240, 420])  # of three images together none is kept without the others
    assert told == sorted(told)
    assert (told[0], told[-1]) == (3, 10)
    assert {name: said(name) for name in files} == whole
    assert chunk == 180 or files["one"].read_text().startswith(first)


def test_a_folder_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    other = Smoothing(sigmas=(0.3,), selection=10, draws=51, alpha=0.05)
    with pytest.raises(ConfigError, match=r"another call \(draws 50 there, 51 here\)"):
        certify(half_space(SIZE), IMAGES, None, other, size=SIZE, keep=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another call \(.*weights"):
        certify(half_space(SIZE, seed=3), IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    with pytest.raises(ConfigError, match="denoiser none there"):
        certify(half_space(SIZE), IMAGES, mixture(size=SIZE), PLAN, size=SIZE, keep=tmp_path / "run")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    wider = Smoothing(sigmas=(0.3, 0.6, 0.9), selection=10, draws=50, alpha=0.05)
    assert len(certify(half_space(SIZE), IMAGES, None, wider, size=SIZE, keep=tmp_path / "run").series) == 3
    foreign = tmp_path / "run" / "plane-0.3.tsv"
    foreign.write_text(foreign.read_text().replace("\n0\t", "\n5\t", 1))
    with pytest.raises(DataError, match=r"of another run: image 5 .* there, 0 .* here"):
        certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    assert foreign.exists()


def test_a_table_is_gone_on_from_by_its_own_run_alone(tmp_path: Path) -> None:
    """Everything that looks like a table of this run and is none: the images and labels are the same in all of them."""
    nets = {place: half_space(SIZE, seed=seed) for place, seed in (("a", 0), ("b", 3))}
    for place, net in nets.items():
        certify(net, IMAGES, None, PLAN, size=SIZE, keep=tmp_path / place)
    own = {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    table, seal = tmp_path / "b" / "plane-0.3.tsv", tmp_path / "b" / "plane-0.3.seal"

    def again() -> list[tuple[str, float, int, int, float]]:
        return facts(certify(nets["b"], IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "b"))

    def back() -> None:
        for name, content in own.items():
            (tmp_path / "b" / name).write_bytes(content)

    whole = again()
    for other in (tmp_path / "a" / "plane-0.3.tsv", tmp_path / "b" / "plane-0.6.tsv"):
        for together in (False, True):
            table.write_bytes(other.read_bytes())
            if together:
                seal.write_bytes(other.with_suffix(".seal").read_bytes())
            with pytest.raises(DataError, match=r"plane-0\.3\.tsv line \d+ is not what this run wrote.*remove plane-0\.3\.tsv and plane"):
                again()
            back()
    row = read_rows(table)[4]
    table.write_text(table.read_text().replace(row.line(), replace(row, radius=row.radius + 0.01).line()))
    with pytest.raises(DataError, match=r"line 6 is not what this run wrote"):
        again()
    back()
    seal.unlink()
    with pytest.raises(DataError, match=r"lies without plane-0\.3\.seal"):
        again()
    back()
    assert again() == whole


@pytest.mark.parametrize("sealed", [0, 4])
def test_what_a_kill_left_without_a_seal_is_made_again(tmp_path: Path, sealed: int) -> None:
    certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    table, seal = tmp_path / "run" / "plane-0.3.tsv", tmp_path / "run" / "plane-0.3.seal"
    said, lines = [row.radius for row in read_rows(table)], seal.read_text().splitlines(keepends=True)
    seal.write_text("".join(lines[:sealed]) + lines[sealed][:5])  # a torn line is none
    judged = half_space(SIZE)
    certify(judged, IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    assert sum(map(len, judged.network.seen)) == 60 * (10 - sealed)  # type: ignore[arg-type]
    assert [row.radius for row in read_rows(table)] == said
    certify(judged, IMAGES, None, PLAN, size=SIZE, keep=tmp_path / "run")
    assert sum(map(len, judged.network.seen)) == 60 * (10 - sealed)  # type: ignore[arg-type]


def test_broken_logits_lose_nothing(tmp_path: Path) -> None:
    class Breaks(HalfSpace):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (torch.nan if self.breaks and len(self.seen) >= 7 else 1)

    network = Breaks(SIZE)
    network.breaks = True  # type: ignore[assignment]
    models = Judged(network, CLASSES, name="net")
    with pytest.raises(ModelError, match="net gives logits that are NaN"):
        certify(models, IMAGES, None, PLAN, size=SIZE, chunk=30, keep=tmp_path / "run")
    assert len(read_rows(tmp_path / "run" / "net-0.3.tsv")) == 3  # two calls an image
    network.breaks = False  # type: ignore[assignment]
    network.seen.clear()
    found = certify(models, IMAGES, None, PLAN, size=SIZE, chunk=30, keep=tmp_path / "run")
    assert len(network.seen) == 2 * (2 * 10 - 3)
    assert [fact[1:] for fact in facts(found)] == [fact[1:] for fact in facts(certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE))]
    with pytest.raises(ModelError, match="the denoiser gives images that are NaN"):
        certify(models, IMAGES, Function(lambda x, t: x * torch.nan), PLAN, size=SIZE)


def test_what_does_not_fit_is_refused_before_any_work() -> None:
    judged = half_space(SIZE)
    with pytest.raises(ConfigError, match="size must be a multiple of 8 for this model, got 4"):
        certify(judged, IMAGES, Function(lambda x, t: x, multiple_of=8), PLAN, size=SIZE)
    with pytest.raises(ConfigError, match="got a latent"):
        certify(judged, IMAGES, Function(lambda x, t: x, channels=4), PLAN, size=SIZE)
    with pytest.raises(ConfigError, match="sigma must be at most"):
        certify(judged, IMAGES, mixture(size=SIZE), Smoothing(sigmas=(0.25, 90)), size=SIZE)
    with pytest.raises(ConfigError, match="different names, got plane, plane"):
        certify([judged, judged], IMAGES, None, PLAN, size=SIZE)
    with pytest.raises(ConfigError, match="got none"):
        certify([], IMAGES, None, PLAN, size=SIZE)
    with pytest.raises(DataError, match="no images to certify"):
        certify(judged, IMAGES.subset([]), None, PLAN, size=SIZE)
    with pytest.raises(ConfigError, match=r"chunk .* at least 1"):
        certify(judged, IMAGES, None, PLAN, size=SIZE, chunk=0)
    with pytest.raises(DataError, match="does not know"):
        certify(Judged(nn.Identity(), ["left", "right"]), IMAGES, None, PLAN, size=SIZE)
    assert judged.network.seen == []


def test_what_never_wavers_reaches_the_ceiling() -> None:
    ceiling = PLAN.sigmas[0] * NormalDist().inv_cdf(PLAN.alpha ** (1 / PLAN.draws))
    found = certify(half_space(SIZE), IMAGES, Function(lambda x, t: torch.ones_like(x)), PLAN, size=SIZE)
    series = found.find("plane", 0.3)
    assert [row.radius for row in series.rows] == pytest.approx([ceiling] * len(IMAGES))
    assert len({row.predict for row in series.rows}) == 1
    assert series.ceiling == pytest.approx(ceiling)


def test_a_second_process_writes_into_no_folder_that_a_first_one_fills(tmp_path: Path) -> None:
    kept = tmp_path / "run"

    def second(done: int, _: int) -> None:
        if done == 1:
            with pytest.raises(PlanError, match=r"being written by process .* remove .*certificates-0\.\d+\.lock"):
                certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=kept)
            certify(half_space(SIZE), IMAGES, None, replace(PLAN, sigmas=(0.75,)), size=SIZE, keep=kept)  # another table

    found = certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=kept, chunk=1, progress=second)
    assert not list(kept.glob("*.lock"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (kept / LOCK.format(PLAN.sigmas[0])).write_text(json.dumps({"host": socket.gethostname(), "pid": dead.pid, "time": "long ago"}))
    assert certify(half_space(SIZE), IMAGES, None, PLAN, size=SIZE, keep=kept).table() == found.table()
