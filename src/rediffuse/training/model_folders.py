"""Where a classifier's files lie, and whether they are such as are read: configuration and safetensors, never code or pickles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rediffuse.data.folder import holds_pictures
from rediffuse.data.outputs import UNFINISHED
from rediffuse.denoisers import hub
from rediffuse.denoisers.load import bundled as denoisers
from rediffuse.errors import ModelError


def model_folder(spec: str) -> Path:
    """Where a level's files lie: a folder, a bundled model, or the hub's cache. Raises ModelError with what was tried."""
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return folder
    bundled = Path(str(files("rediffuse"))) / "weights" / spec
    if "/" not in spec and (bundled / "config.json").is_file():
        return bundled
    if spec in denoisers():
        raise ModelError(f"{spec} is a denoiser, not a classifier; give scratch, resnet-64, a transformers folder or a hub name")
    if spec.count("/") > 1 or spec.startswith((".", "/", "~")):
        raise ModelError(
            f"no classifier at {spec!r}: there is no such folder; give scratch, resnet-64, a transformers folder or a hub name"
        )
    if "/" not in spec:
        raise ModelError(
            f"no classifier {spec!r}: there is no bundled one and no folder of that name; give scratch, cifar-resnet, cifar-vit, "
            "resnet-64, a transformers folder or a hub name, OWNER/NAME"
        )
    try:
        return hub.fetch(spec, None, _needed)[0]
    except ModelError as error:
        raise ModelError(f"no classifier {spec!r}: neither scratch, nor a bundled model, nor a folder, and {error}") from error


def _needed(names: Sequence[str]) -> list[str]:
    """Which files of a repository are read: configuration and safetensors, none of its folders. Raises ModelError where they lack."""
    found = [name for name in names if "/" not in name and name.endswith((".json", ".safetensors"))]
    if "config.json" not in found or not any(name.endswith(".safetensors") for name in found):
        raise ModelError("it holds no config.json with .safetensors beside it; only safetensors are read")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an image classifier in safetensors; anything else is a ModelError."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if (folder / UNFINISHED).exists():
            raise ModelError(f"{folder} holds a training that is not finished; give its command again to go on with it") from error
        photos = "; it holds pictures: the classifier is named before the photos" if holds_pictures(folder) else ""
        raise ModelError(f"{folder} has no config.json; give a folder that `rediffuse train` or save_pretrained wrote{photos}") from error
    except ValueError as error:
        raise ModelError(f"config.json of {folder} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"config.json of {folder} holds a {type(config).__name__}, no settings; save the model again with save_pretrained")
    if "auto_map" in config:
        raise ModelError(
            f"{folder} brings code of its own ({config['auto_map']}), which is never run; use a model of the transformers library"
        )
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
        raise ModelError(
            f"{folder} holds {found}; only safetensors are read: save it again with save_pretrained(..., safe_serialization=True)"
        )
    return config
