"""`rediffuse generate`: copies of photos, under words that were learned before; or pictures from noise alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, SINGLE_FILE, Common, SingleFile, check_apart, load_prompted, open_photos
from rediffuse.cli.options import MAKING, WRITING, Making, Writing

if TYPE_CHECKING:
    from rediffuse.data.types import ImageSet
    from rediffuse.generation.run import Options
    from rediffuse.methods.editing import EditingMethod


def generate(
    photos: str,
    out: Path | None = None,
    /,
    *,
    from_noise: bool = False,
    classes: tuple[str, ...] = (),
    words: Path | None = None,
    model: str | None = None,
    shots: int | None = None,
    split: str | None = None,
    no_flips: bool = False,
    making: Making = MAKING,
    file: SingleFile = SINGLE_FILE,
    writing: Writing = WRITING,
    common: Common = COMMON,
) -> int:
    """Make changed copies of photos under words that `learn` wrote.

    With --from-noise, pictures without a source: `rediffuse generate OUT --from-noise --words words`.
    The same command again continues where it stopped.

    Args:
        photos: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME. Left out with --from-noise.
        out: folder to write: out/images holds class folders.
        from_noise: start from nothing but noise; --copies are pictures of each class.
        classes: with --from-noise, the classes to draw. [default: all that have a word]
        words: folder that `learn` wrote, or a .safetensors, .pt or .bin file of words. Real-guidance needs none.
        model: the text-to-image model that the words were learned on: a bundled name, a folder, a single .safetensors file, or a hub
            name. [default: tiny-imagenet-64]
        shots: use this many photos of each class.
        split: of a set that has several.
        no_flips: a mirrored photo would have another label (digits, text).
    """
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.errors import ConfigError

    making.check()
    writing.check()
    file.check(model)
    if from_noise:
        if out is not None:
            alone = terminal.command("generate", out, from_noise=True, classes=classes, words=words, model=model, **file.told)
            raise ConfigError(f"--from-noise takes no photos; give the folder to write alone: {alone}")
        return draw(
            Path(photos), classes, words, model or MODEL, file, flips=not no_flips, making=making, writing=writing, common=common,
            photographic={
                "--shots": shots, "--split": split, "--keep-real": writing.keep_real or None, "--strengths": making.strengths,
                "--law": None if making.law == MAKING.law else making.law, "--fit": None if writing.fit == WRITING.fit else writing.fit,
            },
        )  # fmt: skip
    if out is None or classes:
        raise ConfigError("give photos and the folder to write, or with --from-noise the folder alone; --classes belongs to --from-noise")
    check_apart(photos, out)
    check_out(out)
    if making.method == "da-fusion" and words is None:
        learned = terminal.command("learn", photos, "words", split=split, no_flips=no_flips, model=model, **file.told)
        raise ConfigError(f"da-fusion needs learned words: give their folder with --words, or make one with {learned}")
    images = take(photos, model, shots, split, flips=not no_flips, making=making, writing=writing, common=common)
    spoken = None if words is None or making.method != "da-fusion" else Concepts.load(words, images.classes)
    method = making.build(load_prompted(model or MODEL, common, file), images.classes, spoken)
    return make(
        images, out, method, writing, common, photos=photos, batch=making.batch, split=split, no_flips=no_flips, model=model,
        file=file,
    )  # fmt: skip


def take(
    photos: str, model: str | None, shots: int | None, split: str | None, *, flips: bool, making: Making, writing: Writing, common: Common
) -> ImageSet:
    """The photos, or so many of each class; refused where they are too large for a model that nobody named."""
    from rediffuse.cli.large import Work, guard, guard_opened
    from rediffuse.data.splits import few_shot

    def price(count: int, classes: int) -> Work:
        return Work(images=writing.copies * min(count, (shots or count) * classes), calls=making.calls)

    guard(photos, model, price, common)
    images = open_photos(photos, split=split, flips=flips, quiet=common.quiet)
    guard_opened(images, model, price, common)
    return images if shots is None else few_shot(images, shots, common.seed)


def draw(
    out: Path,
    classes: Sequence[str],
    words: Path | None,
    model: str,
    file: SingleFile,
    *,
    flips: bool,
    making: Making,
    writing: Writing,
    common: Common,
    photographic: Mapping[str, object],
) -> int:
    """Pictures without a source. photographic: options that only photos give a meaning, by name; None where not given."""
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.errors import ConfigError
    from rediffuse.generation.noise import noise_sources
    from rediffuse.methods.editing import GUIDANCE_SCALE
    from rediffuse.methods.from_noise import FromNoise

    for name, value in photographic.items():
        if value is not None:
            raise ConfigError(f"{name} belongs to photos, and --from-noise has none; leave it out")
    learned = making.method == "da-fusion"
    if learned and words is None:
        raise ConfigError("give learned words (--words FOLDER), or draw by name: --method real-guidance --classes NAME NAME ...")
    if not learned and not classes:
        raise ConfigError("name what to draw: --classes NAME NAME ...")
    check_out(out)
    spoken = Concepts.load(words, classes or None) if learned and words is not None else None
    guidance = GUIDANCE_SCALE if making.guidance is None else making.guidance
    method = FromNoise(load_prompted(model, common, file), classes, spoken, making.prompt or "name", guidance, making.solver, making.steps)
    if method.model.size is None:
        raise ConfigError(f"{model} has no image size of its own; use another model")
    count = writing.target_per_class or writing.copies
    blanks = noise_sources(method.classes, count, method.model.size, flips=flips)
    single = replace(writing, copies=1, target_per_class=None)
    return make(blanks, out, method, single, common, photos=None, batch=making.batch)


def check_out(out: Path) -> None:
    """Refuse a place that cannot become a run's folder, before hours of work. Raises PlanError or ConfigError.

    Its finished shards are what an interrupted command goes on from.
    """
    from rediffuse.generation.store import FINISHED, RUN
    from rediffuse.generation.writer import check_folder
    from rediffuse.writing import check_place

    terminal.goes_on_from((out, FINISHED))
    if not (out / RUN).is_file():
        check_folder(out, {}, ())
        check_place(out)


def planned(writing: Writing, common: Common, batch: int | None) -> Options:
    """What decides a run's plan, beside photos and method."""
    return {
        "copies": writing.copies,
        "seed": common.seed,
        "batch": batch,
        "fit": writing.fit,
        "size": writing.size,
        "format": writing.format,
        "keep_real": writing.keep_real,
        "target_per_class": writing.target_per_class,
    }


def make(
    images: ImageSet, out: Path, method: EditingMethod, writing: Writing, common: Common, *, photos: str | None, batch: int | None,
    priced: bool = False, split: str | None = None, no_flips: bool = False, model: str | None = None,
    file: SingleFile = SINGLE_FILE,
) -> int:  # fmt: skip
    """Generate, and say what is there now and what to do with it.

    Args:
        photos: as typed; None for pictures from noise.
        priced: the price was said before.
        split, no_flips, model, file: as typed, for the commands that come next.
    """
    from rediffuse.generation.preview import sheet_of
    from rediffuse.generation.pricing import price
    from rediffuse.generation.run import generate as run
    from rediffuse.generation.store import IMAGES, REJECTED, Run, finished_shards
    from rediffuse.progress import are, counted

    asked: Options = {
        **planned(writing, common, batch),
        "take_over": writing.take_over,
        "command": terminal.typed(),
        "progress": False if common.quiet or writing.dry_run else "bar" if priced else True,
    }
    made = run(images, method, out, dry_run=writing.dry_run, preview=writing.preview, **asked)
    if not isinstance(made, Run):
        if writing.dry_run:
            terminal.say(price(made, out, finished_shards(out)).summary())
        else:
            terminal.say(f"A sheet to look at: {sheet_of(out)}")
        return 0
    copies = sum(copy >= 0 for copy in made.copies)
    if photos is None:
        terminal.say(f"{counted(copies, 'picture')} of {counted(len(images.classes), 'class', 'classes')} {are(copies)} in {out / IMAGES}")
        return 0
    terminal.say(f"{counted(copies, 'copy', 'copies')} of {counted(len(images), 'photo')} {are(copies)} in {out / IMAGES}")
    if images.rejected:
        lost = counted(len(images.rejected), "file") + (" was" if len(images.rejected) == 1 else " were")
        terminal.say(f"{lost} left out: {out / REJECTED}")
    train = terminal.command("train", photos, "classifier", synthetic=out, split=split, no_flips=no_flips)
    compare = terminal.command("compare", photos, split=split, no_flips=no_flips, model=model, **file.told)
    terminal.note(f"Next: {train}\nDoes it help? {compare}", quiet=common.quiet)
    return 0
