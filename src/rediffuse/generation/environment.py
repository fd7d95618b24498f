"""What pixels depend on beside the plan: the machine's print, and the model by the hash of its weights."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from rediffuse.denoisers.base import Denoiser
from rediffuse.machine import instruction_sets, library_versions, processor, processor_numbers


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """The environment print: with an equal plan and an equal print, pixels are equal to the bit.

    Libraries choose kernels by the processor's maker and by instruction sets that torch's own word for them does not tell apart.
    """
    from rediffuse import __version__

    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return {
        "rediffuse": __version__,
        **library_versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability() + (" AMX" if amx is not None and amx() else ""),
        "processor": processor(),
        "processor_numbers": processor_numbers(),
        "instruction_sets": instruction_sets(),
        "threads": threads,
    }


def short_hash(content: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell two prints apart."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def identify(model: Denoiser) -> dict[str, Any]:
    """Weights' hash and number type of a denoiser; one that was built in memory or trained on is hashed as it stands."""
    return {"weights_hash": model.fingerprint(), "dtype": dtype_of(model)}


def denoiser_name(model: Denoiser) -> str:
    """What the user called it, with the commit that a hub name resolved to."""
    if model.spec is None:
        return type(model).__name__
    return model.spec.name if model.spec.revision is None else f"{model.spec.name.partition('@')[0]}@{model.spec.revision}"


def dtype_of(model: Denoiser) -> str:
    """Of the model's trunk."""
    found = getattr(model, "dtype", None)
    if not isinstance(found, torch.dtype):
        found = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    return str(found).removeprefix("torch.")
