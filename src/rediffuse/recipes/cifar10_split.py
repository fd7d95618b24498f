"""The split of CIFAR-10's training pictures that denoiser and classifiers share: what one of them holds out, none has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.errors import DataError
from rediffuse.recipes.bundled.common import Pictures, read_pictures

HELD = 5000
SEED = 10


def split_rows(labels: Sequence[int] | Tensor, held: int = HELD, seed: int = SEED) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows held out, each in rising order; as many of every class are held.

    A function of the labels in the order of the files, of the count and of the seed. Raises DataError where a class has too few.
    """
    given = torch.as_tensor(labels)
    classes = given.unique()
    each, rest = divmod(held, len(classes))
    fewest = int(given.bincount()[classes].min())
    if rest or each >= fewest:
        raise DataError(f"{held} pictures of {len(classes)} classes cannot be held out evenly: the smallest class has {fewest}")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for label in classes:
        rows = (given == label).nonzero().flatten()
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:each]])
    mask = torch.zeros(len(given), dtype=torch.bool)
    mask[torch.cat(chosen)] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def read_split(folder: str | Path, size: int = 32, held: int = HELD) -> tuple[Pictures, Pictures]:
    """The training pictures of the folder cifar10: those to train on (45,000) and those held out (5,000)."""
    pictures = read_pictures(folder, "train", size)
    first, second = split_rows(pictures.labels, held)
    return _rows(pictures, first), _rows(pictures, second)


def _rows(pictures: Pictures, rows: Tensor) -> Pictures:
    terms = tuple(pictures.terms[row] for row in rows.tolist())
    return replace(pictures, images=pictures.images[rows], labels=pictures.labels[rows], terms=terms)
