"""What a suite found: a typed value that saves itself, whole parts and the reasons of those that are missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rediffuse.differences import short, unequal
from rediffuse.errors import ConfigError
from rediffuse.evaluation.accuracy import Accuracy
from rediffuse.evaluation.attacking import Attacked
from rediffuse.evaluation.calibrating import Calibrations
from rediffuse.evaluation.certify.result import Certified
from rediffuse.evaluation.corruptions.result import CorruptionResult
from rediffuse.evaluation.entropy import EntropyCurve
from rediffuse.evaluation.ood.result import OodResult
from rediffuse.evaluation.provenance import Provenance
from rediffuse.evaluation.suite import settings as names
from rediffuse.evaluation.suite.columns import Columns
from rediffuse.progress import counted
from rediffuse.writing import write_json

FILE_NAME = "evaluation.json"
FIELDS: Mapping[str, str] = {
    names.ACCURACY: "accuracy",
    names.CALIBRATION: "calibration",
    names.CORRUPTIONS: "corruptions",
    names.UNKNOWN: "unknown",
    names.ENTROPY: "entropy",
    names.ENSEMBLE: "ensemble",
    names.CERTIFICATES: "certified",
    names.ATTACK: "attacked",
    names.ADAPTED: "adapted",
}
"""Part -> attribute."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an evaluation is to be of, as one that is there is held against it.

    Attributes:
        models: weights' hash of each, by name. name, photos, images: of the images that judge: name, fingerprint, how many.
        parts: that will be run. unknown: fingerprint of each set of unknown images, by name.
        settings: `SuiteSettings` as JSON. denoiser: its hash and name; empty without.
    """

    models: Mapping[str, str]
    name: str
    photos: str
    images: int
    parts: Sequence[str]
    unknown: Mapping[str, str]
    settings: Mapping[str, Any]
    denoiser: Mapping[str, str]


def check_vacant(folder: Path, asked: Asked) -> None:
    """Refuse to write over the evaluation of other classifiers, images or settings, or over parts and sets that the new one will lack.

    A second classifier, further parts and sets, and a denoiser where there was none may join. Raises ConfigError.
    """
    path, models = folder / FILE_NAME, asked.models
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        judged, by, hashes = [str(name) for name in there["models"]], str(there["name"]), dict(there.get("weights") or {})
        unlike, elsewhere = _unlike(there, asked), "photos" not in there and by != asked.name  # an older file knows a name alone
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is there and cannot be read ({error}); give another folder, or remove it") from error
    others = [name for name in judged if name not in models or hashes.get(name, models[name]) != models[name]]
    if elsewhere or others:
        told = f" ({others[0]} of other weights)" if not elsewhere and others[0] in models else ""
        raise ConfigError(
            f"{path} judges {' and '.join(judged)} by {by}, and this would write {' and '.join(models)} by {asked.name} over it{told}; "
            "give another folder for this one with --out"
        )
    if unlike:
        raise ConfigError(f"{path} is another evaluation: {'; '.join(unlike)}. Give another folder for this one with --out")
    lost = [part for part, name in FIELDS.items() if there.get(name) and part not in asked.parts]
    lost += _lost_sets(there, asked) if names.UNKNOWN in asked.parts else []
    if lost:
        raise ConfigError(
            f"{path} holds {', '.join(lost)}, which this command does not ask for and would take away; ask for the same suite and sets, or "
            "give another folder for this one with --out"
        )


def _unlike(there: Mapping[str, Any], asked: Asked) -> list[str]:
    """In words, by which images, settings and denoiser the evaluation that is there differs; of an older file nothing is known."""
    if "photos" not in there:
        return []
    told = []
    if there["photos"] != asked.photos:
        before, now = int(there["images"]), asked.images
        same = there["name"] == asked.name
        old_name, new_name = ("", " others" * (before == now)) if same else (f" of {there['name']}", f" of {asked.name}")
        told.append(f"{counted(before, 'photo')}{old_name} then, {now:,}{new_name} now")
    shared = sorted({*there["settings"]} & {*asked.settings} - {"suite"})
    old, new = ({name: values[name] for name in shared} for values in (there["settings"], json.loads(json.dumps(asked.settings))))
    told += [f"{name} was {short(before)}, now {short(now)}" for name, before, now in unequal(old, new)]
    denoiser = there.get("denoiser")
    if denoiser and asked.denoiser and denoiser["hash"] != asked.denoiser["hash"]:
        told.append(f"the denoiser was {_called(denoiser)}, now {_called(asked.denoiser)}")
    sets = dict(there.get("unknown_sets") or {})
    return told + [f"{name} held other photos" for name, held in asked.unknown.items() if sets.get(name, held) != held]


def _called(denoiser: Mapping[str, str]) -> str:
    return f"{denoiser.get('name') or denoiser.get('kind')} ({denoiser['hash'][:12]})"


def _lost_sets(there: Mapping[str, Any], asked: Asked) -> list[str]:
    """Sets of unknown images that are there and not asked for, whatever they are called."""
    rows, sets = (there.get(FIELDS[names.UNKNOWN]) or {}).get("rows") or [], dict(there.get("unknown_sets") or {})
    held = {*asked.unknown.values()}
    return [name for name in sorted({str(row["set"]) for row in rows}) if name not in asked.unknown and sets.get(name) not in held]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A part that is not there, and why. failed: it was tried."""

    part: str
    reason: str
    failed: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Parts of a suite on one set of images; a part that is None is named in `skipped`, or was not asked for.

    Attributes:
        name: of the images. classes: those of the first model.
        suite: what was asked. models: names. weights: the hash of each one's, by name.
        images: how many judged; dear parts see fewer, and say so themselves. photos: their fingerprint.
        side: px. fit: how other shapes became that square.
        denoiser: its hash and name; empty without.
        unknown_sets: the fingerprint of each, by name.
        accuracy: by model. attacked: by norm.
        seconds: of each part, killed pieces left out.
        notes: limits of all figures, in sentences.
    """

    name: str
    suite: names.Suite
    models: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, ...]
    images: int
    side: int
    fit: str
    provenance: Provenance
    settings: Mapping[str, Any]
    accuracy: Mapping[str, Accuracy] | None = None
    calibration: Calibrations | None = None
    corruptions: CorruptionResult | None = None
    unknown: OodResult | None = None
    entropy: EntropyCurve | None = None
    ensemble: Columns | None = None
    certified: Certified | None = None
    attacked: Mapping[str, Attacked] | None = None
    adapted: Columns | None = None
    skipped: tuple[Skipped, ...] = ()
    denoiser: Mapping[str, str] = field(default_factory=dict)
    photos: str = ""
    unknown_sets: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, str] | None:
        """(first, second) model; None of one."""
        return (self.models[0], self.models[1]) if len(self.models) > 1 else None

    def failures(self) -> tuple[Skipped, ...]:
        """Parts that were tried in vain."""
        return tuple(part for part in self.skipped if part.failed)

    def to_json(self) -> dict[str, Any]:
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in FIELDS.values()}
        plain |= {"provenance": asdict(self.provenance), "skipped": [asdict(part) for part in self.skipped]}
        return {**plain, **{name: _plain(getattr(self, name)) for name in FIELDS.values()}}

    def save(self, folder: str | Path) -> Path:
        """Write `folder/evaluation.json`, whole or not at all; returns the file."""
        path = Path(folder) / FILE_NAME
        write_json(path, self.to_json())
        return path


def _plain(part: Any) -> Any:
    """A part as JSON: one result, several by name, or none."""
    if isinstance(part, Mapping):
        return {name: each.to_json() for name, each in part.items()}
    return None if part is None else part.to_json()
