"""Photos and a method in, a folder of images out: planned, priced, made in shards, continued where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch

from rediffuse.data.open import open_images
from rediffuse.data.types import ImageSet, Rejected
from rediffuse.errors import ConfigError, DataError, PlanError
from rediffuse.generation.environment import denoiser_name, dtype_of, identify
from rediffuse.generation.files import room_on_disk
from rediffuse.generation.local import Engine, default_batch, shard_steps
from rediffuse.generation.plan import Plan, Settings, cut, tabulate
from rediffuse.generation.preview import make_preview
from rediffuse.generation.pricing import Cost, gigabytes, price
from rediffuse.generation.store import IMAGES, RUN, Run, finished_shards, read_info, read_manifest
from rediffuse.generation.writer import Writer, check_folder
from rediffuse.interrupt import Interrupt
from rediffuse.methods.editing import EditingMethod
from rediffuse.progress import Bar, counted, notes

SAME = "the same call of rediffuse.generate"


Progress = bool | Literal["bar"]


class Options(TypedDict, total=False):
    """The keyword arguments of `generate` that do not change what it returns."""

    copies: int
    seed: int
    batch: int | None
    side: int | None
    fit: Literal["pad", "crop", "squash"]
    size: Literal["source", "model"]
    format: Literal["png", "webp", "jpeg"]
    keep_real: bool
    target_per_class: int | None
    rate: float | None
    take_over: bool
    command: str
    progress: Progress


@overload
def generate(
    photos: ImageSet,
    method: EditingMethod,
    out: str | Path,
    *,
    dry_run: Literal[False] = ...,
    preview: Literal[0] = ...,
    **options: Unpack[Options],
) -> Run: ...
@overload
def generate(
    photos: ImageSet, method: EditingMethod, out: str | Path, *, dry_run: bool = ..., preview: int = ..., **options: Unpack[Options]
) -> Run | Plan: ...
def generate(
    photos: ImageSet, method: EditingMethod, out: str | Path, *, copies: int = 10, seed: int = 0, batch: int | None = None,
    side: int | None = None, fit: Literal["pad", "crop", "squash"] = "pad", size: Literal["source", "model"] = "source",
    format: Literal["png", "webp", "jpeg"] = "png", keep_real: bool = False, target_per_class: int | None = None, dry_run: bool = False,
    preview: int = 0, rate: float | None = None, take_over: bool = False, command: str = SAME, progress: Progress = True,
) -> Run | Plan:  # fmt: skip
    """Make changed copies of every photo, each with the photo's label, in a folder that class-folder readers and `datasets` take.

    The same call again continues a run that was stopped, or returns one that is complete, of which it makes missing, damaged and changed
    images again; another plan into the same folder is refused.
    With an equal plan in an equal environment pixels are equal to the bit, however often the run was killed; another batch or machine
    changes them within rounding.

    Args:
        photos: labelled images; their ids and pixels decide the noise, so that a further photo changes no other copy.
        method: such as DAFusion or RealGuidance.
        out: the folder; see `Run` for reading it.
        copies: images made of each photo.
        seed: of all that chance decides.
        batch: slots of a denoiser call; default: what memory is likely to hold. When it does not, a shard begins again with half.
        side: pixels of the model's square; default: the model's own.
        fit: pad (undone on output), crop, or squash, as the DA-Fusion paper does.
        size: of the images written: the photo's, or the model's.
        format: png or webp (lossless), or jpeg.
        keep_real: put the photos themselves into the folder too, as copy -1.
        target_per_class: images that each class shall have in the folder, kept photos counted; replaces copies.
        dry_run: print the cost and return the plan; nothing is written.
        preview: make this many images, spread over photos and strengths, and OUT-preview/contact_sheet.png; return the plan.
        rate: image steps a second, for the price; default: measured by a short call.
        take_over: continue a run although another process holds its lock.
        command: that continues the run, for messages.
        progress: print the price and a bar on the standard error stream; "bar" is the bar alone.
    Returns:
        the run; the plan, with dry_run or preview.
    Raises:
        PlanError: the folder holds another plan's run or other files, or another process writes it.
        DataError: photos without labels; a full disk; images that cannot be read right after they were made.
        ConfigError: a setting out of range, or a class that the method does not know.
    """
    out, photos = Path(out).expanduser(), open_images(photos)
    if not isinstance(method, EditingMethod):
        raise ConfigError(f"method must be a DAFusion or RealGuidance, got {type(method).__name__}")
    if rate is not None and not rate > 0:
        raise ConfigError(f"rate is a number of image steps a second and must be above 0, got {rate}; leave it out to measure it")
    settings = Settings(
        copies=copies, seed=seed, side=_side(method, side), fit=fit, size=size, format=format, keep_real=keep_real,
        target_per_class=target_per_class
    )  # fmt: skip
    note = notes(bool(progress))
    method.model.eval()
    engine = Engine(photos, method, settings, note)
    plan, left = _price(_plan(photos, method, settings, out, batch, engine), out, engine, rate, shown=progress is True or dry_run)
    if dry_run or preview:
        if preview and not dry_run:
            make_preview(engine, plan, photos, out, preview)
        return plan
    with room_on_disk(out, command), Writer(
        out, plan, photos, device=method.model.device, command=command, notes=method.notes, take_over=take_over, note=note
    ) as writer:  # fmt: skip
        _make(engine, plan, writer, left.steps, note, progress)
        return _whole(engine, plan, writer, note, progress)


def check_begun(
    photos: ImageSet, method: EditingMethod, out: Path, *, batch: int | None = None, side: int | None = None, **asked: Any
) -> None:
    """Refuse a folder that holds the run of another plan, as far as that is known before words are learned: blank ones stand for them.

    Raises PlanError. Args as in `generate`; nothing is measured or written.
    """
    if not (out / RUN).is_file():
        return
    settings = Settings(side=_side(method, side), **asked)
    identity = {**_identity(method, settings), "concepts": read_info(out)["settings"]["concepts"]}
    found = check_folder(out, identity, tabulate(photos, method, settings))
    if found is not None:
        _check_batch(out, found[0], batch)


def rate_of(photos: ImageSet, method: EditingMethod, batch: int | None = None) -> float:
    """Image steps a second of a method's model on this machine, by short calls: what a price is made with.

    Args:
        batch: of a call; default: what a run would take.
    """
    settings = Settings(side=_side(method, None))
    return Engine(photos, method, settings).rate(batch or default_batch(method.model, settings.side))


def _price(found: tuple[Plan, bool], out: Path, engine: Engine, rate: float | None, *, shown: bool) -> tuple[Plan, Cost]:
    """The plan with its rate, measured where none is given, and what is left of it to pay; both said where that is shown."""
    plan, begun = found
    finished = finished_shards(out) if begun else []
    left = price(plan, out, finished)
    if left.steps and shown:
        if rate is None:
            engine.note("measuring how fast the model is here")
        plan = replace(plan, rate=engine.rate(plan.batch) if rate is None else rate)
        left = price(plan, out, finished)
        engine.note(left.summary())
    return plan, left


def _make(engine: Engine, plan: Plan, writer: Writer, steps: int, note: Callable[[str], None], progress: Progress) -> None:
    """Run the open shards; Ctrl-C lets the write under way end, and leaves a folder that is in order."""
    threads, began = torch.get_num_threads(), time.monotonic()
    if not writer.open_shards() and writer.complete:
        return
    torch.set_num_threads(plan.threads)
    try:
        with Interrupt(note) as interrupt, Bar(bool(progress), "image steps") as bar:
            bar.stage("making images", steps)

            def tick(done: int) -> None:
                bar.advance(done)
                interrupt.check()

            engine.run(plan, writer, tick)
            interrupt.check()  # pressed after the last call
    except KeyboardInterrupt:
        writer.finish(time.monotonic() - began)
        stopped = KeyboardInterrupt(f"{writer.made} of {len(plan.variants)} images are there")
        stopped.add_note(f"To continue: {writer.command}")
        raise stopped from None
    finally:
        torch.set_num_threads(threads)
    writer.finish(time.monotonic() - began)


def _whole(engine: Engine, plan: Plan, writer: Writer, note: Callable[[str], None], progress: Progress) -> Run:
    """The run with every image of its plan: shards of which one is missing, damaged or changed are made again, once."""
    run, lost = _read(writer.out, progress)
    if lost:
        names = {line.id for line in lost}
        shards = {variant.shard for variant in plan.variants if variant.file_name in names}
        again = [variant for variant in plan.variants if variant.shard in shards]
        told = f"{lost[0].id} ({lost[0].reason}), {counted(len(lost), 'image')} in all"
        note(f"missing, damaged or changed: {told}; {len(again)} are made again")
        writer.reopen(sorted(shards))
        _make(engine, plan, writer, sum(variant.calls for variant in again), note, progress)
        run, lost = _read(writer.out, progress)
    if run is None or lost:
        raise DataError(
            f"{writer.out / IMAGES / lost[0].id} cannot be read right after it was made: {lost[0].reason}. Check the disk, and what else "
            "writes there; then run the same command again"
        )
    return run


def _read(out: Path, progress: Progress) -> tuple[Run | None, Sequence[Rejected]]:
    """A complete run, None where not one image can be read; and those that cannot, or are not as they were written."""
    try:
        with Bar(bool(progress), "images") as bar:
            bar.stage("reading what was made")
            run = Run(out, progress=bar.report)
    except DataError as error:
        return None, [Rejected(id=name, reason=str(error)) for name in read_manifest(out).column("file_name").to_pylist()]
    rows = (run.manifest.column(name).to_pylist() for name in ("file_name", "pixels_sha256"))
    written = dict(zip(*rows, strict=True))
    changed = [name for name, own in zip(run.ids, run.digests, strict=True) if written[name] != own]
    return run, [*run.rejected, *(Rejected(id=name, reason="its pixels are not those that were written") for name in changed)]


def _plan(
    photos: ImageSet, method: EditingMethod, settings: Settings, out: Path, batch: int | None, engine: Engine
) -> tuple[Plan, bool]:  # fmt: skip
    """The plan, and whether its run was begun. A run that was begun keeps its cut: timing and this machine's threads change nothing."""
    if batch is not None and batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    variants = tabulate(photos, method, settings)
    identity = _identity(method, settings)
    found = check_folder(out, identity, variants)
    if found is None:
        slots, threads = batch or default_batch(method.model, settings.side), torch.get_num_threads()
        variants = cut(variants, slots, shard_steps(engine.operations(), method.model.device, threads))
    else:
        info, variants = found
        slots, threads = info["plan"]["batch"], info["plan"]["threads"]
        _check_batch(out, info, batch)
    plan = Plan(
        settings=identity,
        variants=variants,
        classes=photos.classes,
        denoiser=denoiser_name(method.model),
        batch=slots,
        threads=threads,
        dtype=dtype_of(method.model),
        gigabytes=gigabytes(photos, variants, settings),
    )
    return plan, found is not None


def _check_batch(out: Path, info: dict[str, Any], batch: int | None) -> None:
    """A run that was begun keeps its cut, so another batch cannot go on with it."""
    slots = info["plan"]["batch"]
    if batch not in (None, slots):
        raise PlanError(f"{out} holds the run of another plan: batch {slots} there, {batch} here. Leave batch out, or give another folder")


def _identity(method: EditingMethod, settings: Settings) -> dict[str, Any]:
    """All that decides what is made, as JSON gives it back."""
    whole = {**asdict(settings), "method": method.settings(), "denoiser": identify(method.model), "concepts": method.concept_hash}
    identity: dict[str, Any] = json.loads(json.dumps(whole))
    return identity


def _side(method: EditingMethod, side: int | None) -> int:
    side = method.model.size if side is None else side
    if side is None:
        raise ConfigError(
            f"{type(method.model).__name__} has no image size of its own; give side, a multiple of {method.model.multiple_of}"
        )
    return side
