"""Learning a word for each class from a few photos, with the model frozen.

    min over w of E || target - network(alpha[t] x0 + sigma[t] noise, t, prompt(w)) ||^2      (Gal et al., Eq. 2)

Reference: Gal et al., ICLR 2023, arXiv 2208.01618; Trabucco et al., ICLR 2024, arXiv 2302.07944, section 4.1.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rediffuse
from rediffuse.concepts.choosing import KeptChoice
from rediffuse.concepts.concepts import Concepts
from rediffuse.concepts.draws import Samples, draw_samples
from rediffuse.concepts.placeholders import distinct_placeholders, renamed
from rediffuse.concepts.prompts import fill
from rediffuse.concepts.recipes import RECIPES, InversionRecipe, find_recipe
from rediffuse.concepts.shots import Photos, check_photos, encode_shots, photos_digest
from rediffuse.concepts.starts import candidates_of, check_start, choose_starts
from rediffuse.concepts.state import LearningState
from rediffuse.denoisers.base import Denoiser, check_denoiser
from rediffuse.denoisers.memory import Room
from rediffuse.errors import ConfigError, ModelError
from rediffuse.interrupt import Keeping
from rediffuse.progress import Bar, notes
from rediffuse.writing import check_place

SAVE_EVERY = 25  # steps
_HALF_SCALE = 1024.0  # keeps gradients above the smallest numbers of float16; a power of two, so nothing is rounded


def learn(
    photos: Photos,
    model: Denoiser,
    *,
    recipe: str | InversionRecipe = "fast",
    seed: int = 0,
    batch: int | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Concepts:
    """Learn a word for each class from its photos.

    Choose it before `DAFusion`, once for a set of photos and a model. All classes are learned together: the model is frozen and each word
    has its own rows, so the sub-batches of the classes share full denoiser calls, and every word comes out as if it were learned alone (up
    to rounding). Photos are encoded once; only the new rows have gradients and optimizer state.

    Args:
        photos: a labelled set, such as `data.folder` or `data.few_shot` gives; every class needs a photo.
        model: a text-to-image denoiser, as `load` gives it. It comes back as it was.
        recipe: `fast` (200 samples a class, after a look at 500 to choose a start where the model lists its words), `paper_agnostic`,
            `paper_full`, or an InversionRecipe of one's own.
        seed: decides times, noise, templates and flips, for each class by its name; the same seed and photos, the same words.
        batch: samples in one denoiser call; left out, see `default_batch`. Less needs less memory and gives the same words up to
            rounding, so a checkpoint may be continued with another. When memory runs out, the batch is halved.
        progress: show a bar on the standard error stream once the work has lasted two seconds.
        checkpoint: a file. The state goes there every 25 steps, after a minute, and before Ctrl-C or TERM end the learning, that of a
            choice of start words beside it; the same call continues and ends at the same words, bit for bit on the same machine. Of a
            finished learning it gives the words at once.
    Returns:
        Concepts with one word a class; `settings` hold recipe, seed, starts and the hashes of model and photos.
    Raises:
        DataError: a photo without a label, a class without photos or name.
        ConfigError: a model that takes no prompts, settings that it cannot follow, or a checkpoint that cannot be written there.
        PlanError: the checkpoint belongs to another learning.
        ModelError: the loss is not finite, or not even one sample fits into the memory.
    Reference: Gal et al., ICLR 2023, arXiv 2208.01618, Eq. 2.
    """
    chosen = find_recipe(recipe)
    check_photos(photos)
    _check_model(model)
    check_start(model, chosen)
    if batch is not None and batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    placeholders = distinct_placeholders(photos.classes)
    for name, token in renamed(placeholders).items():
        warnings.warn(f"class {name!r} is learned as {token}: without the suffix its token would be another class's", stacklevel=2)
    file = None if checkpoint is None else Path(checkpoint).expanduser()
    if file is not None:
        check_place(file.parent)
    with frozen(model), Bar(progress) as bar:
        task = learning_task(photos, model, recipe=chosen, seed=seed, batch=batch)
        state = None if file is None else LearningState.load(file, task)
        if state is None or state.step < chosen.steps:
            state = _train(photos, model, chosen, state, task, file, bar, notes(progress))
    starts = dict(zip(photos.classes, state.starts, strict=True))
    settings = {**task, "samples_per_class": chosen.samples_per_class, "starts": starts, "version": rediffuse.__version__}
    words = dict(zip(photos.classes, state.rows.unbind(), strict=True))
    return Concepts(words=words, placeholders=placeholders, settings=settings)


def _train(
    photos: Photos,
    model: Denoiser,
    recipe: InversionRecipe,
    state: LearningState | None,
    task: Mapping[str, Any],
    file: Path | None,
    bar: Bar,
    note: Callable[[str], None],
) -> LearningState:
    """From the start, or from where a killed run stopped, to the last step."""
    began = time.monotonic()
    kept = None if file is None or state is not None else KeptChoice(file, task, candidates_of(model, recipe))
    shots = encode_shots(photos, model, recipe, bar)
    seed, placeholders = int(task["seed"]), list(task["placeholders"].values())
    per_step, saved = len(shots.names) * recipe.batch_per_class, 0 if state is None else state.step
    room = Room(
        batch=int(task["batch"] or default_batch(shots.shape, model.device)),
        told=lambda slots: note(f"out of memory: words are learned on with {slots} samples a call; they agree within rounding"),
        hopeless=lambda: _no_room(model, shots.shape, f"{saved} of {recipe.steps} steps", file if saved else None),
    )
    if state is None:
        starts = room.fit(lambda slots: choose_starts(model, recipe, shots, seed=seed, batch=slots, bar=bar, kept=kept))
        state = LearningState.begin([start.rows for start in starts], [start.to_settings() for start in starts])
        if file is not None and kept is not None:
            # The choice may have cost more calls than the learning will.
            state = replace(state, seconds=kept.seconds)
            replace(state, seconds=kept.seconds + time.monotonic() - began).save(file, task)
            kept.remove()
    room.batch = min(room.batch, per_step)
    rows = nn.Parameter(state.rows.to(model.device))  # (classes, vectors, D)
    optimizer = state.optimizer(rows, recipe)
    bar.stage(f"learning {len(shots.names)} words", recipe.steps * per_step, state.step * per_step)

    def keep(step: int) -> None:
        nonlocal saved
        if file is not None:
            state.after(step, rows, optimizer, time.monotonic() - began).save(file, task)
            saved = step

    with Keeping(None if file is None else keep, SAVE_EVERY, recipe.steps, note) as keeping:
        for step in range(state.step, recipe.steps):
            samples = draw_samples(recipe, shots, seed=seed, step=step, levels=len(model.schedule))
            rows.grad = gradient(model, rows, placeholders, samples, recipe.templates, room, bar) / recipe.batch_per_class
            if not bool(rows.grad.isfinite().all()):
                raise ModelError(f"the gradient of the words is not finite at step {step}; load the model with --dtype float32")
            optimizer.param_groups[0]["lr"] = recipe.rate(step)
            optimizer.step()
            keeping.after(step + 1)
    return state.after(recipe.steps, rows, optimizer, time.monotonic() - began)


def gradient(
    model: Denoiser, rows: Tensor, placeholders: Sequence[str], samples: Samples, templates: Sequence[str], room: Room, bar: Bar
) -> Tensor:
    """Gradient of the summed loss in `rows` (classes, k, D): in each row what the samples of its own class give.

    It is summed over calls, so where memory runs out a call is made again as two, and what the earlier ones gave stays.

    Cost of a sample: one forward and one backward of the UNet. That backward is half of a training's, because no weight has a gradient, and
    ends at the first cross-attention. The text encoder adds 2 to 4 % (Stable Diffusion 1.x at 512 px: 13 of 800 GFLOP;
    `tiny-imagenet-64`: 60 of 1,700 MFLOP); `embed` reads equal prompts of a call once.
    """
    total, done = torch.zeros_like(rows), 0
    while done < len(samples):
        left = torch.arange(done, len(samples))

        def share(slots: int, left: Tensor = left) -> tuple[Tensor, int]:
            # Calls of one size where the batch does not divide the samples: 40 at 32 go as 20 and 20.
            own = samples.index(left.tensor_split(-(len(left) // -slots))[0])
            return _share(model, rows, placeholders, own, templates), len(own)

        part, count = room.fit(share)
        total += part
        done += count
        bar.advance(count)
    return total


def _share(model: Denoiser, rows: Tensor, placeholders: Sequence[str], own: Samples, templates: Sequence[str]) -> Tensor:
    """What the samples of one call add to the gradient."""
    scale = _HALF_SCALE if getattr(model, "dtype", None) is torch.float16 else 1.0
    words = {placeholders[owner]: rows[owner] for owner in own.owner.unique().tolist()}
    slots = zip(own.template.tolist(), own.owner.tolist(), strict=True)
    condition = model.embed([fill(templates[template], placeholders[owner]) for template, owner in slots], words)
    losses = model.loss(own.x0.to(rows.device), own.t.to(rows.device), own.noise.to(rows.device), condition)  # (b,)
    (share,) = torch.autograd.grad(losses.sum() * scale, rows)
    return share / scale


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and none of its weights asks for a gradient; afterwards all is as it was."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def default_batch(shape: Sequence[int], device: torch.device) -> int:
    """Samples in a call, for x of this (C, H, W): 64 at 32x32; at 64x64 16 on an accelerator with memory of its own and 4 elsewhere.

    A sample keeps its activations for the backward pass, and they grow with the area: 12 MiB in `tiny-imagenet-64` at 32x32, 1.4 GiB in
    Stable Diffusion 1.x at 64x64 (float32; half of it in bfloat16), beside 4 GiB of weights. 16 such samples are 22 GiB. A processor gains
    nothing by more than a few of them, and its system rather ends a program than refuses it memory.
    """
    area = shape[1] * shape[2]
    own = 2**16 // area
    return max(1, own if device.type not in ("cpu", "mps") else min(own, 2**26 // area**2))


def _no_room(model: Denoiser, shape: Sequence[int], steps: str, file: Path | None) -> str:
    kept = "no step was kept" if file is None else f"{steps} are kept in {file}, and the same call goes on from there"
    size = "x".join(map(str, shape))
    return (
        f"memory ran out on {model.device}: not even one sample a call (--batch 1) fits, of {size} numbers with what its gradient needs; "
        f"{kept}. Use a smaller model, or another device"
    )


def learning_task(photos: Photos, model: Denoiser, *, recipe: InversionRecipe, seed: int, batch: int | None = None) -> dict[str, Any]:
    """All that decides what `learn` gives, as JSON: what checkpoints and words are told apart by, see `state.differences`."""
    spec = model.spec
    source = {} if spec is None else {"name": spec.name, "revision": spec.revision, "weights_hash": model.fingerprint()}
    known = next((name for name, other in RECIPES.items() if other == recipe), "custom")
    return {
        "recipe": {"name": known, **recipe.to_settings()},
        "seed": seed,
        "batch": batch,
        "placeholders": distinct_placeholders(photos.classes),
        "photos": {"name": photos.name, "count": len(photos.labels), "flips": photos.flips, "sha256": photos_digest(photos)},
        "model": {**source, "dtype": str(getattr(model, "dtype", torch.float32)).removeprefix("torch.")},
    }


def _check_model(model: Denoiser) -> None:
    check_denoiser(model, "learn")
    if not model.conditional or not hasattr(model, "word_vectors"):
        raise ConfigError(
            f"{type(model).__name__} takes no prompts and can learn no words; use a text-to-image model such as tiny-imagenet-64"
        )
