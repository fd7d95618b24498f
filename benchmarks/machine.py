"""What this machine can do: matrix products a second, the instructions that decide the speed."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rediffuse.evaluation.provenance import hardware


def describe(device: torch.device) -> str:
    """The machine in a line; AMX and AVX512-BF16 decide whether bfloat16 is fast on a processor."""
    found = hardware(str(device))
    sets = found["instruction_sets"]
    bf16 = ", ".join(f"{name} {'yes' if key in sets else 'no'}" for name, key in (("AMX", "amx_bf16"), ("AVX512-BF16", "avx512_bf16")))
    return (
        f"{found['processor']}, {found['cores']} cores, {torch.get_num_threads()} threads; {bf16}; "
        f"device {found['device']}; torch {found['torch']}"
    )


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed_seconds(function: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Of each call, after one that warms up."""
    seconds = []
    for _ in range(repeats + 1):
        wait(device)
        begin = time.perf_counter()
        function()
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def median_seconds(function: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Of a call, after one that warms up."""
    return statistics.median(timed_seconds(function, device, repeats))


def matmul_peak(dtype: torch.dtype, device: torch.device, sides: Sequence[int] | None = None) -> float:
    """Operations a second of the fastest square matrix product found: what a network is compared with.

    The best time of many counts, since other work can only slow a product down. A convolution in another algorithm (Winograd's) may still
    come out above it, by the operations that it saves.
    """
    sides = sides or ((4096, 8192) if device.type == "cuda" else (1024, 2048))
    best = 0.0
    for side in sides:
        first, second = (torch.randn(side, side, generator=torch.Generator().manual_seed(k)).to(device, dtype) for k in (0, 1))

        def product(first: Tensor = first, second: Tensor = second) -> Tensor:
            return first @ second

        best = max(best, 2 * side**3 / min(timed_seconds(product, device, repeats=12)))
    return best


def peak() -> float:
    """GB of resident memory of this process, at most so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 1e9 if sys.platform == "darwin" else size * 1024 / 1e9
