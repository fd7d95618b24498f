"""Training a whole network: a function of (pool, settings, seed), so that a killed training continues to the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.denoisers.precision import trunk_region
from rediffuse.errors import ConfigError, DataError
from rediffuse.interrupt import Keeping
from rediffuse.methods.bank import Bank
from rediffuse.progress import notes
from rediffuse.training.augment import StandardViews, ViewLaw, generator_of
from rediffuse.training.batchnorm import check_statistics, still_statistics
from rediffuse.training.checkpoint import keep_checkpoint, read_checkpoint, weights_hash
from rediffuse.training.classifier import Classifier, Progress, seeded
from rediffuse.training.ema import Ema
from rediffuse.training.numbers import forward_numbers
from rediffuse.training.objectives import Objective, Views, plain, terms_of
from rediffuse.training.pool import Pool
from rediffuse.training.procedure import PROCEDURE, Procedure, epoch_rows
from rediffuse.training.processes import Processes
from rediffuse.training.settings import WHOLE, TrainSettings
from rediffuse.training.views import Batch, check_training_set, make_views

Watch = Callable[[int, Mapping[str, float]], None]
"""Called with (steps done, values): loss, its terms (means since the last call) and the learning rate."""


def fit_network(
    classifier: Classifier,
    pool: Pool,
    *,
    settings: TrainSettings = WHOLE,
    views: ViewLaw | None = None,
    objective: Objective | None = None,
    procedure: Procedure = PROCEDURE,
    view_size: tuple[int, int] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    progress: Progress | None = None,
    watch: Watch | None = None,
    watch_every: int = 50,
) -> Classifier:
    """Train every weight, in place.

    Under torchrun each process takes its part of every batch, and all end with the same weights.

    Args:
        classifier: the start.
        pool: uint8 pictures (N, 3, H, W) and labels in [0, classes).
        settings: budget.
        views: law of the clean view's crop; real and synthetic pictures go through it alike. Default: StandardViews().
        objective: which views there are and what is added up. Default: cross-entropy on the clean view.
        procedure: optimiser, schedule, order, number format.
        view_size: (height, width) at which views are made; default: the network's input. A denoiser wants the size it knows.
        seed: of draws, views and dropout. What a step does is a function of (seed, step) and of what a Bank remembers.
        checkpoint: a file that a killed training of the same kind continues from; kept at the end, for the caller to remove.
        checkpoint_every: steps; it is written after a minute too, and before Ctrl-C or TERM end the training.
        progress: called with (steps done, in all).
        watch, watch_every: called with values of the loss every so many steps.
    Raises:
        ConfigError: the checkpoint belongs to another training, or processes found different ones; a batch that the processes cannot part
            evenly; a bank's file that several would write; a view, or a batch, of one picture that BatchNorm is to look at alone.
        DataError: pictures that are no bytes, a label outside the classes, a loss that is no number any more.
    """
    views = StandardViews() if views is None else views
    objective = plain() if objective is None else objective
    training = Training(classifier, pool, settings, views, objective, procedure, view_size or classifier.preprocessing.size, seed)
    path, key = (None, "") if checkpoint is None else (Path(checkpoint), training.key())
    state = None if path is None else read_checkpoint(path, key)
    training.check_together(state)
    done = 0 if state is None else training.restore(state)
    if path is not None and state is None and any(bank.path is not None for bank in training.banks):
        training.keep(path, key, 0)  # what a bank's file held before: the first steps write into it
    keep, first, seen = None if path is None else partial(training.keep, path, key), training.processes.first, _Mean()
    with Keeping(keep, checkpoint_every, settings.steps, notes(first and progress is not None), training.processes.largest) as keeping:
        for step in range(done, settings.steps):
            seen.add(training.step(step))
            keeping.after(step + 1)
            if first and watch is not None and ((step + 1) % watch_every == 0 or step + 1 == settings.steps):
                watch(step + 1, seen.take() | {"learning_rate": procedure.rate(settings, step)})
            if first and progress is not None:
                progress(step + 1, settings.steps)
    return training.finish()


class Training:
    """What the steps of one training share and change.

    Choose it over `fit_network` where single steps are called, as a benchmark does: it keeps no checkpoint and ends nowhere by itself.

    Args: those of `fit_network` of the same name. size: `view_size`.
    """

    def __init__(
        self,
        classifier: Classifier,
        pool: Pool,
        settings: TrainSettings,
        views: ViewLaw,
        objective: Objective,
        procedure: Procedure,
        size: tuple[int, int],
        seed: int,
    ) -> None:
        check_training_set(objective, pool.items, pool.labels, len(classifier.classes))
        self.pool, self.settings, self.views, self.objective = pool, settings, views, objective
        self.procedure, self.size, self.seed = procedure, size, seed
        self.processes = Processes.open(classifier.device)
        self.part = self.processes.rows(settings.batch)
        self.classifier = classifier.to(self.processes.device).train()
        check_statistics(objective, classifier, settings.batch if self.processes.synchronised else self.part.stop - self.part.start)
        classifier.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.numbers = forward_numbers(procedure, classifier)
        self.look = self.processes.wrap(_Look(classifier, objective, settings.smoothing, self.numbers))
        self.optimizer = procedure.optimizer_of(classifier.parameters(), settings)
        self.ema = Ema(classifier, procedure.ema) if procedure.ema else None
        methods = [view.method for view in (*objective.extras, *objective.stand_ins)]
        self.banks = [method for method in methods if isinstance(method, Bank) and method.method is not None]
        written = [bank.path for bank in self.banks if bank.path is not None and bank.rate > 0]
        if self.processes.count > 1 and written:
            raise ConfigError(
                f"{self.processes.count} processes would write the bank {written[0]}; leave out its path, so that each has its own, or "
                "fill it before with fill_bank and read it with Bank(None, rate=0, path=...)"
            )
        if self.processes.count > 1:  # where a denoiser was loaded, every process may have found the same device
            for module in [*methods, *(bank.method for bank in self.banks)]:
                if isinstance(module, nn.Module):
                    module.to(self.processes.device)

    def key(self) -> str:
        """What makes this training itself; a checkpoint with another key is not its own."""
        told = {
            **self.settings.to_json(),
            "views": repr(self.views),
            "seed": self.seed,
            "images": self.pool.fingerprint(),
            "preprocessing": repr(self.classifier.preprocessing),
            "classes": self.classifier.classes,
            "procedure": repr(self.procedure),
            "numbers": str(self.numbers).removeprefix("torch."),  # what auto came to on this machine
            "objective": self.objective.describe(),
            "size": self.size,
            "processes": self.processes.count,
            **({} if self.pool.middle is None else {"middle": self.pool.middle}),
            "network": type(self.classifier.model).__name__,
            "weights": weights_hash(self.classifier),
        }
        return json.dumps(told, sort_keys=True, default=str)

    def check_together(self, state: Mapping[str, Any] | None) -> None:
        """Whether all processes go on from the same step. Raises ConfigError where some found no checkpoint, or another."""
        found = self.processes.compare(None if state is None else int(state["step"]))
        if len(set(found)) > 1:
            told = ", ".join("none" if step is None else f"step {step}" for step in found)
            raise ConfigError(
                f"the {len(found)} processes found different checkpoints ({told}, by rank): the first writes it and all must read it; "
                "put it on a disk that all share, copy it to every machine, or remove it everywhere"
            )

    def step(self, step: int) -> dict[str, Tensor]:
        """One step of the optimiser; returns the loss and its terms, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.procedure.rate(self.settings, step)
        with seeded(*self.processes.key("step", self.seed, step), device=self.processes.device):
            terms: dict[str, Tensor] = self.look(make_views(self.objective, self.batch(step)))
            loss = torch.stack(tuple(terms.values())).sum()
            if not bool(loss.isfinite()):
                raise DataError(f"the loss became {float(loss.detach())}; lower learning_rate (now {self.settings.learning_rate})")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.procedure.clip:
            nn.utils.clip_grad_norm_(self.classifier.parameters(), self.procedure.clip)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.classifier)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in terms.items()}}

    def batch(self, step: int) -> Batch:
        """This process's part of a step's pictures. What the whole batch is does not depend on how many processes there are."""
        generator, count = generator_of("batch", self.seed, step), self.settings.batch
        epochs = self.procedure.order == "epochs"
        index = epoch_rows(len(self.pool.labels), count, self.seed, step) if epochs else None
        draw = self.pool.draw(count, generator, index)
        crops = self.views.draw(count, generator)
        images, labels = self.pool.take(draw)
        return Batch(
            images=images[self.part],
            labels=labels[self.part],
            index=draw.index[self.part],
            crops=crops[self.part],
            law=self.views,
            size=self.size,
            classes=len(self.classifier.classes),
            device=self.processes.device,
            key=self.processes.key(self.seed, step),
            middle=self.pool.middle,
        )

    def restore(self, state: Mapping[str, Any]) -> int:
        """Take up a checkpoint; returns the steps that it had done."""
        self.classifier.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        for bank, own in zip(self.banks, state.get("banks", {self.processes.rank: []})[self.processes.rank], strict=True):
            bank.load_state_dict(own)
        return int(state["step"])

    def keep(self, path: Path, key: str, step: int) -> None:
        """Write a checkpoint; each process brings its banks."""
        banks = self.processes.collect([bank.state_dict() for bank in self.banks])
        if self.processes.first:
            state = {"key": key, "step": step, "model": self.classifier.state_dict(), "optimizer": self.optimizer.state_dict()}
            averages = {} if self.ema is None else {"ema": self.ema.state_dict()}
            keep_checkpoint(path, {**state, **averages, "banks": banks})
        self.processes.wait()

    def finish(self) -> Classifier:
        """The trained network, its averaged weights where they were averaged."""
        if self.ema is not None:
            self.ema.copy_to(self.classifier)
        self.processes.agree(self.classifier.buffers())  # BatchNorm's statistics are of each one's own pictures
        self.classifier.knows_nothing = False
        self.classifier.remember(min(self.pool.side, max(self.size)), self.pool.fit)
        return self.classifier.eval()


class _Look(nn.Module):
    """Views in, terms of the loss out: one call a step, so that gradients of several processes meet once."""

    def __init__(self, classifier: Classifier, objective: Objective, smoothing: float, numbers: torch.dtype) -> None:
        super().__init__()
        self.classifier, self.objective, self.smoothing, self.numbers = classifier, objective, smoothing, numbers

    def forward(self, views: Views) -> dict[str, Tensor]:
        pictures = [views.clean, *views.mixes, *(images for images, _ in views.extras)]
        if self.objective.batchnorm == "joint":
            logits = list(self._logits(torch.cat(pictures) if len(pictures) > 1 else pictures[0]).split([len(part) for part in pictures]))
        else:
            logits = [self._logits(views.clean)]
            with still_statistics(self.classifier):
                logits += [self._logits(part) if len(part) else logits[0][:0] for part in pictures[1:]]
        return terms_of(self.objective, views, logits, self.smoothing)

    def _logits(self, pictures: Tensor) -> Tensor:
        inputs = self.classifier.preprocessing(pictures).to(memory_format=torch.channels_last)
        with trunk_region(inputs.device, self.numbers):
            return self.classifier.from_input(inputs).float()


class _Mean:
    """Means of named values since they were last taken."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        found = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        self._sums, self._counts = {}, {}
        return found
