"""A classifier under judgement, and the pictures that judge it: what all yardsticks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from rediffuse.data.geometry import Fit
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError, RediffuseError
from rediffuse.evaluation.kept import numbers_of
from rediffuse.evaluation.matching import match_classes
from rediffuse.training.checkpoint import weights_hash
from rediffuse.training.classifier import Classifier, evaluating
from rediffuse.training.preprocessing import Preprocessing

CHUNK = 128
"""Pictures a call, at most."""
PIXELS = CHUNK * 112**2
"""Of the pictures of a call: 32 of 224 pixels, a fourth of what 128 of them would keep in memory."""


class Judged:
    """Any network of images as yardsticks want it: pictures in [0, 1] in, logits and features out, classes by name.

    Choose `Judged.open` for a transformers folder, a bundled or hub name; give the constructor any `nn.Module`, such as timm's.

    Args:
        network: (B, 3, H, W) -> logits (B, K), or an object that has them as `logits`.
        classes: K names, in label order. Some may be alike, as the two cranes of ImageNet are; images labelled by such a name are refused.
        preprocessing: size and normalisation that the network wants; None where it takes [0, 1] at any size, as a `Classifier` does.
        head: the layer of the network whose input is called features; None takes the last linear layer with K outputs.
        name: in tables and pages.
    Attributes:
        head_given: whether the head was said, not found: one that was found need not be what makes the logits.
    Raises:
        ConfigError: fewer than two classes, a head that is no layer of the network.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        *,
        preprocessing: Preprocessing | None = None,
        head: nn.Module | None = None,
        name: str = "",
    ) -> None:
        if len(classes) < 2:
            raise ConfigError(f"a classifier needs at least two classes, got {', '.join(map(repr, classes)) or 'none'}")
        self.network, self.classes, self.preprocessing = network, tuple(classes), preprocessing
        self.name = name or type(network).__name__
        if head is not None and not any(part is head for part in network.modules()):
            raise ConfigError(f"the head of {self.name} must be one of its own layers, got another {type(head).__name__}")
        self._head, self.head_given = head, head is not None

    @classmethod
    def open(cls, spec: str, *, device: str | torch.device = "cpu", name: str = "") -> Self:
        """A saved classifier: a transformers folder, a bundled name or a hub name. Raises ModelError with what was tried."""
        from rediffuse.training.model_folders import model_folder

        classifier = Classifier.load(model_folder(spec)).to(device)
        return cls(classifier, classifier.classes, name=name or spec)

    @property
    def head(self) -> nn.Module:
        """The layer that makes logits of features. Raises ModelError where none was given and none is to be found."""
        if self._head is None:
            linear = [part for part in self.network.modules() if isinstance(part, nn.Linear) and part.out_features == len(self.classes)]
            if not linear:
                raise ModelError(f"{self.name} has no linear layer with {len(self.classes)} outputs; say which layer is its head")
            self._head = linear[-1]
        return self._head

    @property
    def device(self) -> torch.device:
        return next((value.device for value in self.network.parameters()), torch.device("cpu"))

    def identity(self) -> dict[str, Any]:
        """What tells it from others, as JSON: for `kept.Kept`."""
        try:
            head = self.head
        except ModelError:  # features are not asked for
            head = None
        return {
            "network": type(self.network).__name__,
            "weights": weights_hash(self.network),
            "denoiser_numbers": numbers_of(self.network),
            "classes": list(self.classes),
            "wants": [repr(each) for each in self._wants()],
            "head": next((name for name, part in self.network.named_modules() if part is head), None),
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) float32 on the images' device; gradients flow. images: (B, 3, H, W) in [0, 1].

        Raises ModelError for another number of outputs than classes, for logits that are not finite, and for what the network raises.
        """
        given = images if self.preprocessing is None else self.preprocessing(images)
        with evaluating(self.network), naming(f"{self.name} fails on pictures {tuple(given.shape)}"):
            found = self.network(given.to(self.device, self._numbers()))
            logits: Tensor = (found if isinstance(found, Tensor) else found.logits).float().to(images.device)
        if logits.shape != (len(images), len(self.classes)):
            raise ModelError(
                f"{self.name} gives logits {tuple(logits.shape)} where images by classes are {(len(images), len(self.classes))}; name one "
                "class an output, in label order (of a saved one id2label in its config.json)"
            )
        if not bool(logits.isfinite().all()):
            raise self.not_finite("logits", images)
        return logits

    def _numbers(self) -> torch.dtype:
        """What a network takes its pictures in: those of all its weights. One of several numbers, a `Classifier`, an ensemble and what
        holds one of them see to that themselves, from float32."""
        own = any(isinstance(part, Classifier | _Asked) or getattr(part, "cuts_itself", False) for part in self.network.modules())
        numbers = {value.dtype for value in self.network.parameters() if value.is_floating_point()}
        return torch.float32 if own or len(numbers) != 1 else numbers.pop()

    def _wants(self) -> list[Preprocessing]:
        """All preprocessing: a Classifier, or an ensemble of one, holds its own in a part of its own, and no state tells it."""
        wants = [self.preprocessing, *(getattr(part, "preprocessing", None) for part in self.network.modules())]
        return [each for each in wants if isinstance(each, Preprocessing)]

    def _chunk(self, images: Tensor) -> int:
        """At the largest size that pictures have on their way. An ensemble cuts its views itself, and shares them only cut alike."""
        if getattr(self.network, "cuts_itself", False):
            return CHUNK
        return chunk_of(max([images.shape[-2] * images.shape[-1], *(each.height * each.width for each in self._wants())]))

    def not_finite(self, what: str, images: Tensor) -> ModelError:
        """The error for logits or features that are not finite."""
        return not_finite(self.network, self.name, what, images)

    def as_module(self) -> nn.Module:
        """The same as a module of images in [0, 1], for what asks a classifier several times; see `test_time.ensembles`."""
        return _Asked(self)

    @torch.no_grad()
    def logits(self, images: Tensor, chunk: int | None = None) -> Tensor:
        """(N, K) float32 on the processor, without gradients, a chunk at a time; None takes one that fits the size, see `chunk_of`."""
        parts = [self(part).cpu() for part in images.split(self._chunk(images) if chunk is None else chunk)]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.classes))

    @torch.no_grad()
    def features(self, images: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """(features (N, D), logits (N, K)) float32 on the processor: what the head sees, and what it makes of it. chunk: as in `logits`.

        Raises ModelError where the head is not asked once an image.
        """
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.extend(each.flatten(1).float().cpu() for each in inputs[:1]))
        try:
            logits = self.logits(images, chunk)
        finally:
            hook.remove()
        rows = sum(len(each) for each in seen)
        if rows != len(images):
            raise ModelError(
                f"the head of {self.name}, a {type(self.head).__name__}, is asked about {rows} inputs for {len(images)} images; "
                "say which layer is asked once an image: Judged(..., head=)"
            )
        return (torch.cat(seen) if seen else torch.zeros(0, 0)), logits

    def truth(self, images: ImageSet) -> Tensor:
        """(N,) int64: the label of each image as an index into the model's classes, matched by name or id as in `matching.places`.

        Raises DataError for an image without a label, and for a class that means none of the model's, or several, by name.
        """
        if None in images.labels:
            raise DataError(f"{images.ids[images.labels.index(None)]} of {images.name} has no label; accuracy needs one for each image")
        labels = [label for label in images.labels if label is not None]
        shown = sorted(set(labels))
        found = match_classes([images.classes[label] for label in shown], self.classes, self.name, images.name)
        place = dict(zip(shown, found, strict=True))
        return torch.tensor([place[label] for label in labels], dtype=torch.int64)


class _Asked(nn.Module):
    def __init__(self, judged: Judged) -> None:
        super().__init__()
        self.network, self._judged, self.preprocessing = judged.network, judged, judged.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        return self._judged(images)


@contextmanager
def naming(what: str, fix: str = "") -> Iterator[None]:
    """Turn what a network raises into a ModelError that says which, so that it costs a long run one part at most."""
    try:
        yield
    except (RediffuseError, RuntimeError, MemoryError):  # torch's own, such as a device without room, say what they are
        raise
    except Exception as error:
        raise ModelError(f"{what}: {type(error).__name__}: {error}{fix}") from error


def not_finite(network: nn.Module, name: str, what: str, images: Tensor) -> ModelError:
    """The error for logits or features that are not finite: where pictures are not either, what made them is to blame."""
    if not bool(images.isfinite().all()):
        return ModelError(f"{name} is shown pictures that are NaN or infinite; a denoiser that made them wants --dtype float32")
    numbers = {str(value.dtype).removeprefix("torch.") for value in network.parameters()} - {"float32", "float64"}
    fix = f"give it in float32, not {numbers.pop()}" if numbers else "train or fetch it again, its weights are broken"
    return ModelError(f"{name} gives {what} that are NaN or infinite; {fix}")


def chunk_of(pixels: int) -> int:
    """How many pictures of so many pixels share a call: CHUNK, fewer above 112 x 112, at least one."""
    return max(1, min(CHUNK, PIXELS // max(1, pixels)))


def check_models(judged: Judged | Sequence[Judged]) -> tuple[Judged, ...]:
    """One or several, as several. Raises ConfigError for none, or two of one name."""
    models = (judged,) if isinstance(judged, Judged) else tuple(judged)
    names = [model.name for model in models]
    if not models or len(set(names)) != len(names):
        raise ConfigError(f"models must have different names, got {', '.join(names) or 'none'}; name them with Judged(..., name=)")
    return models


def batches(images: ImageSet, *, size: int, fit: str = "pad", batch: int = 256) -> Iterator[tuple[list[int], Tensor]]:
    """(rows, pictures (B, 3, size, size) float32 in [0, 1]) of a set, in order; no more than one batch is held.

    Raises DataError for a set without images, ConfigError for a batch without any.
    """
    if batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    if not len(images):
        raise DataError(f"{images.name} holds no images")
    shape = Fit(mode=fit, size=size)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        yield list(range(start, start + len(part))), torch.stack([shape.to_model(example.image)[0] for example in part])
