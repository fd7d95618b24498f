"""How large pictures are, from their headers alone: what can be known before hours of work, in seconds."""

from __future__ import annotations

import os
from pathlib import Path

from rediffuse.data.folder import is_picture
from rediffuse.data.outputs import enter

PATIENCE = 5000
"""Headers that are read at most."""


def peek_photos(path: str | Path) -> list[tuple[str, tuple[int, int]]]:
    """(class folder, (width, height)) of the pictures in a folder, nothing decoded; what cannot be read is passed over.

    Choose it to warn early. It says less than opening the set, where every picture is checked. Empty for anything but a folder.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(path).expanduser()
    found: list[tuple[str, tuple[int, int]]] = []
    for base, folders, files in os.walk(root):
        enter(base, folders)
        inside = Path(base).relative_to(root).parts
        for name in sorted(files):
            if len(found) >= PATIENCE:
                return found
            if is_picture(name) and not name.startswith("."):
                try:
                    with Image.open(Path(base) / name) as image:
                        found.append((inside[0] if inside else "", image.size))
                except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
                    continue
    return found
