"""`rediffuse learn`: a word for each class, from a few photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.cli import terminal
from rediffuse.cli.common import COMMON, MODEL, SINGLE_FILE, Common, SingleFile, check_apart, check_own, load_prompted, open_photos
from rediffuse.cli.options import LEARNING, Learning
from rediffuse.data.outputs import WORDS_KIND
from rediffuse.progress import are, counted

if TYPE_CHECKING:
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.concepts.recipes import InversionRecipe
    from rediffuse.data.types import ImageSet
    from rediffuse.denoisers.base import Denoiser


def learn(
    photos: str,
    words: Path,
    /,
    *,
    model: str | None = None,
    shots: int | None = None,
    split: str | None = None,
    no_flips: bool = False,
    batch: int | None = None,
    dry_run: bool = False,
    file: SingleFile = SINGLE_FILE,
    learning: Learning = LEARNING,
    common: Common = COMMON,
) -> int:
    """Learn a word for each class, and keep the words in a folder.

    The model stays as it is; each class gets a word of its own that makes the model draw it. The same command again continues.

    Args:
        photos: class folders, a .csv or .parquet table, a folder of shards, digits, or hub:NAME.
        words: folder to write.
        model: the text-to-image model: a bundled name, a folder, a single .safetensors file, or a hub name. [default: tiny-imagenet-64]
        shots: learn from this many photos of each class.
        split: of a set that has several.
        no_flips: a mirrored photo would have another label (digits, text).
        batch: samples in one call of the model; less needs less memory.
        dry_run: say what it would cost and stop.
    """
    from rediffuse.cli.large import Work, guard, guard_opened
    from rediffuse.concepts.choosing import choice_file
    from rediffuse.concepts.tokens import BEGUN, CHECKPOINT, WORDS
    from rediffuse.data.splits import few_shot

    chosen = learning.find()
    file.check(model)
    check_apart(photos, words)
    check_folder(words)
    learning.say_rounding(common.quiet)
    terminal.goes_on_from((words, BEGUN))

    def price(_: int, classes: int) -> Work:
        return Work(samples=chosen.samples_per_class * classes)

    guard(photos, model, price, common)
    images = open_photos(photos, split=split, flips=not no_flips, quiet=common.quiet)
    guard_opened(images, model, price, common)
    if shots is not None:
        images = few_shot(images, shots, common.seed)
    denoiser = load_prompted(model or MODEL, common, file)
    if dry_run:
        terminal.say(cost_of(images, denoiser, chosen, batch))
        if (words / WORDS).exists():
            terminal.say(f"All of that is done: the words are in {words}.")
        elif (words / CHECKPOINT).exists() or choice_file(words / CHECKPOINT).exists():
            terminal.say(f"Of that a part is done, and kept in {words}.")
        return 0
    if not (common.quiet or (words / CHECKPOINT).exists()):  # one that goes on has said it
        terminal.note(cost_of(images, denoiser, chosen, batch))
    learned = learn_into(words, images, denoiser, chosen, batch=batch, common=common)
    count = len(learned.words)
    terminal.say(f"{counted(count, 'word')} {are(count)} in {words}, and one file a word for other programs in {words / 'tokens'}")
    if not common.quiet:
        starts = learned.settings.get("starts", {})
        rows = [(name, learned.placeholder(name), str(starts.get(name, {}).get("word", ""))) for name in learned.classes]
        terminal.table(("class", "word", "began as"), rows, numbers_from=9)
        again = terminal.command("generate", photos, "more", words=words, split=split, no_flips=no_flips, model=model, **file.told)
        terminal.note(f"Next: {again}", quiet=common.quiet)
    return 0


def cost_of(images: ImageSet, model: Denoiser, recipe: InversionRecipe, batch: int | None = None) -> str:
    """What learning the words will take here."""
    from rediffuse.concepts.pricing import price_words
    from rediffuse.generation.run import rate_of
    from rediffuse.methods.da_fusion import DAFusion

    rate = rate_of(images, DAFusion(model, blank_words(images, model, recipe)), batch)
    return price_words(model, recipe, len(images.classes)).summary(rate)


def blank_words(images: ImageSet, model: Denoiser, recipe: InversionRecipe) -> Concepts:
    """Words that mean nothing and cost as much to use as learned ones."""
    import torch

    from rediffuse.concepts.concepts import Concepts

    width = model.word_vectors("a").shape[1]  # type: ignore[operator]  # of text-to-image models
    return Concepts(words={name: torch.zeros(recipe.vectors, width) for name in images.classes})


def check_folder(words: Path) -> None:
    """Refuse what cannot become a folder of words, before the work. Raises ConfigError."""
    from rediffuse.errors import ConfigError
    from rediffuse.writing import check_place

    if words.is_file() or words.suffix == ".safetensors":
        raise ConfigError(f"words are kept in a folder, got {words}; give the folder's name alone, such as {words.with_suffix('')}")
    check_place(words)
    check_own(words, WORDS_KIND)


def learn_into(
    folder: Path,
    images: ImageSet,
    model: Denoiser,
    recipe: InversionRecipe,
    *,
    batch: int | None = None,
    common: Common,
    run: Path | None = None,
) -> Concepts:
    """Learn words into a folder, continue there, or read them where they are finished; those of another learning are never replaced.

    Args:
        run: the folder of copies that the words lie beside, if any.
    """
    from rediffuse.concepts.textual_inversion import learn as learn_words
    from rediffuse.concepts.tokens import CHECKPOINT

    learned = finished(folder, images, model, recipe, common, run)
    if learned is None:
        learned = learn_words(
            images, model, recipe=recipe, seed=common.seed, batch=batch, progress=not common.quiet, checkpoint=folder / CHECKPOINT
        )
    learned.save(folder)
    return learned


def finished(
    folder: Path, images: ImageSet, model: Denoiser, recipe: InversionRecipe, common: Common, run: Path | None
) -> Concepts | None:  # fmt: skip
    """The words that this very learning left in a folder; None where there are none, or damaged ones, which it makes again.

    Raises PlanError for the words of another learning, which a run may have been made with.
    """
    from rediffuse.concepts.concepts import Concepts
    from rediffuse.concepts.state import differences
    from rediffuse.concepts.textual_inversion import learning_task
    from rediffuse.concepts.tokens import WORDS
    from rediffuse.errors import ModelError, PlanError

    if not (folder / WORDS).exists():
        return None
    try:
        there = Concepts.load(folder)
    except ModelError:
        return None
    task = learning_task(images, model, recipe=recipe, seed=common.seed)
    noted = {name: there.settings[name] for name in task if name in there.settings}
    unlike = differences(noted, task) if noted else ["they do not say how they were learned"]
    if not unlike:
        return there.of_classes(images.classes)
    told = f"the words in {folder} belong to another learning: {'; '.join(unlike)}"
    if run is None:
        raise PlanError(f"{told}. Give another folder; `augment --words {folder}` makes copies with these as they are")
    raise PlanError(
        f"{told}{uses(run, there)}. Give another folder for the copies than {run}, and new words go beside it; or make copies with these "
        f"as they are: --words {folder}, and nothing that says how words are learned"
    )


def uses(run: Path, words: Concepts) -> str:
    """That a run was made with these words; empty where it was not."""
    from rediffuse.generation.store import RUN, read_info

    made = (run / RUN).is_file() and read_info(run)["settings"]["concepts"] == words.hash
    return f"; the copies in {run} were made with them" if made else ""
