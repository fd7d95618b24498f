"""What a run's folder can say of itself: whether it is whole, what it holds, whom to cite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rediffuse.generation.plan import REAL
from rediffuse.generation.store import IMAGES, METADATA, Run, finished_shards, read_info, read_manifest, read_plan
from rediffuse.methods import find_method
from rediffuse.sampling.citations import CITATIONS

_ROUNDING = " (pixels agree within rounding, not to the bit)"
CITATION = """@software{rediffuse,
  title = {Rediffuse: diffusion models as image augmentation},
  author = {{The Rediffuse authors}},
  year = {2026}
}"""


def verify(folder: str | Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Decode and hash every image again; what is missing, changed, or there without a row of the manifest, in sentences.

    Empty when all is well. progress: called with (images done, images in all).
    """
    run = Run(folder, progress=progress)
    info, expected = run.info, dict(zip(*(run.manifest.column(name).to_pylist() for name in ("file_name", "pixels_sha256")), strict=True))
    problems = [f"{line.id}: {line.reason}" for line in run.rejected]
    for name, digest in zip(run.ids, run.digests, strict=True):
        if digest != expected[name]:
            problems.append(f"{name}: its pixels are not those that were written")
    images = run.folder / IMAGES
    found = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.is_file()}
    problems += [f"{name}: not in the manifest" for name in sorted(found - expected.keys() - {METADATA})]
    planned = read_plan(run.folder)
    missing = {variant.shard for variant in planned} - set(finished_shards(run.folder))
    if missing:
        problems.append(f"{len(missing)} of {info['plan']['shards']} shards are not finished; continue with: {info['command']}")
    if len(expected) != run.manifest.num_rows or not set(expected) <= {variant.file_name for variant in planned}:
        problems.append("the manifest lists images twice, or such as the plan does not know")
    return problems


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
