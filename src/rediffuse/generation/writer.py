"""A run's folder as it is written: what stands before any image, the shards (see `shard`), what follows the last."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rediffuse.data.types import ImageSet
from rediffuse.errors import PlanError
from rediffuse.generation.card import data_card
from rediffuse.generation.difference import difference
from rediffuse.generation.environment import environment, short_hash
from rediffuse.generation.files import scratch_file
from rediffuse.generation.plan import REAL, Plan, Variant
from rediffuse.generation.shard import OpenShard
from rediffuse.generation.store import (
    CARD,
    FORMAT,
    IMAGES,
    LOCK,
    MANIFEST,
    METADATA,
    PARTIAL,
    PLAN,
    REJECTED,
    RUN,
    finished_shards,
    manifest_name,
    manifest_schema,
    plan_schema,
    read_info,
    read_manifest,
    read_plan,
)  # fmt: skip
from rediffuse.lock import Lock
from rediffuse.machine import coding_threads, is_alive, now
from rediffuse.writing import check_path, sync_folder, write_json, write_rows, write_text

if TYPE_CHECKING:
    import torch

_OURS = frozenset({RUN, PLAN, MANIFEST, REJECTED, CARD, IMAGES, PARTIAL, LOCK})


def check_folder(out: Path, settings: Mapping[str, Any], variants: Sequence[Variant]) -> tuple[dict[str, Any], tuple[Variant, ...]] | None:
    """The run that lies in a folder and is to be continued, as (run.json, its plan's rows); None where there is none yet.

    Raises:
        PlanError: it is the run of another plan, which the message tells apart; or the folder holds something else.
    """
    check_path(out)
    if out.is_file():
        raise PlanError(f"{out} is a file; give a folder for the run")
    if not (out / RUN).is_file():
        strange = sorted(child.name for child in out.iterdir() if child.name not in _OURS) if out.is_dir() else []
        if strange:
            raise PlanError(f"{out} holds other files ({', '.join(map(repr, strange[:3]))}); give a new or empty folder")
        if finished_shards(out):  # of a plan that nobody knows any more: its images would be taken for this one's
            raise PlanError(f"{out} holds finished shards but no {RUN}; put that file back, or give another folder")
        return None
    info, planned = read_info(out), read_plan(out)
    unequal = difference((info["settings"], planned), (settings, variants))
    if unequal:
        raise PlanError(
            f"{out} holds the run of another plan: {'; '.join(unequal)}. Give another folder, or what that run was made with"
        )  # fmt: skip
    return info, planned


class Writer:
    """The one who writes a run: `with Writer(...) as writer: ...`.

    Args:
        out: the run's folder.
        plan: what is to be made.
        photos: the sources, for their names and for those that were rejected.
        device: that samples, for the environment print.
        command: that continues the run.
        notes: sentences that those who use the images should know; run.json, the card and the report hold them.
        take_over: take the lock whoever holds it.
        note: called with sentences for the user.
    """

    def __init__(
        self,
        out: Path,
        plan: Plan,
        photos: ImageSet,
        *,
        device: torch.device,
        command: str,
        notes: Sequence[str] = (),
        take_over: bool = False,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.out, self.plan, self.photos, self.command, self.notes = out, plan, photos, command, tuple(notes)
        self.environment = environment(device, plan.threads)
        self.take_over, self.note = take_over, note
        self.partial = out / PARTIAL / f"{os.getpid()}-{secrets.token_hex(4)}"  # two writers on one machine stay apart
        self._stack = ExitStack()
        self._info: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(Lock(self.out / LOCK, take_over=self.take_over, note=self.note))
            self._tidy()
            for folder in (self.partial, self.out / MANIFEST, self.out / IMAGES):
                folder.mkdir(parents=True, exist_ok=True)
            stack.callback(self._sweep)
            self.pool = stack.enter_context(ThreadPoolExecutor(coding_threads(), thread_name_prefix="rediffuse-encode"))
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def complete(self) -> bool:
        """Whether the folder was brought to its end before."""
        return bool(self._info["state"] == "complete")

    @property
    def made(self) -> int:
        """Images in the folder when `finish` was last called."""
        return int(self._info["made"])

    def open_shards(self) -> list[int]:
        """Numbers of the shards that have no manifest yet."""
        done = set(finished_shards(self.out))
        return [shard for shard in range(len(self.plan.shards())) if shard not in done]

    def shard(self, number: int) -> OpenShard:
        """Begin a shard, or begin it again."""
        return OpenShard(self, number)

    def reopen(self, shards: Iterable[int]) -> None:
        """Take back that these shards are done. run.json goes first, so that at no moment a run without them calls itself complete."""
        self._info |= {"state": "open", "finished": None}
        self._sign()
        self._write_info()
        for number in shards:
            (self.out / MANIFEST / manifest_name(number)).unlink()
        sync_folder(self.out / MANIFEST)

    def finish(self, seconds: float) -> None:
        """Bring metadata, card and run.json up to the manifests; where none is missing, the run is complete."""
        manifest = read_manifest(self.out)
        rows = manifest.to_pylist()
        complete = not self.open_shards()
        write_rows(self.out / IMAGES / METADATA, rows, manifest_schema(), self._scratch(METADATA))
        self._info |= {
            "state": "complete" if complete else "open",
            "finished": now() if complete else None,
            "seconds": round(self._info["seconds"] + seconds, 3),
            "made": sum(row["copy"] != REAL for row in rows),
        }
        write_text(self.out / CARD, data_card(self._info, rows), self._scratch(CARD))
        self._write_info()
        self._tidy()

    def _open(self) -> None:
        """Write what stands before any image; run.json last, so that with it the plan is there too."""
        begun = check_folder(self.out, self.plan.settings, self.plan.variants)  # again: another may have begun a run since the plan
        if begun is not None:
            self._info, planned = begun
            if planned != self.plan.variants or any(self._info["plan"][name] != getattr(self.plan, name) for name in ("batch", "threads")):
                raise PlanError(f"{self.out} was begun by another process meanwhile, in other shards; run the same command again")
        else:
            write_rows(self.out / PLAN, self.plan.rows(), plan_schema(), self._scratch(PLAN))
            self._info = self._new_info()
        lines = [json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in self.photos.rejected]
        write_text(self.out / REJECTED, "".join(lines), self._scratch(REJECTED))
        self._info["notes"] = list(dict.fromkeys([*(self._info.get("notes") or ()), *self.notes]))
        if self.open_shards():  # who makes nothing leaves no print
            self._sign()
        self._write_info()

    def _write_info(self) -> None:
        write_json(self.out / RUN, self._info, self._scratch(RUN))

    def _scratch(self, name: str) -> Path:
        return scratch_file(self.out / name, self.partial)

    def _sign(self) -> None:
        """Leave this environment's print in run.json."""
        prints = self._info["environments"]
        if prints and short_hash(self.environment) not in prints:
            self.note("this machine or its libraries differ from those that began the run: pixels agree within rounding, not to the bit")
        prints[short_hash(self.environment)] = self.environment

    def _new_info(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "format": FORMAT,
            "state": "open",
            "created": now(),
            "finished": None,
            "seconds": 0.0,
            "made": 0,
            "command": self.command,
            "photos": self.photos.name,
            "flips": self.photos.flips,
            "classes": list(plan.classes),
            "denoiser": plan.denoiser,
            "settings": dict(plan.settings),
            "plan": {
                "hash": plan.hash,
                "images": len(plan.variants),
                "shards": len(plan.shards()),
                "batch": plan.batch,
                "threads": plan.threads,
                "dtype": plan.dtype,
                "compile": None,
            },
            "environments": {},
        }

    def _tidy(self) -> None:
        """Remove what other writers left behind; one that was taken over and lives keeps its folder, so that it can go on."""
        for folder in (self.out / PARTIAL).glob("*-*"):
            if folder != self.partial and not is_alive(folder.name.partition("-")[0]):
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)
        folder = self.out / PARTIAL
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
