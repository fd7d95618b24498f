"""Files of improved diffusion and guided diffusion: read without running anything in them, told apart by names and shapes."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers import stable_file
from rediffuse.denoisers.adm_network import AdmNetwork, Architecture, Heads
from rediffuse.denoisers.weight_names import looks_like, unknown
from rediffuse.errors import ModelError

FIRST = "input_blocks.0.0.weight"  # of every network of this family, its classifiers and upsamplers too
BROKEN = (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, struct.error)


def is_ours(file: Path) -> bool:
    """Whether this family answers for a single file: every `.pt`, and a `.safetensors` whose weights bear its names."""
    if file.suffix == ".pt":
        return True
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return FIRST in opened.keys()  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return False  # whoever reads it next says what is wrong with it


def read_weights(file: Path) -> dict[str, Tensor]:
    """All weights of a `.pt` or `.safetensors` file. Nothing in a pickle is run: torch reads tensors and plain containers alone.

    Raises ModelError for a pickle with more than that in it, a file that is cut short or broken, and anything but a flat table of weights.
    """
    if file.suffix == ".safetensors":
        return stable_file.read_state(file)[0]
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} is a pickle with more than weights in it, or a broken one; that can run code and is never opened. Take the published "
            "file, or write the weights alone with safetensors"
        ) from error
    except BROKEN as error:
        raise ModelError(f"{file} cannot be read ({_first_line(error)}); it is cut short or no checkpoint: download it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        entries = ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else type(content).__name__
        raise ModelError(f"{file} is not a table of weights but holds {entries}; save the state_dict of the network alone")
    return content


def architecture_of(file: Path, weights: Mapping[str, Tensor]) -> Architecture:
    """The network that these weights belong to. Raises ModelError for another architecture, saying what it looks like."""
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    other = _other(shapes)
    if other is not None:
        raise ModelError(f"{file.name} is not a guided-diffusion or improved-diffusion network. It looks like {other}")
    if shapes[FIRST][1] != 3:
        raise ModelError(
            f"{file.name} reads {shapes[FIRST][1]} channels: an upsampler (which reads a small image besides) or a model of latents, and "
            "neither is a denoiser of RGB images; take the diffusion model of that size"
        )
    try:
        return _architecture(shapes)
    except (KeyError, IndexError) as error:
        raise ModelError(f"{file.name} is not a whole guided-diffusion or improved-diffusion network: it lacks {error}") from error


def fill(file: Path, architecture: Architecture, heads: Heads, weights: Mapping[str, Tensor]) -> AdmNetwork:
    """The network with these weights, every one of them used and none missing. Raises ModelError otherwise."""
    with torch.device("meta"):
        network = AdmNetwork(architecture, heads)
    wanted = {name: value.shape for name, value in network.state_dict().items()}
    wrong = sorted(wanted.keys() ^ weights.keys()) or [name for name, shape in wanted.items() if weights[name].shape != shape]
    if wrong:
        raise ModelError(f"{len(wrong)} weights of {file.name} are missing, of another shape or unknown here, first {wrong[0]}")
    network.load_state_dict(weights, assign=True)
    return network


def _architecture(shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    base = shapes["time_embed.0.weight"][1]
    # Every level but the finest ends its way up with a step that doubles the sides: one more block, or a convolution, in that stage.
    doubled = {match[1] for name in shapes if (match := re.fullmatch(r"output_blocks\.(\d+)\.[12]\.(in_layers\.2|conv)\.weight", name))}
    levels = 1 + len(doubled)
    layers = len(_indices(shapes, "output_blocks")) // levels - 1
    first = [1 + level * (layers + 1) for level in range(levels)]  # the first stage of each level on the way down
    widths = [shapes[f"input_blocks.{stage}.0.out_layers.3.weight"][0] for stage in first]
    return Architecture(
        channels=base,
        multipliers=tuple(width / base for width in widths),
        layers=layers,
        attention=tuple(level for level, stage in enumerate(first) if f"input_blocks.{stage}.1.qkv.weight" in shapes),
        classes=shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
        outputs=shapes["out.2.weight"][0],
        scale_shift=shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * widths[0],
        residual_resampling=not any(name.endswith(".0.op.weight") for name in shapes),
    )


def _other(names: Iterable[str]) -> str | None:
    """What weights of these names look like; None if they are this family's."""
    names = list(names)
    found = looks_like(names)
    return unknown(names) if found is None and FIRST not in names else found


def _indices(names: Iterable[str], part: str) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith(f"{part}.")}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no reason given')}"
