"""What a run's folder says of its images: their classes and sources, and which pictures those sources were."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rediffuse.data.outputs import IMAGES, RUN
from rediffuse.errors import DataError

METADATA, PLAN = "metadata.parquet", "plan.parquet"
_COLUMNS = ("file_name", "class", "source_id", "copy")


def run_of(images: Path) -> Path:
    """The run's folder of an images folder, which may be `.`, a link to one, or itself a link to another disk."""
    typed, real = Path(os.path.abspath(images)).parent, images.resolve().parent
    return typed if (typed / RUN).is_file() else real


def check_finished(images: Path) -> None:
    """Refuse the images folder of a run that was killed before it wrote their metadata: they would pose as photos. Raises DataError."""
    run = run_of(images)
    named = IMAGES in (os.path.basename(os.path.abspath(images)), images.resolve().name)
    if not named or not (run / RUN).is_file() or (images / METADATA).is_file():
        return
    try:
        command = json.loads((run / RUN).read_text(encoding="utf-8")).get("command")
    except (OSError, ValueError, AttributeError):
        command = None  # what continues it says what is amiss there
    told = f": {command}" if isinstance(command, str) and command else ""
    raise DataError(f"{run} is a run that is not finished; continue it with the same command{told}")


def run_rows(images: Path) -> list[dict[str, Any]] | None:
    """The rows of a run's metadata, or None where the folder holds no run."""
    file = images / METADATA
    if not file.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(file).names
        if not set(_COLUMNS) <= set(columns):
            return None
        rows: list[dict[str, Any]] = pq.read_table(file, columns=[*_COLUMNS, *(["label"] if "label" in columns else [])]).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: {error}; run the command that made it again") from error
    return rows


def run_flips(images: Path) -> bool:
    """What the run of an images folder says of flips; True where its run.json is not beside it."""
    file = run_of(images) / RUN
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("flips") is not False
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file} cannot be read: {error}; it was changed or damaged") from error


def source_digests(run: Path) -> dict[str, str]:
    """pixels_sha256 of the sources by their ids, as the plan names them; of pictures from noise, or without a plan, there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(run / PLAN, columns=["source_id", "source_sha256"])
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{run / PLAN} cannot be read: {error}; it was changed or damaged") from error
    names, digests = (columns.column(name).to_pylist() for name in ("source_id", "source_sha256"))
    return {name: digest for name, digest in zip(names, digests, strict=True) if digest}
