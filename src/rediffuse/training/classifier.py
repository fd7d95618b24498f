"""A classifier: a network with its preprocessing, the names of its classes and what taught it; saved as a plain transformers folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from rediffuse.checking import check_batch, check_tensor
from rediffuse.errors import ConfigError, ModelError
from rediffuse.quiet import quiet
from rediffuse.training.augment import generator_of
from rediffuse.training.model_folders import model_folder, read_config
from rediffuse.training.preprocessing import Preprocessing
from rediffuse.training.trained_on import FILE_NAME as LEARNED
from rediffuse.training.trained_on import read_learned, write_learned
from rediffuse.writing import whole, writing

CHUNK = 128
"""Pictures a call when nothing is learned."""
Progress = Callable[[int, int], None]
"""Called with (done, in all)."""


UNSAVED = ".saving"
"""Folder in which a classifier is written before it is there."""


class Classifier(nn.Module):
    """An image classifier with its preprocessing and the names of its classes.

    Choose `fit_classifier` to make one and `Classifier.load` to use a saved one. `save` writes a plain transformers folder, which
    `AutoModelForImageClassification` and `AutoImageProcessor` read.

    Attributes:
        model: a transformers module whose head has one output a class, or any other module (B, 3, height, width) -> logits (B, classes),
            which can be trained and judged, but is not saved as a folder.
        learned: digests (`pixels_sha256`) of the pictures that it is known to have learned from; `save` keeps them beside it.
        preprocessing: what it wants pictures to be.
        classes: names, in label order.
    Shape: (B, 3, H, W) in [0, 1] -> logits (B, classes).
    """

    is_plain = False  # also of those that were pickled before there was a difference
    learned: frozenset[str] = frozenset()

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, classes: Sequence[str]) -> None:
        super().__init__()
        self.model, self.preprocessing, self.classes = model, preprocessing, tuple(classes)
        self.knows_nothing = False  # weights are random still
        self.is_plain = not (hasattr(model, "config") and hasattr(model, "save_pretrained"))  # none of transformers'

    def __repr__(self) -> str:
        wants, kind = self.preprocessing, type(self.model).__name__
        return f"Classifier({kind}: {len(self.classes)} classes, input {wants.height} x {wants.width}, {self.device})"

    @property
    def device(self) -> torch.device:
        return next((value.device for value in self.model.parameters()), torch.device("cpu"))

    @property
    def head(self) -> nn.Linear:
        """The last linear layer with one output a class."""
        return head_of(self.model, len(self.classes))

    def remember(self, side: int, fit: str | None) -> None:
        """Note at how many pixels pictures were held in the training, and how other shapes became that square, None where that is not
        known; `save` keeps it, the verbs `predict` and `evaluate` take it up."""
        self.preprocessing = replace(self.preprocessing, seen=side, fit=fit)

    def forward(self, images: Tensor) -> Tensor:
        """Logits in the mode that it is in; gradients flow.

        The range is not looked at: certificates and tests by noise ask about pictures that leave [0, 1] on purpose. `predict` looks.

        Raises:
            DataError: bytes, or another shape than (B, 3, H, W).
        """
        check_batch(images)
        return self.from_input(self.preprocessing(images))

    def from_input(self, inputs: Tensor) -> Tensor:
        """Logits of pictures that are preprocessed already, asked in the numbers of the network."""
        inputs = inputs.to(next((value.dtype for value in self.model.parameters() if value.is_floating_point()), inputs.dtype))
        found = self.model(inputs) if self.is_plain else self.model(pixel_values=inputs)
        logits: Tensor = found if isinstance(found, Tensor) else found.logits
        if logits.shape != (len(inputs), len(self.classes)):
            raise ModelError(
                f"{type(self.model).__name__} gives {tuple(logits.shape)} where logits of {len(inputs)} pictures and {len(self.classes)} "
                "classes are asked for; give it one output a class"
            )
        return logits

    @torch.no_grad()
    def predict(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Logits (N, classes) on the CPU, in evaluation mode, a chunk at a time; uint8 pictures are taken as [0, 255].

        Args:
            progress: called with (pictures done, in all).
        Raises:
            DataError: other numbers that do not lie in [0, 1], or another shape than (N, 3, H, W).
        """
        chunks: list[Tensor] = []
        with evaluating(self):
            for place, chunk in enumerate(images.split(CHUNK) if len(images) else ()):
                chunks.append(self(check_tensor(to_unit(chunk.to(self.device)))).float().cpu())
                if progress is not None:
                    progress(min((place + 1) * CHUNK, len(images)), len(images))
        return torch.cat(chunks) if chunks else torch.zeros(0, len(self.classes))

    def features(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """(N, D): what the head sees, in evaluation mode (BatchNorm with its stored statistics). progress: as in `predict`."""
        return self.features_and_logits(images, progress)[0]

    @torch.no_grad()
    def features_and_logits(self, images: Tensor, progress: Progress | None = None) -> tuple[Tensor, Tensor]:
        """What the head sees (N, D), and what the network says (N, classes), from one pass; see `features` and `predict`."""
        kept: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].flatten(1).float().cpu()))
        try:
            logits = self.predict(images, progress)
        finally:
            hook.remove()
        return (torch.cat(kept) if kept else torch.zeros(0, self.head.in_features)), logits

    def save(self, folder: str | Path) -> Path:
        """Write configuration with class names, safetensors and preprocessing; returns the folder.

        All is written under `UNSAVED` first and config.json put in its place last: a folder that has it is whole.

        Raises:
            ConfigError: the network is none of transformers'.
            DataError: the disk is full or refuses; what was begun is removed.
        """
        if self.is_plain:
            raise ConfigError(
                f"{type(self.model).__name__} is none of transformers' networks, which alone are saved as a folder; keep its weights: "
                "torch.save(classifier.model.state_dict(), FILE)"
            )
        target = Path(folder).expanduser()
        partial = target / UNSAVED
        with writing(target):
            shutil.rmtree(partial, ignore_errors=True)  # of a save that was killed
            partial.mkdir(parents=True)
            try:
                with quiet():
                    self.model.save_pretrained(partial, safe_serialization=True)  # type: ignore[operator]  # a transformers module
                self.preprocessing.save(partial)
                if self.learned:
                    write_learned(partial, self.learned)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            for older in ("config.json", LEARNED):
                (target / older).unlink(missing_ok=True)
            for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
                with whole(target / file.name, file):
                    pass  # it is written already; what is left is to sync and rename it
            partial.rmdir()
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved classifier with the classes that it was trained on."""
        path = model_folder(str(folder))
        config = read_config(path)
        names = config.get("id2label") or {}
        if not names:
            raise ModelError(f"{path} names no classes (id2label in config.json); it is no classifier")
        found = cls(pretrained(path, None), Preprocessing.read(path, config), [names[key] for key in sorted(names, key=int)])
        found.learned = read_learned(path)
        return found


def to_unit(images: Tensor) -> Tensor:
    """uint8 in [0, 255] to float in [0, 1]; floats pass."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the mode of before afterwards, part by part: a frozen trunk under a head that learns stays as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


@contextmanager
def seeded(*key: int | str, device: torch.device | None = None) -> Iterator[None]:
    """torch's own random state set from a key inside, untouched outside: for libraries that take no generator.

    The processor's, and that of a CUDA or MPS device if one is given.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    apple = torch.mps.get_rng_state() if device is not None and device.type == "mps" else None
    with torch.random.fork_rng(devices=cuda):
        state = generator_of(*key)
        torch.set_rng_state(state.get_state())
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(state.initial_seed())
        if apple is not None:
            torch.mps.manual_seed(state.initial_seed())
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)


def pretrained(folder: Path, classes: Sequence[str] | None) -> nn.Module:
    """The folder's network, with a head for these classes or (None) its own."""
    from transformers import AutoModelForImageClassification

    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
    if classes is not None:
        options |= {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
        options["ignore_mismatched_sizes"] = True
    try:
        with quiet(), seeded("head"):  # no report on the head, which is new on purpose
            model: nn.Module = AutoModelForImageClassification.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be read as a transformers image classifier: {error}") from error
    return model.eval()


def head_of(model: nn.Module, count: int) -> nn.Linear:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == count]
    if not linear:
        raise ModelError(
            f"{type(model).__name__} has no linear layer with {count} outputs to train; choose a classifier with a linear head"
        )
    return linear[-1]
