"""The local engine: the shards of a plan one after the other in this process.

It has no numerics of its own; the sampler's are all there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import log2
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.denoisers.base import Condition, Denoiser
from rediffuse.denoisers.memory import Room, is_out_of_memory
from rediffuse.generation.plan import REAL, Plan, Settings, Variant, draw_of
from rediffuse.methods.editing import EditingMethod
from rediffuse.sampling.sampler import run_jobs

if TYPE_CHECKING:
    from PIL import Image

    from rediffuse.generation.shard import OpenShard
    from rediffuse.generation.writer import Writer

Render = Callable[[], "Image.Image"]
Tick = Callable[[int], None]

# Operations a second that a shard is cut by. Nominal, not measured: a plan must not depend on what else the machine did in that minute.
_PROCESSOR_THREAD, _ACCELERATOR = 1e11, 1e14
SHARD_SECONDS = 30


class Engine:
    """Makes shards on the device that the method's model is on.

    Args:
        photos: the sources.
        method: draws and jobs.
        settings: fit and size.
        note: called with sentences for the user.
    """

    def __init__(self, photos: ImageSet, method: EditingMethod, settings: Settings, note: Callable[[str], None] = lambda _: None) -> None:
        self.photos, self.method, self.settings, self.note = photos, method, settings, note
        self.fit = Fit(mode=settings.fit, size=settings.side, multiple_of=method.model.multiple_of)
        self.guided: Denoiser = method.guided()
        self._places = {name: place for place, name in enumerate(photos.ids)}
        self._conditions: dict[str, Condition] = {}  # each prompt is embedded once a run

    def run(self, plan: Plan, writer: Writer, tick: Tick) -> None:
        """Make every open shard; tick is called with the image steps done since the last time, and may raise to stop."""
        batch, shards, committing = plan.batch, plan.shards(), None
        self.guided = self.method.guided()  # it embeds the empty prompt: again, with the threads of the plan
        try:
            for number in writer.open_shards():
                shard, batch = self._fill(number, shards[number], batch, writer, tick)
                if committing is not None:
                    committing.result()
                committing = writer.pool.submit(shard.commit)  # behind the shard's own files; the next one is sampled meanwhile
        finally:
            if committing is not None:
                committing.result()

    def _fill(self, number: int, variants: Sequence[Variant], batch: int, writer: Writer, tick: Tick) -> tuple[OpenShard, int]:
        """Make one shard, its files still on their way; also returns the batch that memory allowed."""

        def told(slots: int) -> None:
            self.note(
                f"out of memory: shard {number} begins again with batches of {slots}; its images agree within rounding, not to the bit"
            )

        room = self.room(batch, told)
        return room.fit(lambda slots: self._shard(number, variants, slots, writer, tick)), room.batch

    def room(self, batch: int, told: Callable[[int], None]) -> Room:
        """For work in calls of at most `batch` images, halved where memory runs out."""

        def hopeless() -> str:
            return (
                f"not even one image of {self.settings.side} pixels fits into the memory of {self.method.model.device}; "
                "use a smaller side, or another device"
            )

        return Room(batch=batch, told=told, hopeless=hopeless)

    def _shard(self, number: int, variants: Sequence[Variant], batch: int, writer: Writer, tick: Tick) -> OpenShard:
        shard = writer.shard(number)
        try:
            for variant, render in self.make(variants, batch, tick):
                shard.put(variant, render, None if variant.copy == REAL else batch)
        except BaseException:
            shard.discard()
            raise
        return shard

    def make(self, variants: Sequence[Variant], batch: int, tick: Tick) -> Iterator[tuple[Variant, Render]]:
        """The images of these rows, each as a function that gives it as a picture; sources are encoded once for all their copies."""
        for variant in variants:
            if variant.copy == REAL:
                yield variant, partial(self._real, variant)
        made = [variant for variant in variants if variant.copy != REAL]
        if not made:
            return
        sources = list(dict.fromkeys(variant.source_id for variant in made))
        squares = {name: self.fit.to_model(self.photos[self._places[name]].image) for name in sources}
        encoded = self._encode([squares[name][0] for name in sources], batch) if self.method.takes_source else self._nothing(len(sources))
        row = {name: place for place, name in enumerate(sources)}
        rows = torch.tensor([row[variant.source_id] for variant in made], device=encoded.device)
        jobs = self.method.jobs(encoded[rows], draw_of(made, self.method), self._conditions)
        before = 0

        def progress(done: int, _: int) -> None:
            nonlocal before
            tick(done - before)
            before = done

        samples = run_jobs(self.guided, jobs, batch=batch, progress=progress)
        for start in range(0, len(made), batch):
            with torch.no_grad():
                pictures = self.method.model.decode(samples[start : start + batch]).float().cpu()
            for variant, picture in zip(made[start : start + batch], pictures, strict=True):
                yield variant, partial(self.fit.undo, picture, squares[variant.source_id][1], self.settings.size)

    @torch.no_grad()
    def _encode(self, squares: Sequence[Tensor], batch: int) -> Tensor:
        model = self.method.model
        return torch.cat(
            [model.encode(torch.stack(list(squares[start : start + batch])).to(model.device)) for start in range(0, len(squares), batch)]
        )

    def _nothing(self, count: int) -> Tensor:
        """(count, C, h, w): what pictures from noise have for a source."""
        model, side = self.method.model, self.settings.side // self.method.model.factor
        return torch.zeros(1, model.channels, side, side, device=model.device).expand(count, -1, -1, -1)

    def _real(self, variant: Variant) -> Image.Image:
        """The photo itself; at the model's size it goes through the same geometry as its copies."""
        image = self.photos[self._places[variant.source_id]].image
        if self.settings.size == "source" and self.settings.fit != "crop":
            return image
        square, geometry = self.fit.to_model(image)
        return self.fit.undo(square, geometry, self.settings.size)

    @torch.no_grad()
    def _call(self, batch: int) -> None:
        model = self.method.model
        side = self.settings.side // model.factor
        x = torch.zeros(batch, model.channels, side, side, device=model.device)
        condition = model.embed([self.method.prompt(0)], self.method.words).index([0] * batch)
        self.guided(x, torch.full((batch,), len(model.schedule) // 2, device=model.device), condition).sum().item()

    def operations(self) -> float:
        """Of one image step, counted by torch: the same on every machine."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self._call(1)
        return float(counter.get_total_flops())

    def rate(self, batch: int) -> float:
        """Image steps a second, the better of a call with one image and a full one: what else the machine does only ever slows it."""
        self._call(1)
        begin = time.perf_counter()
        self._call(1)
        alone = time.perf_counter() - begin
        if alone * batch > 20:
            return 1 / alone
        begin = time.perf_counter()
        try:
            self._call(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return 1 / alone  # a price for less than there is; the run halves its batch
        return max(1 / alone, batch / (time.perf_counter() - begin))


def shard_steps(operations: float, device: torch.device, threads: int) -> float:
    """Image steps that make a shard of about 30 seconds."""
    speed = _PROCESSOR_THREAD * threads if device.type == "cpu" else _ACCELERATOR
    return SHARD_SECONDS * speed / max(operations, 1.0)


def default_batch(model: Denoiser, side: int) -> int:
    """A power of two that memory is likely to hold: activations grow with the square of the numbers of x, because of attention."""
    numbers = model.channels * (side // model.factor) ** 2
    room = (46_000 / numbers) ** 2 * (1 if model.device.type == "cpu" else 8)
    most = 64 if model.device.type == "cpu" else 256
    return int(2 ** max(0, min(log2(most), int(log2(max(1.0, room))))))
