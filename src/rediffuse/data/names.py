"""Names are data: folder names that every file system takes."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))})  # on Windows
_SLUG_LENGTH = 40


def slug(name: str) -> str:
    """A folder or file name for any class name: lower-case ASCII and 6 hex digits of the name's sha256.

    Accents are dropped; letters of other scripts are written by code point, so that such names stay apart by more than the hash.
    The result matches `[a-z0-9][a-z0-9-]*-[0-9a-f]{6}`: never empty, never a hidden file, an option or a path.
    """
    letters = "".join(_ascii(letter) for letter in unicodedata.normalize("NFKD", name))
    words = re.sub(r"[^a-z0-9]+", "-", letters.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    return f"{words or 'unnamed'}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def is_safe_name(name: str) -> bool:
    """Whether a name can be a folder or file name as it is on Linux, macOS and Windows."""
    return (
        re.fullmatch(r"[\w][\w .,'()&+=-]{0,99}", name) is not None
        and not name.endswith((".", " "))
        and unicodedata.is_normalized("NFC", name)
        and len(name.encode()) <= 200
        and name.split(".")[0].strip().lower() not in _RESERVED
    )


def folder_names(names: Sequence[str]) -> tuple[str, ...]:
    """One folder name for each name: itself where that is safe, else its slug; names that differ only in case get slugs."""
    folded = [name.casefold() for name in names]
    return tuple(name if is_safe_name(name) and folded.count(fold) == 1 else slug(name) for name, fold in zip(names, folded, strict=True))


def _ascii(letter: str) -> str:
    if letter.isascii():
        return letter
    return f"u{ord(letter):x}" if letter.isalnum() else "" if unicodedata.combining(letter) else "-"
