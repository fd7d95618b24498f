"""How much memory the figures of fidelity take on a million features.

    python -m benchmarks.fidelity --features 1000000 --width 512 --seconds 8 --out results

Peak resident memory of this process after each stage: moments (FID) and neighbours (precision, recall, density, coverage) of a few random
features, to the end; then of all of them in float32, each for some seconds of processor time, since neighbours among a million take days on
a core. Blocks have their full size from the first on; what comes later are three radii and three flags a feature.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from benchmarks.common import Measured, options, run
from benchmarks.machine import peak
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.evaluation.fidelity.manifold import COLUMNS, ROWS, manifold
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.results import render_table

FEW = COLUMNS
"""Enough for a block of full size."""


class _EnoughError(Exception):
    pass


@contextmanager
def at_most(seconds: float) -> Iterator[list[bool]]:
    """Stop what is inside after so many seconds of processor time; a list that is not empty where that was before its end."""

    def stop(*_: object) -> None:
        raise _EnoughError

    stopped: list[bool] = []
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield stopped
    except _EnoughError:
        stopped.append(True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def measure(features: int, width: int, seconds: float) -> list[dict[str, Any]]:
    """A row a stage."""
    rows: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(0)

    def stage(name: str, real: Tensor, work: Callable[[Tensor], object], limit: float = 1e6) -> None:
        began = time.process_time()
        with at_most(limit) as stopped:
            work(real)
        spent = round(time.process_time() - began, 1)
        rows.append({"stage": name, "features": len(real), "peak_gb": peak(), "processor_seconds": spent, "to_the_end": not stopped})

    def both(real: Tensor, limit: float = 1e6) -> None:
        stage("moments", real, lambda given: frechet(given, given), limit)
        stage("neighbours", real, lambda given: manifold(given, given), limit)

    small = torch.rand(min(FEW, features), width, generator=generator)
    stage("begin", small, lambda _: None)
    both(small)
    every = torch.rand(features, width, generator=generator)
    stage("features", every, lambda _: None)
    both(every, seconds)
    return rows


def benchmark(given: argparse.Namespace) -> Measured:
    if given.features < 6 or given.width < 1 or given.seconds <= 0:
        raise ConfigError(f"give at least 6 features, a width and some seconds, got {given.features}, {given.width} and {given.seconds}")
    rows = measure(given.features, given.width, given.seconds)
    print(render_table(rows))
    begin, blocks, last = rows[0]["peak_gb"], rows[2]["peak_gb"], rows[-1]["peak_gb"]
    own = 4 * given.features * given.width / 1e9
    headline = {"peak_gb": last, "features_gb": own, "few_above_begin_gb": blocks - begin, "all_above_features_gb": last - own - begin}
    notes = [
        f"{given.features:,} random features of {given.width} in float32, compared with themselves; blocks of {ROWS:,} x {COLUMNS:,}",
        f"of all features, moments and neighbours were stopped after {given.seconds:g} s of processor time each, where not done before",
    ]
    return Measured(name="bench_fidelity", headline=headline, rows=rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, device=False)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=8.0, help="of processor time for each stage of all features")
    return run("fidelity", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
