"""`rediffuse train`: a classifier from photos, with generated ones or views for robustness, and its accuracy on held-out photos."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, Common, Shared, bar, check_fit, check_least, open_photos
from rediffuse.cli.holding_out import HELD_OUT_SHARE, check_holdout, hold_out
from rediffuse.cli.pair import check_pair, open_pair
from rediffuse.cli.record import asked, check_same, read_record, write_record
from rediffuse.cli.robust import DEFAULT_SIZE, NO_VIEWS, USUAL, Budget, Views, open_second, tell_side, train_robustly
from rediffuse.data.outputs import EXPORT_KIND, UNFINISHED, output_kind
from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from rediffuse.data.mixing import Mixed
    from rediffuse.data.types import ImageSet
    from rediffuse.evaluation.accuracy import Accuracy
    from rediffuse.training.classifier import Classifier
    from rediffuse.training.settings import Mode

HELD_OUT = Group("Held out", sort_key=2)
UNSAVED = ".saving"  # as `training.classifier` calls it
LOCK = ".training.lock"
LEFT = (UNFINISHED, f"{UNFINISHED}.partial", f".{UNFINISHED}.*.partial")
"""What an interrupted training, or one of an earlier version, may leave: patterns."""


def train(
    data: str,
    out: Path = Path("model"),
    /,
    *,
    synthetic: str | None = None,
    alpha: float = 0.5,
    classifier: str = "scratch",
    mode: Literal["linear", "whole"] | None = None,
    steps: int | None = None,
    size: int | None = None,
    fit: str = "pad",
    shots: int | None = None,
    split: str | None = None,
    no_flips: bool = False,
    test: Annotated[str | None, Parameter(group=HELD_OUT)] = None,
    holdout: Annotated[float | None, Parameter(group=HELD_OUT)] = None,
    views: Views = NO_VIEWS,
    budget: Budget = USUAL,
    common: Common = COMMON,
) -> int:
    """Train a classifier and say how often it is right on photos that it has not seen.

    The result is a plain transformers folder; the same command again finds it done. An interrupted training of the whole network continues
    with the same command; a head on frozen features takes little and begins anew. With --augment, or an option of long trainings, the whole
    network learns from many photos; torchrun -m rediffuse train ... spreads that over several devices.

    Args:
        data: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        out: folder for the classifier.
        synthetic: folder that `augment` or `generate` made from these photos.
        alpha: probability that a generated image stands in for its photo.
        classifier: what it knows at the start: scratch, cifar-resnet, cifar-vit, resnet-64, a transformers folder or a hub name.
        mode: linear (a head on frozen features) or whole. [default: whole from random weights or with --augment, else linear]
        steps: optimiser steps. [default: 400; 300 in mode linear; by --epochs with --augment]
        size: side in pixels at which photos are held; the input of scratch. [default: the denoiser's, else 64]
        fit: how photos of other shapes become a square: pad, crop, squash, or crop:0.875 for the middle of so much of the short side; of
            a whole network crops lie anywhere in the short side then, and views start from that middle, as published at 224 pixels.
        shots: train on this many photos of each class.
        split: of a set that has several; train, where there is one.
        no_flips: a mirrored photo would have another label (digits, text).
        test: photos to be judged on: another folder or table, or the name of a split.
        holdout: share of each class that is held out where there are no other photos to be judged on. [default: 0.2]
    """
    from rediffuse.data.splits import few_shot
    from rediffuse.training.fit import digests_of, mode_of

    views.check()
    check_least({"--steps": steps, "--size": size, "--shots": shots})
    check_fit(fit)
    check_holdout(holdout, data, split, test)
    robust = views != NO_VIEWS or budget != USUAL
    if robust and mode == "linear":
        raise ConfigError("--mode linear trains a head on frozen features, which sees no views; leave out --mode, or the views and budget")
    if not robust and common.dtype not in ("auto", "float32"):
        raise ConfigError(f"--dtype {common.dtype} is for long trainings; give --epochs or --augment as well")
    first = int(os.environ.get("RANK", "0")) == 0  # torchrun's: one process speaks and writes
    common = common if first else replace(common, quiet=True)
    done = read_record(out)
    if done is None:
        check_out(out)
    terminal.goes_on_from((out, UNFINISHED))
    run = "the run that they were exported from" if output_kind(data) == EXPORT_KIND else data
    check_pair(data, f"learn from the photos that they were made from, and add --synthetic {run}", split=split, test=test)
    images, held = hold_out(
        *open_pair(data, split=split, test=test, flips=not no_flips, quiet=common.quiet),
        HELD_OUT_SHARE if holdout is None else holdout,
        common,
    )
    if shots is not None:
        images = few_shot(images, shots, common.seed)
    mixed = mix(images, held, synthetic, alpha, common)
    options = {
        "data": data, "split": split, "test": test, "holdout": holdout, "shots": shots, "synthetic": synthetic, "alpha": alpha,
        "classifier": classifier, "mode": mode, "steps": steps, "size": size, "fit": fit, "no_flips": no_flips,
    }  # fmt: skip
    second = None if views.second is None else open_second(views.second, images.classes, held.digests, common)
    told = asked(options, views, budget, mixed, second, held, common)
    if done is not None:
        accuracy = check_same(done, told, out)
        if first:
            terminal.note(f"Done already, by this command; remove {out} to train again.", quiet=common.quiet)
            tell(accuracy, out, held, common.quiet)
        return 0
    known = learned_before(classifier, held)
    with alone_in(out) if first else nullcontext():
        if robust:
            trained, side = train_robustly(
                mixed, images.classes, views, budget, level=classifier, steps=steps, size=size, fit=fit, flips=images.flips,
                second=second, checkpoint=out / UNFINISHED, common=common,
            )  # fmt: skip
        else:
            side = DEFAULT_SIZE if size is None else size
            trained = train_plainly(mixed, images, classifier, mode_of(classifier, mode), steps, side, fit, out / UNFINISHED, common)
        if first:
            trained.learned = frozenset([*known, *images.digests, *(() if second is None else second.digests), *digests_of(mixed)])
            finish(trained, judge(trained, held, side, fit, common.quiet), held, out, told, common.quiet)
    return 0


def train_plainly(
    mixed: Mixed | ImageSet,
    images: ImageSet,
    level: str,
    mode: Mode,
    steps: int | None,
    size: int,
    fit: str,
    checkpoint: Path,
    common: Common,
) -> Classifier:
    """A head on frozen features, or a whole network with the clean view alone."""
    from rediffuse.training.backbones import open_backbone
    from rediffuse.training.fit import fit_classifier

    start = open_backbone(level, images.classes, seed=common.seed, size=size)
    tell_side(level, start, size, None, common)
    with bar("training", "steps" if mode == "whole" else "pictures", quiet=common.quiet) as report:
        return fit_classifier(
            mixed, images.classes, level=start, mode=mode, steps=steps, seed=common.seed, size=size, fit=fit, flips=images.flips,
            device=common.device, checkpoint=checkpoint, progress=report,
        )  # fmt: skip


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """One training a folder: another one's checkpoint would be gone on from as if it were this one's.

    Raises:
        PlanError: another process trains there.
        ConfigError: another one has finished since the folder was looked at.
    """
    from rediffuse.lock import Lock
    from rediffuse.writing import writing

    lock, made = out / LOCK, not out.exists()
    try:
        with ExitStack() as stack:
            with writing(lock):
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(Lock(lock, fix=f"remove {lock}"))
            check_out(out)
            yield
    finally:
        if made:
            with suppress(OSError):  # something was kept
                out.rmdir()


def finish(trained: Classifier, accuracy: Accuracy, held: ImageSet, out: Path, told: Mapping[str, Any], quiet: bool) -> None:
    """Save the classifier, remove what a kill would have gone on from, and say the figures. told: all that decided the training."""
    trained.save(out)
    write_record(out, told, accuracy)
    for pattern in LEFT:
        for left in out.glob(pattern):
            left.unlink(missing_ok=True)
    tell(accuracy, out, held, quiet)


def check_out(out: Path) -> None:
    """Refuse a folder that cannot be written, or holds something else than the beginnings of this training. Raises ConfigError."""
    from rediffuse.writing import check_place

    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder for the classifier")
    check_place(out)
    there = {child.name for child in out.iterdir()} if out.is_dir() else set()
    unfinished = "config.json" not in there and UNSAVED in there  # killed while it was saved
    others = [name for name in there if not any(fnmatchcase(name, pattern) for pattern in (*LEFT, LOCK))]
    if not unfinished and UNFINISHED not in there and others:
        what = "a classifier" if (out / "config.json").exists() else "other files"
        raise ConfigError(f"{out} holds {what} already; give another folder, or empty this one")


def mix(images: ImageSet, held: ImageSet, synthetic: str | None, alpha: float, common: Shared) -> Mixed | ImageSet:
    """The training set; says so where generated images know the held-out photos."""
    from rediffuse.data.mixing import Mixed

    if synthetic is None:
        return images
    mixed = Mixed(images, open_photos(synthetic, quiet=common.quiet), alpha)
    made = sum(map(len, mixed.copies))
    terminal.note(f"{made:,} generated images stand in for their {len(images):,} photos with probability {alpha:g}.", quiet=common.quiet)
    sources = set(mixed.synthetic.sources) if mixed.synthetic is not None else set()
    seen = (sources - set(images.ids)) & set(held.ids)  # folders of two splits may hold files of the same name
    if seen:
        terminal.note(
            f"{len(seen)} of the held-out photos have generated copies too. Those are left out, but the words were learned from these "
            "photos as well, so the accuracy may flatter: give other photos with --test, or use rediffuse compare, which learns from "
            "the training photos alone.",
            style="yellow",
        )
    return mixed


def learned_before(level: str, held: ImageSet) -> Collection[str]:
    """Digests of the photos that the classifier knows at the start, where its folder names them; says so of held-out ones."""
    from rediffuse.training.backbones import FROM_RANDOM
    from rediffuse.training.model_folders import model_folder
    from rediffuse.training.trained_on import flattery, read_learned

    if level in FROM_RANDOM:
        return ()
    learned = read_learned(model_folder(level))
    if flatters := flattery(learned, level, held):
        terminal.note(flatters, style="yellow")
    return learned


def judge(trained: Classifier, held: ImageSet, size: int, fit: str, quiet: bool) -> Accuracy:
    """How often the classifier is right on the held-out photos."""
    from rediffuse.evaluation.accuracy import measure
    from rediffuse.training.pool import PixelBank, labels_of

    labels = labels_of(held).tolist()
    with bar("judging", "pictures", quiet=quiet) as report:
        predicted = trained.predict(PixelBank(size, fit).of(held), report).argmax(1).tolist()
    return measure(predicted, labels, trained.classes)


def tell(accuracy: Accuracy, out: Path, held: ImageSet, quiet: bool) -> None:
    """The figures, class by class, and where the classifier lies."""
    if not quiet:
        rows = [
            (name, f"{total:,}", "" if share is None else f"{share:.1%}", mistaken(accuracy, label))
            for label, (name, total, share) in enumerate(zip(accuracy.classes, accuracy.totals, accuracy.per_class, strict=True))
        ]
        terminal.table(("class", "held out", "right", "mostly mistaken for"), rows)
    judged = sum(share is not None for share in accuracy.per_class)
    over = "classes" if judged == len(accuracy.classes) else f"the {judged} of {len(accuracy.classes)} classes that have such photos"
    terminal.say(f"Right on {accuracy.mean_per_class:.1%} of held-out photos (mean over {over}; {accuracy.top1:.1%} of all {len(held):,}).")
    terminal.say(f"The classifier is in {out}")


def mistaken(accuracy: Accuracy, label: int) -> str:
    """The class that images of a class are most often taken for instead; empty where there is none."""
    others = {predicted: count for true, predicted, count in accuracy.cells if true == label != predicted}
    return accuracy.classes[max(others, key=lambda place: others[place])] if others else ""
