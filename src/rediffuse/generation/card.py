"""The data set card of a run: people read it, and `datasets.load_dataset` finds the images by it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rediffuse.generation.plan import REAL
from rediffuse.methods.from_noise import FromNoise

_LISTED = 50
_COPIES = (
    "Each picture under `images/` is a changed copy of a real photo and keeps its label. `images/metadata.parquet` says of each which",
    "photo and class it belongs to and how it was made (with true class names; folder names are made plain); `run.json` holds all",
    "settings. Masks and boxes of a photo, scaled to a copy's width and height, fit it where `geometry` is `preserved`. Made pictures are",
    "no evidence of what the world looks like: train on them, never measure on them.",
)
_FROM_NOISE = (
    "Each picture under `images/` was drawn from noise under the prompt of its class. `images/metadata.parquet` says of each which class",
    "it belongs to and how it was made (with true class names; folder names are made plain); `run.json` holds all settings. Made pictures",
    "are no evidence of what the world looks like: train on them, never measure on them.",
)


def data_card(info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """README.md from run.json and the manifest's rows. `configs` puts every image into train, whatever its folder is called."""
    settings, method = info["settings"], info["settings"]["method"]
    made = sum(row["copy"] != REAL for row in rows)
    real = len(rows) - made
    strengths = method.get("strengths", [method["strength"]] if "strength" in method else [])
    drawn = method["method"] == FromNoise.name
    facts = {
        "Images": f"{made} made"
        + (f", {real} real" if real else "")
        + (" (the run is not finished)" if info["state"] != "complete" else ""),
        **({} if drawn else {"Photos": f"{len({row['source_id'] for row in rows})}"}),
        "Method": method["method"] + (f", strengths {', '.join(map(str, strengths))}" if strengths else ""),
        "Sampling": f"{method['solver']} in {method['steps']} steps, guidance {method['guidance_scale']}",
        "Denoiser": f"{info['denoiser']} ({settings['denoiser']['weights_hash'][:12]})",
        "Seed": str(settings["seed"]),
        "Library": ", ".join(sorted({f"rediffuse {found['rediffuse']}" for found in info["environments"].values()})),
        **({"Note": "; ".join(map(str, info["notes"]))} if info.get("notes") else {}),
    }
    front = [
        "---",
        "task_categories:",
        "- image-classification",
        "tags:",
        "- synthetic",
        "- rediffuse",
        f"size_categories:\n- {_size(len(rows))}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: images/**",
        "---",
    ]
    body = [
        f"# Images made from {'noise' if drawn else 'photos'} by a diffusion model",
        "",
        *(f"- {name}: {_plain(value)}" for name, value in facts.items()),
        "",
        *(_FROM_NOISE if drawn else _COPIES),
        "",
        *_classes(rows),
    ]
    return "\n".join([*front, "", *body, ""])


def _classes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(row["class"] for row in rows)
    lines = [f"| {_plain(name)} | {count} |" for name, count in sorted(counts.items())[:_LISTED]]
    more = [f"\nand {len(counts) - _LISTED} more classes."] if len(counts) > _LISTED else []
    return ["| class | images |", "|---|---|", *lines, *more] if lines else []


def _plain(text: str) -> str:
    """Names are data: no markup, no table cell and no line of their own."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"&#{ord(letter)};" if letter in "|`*[]\\" else letter for letter in escaped)


def _size(count: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if count < limit:
            return name
    return "n>1M"
