"""The part of `train` that makes classifiers robust: more views of each photo, and how long they are looked at."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import PIXEL_MODEL, Common, bar, load_model
from rediffuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.methods.bank import Bank
    from rediffuse.methods.base import Method
    from rediffuse.training.classifier import Classifier
    from rediffuse.training.fit import TrainSet
    from rediffuse.training.objectives import Extra, Objective
    from rediffuse.training.pool import Pool
    from rediffuse.training.procedure import Procedure
    from rediffuse.training.settings import TrainSettings

VIEWS = Group("Robustness", sort_key=3)
BUDGET = Group("Long trainings", sort_key=4)
View = Literal["diffaug", "noise", "wiener", "augmix", "deepaugment", "plain"]
NOISED = ("diffaug", "noise", "wiener")
DEFAULT_SIZE = 64


@Parameter(name="*", group=VIEWS)
@dataclass(frozen=True, kw_only=True)
class Views:
    """More views of each photo in every step."""

    augment: Annotated[
        tuple[View, ...],
        Parameter(
            help="diffaug: into noise and back in one step; augmix; deepaugment; plain: one more crop. Controls of diffaug: noise alone, "
            "or a wiener filter in the denoiser's place."
        ),
    ] = ()
    objective: Annotated[
        Literal["sum", "consistency", "stand-in", "soft"] | None,
        Parameter(
            help="sum: a cross-entropy for each view; consistency: AugMix's, and the others' sum; stand-in: that, where deepaugment may "
            "take the photo's place; soft: mixed photos and labels in the clean term. [default: by --augment]"
        ),
    ] = None
    denoiser: Annotated[
        str | None,
        Parameter(help="For diffaug: an unconditional pixel model: bundled name, folder or hub name. [default: cifar10-32, of 32 pixels]"),
    ] = None
    fraction: Annotated[float, Parameter(help="Part of each batch that gets the noised view.")] = 1.0
    bank_rate: Annotated[
        float | None, Parameter(help="Part of the noised views that is made anew; the others come again from a bank. [default: all]")
    ] = None
    second: Annotated[str | None, Parameter(help="A second labelled set of the same classes, trained on beside the first.")] = None

    def check(self) -> None:
        """Raise ConfigError for options that do not go together, before any work."""
        if self.denoiser is not None and "diffaug" not in self.augment:
            raise ConfigError(f"--denoiser {self.denoiser} makes views, but none was asked for; add --augment diffaug")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"--fraction must be in (0, 1], got {self.fraction}")
        if self.bank_rate is not None and not 0 < self.bank_rate <= 1:
            raise ConfigError(f"--bank-rate must be in (0, 1], got {self.bank_rate}; without it every view is made anew")
        if (self.fraction < 1 or self.bank_rate is not None) and not set(self.augment) & set(NOISED):
            raise ConfigError(f"--fraction and --bank-rate are for {', '.join(NOISED)}; add one of them to --augment")
        wanted = {"consistency": {"augmix"}, "stand-in": {"augmix", "deepaugment"}}.get(self.objective or "", set())
        if not wanted <= set(self.augment):
            raise ConfigError(f"--objective {self.objective} needs --augment {' '.join(sorted(wanted))}")

    @property
    def model(self) -> str | None:
        """The denoiser that is asked for."""
        return (self.denoiser or PIXEL_MODEL) if "diffaug" in self.augment else None

    @property
    def kind(self) -> str:
        """How the terms add up."""
        if self.objective is not None:
            return self.objective
        if "augmix" in self.augment:
            return "stand-in" if "deepaugment" in self.augment else "consistency"
        return "sum"


@Parameter(name="*", group=BUDGET)
@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long a whole network looks at many photos, and by which means."""

    epochs: Annotated[float | None, Parameter(help="Times that every photo is seen. [default: 30 with --augment]")] = None
    batch: Annotated[int | None, Parameter(help="Photos a step. [default: 128; 64 for a network that knows something]")] = None
    optimizer: Annotated[
        Literal["sgd", "adamw"] | None, Parameter(help="[default: sgd for convolutions from random weights, else adamw]")
    ] = None
    learning_rate: Annotated[
        float | None, Parameter(help="Largest. [default: 0.1 with sgd; adamw: 0.001, or 0.00005 for known weights]")
    ] = None
    ema: Annotated[float, Parameter(help="Decay of an average of the weights, which is then the result; 0: the last weights.")] = 0.0
    track: Annotated[str | None, Parameter(help="Log to a tracker that accelerate knows, such as tensorboard.")] = None


NO_VIEWS, USUAL = Views(), Budget()


def train_robustly(
    train_set: TrainSet, classes: tuple[str, ...], views: Views, budget: Budget, *,
    level: str, steps: int | None, size: int | None, fit: str, flips: bool, second: ImageSet | None, checkpoint: Path, common: Common,
) -> tuple[Classifier, int]:  # fmt: skip
    """The trained classifier, and the side in pixels at which it saw the photos. second: trained on beside the first set."""
    from rediffuse.methods.bank import Bank
    from rediffuse.training.cost import StepClock, step_cost
    from rediffuse.training.fit import as_pool
    from rediffuse.training.loop import fit_network
    from rediffuse.training.presets import usual_views
    from rediffuse.training.tracking import tracked

    denoiser = None if views.model is None else load_model(views.model, common)
    start, side = open_start(level, classes, size, denoiser, common)
    tell_side(level, start, side, denoiser, common, ", their views too,")
    pool, _ = as_pool(train_set, classes, side, fit, margin=True)
    if second is not None:
        pool = pool.joined(as_pool(second, classes, side, fit, margin=True)[0])
    settings, procedure = plan(level, len(pool.labels), steps, budget, common.dtype)
    objective = objective_of(views, denoiser, pool, side, flips, common)
    terminal.note(step_cost(objective, start, (side, side), settings.steps * settings.batch).line(), quiet=common.quiet)
    logs = checkpoint.parent.with_name(f"{checkpoint.parent.name}.logs")
    told = {"level": level, "augment": " ".join(views.augment), "objective": views.kind, **settings.to_json()}
    following = nullcontext(None) if budget.track is None else tracked([budget.track], logs, settings=told, device=start.device)
    with following as watch, bar("training", "steps", quiet=common.quiet) as report:
        banks = [extra.method for extra in objective.extras if isinstance(extra.method, Bank)]
        clock = StepClock(lambda line: terminal.note(line, quiet=common.quiet), settings.batch, report, banks=banks)
        trained = fit_network(
            start, pool, settings=settings, views=usual_views(side, flips), objective=objective, procedure=procedure,
            view_size=(side, side), seed=common.seed, checkpoint=checkpoint, progress=clock, watch=watch,
        )  # fmt: skip
    return trained, side


def open_start(level: str, classes: tuple[str, ...], size: int | None, denoiser: Denoiser | None, common: Common) -> tuple[Classifier, int]:
    """The network before training, and the side of its views: as asked for, else what denoiser and network know."""
    from rediffuse.denoisers.precision import resolve_device
    from rediffuse.training.backbones import FROM_RANDOM, open_backbone

    known = None if denoiser is None else denoiser.size
    side = size or known or DEFAULT_SIZE
    start = open_backbone(level, classes, seed=common.seed, size=side)
    own = start.preprocessing.side
    fits = denoiser is None or own % denoiser.multiple_of == 0
    if level not in FROM_RANDOM and size is None and fits and (known is None or own <= known):
        side = own
    return start.to(resolve_device(common.device)), side


def tell_side(level: str, classifier: Classifier, side: int, denoiser: Denoiser | None, common: Common, too: str = "") -> None:
    """At how many pixels photos are seen, and what becomes of them where a known network takes more. too: what is seen so beside them."""
    from rediffuse.training.backbones import FROM_RANDOM

    own, more = max(classifier.preprocessing.size), ""
    if level not in FROM_RANDOM and side < own:
        fix = "--size says otherwise" if denoiser is None or denoiser.size != side else "the denoiser knows no larger ones"
        more = f"{too} and enlarged to the {own} that the network takes; {fix}"
    terminal.note(f"Photos are seen at {side} pixels{more}.", quiet=common.quiet)


def open_second(spec: str, classes: tuple[str, ...], held: Collection[str], common: Common) -> ImageSet:
    """A second labelled set, its labels counted in the first one's classes, without the photos that judge.

    Raises:
        DataError: it holds no others.
    """
    from rediffuse.cli.common import open_photos
    from rediffuse.evaluation.matching import in_classes

    images = in_classes(open_photos(spec, quiet=common.quiet), classes, "the first training set")
    judges = frozenset(held)
    apart = images.subset([row for row, own in enumerate(images.digests) if own not in judges])
    if not len(apart):
        raise DataError(f"all {len(images):,} photos of {spec} are held out to judge by; give others with --second, or leave it out")
    if both := len(images) - len(apart):
        told = f"{both:,} of {len(images):,} photos of {spec} are held out to judge by, pixel for pixel; they are left out of training."
        terminal.note(told, quiet=common.quiet, style="yellow")
    terminal.note(f"{len(apart):,} photos of {spec} are trained on as well.", quiet=common.quiet)
    return apart


def plan(level: str, photos: int, steps: int | None, budget: Budget, dtype: str) -> tuple[TrainSettings, Procedure]:
    """Settings and means, as asked for or as usual."""
    from rediffuse.training.presets import EPOCHS, usual
    from rediffuse.training.procedure import steps_of

    if steps is not None and budget.epochs is not None:
        raise ConfigError(f"--steps and --epochs both say how long; give one of them, got {steps} and {budget.epochs:g}")
    settings, procedure = usual(level)
    batch = min(settings.batch, max(2, photos)) if budget.batch is None else budget.batch
    changes: dict[str, Any] = {"batch": batch}
    if budget.optimizer is not None and budget.optimizer != procedure.optimizer:
        procedure = replace(procedure, optimizer=budget.optimizer)
        rate, decay = (0.1, 5e-4) if budget.optimizer == "sgd" else (0.001, 0.05)
        changes |= {"learning_rate": rate, "weight_decay": decay}
    if budget.learning_rate is not None:
        changes["learning_rate"] = budget.learning_rate
    if batch < 1:
        raise ConfigError(f"--batch must be at least 1, got {batch}")
    changes["steps"] = steps_of(EPOCHS if budget.epochs is None else budget.epochs, photos, batch) if steps is None else steps
    return replace(settings, **changes), replace(procedure, ema=budget.ema, dtype=dtype)  # type: ignore[arg-type]  # checked there


def objective_of(views: Views, denoiser: Denoiser | None, pool: Pool, side: int, flips: bool, common: Common) -> Objective:
    """What a step adds up."""
    from rediffuse.methods.augmix import AugMix
    from rediffuse.methods.deepaugment import DeepAugment
    from rediffuse.training.objectives import Extra, Objective
    from rediffuse.training.presets import usual_severity
    from rediffuse.training.soft_labels import SoftLabels

    augmix = AugMix(usual_severity(side))
    extras: list[Extra] = []
    for name in views.augment:
        if name in NOISED:
            method = noised(name, denoiser, pool, side, flips, views.bank_rate, common)
            extras.append(Extra(method=method, share=views.fraction))
        elif name == "plain":
            extras.append(Extra(source="independent"))
        elif name == "deepaugment" and views.kind != "stand-in":
            extras.append(Extra(method=DeepAugment(), source="independent"))
        elif name == "augmix" and views.kind in ("sum", "soft"):
            extras.append(Extra(method=augmix, source="independent"))
    mixes = augmix if views.kind in ("consistency", "stand-in") else None
    stand_ins = (Extra(method=DeepAugment(), source="independent"),) if views.kind == "stand-in" else ()
    return Objective(extras=tuple(extras), augmix=mixes, stand_ins=stand_ins, soft=SoftLabels() if views.kind == "soft" else None)


def noised(
    name: str, denoiser: Denoiser | None, pool: Pool, side: int, flips: bool, rate: float | None, common: Common
) -> Method[Any] | Bank:
    """The view that goes into noise: back by the denoiser, by a filter fitted to the photos, or not at all."""
    from rediffuse.denoisers.base import NoiseSchedule
    from rediffuse.denoisers.nothing import NoDenoiser
    from rediffuse.denoisers.precision import resolve_device
    from rediffuse.denoisers.schedules import linear_betas
    from rediffuse.denoisers.wiener import WienerDenoiser
    from rediffuse.methods.bank import Bank
    from rediffuse.methods.diffaug import DiffAug

    schedule = NoiseSchedule.from_betas(linear_betas()) if denoiser is None else denoiser.schedule
    if name == "noise":
        back: Denoiser = NoDenoiser(schedule, size=side)
    elif name == "wiener":
        back = WienerDenoiser.fit(pool.judged(), schedule)
    elif denoiser is None:
        raise ConfigError("--augment diffaug needs --denoiser")
    else:
        back = denoiser
    method = DiffAug(back.to(resolve_device(common.device)))
    return method if rate is None else Bank(method, rate, flips=flips, seed=common.seed)
