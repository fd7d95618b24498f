"""Training a whole network: a function of (pool, settings, seed), so that a killed training continues to the same weights."""

from __future__ import annotations

import os
import pickle  # for the name of its error alone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.training.augment import StandardViews, apply_views, generator_of
from rediffuse.training.backbones import Classifier, seeded, to_unit
from rediffuse.training.linear import Progress
from rediffuse.training.pool import Pool
from rediffuse.training.settings import WHOLE, TrainSettings


def fit_network(
    classifier: Classifier,
    pool: Pool,
    *,
    settings: TrainSettings = WHOLE,
    views: StandardViews | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    progress: Progress | None = None,
) -> Classifier:
    """Train every weight, in place, under standard augmentation.

    Args:
        classifier: the start.
        pool: uint8 pictures.
        settings: budget.
        views: law of the augmentation; real and synthetic pictures go through it alike.
        seed: of draws, views and dropout. What a step does is a function of (seed, step).
        checkpoint: a file that a killed training of the same kind continues from; kept at the end, for the caller to remove.
        checkpoint_every: steps.
        progress: called with (steps done, in all).
    Raises:
        ConfigError: the checkpoint belongs to another training.
    """
    views = StandardViews() if views is None else views
    classifier.train()
    classifier.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True)
    path = None if checkpoint is None else Path(checkpoint)
    key = repr((settings, views, seed, pool.fingerprint(), classifier.preprocessing, classifier.classes)) if path is not None else ""
    done = 0 if path is None else _resume(path, key, classifier, optimizer)
    for step in range(done, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        with seeded("step", seed, step):
            _step(classifier, optimizer, *_batch(pool, settings.batch, views, classifier, seed, step), settings)
        if path is not None and ((step + 1) % checkpoint_every == 0 or step + 1 == settings.steps):
            _keep(path, {"key": key, "step": step + 1, "model": classifier.state_dict(), "optimizer": optimizer.state_dict()})
        if progress is not None:
            progress(step + 1, settings.steps)
    return classifier.eval()


def _batch(pool: Pool, batch: int, views: StandardViews, classifier: Classifier, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, H, W) in [0, 1] at the network's size and on its device, and labels, of one step."""
    generator = generator_of("batch", seed, step)
    images, labels = pool.take(pool.draw(batch, generator))
    drawn = views.draw(batch, generator)
    return apply_views(to_unit(images.to(classifier.device)), drawn, classifier.preprocessing.size), labels.to(classifier.device)


def _step(classifier: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, settings: TrainSettings) -> None:
    inputs = classifier.preprocessing.normalise(images).to(memory_format=torch.channels_last)
    loss = F.cross_entropy(classifier.from_input(inputs), labels, label_smoothing=settings.smoothing)
    if not bool(loss.isfinite()):
        raise DataError(f"the loss became {float(loss.detach())}; lower learning_rate (now {settings.learning_rate})")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _resume(path: Path, key: str, classifier: Classifier, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        own = state["key"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError, OSError) as error:
        raise ModelError(f"checkpoint {path} cannot be read ({type(error).__name__}); remove it to begin again") from error
    if own != key:
        raise ConfigError(
            f"checkpoint {path} belongs to another training (other images, settings or seed); remove it, or give another path"
        )
    classifier.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def _keep(path: Path, state: dict[str, Any]) -> None:
    """Write beside, sync, rename: a kill leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
