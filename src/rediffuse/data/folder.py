"""Folders of pictures: one folder a class, pictures without classes, or what a Rediffuse run wrote."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rediffuse.data.decoding import Entry, FilePayload, decode
from rediffuse.data.images import EXTENSIONS, FOREIGN_EXTENSIONS
from rediffuse.data.outputs import IMAGES, RUN, enter, output_kind
from rediffuse.data.runs import METADATA, check_finished, run_flips, run_of, run_rows, source_digests
from rediffuse.data.types import ImageSet, Progress, Rejected
from rediffuse.errors import DataError


def folder(
    path: str | Path,
    *,
    flips: bool = True,
    allow_outside: bool = False,
    labelled: bool | None = True,
    progress: Progress | None = None,
) -> ImageSet:
    """Read class folders, sorted by name; pictures right inside the folder and no class folders give an unlabelled set.

    Choose it for pictures sorted into folders, with any depth of folders inside a class, and for the `out/` or `out/images` of a
    Rediffuse run, whose `metadata.parquet` gives true class names, sources and copies. Hidden files are passed over, and folders inside
    that Rediffuse wrote are rejected by name; ids are paths relative to the folder, with `/`.

    Args:
        path: the folder.
        flips: whether a horizontal flip keeps the label (not so for digits and text); a run whose photos it does not keep never flips.
        labelled: False takes folders for no classes; None takes them for classes unless pictures lie beside them.
        allow_outside: also read links that lead out of the folder; otherwise they are rejected by name.
        progress: called with (done, in all) while pictures are decoded.
    Raises:
        DataError: no such folder, nothing in it that can be read, or a run that was killed before it said what its images are.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        what = "is a file; give the folder that it lies in" if root.exists() else f"does not exist (looked in {root.absolute().parent})"
        raise DataError(f"folder {str(path)!r} {what}")
    if (root / RUN).is_file() and (root / IMAGES).is_dir():
        root = root / IMAGES
    check_finished(root)
    found, rejected = _scan(root, allow_outside)
    if not found and not rejected:
        raise DataError(f"no picture in folder {str(path)!r}; endings that are read: {' '.join(EXTENSIONS)}")
    rows = run_rows(root)
    entries, classes, more = _from_run(root, found, rows) if rows is not None else _from_folders(root, found, labelled)
    flips = flips and (rows is None or run_flips(root))
    return decode(entries, classes=classes, name=str(path), flips=flips, rejected=[*rejected, *more], progress=progress)


def is_picture(name: str) -> bool:
    """Whether a file name ends like a picture, readable or foreign."""
    return name.lower().endswith(EXTENSIONS + FOREIGN_EXTENSIONS)


def photo_folders(path: Path) -> list[str]:
    """Names of the folders in a folder that hold pictures, sorted; hidden ones and our own outputs are none."""
    names = [child.name for child in path.iterdir() if child.is_dir()]
    enter(path, names)
    return [name for name in names if holds_pictures(path / name)]


def holds_pictures(path: Path) -> bool:
    """Whether a picture lies in a folder, at any depth; those of our own outputs do not count."""
    for base, folders, files in os.walk(path):
        enter(base, folders)
        if any(is_picture(name) and not name.startswith(".") for name in files):
            return True
    return False


def leaves(path: Path, root: Path) -> bool:
    """Whether a path, links and `..` followed, lies outside a folder."""
    return not path.resolve().is_relative_to(root.resolve())


@dataclass(frozen=True, slots=True)
class _Found:
    id: str
    payload: FilePayload

    @property
    def parts(self) -> list[str]:
        return self.id.split("/")


def _scan(root: Path, allow_outside: bool) -> tuple[list[_Found], list[Rejected]]:
    found: dict[str, _Found] = {}
    rejected: list[Rejected] = []
    for path, name in _walk(root, rejected):
        reason = _refusal(path, name, root, allow_outside)
        if reason is None and name in found:
            reason = "another file has the same name but for the spelling of its accents; rename one"
        if reason is None:
            found[name] = _Found(name, FilePayload(path))
        else:
            rejected.append(Rejected(id=name.encode("utf-8", "backslashreplace").decode(), reason=reason))
    return [found[name] for name in sorted(found)], rejected


def _walk(root: Path, rejected: list[Rejected]) -> Iterator[tuple[Path, str]]:
    """Pictures, and links to folders, with their normalised relative names; sorted, so that file systems do not matter."""

    def closed(error: OSError) -> None:
        name = Path(error.filename).relative_to(root).as_posix()
        rejected.append(Rejected(id=name, reason=f"the folder cannot be listed: {error.strerror}"))

    for base, folders, files in os.walk(root, followlinks=False, onerror=closed):
        for name, kind in enter(base, folders).items():
            inside = (Path(base) / name).relative_to(root).as_posix()
            rejected.append(Rejected(id=f"{inside}/", reason=f"{kind}, written by rediffuse; not photos of this set"))
        names = [name for name in folders if (Path(base) / name).is_symlink()] + sorted(filter(is_picture, files))
        for name in names:
            if not name.startswith("."):
                path = Path(base) / name
                yield path, unicodedata.normalize("NFC", path.relative_to(root).as_posix())


def _refusal(path: Path, name: str, root: Path, allow_outside: bool) -> str | None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not valid Unicode; rename it"
    if path.is_symlink():
        if not path.exists():
            return "a link to nothing"
        if path.is_dir():
            return "a link to a folder; links to folders are not followed, move the folder here"
        if not allow_outside and leaves(path, root):
            return "a link that leaves the folder; put a copy of the file in its place"
    if not stat.S_ISREG(path.stat().st_mode):
        return "not an ordinary file"
    if name.lower().endswith(FOREIGN_EXTENSIONS):
        return f"{path.suffix} is not read; save it as PNG or JPEG"
    return None


def _from_folders(root: Path, found: list[_Found], labelled: bool | None) -> tuple[list[Entry], tuple[str, ...], list[Rejected]]:
    classes = tuple(sorted({picture.parts[0] for picture in found if len(picture.parts) > 1}))
    mixed = any(len(picture.parts) == 1 for picture in found)
    if not classes or labelled is False or (labelled is None and mixed):
        return [Entry(id=picture.id, payload=picture.payload, label=None) for picture in found], (), []
    places = {name: place for place, name in enumerate(classes)}
    entries = [Entry(id=picture.id, payload=picture.payload, label=places[picture.parts[0]]) for picture in found if len(picture.parts) > 1]
    entries.sort(key=lambda entry: (entry.label, entry.id))
    stray = [
        Rejected(id=picture.id, reason="lies beside the class folders; move it into one") for picture in found if len(picture.parts) == 1
    ]
    empty = [
        Rejected(id=f"{child.name}/", reason="a folder without a readable picture; it is no class")
        for child in sorted(root.iterdir())
        if child.is_dir()
        and not child.is_symlink()
        and not child.name.startswith(".")
        and _nfc(child.name) not in places
        and output_kind(child) is None
    ]
    return entries, classes, stray + empty


def _from_run(root: Path, found: list[_Found], rows: list[dict[str, Any]]) -> tuple[list[Entry], tuple[str, ...], list[Rejected]]:
    files, digests = {picture.id: picture for picture in found}, source_digests(run_of(root))
    labels = {row["class"]: row.get("label") for row in rows if row["class"] is not None}
    ordered = all(isinstance(label, int) for label in labels.values())  # the order of the set that the run was made from
    classes = tuple(sorted(labels, key=lambda name: (labels[name] if ordered else 0, name)))
    places = {name: place for place, name in enumerate(classes)}
    entries, rejected = [], []
    for row in rows:
        picture = files.pop(_nfc(row["file_name"] or ""), None)
        if picture is None:
            rejected.append(Rejected(id=str(row["file_name"]), reason=f"listed in {METADATA}, but missing or not readable here"))
            continue
        copy = -1 if row["copy"] is None else int(row["copy"])
        entries.append(
            Entry(
                id=picture.id,
                payload=picture.payload,
                label=places.get(row["class"]),
                source=row["source_id"] if copy >= 0 else None,  # a kept real image is its own source
                copy=copy,
                source_digest=digests.get(row["source_id"]) if copy >= 0 else None,
            )
        )
    rejected.extend(Rejected(id=name, reason=f"not listed in {METADATA}") for name in files)
    return entries, classes, rejected


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
