"""BatchNorm under several views: whose statistics are kept, and whether there are enough pictures for any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from rediffuse.errors import ConfigError
from rediffuse.training.objectives import Objective


def check_statistics(objective: Objective, network: nn.Module, batch: int) -> None:
    """Whether BatchNorm, where it learns, always sees several pictures together.

    Args:
        batch: pictures of a step that share statistics.
    Raises:
        ConfigError: it may be shown a single one: as a batch, or as one of the views that have statistics of their own.
    """
    if not any(layer.training for layer in batchnorms(network)):
        return
    if batch < 2 and not objective.extras and objective.augmix is None:
        raise ConfigError(
            "BatchNorm normalises by the statistics of the pictures that it sees together, and a batch of 1 shows it a single one; give a "
            "batch of at least 2 (on several processors: for each process), or a network without BatchNorm"
        )
    fewest = batch * min([1.0, *(extra.share for extra in objective.extras)])
    if objective.batchnorm == "split" and fewest < 2:
        raise ConfigError(
            "batchnorm split normalises each view by its own statistics, and one view would hold "
            f"{fewest:g} pictures of a batch of {batch}; give a larger batch or share, or batchnorm joint"
        )


@contextmanager
def still_statistics(network: nn.Module) -> Iterator[None]:
    """Batches inside are normalised by their own statistics and leave the running ones alone."""
    layers = batchnorms(network)
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


def batchnorms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
