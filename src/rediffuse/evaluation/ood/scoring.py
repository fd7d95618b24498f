"""Every score of every image, for several classifiers at once: pictures are opened once, and what is done stays done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rediffuse.data.splits import chosen
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError, ModelError
from rediffuse.evaluation.judged import Judged, batches, check_models
from rediffuse.evaluation.kept import Kept, fingerprint, in_noted_blocks, kept_images
from rediffuse.evaluation.ood import scores as rules
from rediffuse.evaluation.ood.asking import Asked, features_of, score_batch
from rediffuse.evaluation.ood.reference import Reference, check_neighbours
from rediffuse.evaluation.ood.sets import without_own

BLOCK = 1024
"""Images whose scores are kept together."""
BANK_BYTES = 2**29
"""Of all training features that are held at once; fitting takes up to three times as much."""
Group = Literal["known", "near", "far"]
Progress = Callable[[int, int], None]
Lost = dict[str, str] | None
"""Score -> why it cannot be had, as it is found; None raises instead."""
Ask = Callable[[int, Tensor, Lost], Tensor]
"""(model, pictures, what is lost) -> (B, ...)."""


def bank_that_fits(width: int, models: int) -> int:
    """How many training images fit into `BANK_BYTES`, where so many classifiers give features of this width."""
    return BANK_BYTES // (4 * width * models)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredSet:
    """What classifiers said of a set: `values` (models, images, scores) float64, high where the image looks known."""

    name: str
    group: Group
    values: Tensor = field(repr=False)

    def __len__(self) -> int:
        return self.values.shape[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Scores of all sets; the first is the known one. `result.judge` makes figures of them.

    72 bytes an image and classifier with all nine scores: a million images take 72 MB.
    """

    models: tuple[str, ...]
    scores: tuple[str, ...]
    sets: tuple[ScoredSet, ...]
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def score_sets(
    models: Judged | Sequence[Judged],
    known: ImageSet,
    *,
    asked: Asked,
    near: Mapping[str, ImageSet] | None = None,
    far: Mapping[str, ImageSet] | None = None,
    train: ImageSet | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Ask classifiers about images that they know and images that they do not.

    Memory: one batch of pictures, the training features (`bank` x D x 4 bytes a classifier, at most `BANK_BYTES` in all) and the
    scores themselves; none of it grows with the size of a picture file.

    Args:
        models: of the same classes or not, each with a name of its own.
        known: test images of the classes that they learned; labels are not asked for.
        near, far: sets by name of unknown images; near ones resemble what is known. The few that are the classifiers' own pictures are
            left out, and noted.
        train: their training images, labelled; None where no score asks for any.
        keep: folder for finished blocks; the same call again continues from it, and other sets may join. The caller removes it
            (`kept.forget`).
        progress: called with (images done, images in all).
    Raises:
        DataError: an empty set, one that shares many pictures with `known` or `train` (`sets.SHARED`), no training images where a score
            asks for them.
        ModelError: NaN logits; features that a score cannot be had of (`asking.lacking`), unless `asked.leave_out`.
        ConfigError: a bank that does not fit, kept blocks of another call.
    """
    began, judged = time.monotonic(), check_models(models)
    sets = _named(known, near or {}, far or {})
    rest, aside = without_own(known, {name: images for name, _, images in sets[1:]}, train)
    sets = [(name, group, rest.get(name, images)) for name, group, images in sets]
    bank = _bank(train, asked)
    if bank is not None and "knn" in asked.scores:
        check_neighbours(asked.neighbours, len(bank))  # before the folder is claimed
    settings = {
        "size": asked.size,
        "fit": asked.fit,
        "scores": list(asked.scores),
        "neighbours": asked.neighbours,
        "bank": len(bank or ()),
    }
    kept = None if keep is None else Kept(keep, _identity(judged, bank, settings))
    total = len(bank or ()) + sum(len(images) for _, _, images in sets)
    work = _Work(models=judged, asked=asked, kept=kept, progress=progress, total=total)
    references = [Reference()] * len(judged) if bank is None else work.references(bank)
    work = replace(work, asked=replace(asked, scores=work.left()))
    found = [ScoredSet(name=name, group=group, values=work.score(_block_name(images), images, references)) for name, group, images in sets]
    kept_scores = [work.asked.scores.index(name) for name in work.left()]  # those that every image of every set has
    return Scored(
        models=tuple(model.name for model in judged),
        scores=work.left(),
        sets=tuple(replace(each, values=each.values[..., kept_scores]) for each in found),
        seconds=time.monotonic() - began,
        settings=settings,
        notes=(*aside, *left_out({name: work.lost[name] for name in asked.scores if name in work.lost})),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """lost: score -> why it is left out, so far."""

    models: Sequence[Judged]
    asked: Asked
    kept: Kept | None
    progress: Progress | None
    total: int
    done: list[int] = field(default_factory=lambda: [0])
    lost: dict[str, str] = field(default_factory=dict)

    def left(self) -> tuple[str, ...]:
        """The scores that are not lost. Raises ModelError with the reason where none is."""
        names = tuple(name for name in self.asked.scores if name not in self.lost)
        if not names:
            raise ModelError(next(iter(self.lost.values())))
        return names

    def references(self, chosen: ImageSet) -> list[Reference]:
        """Every classifier's scores, fitted to the features of the chosen training images."""
        labels = [model.truth(chosen) if "mahalanobis" in self.asked.scores else None for model in self.models]
        blocks = self.blocks("bank", chosen, lambda place, pictures, lost: self.bank_features(place, pictures, len(chosen), lost))
        found = []
        for place, own in enumerate(labels):
            features = torch.cat([block.pop(place) for block in blocks])
            try:
                found.append(Reference.fit(features, own, self.left(), self.asked.neighbours))
            except DataError as error:
                if not self.asked.leave_out:
                    raise
                self.lost["mahalanobis"] = str(error)
                found.append(Reference.fit(features, own, self.left(), self.asked.neighbours))
        return found

    def bank_features(self, place: int, pictures: Tensor, images: int, lost: Lost) -> Tensor:
        model = self.models[place]
        features, _ = features_of(model, pictures, self.asked.scores, lost)
        fits = bank_that_fits(features.shape[1], len(self.models))
        if images > fits:
            size = images * features.shape[1] * 4 * len(self.models)
            raise ConfigError(
                f"{images} training features of {features.shape[1]} values for {len(self.models)} classifiers take {size / 2**30:.1f} GiB; "
                f"give a bank of at most {fits} images"
            )
        return features

    def score(self, name: str, images: ImageSet, references: Sequence[Reference]) -> Tensor:
        """(models, images, scores) of a set; NaN where a score was lost."""

        def ask(place: int, pictures: Tensor, lost: Lost) -> Tensor:
            return score_batch(self.models[place], pictures, self.asked.scores, references[place], lost)

        blocks = self.blocks(name, images, ask)
        return torch.stack([torch.cat([block[place] for block in blocks]) for place in range(len(self.models))])

    def blocks(self, name: str, images: ImageSet, ask: Ask) -> list[dict[int, Tensor]]:
        """Model -> (images of the block, ...) for each block of a set; finished ones are read, with what was lost in them."""
        out, before = [], self.done[0]
        for rows, block, lost in in_noted_blocks(len(images), BLOCK, lambda rows: self.ask(images[rows], ask), self.kept, f"{name}-"):
            if lost and not self.asked.leave_out:  # kept by a call that left scores out
                raise ModelError(next(iter(lost.values())))
            self.lost.update({score: reason for score, reason in lost.items() if score not in self.lost})
            out.append({place: block[model.name] for place, model in enumerate(self.models)})
            self.count(before + rows.stop)
        return out

    def ask(self, images: ImageSet, ask: Ask) -> tuple[dict[str, Tensor], dict[str, str]]:
        parts: dict[int, list[Tensor]] = {place: [] for place in range(len(self.models))}
        lost = dict[str, str]()
        for rows, pictures in batches(images, size=self.asked.size, fit=self.asked.fit, batch=self.asked.batch):
            for place, values in parts.items():
                values.append(ask(place, pictures, lost if self.asked.leave_out else None))
            self.count(self.done[0] + len(rows))
        return {self.models[place].name: torch.cat(values) for place, values in parts.items()}, lost

    def count(self, done: int) -> None:
        """Tell how many images are done, where they are more than before."""
        more, self.done[0] = done > self.done[0], done
        if more and self.progress is not None:
            self.progress(done, self.total)


def share_kept(keep: Path, sets: Sequence[ImageSet], train: ImageSet | None, asked: Asked) -> float:
    """The share of images, those of the bank among them, that `score_sets` finds in the folder it kept them in."""
    given = [("bank", bank)] if (bank := _bank(train, asked)) is not None else []
    counts = [(name, len(images)) for name, images in (*given, *((_block_name(images), images) for images in sets))]
    there = sum(kept_images(keep, count, BLOCK, f"{name}-") for name, count in counts)
    return there / sum(count for _, count in counts)


def left_out(lost: Mapping[str, str]) -> tuple[str, ...]:
    """A note for each reason of scores that are left out, without the advice that follows a semicolon."""
    found: dict[str, list[str]] = {}
    for name, reason in lost.items():
        found.setdefault(reason.partition("; ")[0], []).append(name)
    return tuple(f"left out: {', '.join(names)}, because {reason}" for reason, names in found.items())


def _bank(train: ImageSet | None, asked: Asked) -> ImageSet | None:
    """The training images of the bank."""
    if not asked.fitted:
        return None
    if train is None or not len(train):
        fitted = ", ".join(name for name in asked.scores if name in rules.FITTED_SCORES)
        raise ConfigError(f"the scores {fitted} ask for training images; give train, or leave those scores out")
    return chosen(train, asked.bank, asked.seed)


def _named(known: ImageSet, near: Mapping[str, ImageSet], far: Mapping[str, ImageSet]) -> list[tuple[str, Group, ImageSet]]:
    both = sorted(set(near) & set(far))
    if both:
        raise ConfigError(f"{both[0]!r} is given as near and as far; an unknown set is one of the two")
    if known.name in {**near, **far}:
        raise ConfigError(f"an unknown set is named {known.name!r} like the known one; give it another name")
    given: list[tuple[str, Group, ImageSet]] = [(known.name, "known", known)]
    given += [(name, "near", images) for name, images in near.items()]
    return given + [(name, "far", images) for name, images in far.items()]


def _identity(models: Sequence[Judged], chosen: ImageSet | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without the sets, which their blocks are named after: others may join."""
    return {
        "kind": "ood",
        "models": {model.name: model.identity() for model in models},
        "train": None if chosen is None else fingerprint(chosen),
        **settings,
    }


def _block_name(images: ImageSet) -> str:
    """What the names of a set's blocks begin with: a hash of all that is in it."""
    return f"set-{fingerprint(images)[:16]}"
