"""`rediffuse augment`: a folder of photos in, a folder of more photos out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, Common, check_apart, load_prompted, open_photos
from rediffuse.cli.generate import check_out, make
from rediffuse.cli.learn import check_folder, learn_into
from rediffuse.cli.options import LEARNING, MAKING, WRITING, Learning, Making, Writing

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.concepts.recipes import InversionRecipe
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser


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
    learning: Learning = LEARNING,
    writing: Writing = WRITING,
    common: Common = COMMON,
) -> int:
    """Make more photos: changed copies of each, with its label.

    Learns a word for each class, then redraws every photo under it. The same command again continues where it stopped.

    Args:
        photos: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        out: folder to write: out/images holds class folders.
        model: the text-to-image model: a bundled name, a folder, or a hub name. [default: tiny-imagenet-64]
        shots: use this many photos of each class.
        split: of a set that has several.
        no_flips: a mirrored photo would have another label (digits, text).
        words: folder or file of words that were learned before. [default: learned into OUT.words]
    """
    from rediffuse.cli.large import Work, guard, guard_opened
    from rediffuse.data.splits import few_shot
    from rediffuse.generation.plan import class_folders

    making.check()
    writing.check()
    chosen = learning.find()
    check_apart(photos, out)
    check_out(out)
    learns = making.method == "da-fusion" and words is None
    if learns:
        check_folder(words_beside(out))

    def price(count: int, classes: int) -> Work:
        made = writing.target_per_class * classes if writing.target_per_class else writing.copies * min(count, (shots or count) * classes)
        return Work(images=made, calls=making.calls, samples=chosen.samples_per_class * classes * learns)

    guard(photos, model, price, common)
    images = open_photos(photos, split=split, flips=not no_flips, quiet=common.quiet)
    guard_opened(images, model, price, common)
    if shots is not None:
        images = few_shot(images, shots, common.seed)
    class_folders(images.classes)  # names that fall together are an error before anything is learned
    denoiser = load_prompted(model or MODEL, common)
    spoken = find_words(out, words, images, denoiser, making, chosen, writing.dry_run, common)
    return make(images, out, making.build(denoiser, images.classes, spoken), writing, common, photos=photos, batch=making.batch)


def words_beside(out: Path) -> Path:
    """Where the words of a run are kept: beside its folder, in which nothing else may lie."""
    plain = out.absolute()
    return plain.with_name(plain.name + ".words") if out.is_absolute() else Path(f"{out}.words")


def find_words(
    out: Path,
    given: Path | None,
    images: ImageSet,
    model: Denoiser,
    making: Making,
    recipe: InversionRecipe,
    dry_run: bool,
    common: Common,
) -> Concepts | None:
    """The words that copies are made with: given ones, or learned beside the run; None where the method needs none.

    A dry run learns nothing: where no words are there yet, blank ones stand in, since they cost as much to use.
    """
    if making.method != "da-fusion":
        if given is not None:
            terminal.note("real-guidance prompts with class names; --words is not used.", quiet=common.quiet, style="yellow")
        return None
    from rediffuse.concepts.concepts import FILE_NAME, Concepts

    if given is not None:
        return Concepts.load(given, images.classes)
    folder = words_beside(out)
    if dry_run and not (folder / FILE_NAME).exists():  # which is written last
        import torch

        width = model.word_vectors("a").shape[1]  # type: ignore[operator]  # of text-to-image models
        terminal.say(f"first {len(images.classes)} words are learned: {recipe.samples_per_class * len(images.classes):,} training samples")
        return Concepts(words={name: torch.zeros(recipe.vectors, width) for name in images.classes})
    return learn_into(folder, images, model, recipe, batch=making.batch, common=common)
