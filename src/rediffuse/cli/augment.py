"""`rediffuse augment`: a folder of photos in, a folder of more photos out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, SINGLE_FILE, Common, SingleFile, check_apart, load_prompted, open_photos
from rediffuse.cli.generate import check_out, make, planned
from rediffuse.cli.learn import blank_words, check_folder, learn_into
from rediffuse.cli.options import LEARNING, MAKING, WRITING, Learning, Making, Writing
from rediffuse.progress import roughly

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.concepts.recipes import InversionRecipe
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser
    from rediffuse.generation.run import Options


def augment(
    photos: str,
    out: Path,
    /,
    *,
    model: str | None = None,
    shots: int | None = None,
    split: str | None = None,
    no_flips: bool = False,
    words: Path | None = None,
    making: Making = MAKING,
    file: SingleFile = SINGLE_FILE,
    learning: Learning = LEARNING,
    writing: Writing = WRITING,
    common: Common = COMMON,
) -> int:
    """Make more photos: changed copies of each, with its label.

    Learns a word for each class, then redraws every photo under it. The same command again continues where it stopped.

    Args:
        photos: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        out: folder to write: out/images holds class folders.
        model: the text-to-image model: a bundled name, a folder, a single .safetensors file, or a hub name. [default: tiny-imagenet-64]
        shots: use this many photos of each class.
        split: of a set that has several.
        no_flips: a mirrored photo would have another label (digits, text).
        words: folder or file of words that were learned before. [default: learned into OUT.words]
    """
    from rediffuse.cli.large import Work, guard, guard_opened
    from rediffuse.concepts.tokens import BEGUN
    from rediffuse.data.splits import few_shot
    from rediffuse.generation.plan import class_folders
    from rediffuse.generation.run import check_begun
    from rediffuse.generation.store import FINISHED

    making.check()
    writing.check()
    file.check(model)
    chosen = learning.find()
    check_apart(photos, out)
    check_out(out)
    learns = making.method == "da-fusion" and words is None
    if not learns:
        learning.check_unused("--words brings them" if making.method == "da-fusion" else f"--method {making.method} needs none")
    if learns:
        check_folder(words_beside(out))
        learning.say_rounding(common.quiet)
    terminal.goes_on_from((out, FINISHED), (words_beside(out), BEGUN))

    def price(count: int, classes: int) -> Work:
        made = writing.target_per_class * classes if writing.target_per_class else writing.copies * min(count, (shots or count) * classes)
        return Work(images=made, calls=making.calls, samples=chosen.samples_per_class * classes * learns)

    guard(photos, model, price, common)
    images = open_photos(photos, split=split, flips=not no_flips, quiet=common.quiet)
    guard_opened(images, model, price, common)
    if shots is not None:
        images = few_shot(images, shots, common.seed)
    class_folders(images.classes)  # names that fall together are an error before anything is learned
    spoken = given_words(words, images, making, common)
    denoiser = load_prompted(model or MODEL, common, file)
    if learns:
        blank = making.build(denoiser, images.classes, blank_words(images, denoiser, chosen))
        check_begun(images, blank, out, **planned(writing, common, making.batch))  # before anything is learned for nothing
    priced = learns and say_price(out, images, denoiser, making, chosen, writing, common)
    if priced and writing.dry_run:
        return 0
    if learns:
        spoken = learn_into(words_beside(out), images, denoiser, chosen, batch=making.batch, common=common, run=out)
    method = making.build(denoiser, images.classes, spoken)
    return make(
        images, out, method, writing, common, photos=photos, batch=making.batch, priced=priced, split=split, no_flips=no_flips,
        model=model, file=file,
    )  # fmt: skip


def words_beside(out: Path) -> Path:
    """Where the words of a run are kept: beside its folder, in which nothing else may lie."""
    plain = out.absolute()
    return plain.with_name(plain.name + ".words") if out.is_absolute() else Path(f"{out}.words")


def say_price(
    out: Path, images: ImageSet, model: Denoiser, making: Making, recipe: InversionRecipe, writing: Writing, common: Common
) -> bool:
    """Print what learning the words and making the copies will take; False, and nothing is said, where words are there.

    Blank words stand in for them, since they cost as much to use.
    """
    from rediffuse.concepts.concepts import FILE_NAME
    from rediffuse.concepts.pricing import price_words
    from rediffuse.generation.pricing import price
    from rediffuse.generation.run import generate as run
    from rediffuse.generation.store import RUN, Run

    if (words_beside(out) / FILE_NAME).exists():  # which is written last
        return False
    if not writing.dry_run and (common.quiet or (out / RUN).is_file()):  # a run that goes on says its own price
        return False
    method = making.build(model, images.classes, blank_words(images, model, recipe))
    asked: Options = {**planned(writing, common, making.batch), "progress": False}
    plan = run(images, method, out, dry_run=True, **asked)
    if isinstance(plan, Run):  # never, of a dry run
        return False
    words, copies = price_words(model, recipe, len(images.classes)), price(plan, out)
    lines = [f"first {words.summary(plan.rate)}", copies.summary()]
    if plan.rate is not None and copies.seconds is not None:
        lines.append(f"about {roughly(words.image_steps / plan.rate + copies.seconds)} in all")
    if writing.dry_run:
        terminal.say("\n".join(lines))
    else:
        terminal.note("\n".join(lines), quiet=common.quiet)
    return True


def given_words(given: Path | None, images: ImageSet, making: Making, common: Common) -> Concepts | None:
    """Words that are there already, read before any model; None where the method needs none, or they are yet to be learned."""
    if given is None:
        return None
    if making.method != "da-fusion":
        terminal.note("real-guidance prompts with class names; --words is not used.", quiet=common.quiet, style="yellow")
        return None
    from rediffuse.concepts.concepts import Concepts

    return Concepts.load(given, images.classes)
