"""Is this classifier to be trusted? A suite of yardsticks on one set of images; priced first, resumable part by part."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rediffuse.checking import check_hours
from rediffuse.data.splits import chosen
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import RediffuseError
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.kept import fingerprint
from rediffuse.evaluation.provenance import commit, provenance
from rediffuse.evaluation.suite.asking import Asking, Part, Progress, part_of
from rediffuse.evaluation.suite.checks import apart, check, lacking, named, unseen, without_training
from rediffuse.evaluation.suite.cost import Cost, PartCost, Rates, measure
from rediffuse.evaluation.suite.keeping import Keeping
from rediffuse.evaluation.suite.parts import build
from rediffuse.evaluation.suite.result import FIELDS, Asked, Evaluation, Skipped
from rediffuse.evaluation.suite.settings import Suite, SuiteSettings
from rediffuse.training.trained_on import flattery, learned_by

Watch = Callable[[str], Progress | None]
"""Called with the name of a part that begins; gives what is to be called with (done, in all)."""


def evaluate(
    models: Judged | Sequence[Judged],
    data: ImageSet,
    *,
    suite: Suite = "robust",
    size: int,
    fit: str = "pad",
    denoiser: Denoiser | None = None,
    near: Sequence[ImageSet] = (),
    far: Sequence[ImageSet] = (),
    train: ImageSet | None = None,
    images: int | None = None,
    seed: int = 0,
    settings: SuiteSettings | None = None,
    keep: str | Path | None = None,
    hours: float | None = None,
    watch: Watch | None = None,
    command: str | None = None,
) -> Evaluation:
    """Run the parts of a suite one after another; a part that cannot be run is noted with its reason, and the others go on.

    Choose it to see what a classifier is worth beyond its accuracy, or whether another one is better.

    Args:
        models: one, or two that are compared in pairs; of different names.
        data: labelled test images that no model was trained on.
        suite: few-shot (accuracy, calibration), robust (also corruptions, unknown inputs, entropy, DiffAug ensemble) or full (also
            certificates, an attack, DDA).
        size, fit: of all pictures; see `data.geometry.Fit`.
        denoiser: unconditional, in pixel space; without one its parts are left out.
        near, far: sets of unknown images; near ones resemble what is known. The few that are the models' own pictures are left out, and
            noted.
        train: the models' training images, for the scores KNN, Mahalanobis and ReAct. Test images among them judge nothing, and are noted.
        images: how many of `data` are judged: a seeded choice by pixels. None judges all.
        seed: of that choice and of all noise.
        settings: what dear parts see; its suite, size, fit and seed give way to the arguments.
        keep: folder for what is done; the same call goes on from it. Further parts and sets may join, and a second model: the first is not
            asked again, while what two share when they are asked together (corrupted pictures, denoised views and draws) is made again for
            the one that joins. Unknown inputs begin anew where other scores or another bank must do for both.
        hours: refuse to begin what would take longer.
    Raises:
        ConfigError: models of one name, a denoiser or size that does not fit, more hours than allowed.
        DataError: no images, unknown labels, an empty set of unknown images or one that shares many pictures with the models' own.
        ModelError: another number of outputs than classes, NaN logits.
    """
    check_hours(hours)
    models = [models] if isinstance(models, Judged) else models
    bench = Bench.prepare(
        models, data, suite=suite, size=size, fit=fit, denoiser=denoiser, near=near, far=far, train=train, images=images, seed=seed,
        settings=settings, keep=keep,
    )  # fmt: skip
    if hours is not None:
        bench.price().check(hours)
    return bench.run(watch, command)


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """A suite that is checked and ready to run.

    Attributes:
        parts: those that can be run; skipped: those that cannot.
        keeping: of what is done.
        notes: limits of all figures, in sentences; the result carries them.
    """

    asking: Asking
    parts: tuple[Part, ...]
    skipped: tuple[Skipped, ...]
    keeping: Keeping
    notes: tuple[str, ...] = ()

    @classmethod
    def prepare(
        cls,
        models: Sequence[Judged],
        data: ImageSet,
        *,
        suite: Suite,
        size: int,
        fit: str,
        denoiser: Denoiser | None,
        near: Sequence[ImageSet],
        far: Sequence[ImageSet],
        train: ImageSet | None,
        images: int | None,
        seed: int,
        settings: SuiteSettings | None,
        keep: str | Path | None,
    ) -> Bench:
        """Check all that can be checked before any work. Args and Raises as in `evaluate`."""
        named_so = {} if settings is None else {name: getattr(settings, name) for name in settings.__dataclass_fields__}
        own = SuiteSettings(**{**named_so, "suite": suite, "size": size, "fit": fit, "seed": seed})
        given, shared = without_training(chosen(data, images, seed), train)
        groups = named(data.name, near, far)
        asking = Asking(models=models, data=given, settings=own, denoiser=denoiser, near=groups[0], far=groups[1], train=train)
        check(asking)
        asking, aside = apart(asking, data)
        skipped = [Skipped(part=name, reason=reason, failed=False) for name in own.parts if (reason := lacking(asking, name))]
        lost = {part.part for part in skipped}
        parts = tuple(build(asking, name) for name in own.parts if name not in lost)
        keeping = Keeping(asking=asking, folder=None if keep is None else Path(keep))
        told = [flattery(learned_by(model.network), model.name, given) for model in models]
        told += [unseen(model, given) for model in models]
        notes = (*(line for line in told if line), *shared, *aside)
        return cls(asking=asking, parts=parts, skipped=tuple(skipped), keeping=keeping, notes=notes)

    @property
    def done(self) -> bool:
        """Whether all of it lies there, so that a price measures nothing."""
        return all(self.keeping.share(each) >= 1 for part in self.parts for each in self.keeping.groups(part))

    def price(self) -> Cost:
        """What is still to be done. Measures for a few seconds, unless it is nothing."""
        asking, own = self.asking, self.asking.settings
        groups = {part.name: [(each.calls, self.keeping.share(each)) for each in self.keeping.groups(part)] for part in self.parts}
        left = [calls for found in groups.values() for calls, share in found if share < 1]
        rates = Rates()
        if left:
            beliefs = asking.denoiser if any(calls.denoiser for calls in left) else None
            corrupting = any(calls.corrupted for calls in left)
            rates = measure(asking.models, asking.data, beliefs, size=own.size, fit=own.fit, corrupting=corrupting)
        return Cost(parts=tuple(PartCost.of(part.name, len(part.images), groups[part.name], rates) for part in self.parts))

    def run(self, watch: Watch | None = None, command: str | None = None) -> Evaluation:
        """Every part. One that fails is noted; where no part at all succeeds, the first error is raised."""
        commit()  # is remembered from here on: work of hours may outlast it
        found: dict[str, Any] = {}
        seconds: dict[str, float] = {}
        skipped, first = list(self.skipped), None
        for part in self.parts:
            try:
                found[FIELDS[part.name]] = part.join(self._said(part, None if watch is None else watch(part.name), seconds))
            except (RediffuseError, RuntimeError, MemoryError) as error:  # such as a device without room for gradients
                first = error if first is None else first
                kind = "" if isinstance(error, RediffuseError) else f"{type(error).__name__}: "
                skipped.append(Skipped(part=part.name, reason=f"{kind}{error}", failed=True))
                traceback.clear_frames(error.__traceback__)  # they hold the tensors, for which the next part has no room
        if first is not None and not found:
            raise first
        asking, own, asked = self.asking, self.asking.settings, self.asked
        device = str(asking.models[0].device)
        return Evaluation(
            name=asking.data.name,
            suite=own.suite,
            models=asking.names,
            weights=self.weights,
            classes=asking.models[0].classes,
            images=len(asking.data),
            side=own.size,
            fit=own.fit,
            provenance=provenance(command, device),
            settings=own.to_json(),
            skipped=tuple(skipped),
            denoiser=asked.denoiser,
            photos=asked.photos,
            unknown_sets=asked.unknown,
            seconds=seconds,
            notes=self.notes,
            **found,
        )

    @property
    def weights(self) -> dict[str, str]:
        """The hash of each classifier's weights, by name."""
        return {name: str(self.keeping.identity(name)["weights"]) for name in self.asking.names}

    @property
    def asked(self) -> Asked:
        """What this is of, to be held against what lies where it would be written."""
        asking, denoiser = self.asking, self.asking.denoiser
        told = {} if denoiser is None else {"kind": type(denoiser).__name__, "hash": denoiser.fingerprint()}
        if denoiser is not None and denoiser.spec is not None:
            told["name"] = denoiser.spec.name
        return Asked(
            models=self.weights,
            name=asking.data.name,
            photos=fingerprint(asking.data),
            images=len(asking.data),
            parts=[part.name for part in self.parts],
            unknown={name: fingerprint(images) for name, images in {**asking.near, **asking.far}.items()},
            settings=asking.settings.to_json(),
            denoiser=told,
        )

    def _said(self, part: Part, progress: Progress | None, seconds: dict[str, float]) -> list[Any]:
        """What all classifiers said, those that are asked together in one; `seconds` learns what the part took, also where it fails."""
        groups = self.keeping.groups(part)
        try:
            return [self.keeping.run(each, part_of(progress, place, len(groups))) for place, each in enumerate(groups)]
        finally:
            seconds[part.name] = sum(self.keeping.seconds(each) for each in groups)
