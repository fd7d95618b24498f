"""A linear head on frozen features. Features are computed once; hundreds of heads then cost seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, ModelError
from rediffuse.training.augment import generator_of
from rediffuse.training.backbones import start_head
from rediffuse.training.classifier import CHUNK, Classifier, Progress
from rediffuse.training.pool import PixelBank, Pool
from rediffuse.training.settings import LINEAR, TrainSettings

ROUNDING = 0.01
"""Part of the largest logit by which two ways to the same may differ: short numbers of accelerators leave a tenth of that."""


class FeatureBank:
    """Features of pictures under one frozen network, each computed once: as the picture is and, where flips keep the label, mirrored.

    Args:
        classifier: the network; its head is not used.
        pixels: where pictures come from.
        flips: whether a mirrored view is part of the set.
    Raises:
        ConfigError: a network of random weights; in `of`, one with more heads than one.
    """

    def __init__(self, classifier: Classifier, pixels: PixelBank, flips: bool) -> None:
        if classifier.knows_nothing:
            raise ConfigError("features of random weights say nothing; choose resnet-64, a transformers folder or a hub name")
        self.classifier, self.pixels, self.flips = classifier, pixels, flips
        self._held: dict[str, Tensor] = {}

    @property
    def views(self) -> int:
        return 2 if self.flips else 1

    def of(self, images: ImageSet, progress: Progress | None = None) -> Tensor:
        """(N, views, D) float32, in the set's order; the first view is the picture as it is."""
        places = {digest: row for row, digest in reversed(list(enumerate(images.digests)))}  # the first of equal pictures
        rows = sorted(row for digest, row in places.items() if digest not in self._held)
        for start in range(0, len(rows), CHUNK):
            chunk = images.subset(rows[start : start + CHUNK])
            for digest, value in zip(chunk.digests, features(self.classifier, self.pixels.of(chunk), self.flips), strict=True):
                self._held[digest] = value
            if progress is not None:
                progress(min(start + CHUNK, len(rows)), len(rows))
        if len(images) == 0:
            return torch.zeros(0, self.views, self.classifier.head.in_features)
        return torch.stack([self._held[digest] for digest in images.digests])


def features(classifier: Classifier, images: Tensor, flips: bool, progress: Progress | None = None) -> Tensor:
    """(N, views, D) of pictures (N, 3, H, W), uint8 or in [0, 1]. progress: called with (views done, in all).

    Raises:
        ConfigError: the network's logits are not those of one linear head on these features.
        ModelError: features that are no finite numbers.
    """
    views = [images, images.flip(-1)] if flips else [images]  # bytes stay bytes until their chunk is asked about

    def behind(views_before: int) -> Progress | None:
        return None if progress is None else lambda done, own: progress(views_before * own + done, len(views) * own)

    kept = []
    for place, view in enumerate(views):
        found, logits = classifier.features_and_logits(view, behind(place))
        _check_finite(found)
        if place == 0:
            _check_one_head(classifier, found, logits)
        kept.append(found)
    return torch.stack(kept, 1)


@torch.no_grad()
def _check_one_head(classifier: Classifier, found: Tensor, logits: Tensor) -> None:
    """Refuse a network that says something else than its head does, such as the mean of two heads: the other would never learn."""
    head, one = classifier.head, found.shape == (len(logits), classifier.head.in_features)
    if one and len(logits):
        by_head = head(found[:CHUNK].to(head.weight)).float().cpu().log_softmax(1)  # a network may end in one
        said = logits[:CHUNK].log_softmax(1)
        one = bool((by_head - said).abs().max() <= ROUNDING * said.abs().max())
    if not one:
        raise ConfigError(
            f"mode linear cannot train {type(classifier.model).__name__}: its logits are not those of one linear head alone (it has "
            "two, or scales what the head says); choose mode whole, or another network"
        )


def _check_finite(found: Tensor) -> None:
    """Raise ModelError for features of which no head can be learned."""
    lost = int((~found.isfinite()).flatten(1).any(1).sum()) if len(found) else 0
    if lost:
        raise ModelError(
            f"the features of {lost:,} of {len(found):,} pictures hold NaN or infinity, from which no head can be learned; the network's "
            "weights are damaged, or its normalisation is another one: choose another network"
        )


def fit_head(pool: Pool, classes: int, *, settings: TrainSettings = LINEAR, seed: int = 0) -> nn.Linear:
    """Learn a linear classifier of features.

    The features are divided by one number, their root mean square over the real ones, so that a learning rate means the same for every
    network; the head that comes back takes them as they are.

    Args:
        pool: features (N + S, views, D); a draw takes one view of each, uniform.
        classes: outputs.
        settings: budget.
        seed: of the start and of the draws.
    Raises:
        ModelError: features, or weights in the end, that are no finite numbers.
    """
    _check_finite(pool.items)
    scale = pool.items[: len(pool.labels)].square().mean().sqrt().clamp(min=1e-8)
    items = pool.items / scale
    head = nn.Linear(items.shape[-1], classes)
    start_head(head, seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True)
    generator = generator_of("linear", seed)
    for step in range(settings.steps):
        draw = pool.draw(settings.batch, generator)
        view = torch.randint(items.shape[1], (settings.batch,), generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        loss = F.cross_entropy(head(items[draw.row, view]), pool.labels[draw.index], label_smoothing=settings.smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        head.weight.div_(scale)
    if not all(bool(value.isfinite().all()) for value in head.parameters()):
        raise ModelError(f"the head's weights became NaN or infinity; lower learning_rate (now {settings.learning_rate})")
    return head
