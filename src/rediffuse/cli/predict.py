"""`rediffuse predict`: what a classifier says of photos, alone or over views that a denoiser makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import (
    BESIDE,
    PIXEL_MODEL,
    Beside,
    Common,
    bar,
    check_fit,
    check_least,
    check_table_apart,
    load_model,
    tell_rejected,
)
from rediffuse.cli.pair import generated
from rediffuse.errors import ConfigError
from rediffuse.progress import are, counted

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.evaluation.test_time.ensembles import Ensemble
    from rediffuse.evaluation.test_time.predictions import Predictions
    from rediffuse.training.classifier import Classifier

VIEWS = Group("Views", sort_key=5)
OWNERS = {
    "step": "diffaug", "t_max": "diffaug", "reduce": "diffaug", "early_exit": "diffaug",
    "dda_start": "dda", "dda_steps": "dda", "dda_guidance": "dda", "dda_factor": "dda",
}  # fmt: skip
"""Option -> the ensemble that it belongs to."""


@Parameter(name="*", group=VIEWS)
@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views the classifier is asked about, beside the photo itself."""

    ensemble: Annotated[
        Literal["none", "diffaug", "dda", "dda-se"],
        Parameter(
            help="none; diffaug: the mean over the photo and one-step views at growing noise; dda: the photo brought back by many guided "
            "steps; dda-se: the mean over that and the photo."
        ),
    ] = "none"
    denoiser: Annotated[
        str | None,
        Parameter(help="An unconditional pixel model: a bundled name, a folder or a hub name. [default: cifar10-32, of 32 pixels]"),
    ] = None
    step: Annotated[int | None, Parameter(help="diffaug: noise times 0, step, 2 step, ... [default: 50]")] = None
    t_max: Annotated[int | None, Parameter(help="diffaug: last noise time, up to 999. [default: 450]")] = None
    reduce: Annotated[
        Literal["probabilities", "logits"] | None, Parameter(help="diffaug: what the mean is taken of. [default: probabilities]")
    ] = None
    early_exit: Annotated[
        bool, Parameter(help="diffaug: ask no further about a photo whose class cannot change; its probability is then of the views asked.")
    ] = False
    dda_start: Annotated[int | None, Parameter(help="dda: noise time to start from. [default: 500]")] = None
    dda_steps: Annotated[int | None, Parameter(help="dda: steps back. [default: 50]")] = None
    dda_guidance: Annotated[
        float | None, Parameter(help="dda: how strongly the photo holds; 0 lets go. [default: 3; 12 up to 45 pixels]")
    ] = None
    dda_factor: Annotated[
        int | None,
        Parameter(help="dda: what of the photo holds: all that is left at a side so many times smaller. [default: 4; 2 up to 45 pixels]"),
    ] = None

    def check(self) -> None:
        """Raise ConfigError where options are missing or belong to another ensemble, before any work."""
        if self.ensemble == "none" and self.denoiser is not None:
            raise ConfigError(
                f"--denoiser {self.denoiser} makes views, but no --ensemble was asked for; add --ensemble diffaug, dda or dda-se"
            )
        for name, owner in OWNERS.items():
            value = getattr(self, name)  # 0 is a value
            if value is not None and value is not False and not self.ensemble.startswith(owner):
                raise ConfigError(f"--{name.replace('_', '-')} belongs to --ensemble {owner}, got --ensemble {self.ensemble}")
        self.settings()

    def settings(self) -> Any:
        """DiffAugSettings or DDASettings; None for the photo alone. Raises ConfigError."""
        if self.ensemble == "diffaug":
            from rediffuse.evaluation.test_time.diffaug import DiffAugSettings

            given = {"step": self.step, "t_max": self.t_max, "reduce": self.reduce, "early_exit": self.early_exit or None}
            return DiffAugSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
        if self.ensemble == "none":
            return None
        from rediffuse.evaluation.test_time.dda import DDASettings

        told = {"start": self.dda_start, "steps": self.dda_steps, "guidance": self.dda_guidance, "factor": self.dda_factor}
        chosen: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        return DDASettings(self_ensemble=self.ensemble == "dda-se", **chosen)

    @property
    def model(self) -> str | None:
        """The denoiser that is asked for."""
        return None if self.ensemble == "none" else self.denoiser or PIXEL_MODEL

    def build(self, classifier: Classifier, denoiser: Denoiser | None, seed: int, batch: int) -> Ensemble:
        """The ensemble of a classifier."""
        from rediffuse.evaluation.test_time.dda import DDA
        from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble
        from rediffuse.evaluation.test_time.ensembles import Plain

        if denoiser is None:
            return Plain(classifier, seed=seed, chunk=batch)
        kind = DiffAugEnsemble if self.ensemble == "diffaug" else DDA
        return kind(classifier, denoiser, self.settings(), seed=seed, chunk=batch)


PHOTO_ALONE = Views()


def predict(
    model: str,
    data: str,
    /,
    *,
    out: Path = Path("predictions.csv"),
    per_class: bool = False,
    split: str | None = None,
    size: int | None = None,
    fit: str | None = None,
    batch: int = 64,
    views: Views = PHOTO_ALONE,
    common: Beside = BESIDE,
) -> int:
    """Name the class of each photo, and say how often that is right where labels are known.

    With --ensemble the classifier is asked about views of each photo too. The same command continues an interrupted one.

    Args:
        model: the classifier: a transformers folder, such as train writes, or a hub name.
        data: photos, with or without labels: a folder, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        out: table to write, .csv or .parquet, not among the photos.
        per_class: a column for the probability of each class.
        split: of a set that has several.
        size: side in pixels at which photos are seen. [default: that of the training, or the denoiser's where that is smaller]
        fit: how photos of other shapes become a square: pad, crop, squash, or crop:0.875 for the middle of so much of the short side.
            [default: that of the training, or what a published network's file asks for, else pad]
        batch: views in one call; less needs less memory.
    """
    from rediffuse.evaluation.kept import KEPT_BLOCKS, forget
    from rediffuse.evaluation.test_time.predicting import predict_images
    from rediffuse.evaluation.test_time.prediction_table import check_table, write_table

    views.check()
    check_table(out)
    check_table_apart(data, out)
    check_least({"--batch": batch, "--size": size})
    check_fit(fit)
    classifier, identity = open_classifier(model)
    denoiser = None if views.model is None else load_model(views.model, common)
    classifier.to(place(denoiser, common))
    side = usual_size(classifier, denoiser) if size is None else size
    square = usual_fit(classifier) if fit is None else fit
    ensemble = views.build(classifier, denoiser, common.seed, batch)
    images = open_any(data, split, common.quiet)
    numbers = None if denoiser is None or denoiser.spec is None else dict(denoiser.spec.options)["dtype"]  # what auto has come to here
    tell_learned(model, classifier, images)
    if told := generated(data, split):
        terminal.note(f"{told}: what is right of them says nothing of photos.", style="yellow")
    describe(ensemble, side, len(images), common.quiet)
    keep = out.with_name(f"{out.name}.partial")
    terminal.goes_on_from((keep, KEPT_BLOCKS))
    with bar("predicting", quiet=common.quiet) as report:
        found = predict_images(ensemble, images, size=side, fit=square, keep=keep, identity=identity | {"dtype": numbers}, progress=report)
    write_table(out, found, images, classifier.classes, per_class=per_class)
    forget(keep)
    tell(found, images, classifier.classes, common.quiet)
    terminal.say(f"The predictions of {counted(len(images), 'photo')} are in {out}")
    return 0


def open_classifier(model: str) -> tuple[Classifier, dict[str, Any]]:
    """The classifier, and what tells it from others."""
    from rediffuse.denoisers.load import weights_hash
    from rediffuse.training.classifier import Classifier
    from rediffuse.training.model_folders import model_folder

    folder = model_folder(model)
    content = sorted(file for pattern in ("*.safetensors", "config.json", "preprocessor_config.json") for file in folder.glob(pattern))
    return Classifier.load(folder), {"classifier": weights_hash(content)}


def place(denoiser: Denoiser | None, common: Common) -> Any:
    """The device that all run on."""
    from rediffuse.denoisers.precision import resolve_device

    return resolve_device(common.device) if denoiser is None else denoiser.device


def usual_size(classifier: Classifier, denoiser: Denoiser | None) -> int:
    """The side that the classifier was trained at, else that of its input; the denoiser's where that is smaller, or the other does not fit
    it."""
    own = classifier.preprocessing.side
    trained = None if denoiser is None else denoiser.size
    return own if denoiser is None or trained is None or fits(own, denoiser) else trained


def usual_fit(network: object) -> str:
    """How photos of other shapes become squares for a classifier whose training, or published file, says so; else padded."""
    from rediffuse.training.classifier import Classifier

    said = network.preprocessing.fit if isinstance(network, Classifier) else None
    return said or "pad"


def fits(side: int, denoiser: Denoiser) -> bool:
    """Whether a denoiser knows photos of that side."""
    return denoiser.size is None or (side <= denoiser.size and side % denoiser.multiple_of == 0)


def open_any(data: str, split: str | None, quiet: bool) -> ImageSet:
    """Photos with the labels that there are; says which could not be read."""
    from rediffuse.data.open import open_images

    with bar(f"reading {data}", quiet=quiet) as report:
        images = open_images(data, split=split, labelled=None, progress=report)
    tell_rejected(images, quiet, "; the table names them")
    return images


def tell_learned(model: str, classifier: Classifier, images: ImageSet) -> None:
    """Say of how many photos with known labels the classifier learned from them; --quiet does not keep that back."""
    from rediffuse.training.trained_on import flattery

    known = meant(images, classifier.classes)
    judged = [row for row, label in enumerate(images.labels) if label is not None and images.classes[label] in known]
    if line := flattery(classifier.learned, Path(model).name or model, images.subset(judged)):
        terminal.note(line, style="yellow")


def meant(images: ImageSet, classes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The classes that each label means, several where they bear one name; labels that mean none, or such as differ, are not there."""
    from rediffuse.evaluation.matching import places

    shown = [images.classes[label] for label in sorted({label for label in images.labels if label is not None})]
    return {name: own for name, own in zip(shown, places(shown, classes), strict=True) if len({classes[place] for place in own}) == 1}


def describe(ensemble: Ensemble, size: int, count: int, quiet: bool) -> None:
    """What is about to be asked."""
    from rediffuse.evaluation.test_time.dda import DDA
    from rediffuse.evaluation.test_time.diffaug import DiffAugEnsemble

    photos = counted(count, "photo")
    if isinstance(ensemble, DiffAugEnsemble):
        sigma = " ".join(f"{value:.3f}" for value in ensemble.levels(size).sigma.tolist())
        terminal.note(f"{len(ensemble.members)} views of each of {photos} at {size} pixels; noise (sigma): {sigma}.", quiet=quiet)
    if isinstance(ensemble, DDA):
        level = ensemble.start_level(size)
        start = f"sigma {float(ensemble.denoiser.schedule.ratio[level]):.3f} (level {level})"
        terminal.note(f"{ensemble.chosen.steps} guided steps for each of {photos} at {size} pixels, from {start}.", quiet=quiet)


def tell(found: Predictions, images: ImageSet, classes: tuple[str, ...], quiet: bool) -> None:
    """How often the predictions are right, where labels are known and mean classes of the classifier.

    Two classes of one name, such as the two cranes of ImageNet, are one where labels do not tell them apart.
    """
    import torch

    places = meant(images, classes)
    names = [None if label is None else images.classes[label] for label in images.labels]
    rows = [row for row, name in enumerate(names) if name in places]
    strange = sorted({name for name in names if name is not None and name not in places})
    if strange:
        count = sum(name is not None and name not in places for name in names)
        what = ", ".join(map(repr, strange[:3])) + (" ..." if len(strange) > 3 else "")
        terminal.note(
            f"{counted(count, 'photo')} {are(count)} labelled {what}, which the classifier does not know; "
            f"{'it is' if count == 1 else 'they are'} not judged.",
            quiet=quiet,
            style="yellow",
        )
    if not rows:
        return
    first = torch.arange(len(classes))
    for own in places.values():
        if len(own) > 1:
            first[list(own)] = own[0]
    judged = replace(found, decisions=first[found.decisions]).index(rows)
    truth = [int(first[places[name][0]]) for row in rows if (name := names[row]) is not None]
    if len(found.members) > 1 and not quiet:
        curve = zip(found.members, judged.curve(truth), strict=True)
        terminal.table(("asked up to", "right"), [(member, f"{share:.1%}") for member, share in curve])
    accuracy = judged.accuracy(truth, classes)
    saved = float((len(found.members) - found.asked.double()).mean())
    spared = f" {saved:.1f} of {len(found.members)} views a photo were not needed." if saved else ""
    right = f"{accuracy.top1:.1%} of {counted(len(rows), 'photo')} (mean over classes {accuracy.mean_per_class:.1%})"
    terminal.say(f"Right on {right}.{spared}")
