"""What every yardstick's result can do: be written under `results/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rediffuse.evaluation.results import Figure, write_result
from rediffuse.evaluation.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a result file says. headline: key to figure; rows: the full table; seconds: of the work; notes: limits of the figures."""

    headline: Mapping[str, Figure | Interval | float]
    rows: Sequence[Mapping[str, Any]]
    seconds: float
    notes: Sequence[str] = ()


class Saved(ABC):
    """A result that can be saved."""

    @abstractmethod
    def content(self) -> Content:
        """What `save` writes."""

    def save(
        self, name: str, folder: str | Path = "results", *, command: str | None = None, device: str = "cpu", notes: Sequence[str] = ()
    ) -> Path:
        """Write `folder/NAME.json` with the `content`, whole or not at all; returns the file.

        Args:
            name, folder, command, device: as in `results.write_result`.
            notes: further ones.
        """
        own = self.content()
        said = [*own.notes, *notes]
        return write_result(name, own.headline, own.rows, own.seconds, command=command, folder=folder, device=device, notes=said)
