"""The parts of a suite: for each what it runs, on which images, what decides its numbers, and what it will ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rediffuse.data.names import slug
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Denoiser
from rediffuse.evaluation import adversarial
from rediffuse.evaluation.accuracy import Accuracy, measure
from rediffuse.evaluation.attacking import Attacked, attack_images
from rediffuse.evaluation.calibrating import Calibrations, calibrate
from rediffuse.evaluation.certify.certifying import certify
from rediffuse.evaluation.certify.result import Certified
from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
from rediffuse.evaluation.corruptions.constants import COMMON, SEVERITIES
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.corruptions.sources import Live
from rediffuse.evaluation.entropy import WHOLE, EntropyCurve, entropy_curve
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.suite import joining
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.asking import Asking, Part, Progress, denoiser_told, frost_told, part_of
from rediffuse.evaluation.suite.columns import Columns, ask_columns
from rediffuse.evaluation.suite.cost import Calls
from rediffuse.evaluation.suite.settings import SuiteSettings
from rediffuse.evaluation.suite.unknown import unknown
from rediffuse.evaluation.test_time.dda import DDA
from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble
from rediffuse.evaluation.test_time.ensembles import Plain
from rediffuse.evaluation.test_time.judging import judged_by
from rediffuse.evaluation.test_time.predicting import predict_blocks
from rediffuse.evaluation.test_time.sharing import SharedViews
from rediffuse.training.cost import IMAGE_PASSES

ATTACKED_TOGETHER = 2
"""Images of an ensemble whose gradients are held at once, each with all its views."""


def build(asking: Asking, name: str) -> Part:
    """A part of `settings.PARTS`."""
    return _BUILDERS[name](asking)


def accuracy(asking: Asking) -> Part:
    def run(keep: Path | None, progress: Progress | None) -> Mapping[str, Accuracy]:
        found = {}
        for place, model in enumerate(asking.models):
            folder, told = None if keep is None else keep.with_name(f"{keep.name}-{slug(model.name)}"), model.identity()
            blocks = predict_blocks(
                Plain(model.as_module()), asking.data, keep=folder, identity=told, progress=part_of(progress, place, len(asking.models)),
                **asking.where,
            )  # fmt: skip
            # Nothing else of a block outlives it, and this is made at once: pieces between freed blocks would keep their memory in use.
            decided, done = torch.empty(len(asking.data), dtype=torch.int64), 0
            for said in blocks:
                decided[done : done + len(said)] = said.predicted
                done += len(said)
            found[model.name] = measure(decided.tolist(), model.truth(asking.data).tolist(), model.classes)
        return found

    calls = Calls(classifier=len(asking.models) * len(asking.data))
    return _part(asking, names.ACCURACY, accuracy, joining.accuracies, images=asking.data, calls=calls, run=run)


def calibration(asking: Asking) -> Part:
    def run(keep: Path | None, progress: Progress | None) -> Calibrations:
        return calibrate(asking.models, asking.data, keep=keep, progress=progress, **asking.where)

    calls = Calls(classifier=len(asking.models) * len(asking.data))
    return _part(asking, names.CALIBRATION, calibration, joining.calibrations, images=asking.data, calls=calls, run=run)


def corruptions(asking: Asking) -> Part:
    def run(keep: Path | None, progress: Progress | None) -> CorruptionResult:
        live = Live(asking.data, seed=asking.settings.seed, **asking.where)
        return corruption_accuracy(asking.models, live, keep=keep, progress=progress)

    copies = len(COMMON) * len(SEVERITIES) * len(asking.data)
    calls = Calls(classifier=len(asking.models) * (copies + len(asking.data)), corrupted=copies)
    told = frost_told(asking)
    return _part(asking, names.CORRUPTIONS, corruptions, joining.corruptions, images=asking.data, calls=calls, run=run, key=told)


def entropy(asking: Asking) -> Part:
    images, denoiser = asking.some(asking.settings.entropy_images), asking.pixels

    def run(keep: Path | None, progress: Progress | None) -> EntropyCurve:
        return entropy_curve(asking.models, images, denoiser, seed=asking.settings.seed, keep=keep, progress=progress, **asking.where)

    times = len(WHOLE.times)
    calls = Calls(classifier=len(asking.models) * len(images) * times, denoiser=len(images) * (times - 1))
    return _part(asking, names.ENTROPY, entropy, joining.entropies, images=images, calls=calls, run=run, key=denoiser_told(denoiser))


def ensemble(asking: Asking) -> Part:
    images, denoiser, own = asking.some(asking.settings.ensemble_images), asking.pixels, asking.settings
    views, shared = len(own.diffaug.times), SharedViews() if len(asking.models) > 1 else None

    def made(classifier: nn.Module) -> DiffAugEnsemble:
        asked = DiffAugEnsemble(classifier, denoiser, own.diffaug, seed=own.seed)
        asked.shared = shared
        return asked

    columns = [judged_by(model, made, f"{model.name}, {names.ENSEMBLE}") for model in asking.models]
    return _columns(asking, names.ENSEMBLE, columns, images, views=views, beliefs=views - 1, key=asdict(own.diffaug), shared=shared)


def adapted(asking: Asking) -> Part:
    images, denoiser, own = asking.some(asking.settings.adapted_images), asking.pixels, asking.settings
    shared = SharedViews() if len(asking.models) > 1 else None

    def made(classifier: nn.Module) -> DDA:
        asked = DDA(classifier, denoiser, own.dda, seed=own.seed)
        asked.shared = shared
        return asked

    columns = [judged_by(model, made, f"{model.name}, {names.ADAPTED}") for model in asking.models]
    views = 1 + own.dda.self_ensemble
    return _columns(
        asking, names.ADAPTED, columns, images, views=views, beliefs=IMAGE_PASSES * own.dda.steps, key=asdict(own.dda), shared=shared
    )


def _columns(
    asking: Asking, name: str, columns: Sequence[Judged], images: ImageSet, *, views: int, beliefs: int, key: Mapping[str, Any],
    shared: SharedViews | None,
) -> Part:  # fmt: skip
    severities = asking.settings.severities

    def run(keep: Path | None, progress: Progress | None) -> Columns:
        found = ask_columns(
            name, asking.models, columns, images, severities=severities, seed=asking.settings.seed, keep=keep, progress=progress,
            **asking.where,
        )  # fmt: skip
        if shared is not None:
            shared.clear()
        return found

    copies, clean = (len(COMMON) * len(severities), 2) if asking.settings.corruptible else (0, 1)
    asked = len(asking.models) * len(images) * (copies + clean)  # once for calibration, once for the accuracy beside corrupted copies
    seen = asked // len(asking.models)  # views are made once for all models
    calls = Calls(classifier=asked * (1 + views), denoiser=seen * beliefs, corrupted=len(images) * copies)
    told = {**denoiser_told(asking.pixels), **frost_told(asking), "severities": list(severities), **key}
    maker = ensemble if name == names.ENSEMBLE else adapted
    return _part(asking, name, maker, joining.columns, images=images, calls=calls, run=run, key=told)


def certificates(asking: Asking) -> Part:
    images, denoiser = asking.some(asking.settings.certified_images), asking.pixels
    smoothing = replace(asking.settings.smoothing, seed=asking.settings.seed)

    def run(keep: Path | None, progress: Progress | None) -> Certified:
        return certify(asking.models, images, denoiser, smoothing, keep=keep, progress=progress, **asking.where)

    draws = len(images) * len(smoothing.sigmas) * smoothing.total
    calls = Calls(classifier=len(asking.models) * draws, denoiser=draws)
    key = {**denoiser_told(denoiser), **smoothing.to_json(), "sigmas": None}  # further sigmas may join
    state = "-".join(f"{sigma}" for sigma in sorted(smoothing.sigmas))
    return _part(asking, names.CERTIFICATES, certificates, joining.certificates, images=images, calls=calls, run=run, key=key, state=state)


def attack(asking: Asking) -> Part:
    images, denoiser = asking.some(asking.settings.attacked_images), asking.denoiser
    plans = asking.settings.plans
    victims = [adversarial.classifier(model) for model in asking.models]
    if denoiser is not None:
        victims += [_ensemble_victim(model, denoiser, asking.settings) for model in asking.models]

    def run(keep: Path | None, progress: Progress | None) -> Mapping[str, Attacked]:
        found: dict[str, Attacked] = {}
        for place, plan in enumerate(plans):
            folder, own = None if keep is None else keep.with_name(f"{keep.name}-{plan.norm}"), part_of(progress, place, len(plans))
            found[plan.norm] = attack_images(victims, images, plan, keep=folder, progress=own, **asking.where)
        return found

    once = IMAGE_PASSES * len(images) * len(asking.models) * sum((plan.steps + 1) * plan.restarts for plan in plans)
    each = IMAGE_PASSES * len(images) * len(asking.models) * sum((plan.steps + 1) * plan.restarts * plan.draws for plan in plans)
    views = 0 if denoiser is None else len(asking.settings.diffaug.times)
    calls = Calls(classifier=once + each * views, denoiser=each * max(0, views - 1) * 4 // 3)  # recomputed once for the gradient
    told = {**denoiser_told(denoiser), **asdict(asking.settings.diffaug)}
    told["attacks"] = [asdict(plan) for plan in plans]
    attacked = [victim.name for victim in victims]
    return _part(asking, names.ATTACK, attack, joining.attacks, attacked, images=images, calls=calls, run=run, key=told)


def _part(
    asking: Asking, name: str, maker: Callable[[Asking], Part], join: Callable[[Sequence[Any], Sequence[str]], Any],
    order: Sequence[str] | None = None, **given: Any,
) -> Part:  # fmt: skip
    """A part whose classifiers may be asked apart. order: of what is joined, by name; that of the classifiers where nothing is said."""
    named = asking.names if order is None else order
    return Part(
        name=name, models=asking.models, join=lambda found: join(found, named), apart=lambda models: maker(replace(asking, models=models)),
        **given,
    )  # fmt: skip


def _ensemble_victim(model: Judged, denoiser: Denoiser, settings: SuiteSettings) -> adversarial.Victim:
    """The ensemble with exact gradients, a few images at a time: the views of a whole block would not fit in memory."""
    asked = DiffAugEnsemble(model.as_module(), denoiser, settings.diffaug, seed=settings.seed)
    victim = adversarial.ensemble(model, asked, f"{model.name}, {names.ENSEMBLE}")

    def ask(images: Tensor, seeds: Tensor) -> Tensor:
        images = images.to(denoiser.device)
        parts = zip(images.split(ATTACKED_TOGETHER), seeds.split(ATTACKED_TOGETHER), strict=True)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return torch.cat([asked(part, own) for part, own in parts])
        return torch.cat([checkpoint(asked, part, own, use_reentrant=False, preserve_rng_state=False) for part, own in parts])

    return replace(victim, ask=ask)


_BUILDERS: Mapping[str, Callable[[Asking], Part]] = {
    names.ACCURACY: accuracy,
    names.CALIBRATION: calibration,
    names.CORRUPTIONS: corruptions,
    names.UNKNOWN: unknown,
    names.ENTROPY: entropy,
    names.ENSEMBLE: ensemble,
    names.CERTIFICATES: certificates,
    names.ATTACK: attack,
    names.ADAPTED: adapted,
}
