"""The contact sheet: a photo of each class and its copies by strength, as data for a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from rediffuse.evaluation.few_shot.samples import Sample
from rediffuse.reports.words import arm_name


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A grid. columns: headings (line, line); rows: (class name, image of each column as a data URI, None where there is none)."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str | None, ...]], ...]


def contact_sheet(samples: Sequence[Sample]) -> Sheet | None:
    """The grid of these pictures; None where there are none."""
    if not samples:
        return None
    keys = list(dict.fromkeys((sample.arm, sample.strength) for sample in samples))
    order = [None, *dict.fromkeys(arm for arm, _ in keys if arm is not None)]
    keys.sort(key=lambda key: (order.index(key[0]), key[1] or 0.0))
    sources = dict.fromkeys((sample.class_name, sample.source) for sample in samples)
    found = {(sample.source, sample.arm, sample.strength): sample for sample in samples}
    rows = []
    for name, source in sources:
        own = (found.get((source, arm, strength)) for arm, strength in keys)
        rows.append((name, tuple(None if sample is None else data_uri(sample.png) for sample in own)))
    headings = tuple(("Photo", "") if arm is None else (arm_name(arm), f"strength {strength:g}") for arm, strength in keys)
    return Sheet(columns=headings, rows=tuple(rows))


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
