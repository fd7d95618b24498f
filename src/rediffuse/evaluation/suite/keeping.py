"""What of a suite is done, and where: a part has a place for each classifier, or for those that were asked together."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rediffuse.evaluation.kept import fingerprint
from rediffuse.evaluation.suite.asking import Asking, Part, Progress
from rediffuse.writing import write_json

STATE_EVERY = 20.0
"""Seconds between two notes of how far a part is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Keeping:
    """The folder of what is done.

    A place is named after all that decides its numbers, so that none of other settings are found. `told` holds what weights and images
    were once hashed to.
    """

    asking: Asking
    folder: Path | None
    told: dict[tuple[str, str], Any] = field(default_factory=dict)

    def groups(self, part: Part) -> tuple[Part, ...]:
        """The part as it is to be asked: of all classifiers together, so that they share corrupted pictures, views and draws. Those of
        which more is done by themselves go on by themselves, and the rest together."""
        if self.folder is None or len(part.models) < 2:
            return (part,)
        alone = [part.apart([model]) for model in part.models]
        shares = [self.share(each) for each in alone]
        if self.share(part) >= max(shares):
            return (part,)
        rest = [model for model, share in zip(part.models, shares, strict=True) if not share]
        begun = tuple(each for each, share in zip(alone, shares, strict=True) if share)
        return (*begun, part.apart(rest)) if rest else begun

    def run(self, part: Part, progress: Progress | None) -> Any:
        """What the classifiers of a part said, with its state noted on the way."""
        before, seconds, began = self.share(part), self.seconds(part), time.monotonic()
        noted = [began]

        def note(share: float) -> None:
            if self.folder is not None:
                spent = seconds + time.monotonic() - began
                write_json(self._note(part), {"part": part.name, "share": share, "seconds": round(spent, 2)})

        def tick(done: int, total: int) -> None:
            if time.monotonic() - noted[0] > STATE_EVERY:
                noted[0] = time.monotonic()
                note(min(0.99, done / max(1, total)))
            if progress is not None:
                progress(done, total)

        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        found = part.run(None if self.folder is None else self._place(part), tick)
        if before < 1:
            note(1.0)
        return found

    def share(self, part: Part) -> float:
        """How much of a part is done."""
        if self.folder is None:
            return 0.0
        return float(self._state(part)["share"]) if part.share is None else part.share(self._place(part))

    def seconds(self, part: Part) -> float:
        """That it took, killed pieces left out."""
        return float(self._state(part)["seconds"])

    def identity(self, name: str) -> Mapping[str, Any]:
        """Of a classifier."""
        key = ("model", name)
        if key not in self.told:
            self.told[key] = next(model for model in self.asking.models if model.name == name).identity()
        found: Mapping[str, Any] = self.told[key]
        return found

    def _place(self, part: Part) -> Path:
        from rediffuse import __version__

        own = self.asking.settings
        images = ("images", part.name)
        if images not in self.told:
            self.told[images] = fingerprint(part.images)
        key = {
            "version": __version__,  # figures of two versions are not mixed
            "images": self.told[images],
            "models": {model.name: self.identity(model.name) for model in part.models},
            "size": own.size,
            "fit": own.fit,
            "seed": own.seed,
            **part.key,
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        return (self.folder or Path()) / f"{part.name.lower().replace(' ', '-')}-{digest}"

    def _note(self, part: Part) -> Path:
        """The file that says how far a part is."""
        place = self._place(part)
        return place.with_name(f"{place.name}-{part.state}.json" if part.state else f"{place.name}.json")

    def _state(self, part: Part) -> Mapping[str, Any]:
        """How far a part is, and the seconds that it took."""
        nothing = {"share": 0.0, "seconds": 0.0}
        file = None if self.folder is None else self._note(part)
        if file is None or not file.exists():
            return nothing
        try:
            return {**nothing, **json.loads(file.read_text(encoding="utf-8"))}
        except ValueError:  # it decides no number; the next note writes it anew
            return nothing
