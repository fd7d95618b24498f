"""What a run's folder can say of itself: whether it is whole, what it holds, whom to cite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rediffuse.errors import DataError
from rediffuse.generation.plan import REAL
from rediffuse.generation.store import IMAGES, METADATA, Run, finished_shards, read_info, read_manifest, read_plan, refusal
from rediffuse.methods import find_method
from rediffuse.sampling.citations import CITATIONS

_ROUNDING = " (pixels agree within rounding, not to the bit)"
CITATION = """@software{rediffuse,
  title = {Rediffuse: diffusion models as image augmentation},
  author = {{The Rediffuse authors}},
  year = {2026}
}"""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is amiss in a run's folder, in sentences.

    Attributes:
        lost: images that are missing, damaged or changed. strange: files that the manifest does not list.
        rest: what names its own fix. command: that made the run. images: the folder of its images.
    """

    lost: tuple[str, ...]
    strange: tuple[str, ...]
    rest: tuple[str, ...]
    command: str
    images: Path

    @property
    def problems(self) -> list[str]:
        return [*self.lost, *self.strange, *self.rest]

    @property
    def fixes(self) -> list[str]:
        """What to do about them."""
        again = [f"To make what is missing, damaged or changed again: {self.command}"] if self.lost else []
        return again + ([f"What is not in the manifest was not made by the run: move it out of {self.images}"] if self.strange else [])


def verify(folder: str | Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Decode and hash every image again; what is missing, changed, or there without a row of the manifest, in sentences.

    Empty when all is well. progress: called with (images done, images in all). `inspect` knows what to do about them.
    """
    return inspect(folder, progress).problems


def inspect(folder: str | Path, progress: Callable[[int, int], None] | None = None) -> Findings:
    """As `verify`, with the fixes."""
    path = Path(folder).expanduser()
    info, manifest, images = read_info(path), read_manifest(path), path / IMAGES
    expected = dict(zip(*(manifest.column(name).to_pylist() for name in ("file_name", "pixels_sha256")), strict=True))
    refused = {name: reason for name in expected if (reason := refusal(images, name)) is not None}
    digests, reasons = _read(path, expected, progress)
    lost = [f"{name}: {_bare(images / name, reason)}" for name, reason in reasons.items() if name not in refused]
    lost += [f"{name}: its pixels are not those that were written" for name, digest in digests.items() if digest != expected[name]]
    found = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.is_file()}
    rest = [f"{name}: {reason}" for name, reason in refused.items()]
    planned = read_plan(path)
    missing = {variant.shard for variant in planned} - set(finished_shards(path))
    if missing:
        rest.append(f"{len(missing)} of {info['plan']['shards']} shards are not finished; continue with: {info['command']}")
    if len(expected) != manifest.num_rows or not set(expected) <= {variant.file_name for variant in planned}:
        rest.append("the manifest lists images twice, or such as the plan does not know")
    strange = tuple(f"{name}: not in the manifest" for name in sorted(found - expected.keys() - {METADATA}))
    return Findings(lost=tuple(lost), strange=strange, rest=tuple(rest), command=info["command"], images=images)


def _read(
    folder: Path, expected: Mapping[str, str], progress: Callable[[int, int], None] | None
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """(digest of each image that can be read, why each other one cannot), by name."""
    try:
        run = Run(folder, progress=progress)
    except DataError:
        if not expected:  # not one is finished
            raise
        return {}, dict.fromkeys(expected, "cannot be read")
    return dict(zip(run.ids, run.digests, strict=True)), {line.id: line.reason for line in run.rejected}


def _bare(file: Path, reason: str) -> str:
    """Why an image is lost, without the advice that is meant for a photo."""
    return reason.partition("; ")[0] if file.exists() else "missing"


def report(folder: str | Path) -> str:
    """What the run holds, in lines."""
    path = Path(folder).expanduser()
    info, rows = read_info(path), read_manifest(path).to_pylist()
    settings, method = info["settings"], info["settings"]["method"]
    made = [row for row in rows if row["copy"] != REAL]
    photos = {row["source_id"] for row in rows} - {None}
    strengths = Counter(f"{row['strength']:g}" for row in made)
    halved = sum(row["batch"] != info["plan"]["batch"] for row in made)
    lines = [
        f"{path}: {info['state']}, {len(made)} images made, {len(rows) - len(made)} real, of {info['plan']['images']} planned",
        f"photos: {info['photos']} ({len(photos)} used), {len(info['classes'])} classes",
        f"method: {method['method']}, {method['solver']} in {method['steps']} steps, guidance {method['guidance_scale']:g}",
        "strengths: " + (", ".join(f"{name} ({count})" for name, count in sorted(strengths.items())) or "none yet"),
        f"denoiser: {info['denoiser']}, weights {settings['denoiser']['weights_hash'][:12]}, {settings['denoiser']['dtype']}",
        f"words: {settings['concepts'][:12] or 'none learned'}",
        f"seed {settings['seed']}; fit {settings['fit']} to {settings['side']} pixels; {settings['format']} at {settings['size']} size",
        f"time: {info['seconds']:.1f} seconds; begun {info['created']}, finished {info['finished'] or 'not yet'}",
        f"environments: {len(info['environments'])}"
        + (" (pixels agree within rounding, not to the bit)" if len(info["environments"]) > 1 else ""),
    ]
    lines += [f"note: {note}" for note in info.get("notes") or ()]
    if halved:
        lines.append(f"{halved} images were made in smaller batches because memory ran out{_ROUNDING}")
    if info["state"] != "complete":
        lines.append(f"continue with: {info['command']}")
    return "\n".join(lines)


def cite(folder: str | Path) -> str:
    """BibTeX of the run's method, of what it is built on, and of this library."""
    info = read_info(Path(folder).expanduser())
    told = info["settings"]["method"]
    method, solver = find_method(told["method"]), CITATIONS.get(told.get("solver"))
    return "\n\n".join([method.citation, *method.built_on, *([solver] if solver else []), CITATION]) + "\n"
