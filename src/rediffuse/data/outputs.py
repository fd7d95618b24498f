"""Folders that this package wrote: what lies in them is no photo of the set around them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

RUN, IMAGES, PREVIEW = "run.json", "images", "preview.json"
SETTINGS, CELLS = "settings.json", "cells"
EVALUATION, WORK = "evaluation.json", "work"
UNFINISHED = ".training.pt"
"""In the folder of a classifier whose training goes on."""
EXPORTED = ".rediffuse.json"
"""In folders of copies that were written for other readers; hidden, so that those pass over it."""
UNFINISHED_EXPORT = ".rediffuse.unfinished.json"
"""Beside them until all are written."""
RUN_KIND, EXPORT_KIND = "the images of a run", "exported copies of a run"
EVALUATION_KIND, WORDS_KIND = "an evaluation", "learned words"
MARKS: Mapping[str, tuple[str, ...]] = {
    RUN_KIND: (RUN, IMAGES),
    "the preview of a run": (PREVIEW,),
    "a comparison": (SETTINGS, CELLS),
    EVALUATION_KIND: (EVALUATION, WORK),
    EXPORT_KIND: (EXPORTED,),
    WORDS_KIND: ("concepts.safetensors", "tokens"),
}
"""What a folder of ours is, and what lies in every such folder."""


def output_kind(folder: str | Path) -> str | None:
    """Which of our outputs a folder is, in words; None for any other folder, whatever its name."""
    return next((kind for kind, marks in MARKS.items() if all(os.path.exists(os.path.join(folder, mark)) for mark in marks)), None)


def enter(base: str | Path, folders: list[str]) -> dict[str, str]:
    """Keep, of the folders that `os.walk` found in `base`, those to go into: sorted, neither hidden nor ours. Gives ours, with kinds."""
    kinds = {name: output_kind(os.path.join(base, name)) for name in sorted(folders) if not name.startswith(".")}
    folders[:] = [name for name, kind in kinds.items() if kind is None]
    return {name: kind for name, kind in kinds.items() if kind is not None}
