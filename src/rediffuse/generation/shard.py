"""A shard as it is written: its files under partial/, renamed into place together, its manifest last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.data.geometry import Kept, kept_by
from rediffuse.generation.environment import short_hash
from rediffuse.generation.files import scratch_file, write_image
from rediffuse.generation.plan import REAL, Variant
from rediffuse.generation.store import IMAGES, MANIFEST, manifest_name, manifest_schema
from rediffuse.methods.editing import LAYOUT_STRENGTH
from rediffuse.writing import sync_folder, write_rows

if TYPE_CHECKING:
    from PIL import Image

    from rediffuse.generation.writer import Writer


class OpenShard:
    """The files of a shard on their way: `put` each image, then `commit`."""

    def __init__(self, writer: Writer, number: int) -> None:
        self.writer, self.number = writer, number
        self.folder = writer.partial / f"shard-{number:05d}"
        self.folder.mkdir(exist_ok=True)
        self._files: dict[Variant, tuple[Future[tuple[str, int, int]], int | None]] = {}

    def put(self, variant: Variant, render: Callable[[], Image.Image], batch: int | None) -> None:
        """Draw up, encode and write in the pool. batch: slots of the calls that made the image; None for a real one."""
        kind = self.writer.plan.settings["format"]
        waiting = self.writer.pool.submit(write_image, render, self._place(variant), kind, self.folder)
        self._files[variant] = (waiting, batch)

    def commit(self) -> None:
        """Wait for the files, rename them into images/, then write the manifest: from then on the shard is done."""
        try:
            self._land()
        finally:
            self.discard()

    def _land(self) -> None:
        out, variants = self.writer.out, self.writer.plan.shards()[self.number]
        results = {variant: waiting.result() for variant, (waiting, _) in self._files.items()}
        folders = {out / IMAGES / variant.file_name.partition("/")[0] for variant in variants}
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for variant in variants:
            self._place(variant).replace(out / IMAGES / variant.file_name)
        for folder in (*folders, out / IMAGES):
            sync_folder(folder)
        rows = [self._row(variant, *results[variant], self._files[variant][1]) for variant in variants]
        manifest = out / MANIFEST / manifest_name(self.number)
        write_rows(manifest, rows, manifest_schema(), scratch_file(manifest, self.folder))

    def discard(self) -> None:
        """Give the room back; waits for writes under way."""
        for waiting, _ in self._files.values():
            if not waiting.cancel():
                waiting.exception()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _place(self, variant: Variant) -> Path:
        return self.folder / variant.file_name.replace("/", "--")

    def _row(self, variant: Variant, pixels: str, width: int, height: int, batch: int | None) -> dict[str, Any]:
        settings = self.writer.plan.settings
        method = settings["method"]
        row = {
            "file_name": variant.file_name,
            "source_id": variant.source_id if variant.source_sha256 else None,
            "label": variant.label,
            "class": variant.class_name,
            "copy": variant.copy,
            "width": width,
            "height": height,
            "geometry": geometry_of(variant, settings["fit"]),
            "pixels_sha256": pixels,
            "library_version": self.writer.environment["rediffuse"],
        }
        if variant.copy == REAL:
            return row
        return row | {
            "method": method["method"],
            "strength": variant.strength,
            "steps": method["steps"],
            "guidance": method["guidance_scale"],
            "prompt": variant.prompt,
            "seed": variant.seed,
            "batch": batch,
            "denoiser": self.writer.plan.denoiser,
            "denoiser_hash": settings["denoiser"]["weights_hash"],
            "concept_hash": settings["concepts"] or None,
            "environment": short_hash(self.writer.environment),
        }


def geometry_of(variant: Variant, fit: str) -> Kept:
    """Whether masks and boxes of the photo, scaled to the image, fit it; after a crop, a strong edit or from noise nobody knows."""
    if not variant.source_sha256 or (variant.strength or 0.0) > LAYOUT_STRENGTH:
        return "unknown"
    return kept_by(fit)
