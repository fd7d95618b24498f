"""A run's folder as it is read: a set of images, and the table of how each was made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rediffuse.data import outputs, runs
from rediffuse.data.decoding import Entry, FilePayload, decode
from rediffuse.data.folder import leaves
from rediffuse.data.types import ImageSet, Progress, Rejected
from rediffuse.errors import DataError, PlanError
from rediffuse.generation.plan import REAL, Variant, variant_from_row

if TYPE_CHECKING:
    import pyarrow as pa

RUN, IMAGES, METADATA, PLAN = outputs.RUN, outputs.IMAGES, runs.METADATA, runs.PLAN
MANIFEST, REJECTED, CARD, PARTIAL, LOCK = "manifest", "rejected.jsonl", "README.md", "partial", "run.lock"
FINISHED = f"{MANIFEST}/shard-*.parquet"
"""Pattern of the files that say which shards are done."""
FORMAT = 1
_SHARD = re.compile(r"shard-([0-9]{5,})\.parquet")
_INFO = {
    "format": int, "state": str, "created": str, "seconds": int | float, "made": int, "command": str, "photos": str, "flips": bool,
    "classes": list, "denoiser": str, "environments": dict, "notes": list | None,
    "settings": {
        "method": {"method": str, "solver": str, "steps": int, "guidance_scale": int | float},
        "denoiser": {"weights_hash": str, "dtype": str}, "concepts": str, "seed": int, "fit": str, "side": int, "format": str, "size": str,
    },
    "plan": {"images": int, "shards": int, "batch": int, "threads": int},
}  # fmt: skip
"""What run.json holds."""


class Run(ImageSet):
    """What `generate` made: an ImageSet whose labels are indices into the true class names, with the source and the copy number of every
    image.

    A run that is not finished gives the images of its finished shards. Kept real photos have copy -1 and no source. Images are decoded as
    the run is opened; what is missing or damaged is in `rejected`, and the call that made the run makes it again.

    Args:
        folder: the run's folder.
        progress: called with (done, in all) while pictures are decoded.
    Attributes:
        folder: as given.
        info: what run.json says.
        manifest: pyarrow table, one row an image: how it was made, and its pixels_sha256.
    Raises:
        PlanError: no run there.
        DataError: a run without a finished image.
    """

    def __init__(self, folder: str | Path, *, progress: Progress | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.info = read_info(self.folder)
        self.manifest = read_manifest(self.folder)
        if not self.manifest.num_rows:
            raise DataError(f"{self.folder} has no finished image yet; continue it with the command that began it: {self.info['command']}")
        rows = self.manifest.select(["file_name", "source_id", "label", "copy"]).to_pylist()
        digests = runs.source_digests(self.folder)
        reasons = [refusal(self.folder / IMAGES, row["file_name"]) for row in rows]
        found = decode(
            [
                Entry(
                    id=row["file_name"],
                    payload=FilePayload(self.folder / IMAGES / row["file_name"]),
                    label=row["label"],
                    source=None if row["copy"] == REAL else row["source_id"],
                    copy=row["copy"],
                    source_digest=None if row["copy"] == REAL else digests.get(row["source_id"]),
                )
                for row, reason in zip(rows, reasons, strict=True)
                if reason is None
            ],
            classes=self.info["classes"],
            name=str(folder),
            flips=self.info["flips"],
            rejected=[
                Rejected(id=str(row["file_name"]), reason=reason) for row, reason in zip(rows, reasons, strict=True) if reason is not None
            ],
            progress=progress,
        )
        super().__init__(found._records, classes=found.classes, name=found.name, flips=found.flips, rejected=found.rejected)

    @property
    def complete(self) -> bool:
        """Whether every image of the plan is there."""
        return bool(self.info["state"] == "complete")

    def copies_of(self, sources: Iterable[str]) -> ImageSet:
        """The images made from these photos (ids), such as those of one few-shot split."""
        wanted = set(sources)
        return self.subset([row for row, source in enumerate(self.sources) if source in wanted])


def read_info(folder: Path) -> dict[str, Any]:
    """run.json. Raises PlanError where there is none, one of another version, or a damaged one."""
    file = folder / RUN
    try:
        info: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(f"{folder} holds no run: it has no {RUN}; give the folder that `rediffuse augment` or `generate` wrote") from error
    except (ValueError, OSError) as error:
        raise PlanError(f"{file} cannot be read: {error}; it was changed or damaged") from error
    if isinstance(info, dict) and info.get("format", FORMAT) != FORMAT:
        raise PlanError(f"{file} has format {info['format']!r} and this version reads {FORMAT}; update rediffuse")
    amiss = _amiss(info, _INFO)
    if amiss:
        raise PlanError(f"{file} lacks {', '.join(amiss[:5])}, or holds something else there; it was changed or damaged, put it back")
    return info


def _amiss(found: Any, shape: Any, name: str = "") -> list[str]:
    """Names of what JSON lacks, or holds in another type."""
    if not isinstance(shape, dict):
        return [] if isinstance(found, shape) else [name]
    if not isinstance(found, dict):
        return [name or "all its names"]
    return [bad for key, inner in shape.items() for bad in _amiss(found.get(key), inner, f"{name}.{key}".lstrip("."))]


def read_plan(folder: Path) -> tuple[Variant, ...]:
    """plan.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        planned = tuple(variant_from_row(row) for row in pq.read_table(folder / PLAN).to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise PlanError(f"{folder / PLAN} cannot be read: {error}; it was changed or damaged") from error
    strange = [variant.file_name for variant in planned if not _is_inside(variant.file_name)]
    if strange:
        raise PlanError(f"{folder / PLAN} names {strange[0]!r}, which is no file in {IMAGES}/; it was changed or damaged")
    return planned


def _is_inside(name: Any) -> bool:
    """Whether a name, as a path below a folder, stays there; nothing need exist yet."""
    return isinstance(name, str) and bool(name) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def refusal(images: Path, name: Any) -> str | None:
    """Why a file that the manifest names is not read; None for one that is tried."""
    if not _is_inside(name):
        return f"names no file in {IMAGES}/; the manifest was changed"
    try:
        if leaves(images / name, images):
            return f"a link that leaves {IMAGES}/; put a copy of the file in its place"
        return "not an ordinary file" if (images / name).exists() and not (images / name).is_file() else None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        return f"not a path: {error}"


def read_manifest(folder: Path) -> pa.Table:
    """The rows of all finished shards, in the order of the plan. Of images that were made before geometry was noted, it is `unknown`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = manifest_schema()
    tables = [schema.empty_table()]
    for shard in finished_shards(folder):
        file = folder / MANIFEST / manifest_name(shard)
        try:
            table = pq.read_table(file)
            if "geometry" not in table.column_names:
                table = table.append_column("geometry", pa.array(["unknown"] * len(table)))
            tables.append(table.select(schema.names).cast(schema))
        except (pa.ArrowException, OSError, KeyError) as error:
            raise PlanError(f"{file} cannot be read: {error}; delete that file and run the same command again") from error
    return pa.concat_tables(tables)


def manifest_name(shard: int) -> str:
    return f"shard-{shard:05d}.parquet"


def finished_shards(folder: Path) -> list[int]:
    """Numbers of the shards that have a manifest: those and no others are done."""
    found = (_SHARD.fullmatch(file.name) for file in folder.glob(FINISHED))
    return sorted(int(match[1]) for match in found if match is not None)


def manifest_schema() -> pa.Schema:
    """The columns of the manifest and of images/metadata.parquet. Kept real images have null for all that made the others."""
    import pyarrow as pa

    columns = {
        "file_name": pa.string(),  # first, and relative to images/: what `datasets` looks for
        "source_id": pa.string(),
        "label": pa.int64(),
        "class": pa.string(),
        "copy": pa.int32(),
        "method": pa.string(),
        "strength": pa.float32(),
        "steps": pa.int32(),
        "guidance": pa.float32(),
        "prompt": pa.string(),
        "seed": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "geometry": pa.string(),  # preserved or unknown; see `shard.geometry_of`
        "batch": pa.int32(),
        "pixels_sha256": pa.string(),
        "denoiser": pa.string(),
        "denoiser_hash": pa.string(),
        "concept_hash": pa.string(),
        "library_version": pa.string(),
        "environment": pa.string(),
    }
    return pa.schema(columns.items())


def plan_schema() -> pa.Schema:
    """The columns of plan.parquet."""
    import pyarrow as pa

    columns = {
        "file_name": pa.string(),
        "source_id": pa.string(),
        "source_sha256": pa.string(),
        "label": pa.int64(),
        "class": pa.string(),
        "copy": pa.int32(),
        "strength": pa.float64(),
        "seed": pa.int64(),
        "prompt": pa.string(),
        "calls": pa.int32(),
        "shard": pa.int32(),
    }
    return pa.schema(columns.items())
