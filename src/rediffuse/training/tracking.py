"""Values of a training for whoever keeps them: TensorBoard, Weights & Biases and the like, through accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rediffuse.errors import ConfigError
from rediffuse.training.loop import Watch


@contextmanager
def tracked(
    trackers: Sequence[Any],
    folder: str | Path,
    *,
    name: str = "rediffuse",
    settings: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> Iterator[Watch]:
    """A `watch` for `fit_network` that hands values on while the context lasts.

    Args:
        trackers: names that accelerate knows ("tensorboard", "wandb", "mlflow", "trackio", ...), or its GeneralTracker objects.
        folder: for those that write files.
        name: of the project.
        settings: plain values that are kept with the run.
        device: of the training, where torchrun starts several processes: accelerate decides once for all of them.
    Raises:
        ConfigError: a name that accelerate does not know, or whose package is not installed.
    """
    from accelerate import Accelerator
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = {str(getattr(kind, "value", kind)) for kind in LOGGER_TYPE_TO_CLASS}
    there = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for tracker in trackers:
        if isinstance(tracker, str) and tracker not in known:
            raise ConfigError(f"no tracker {tracker!r}; there are {', '.join(sorted(known))}")
        if isinstance(tracker, str) and tracker not in there:
            raise ConfigError(
                f"the tracker {tracker} is not installed; pip install {tracker}, or take another: {', '.join(sorted(there)) or 'none'}"
            )
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # alone it may meet an accelerator of other settings
    accelerator = Accelerator(cpu=several and device is not None and device.type == "cpu", log_with=list(trackers), project_dir=str(folder))
    accelerator.init_trackers(name, config=dict(settings or {}))

    def watch(step: int, values: Mapping[str, float]) -> None:
        accelerator.log(dict(values), step=step)

    try:
        yield watch
    finally:
        accelerator.end_training()
