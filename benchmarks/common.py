"""What every benchmark does alike: options, turns, ratios, and how a run ends in `results/bench_NAME.json`."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from benchmarks.machine import wait

from rediffuse.errors import ConfigError, RediffuseError
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.results import Figure, write_result

T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a benchmark found, before it is written. name: of the file; the rest as `write_result` takes it."""

    name: str
    headline: Mapping[str, Figure | float]
    rows: Sequence[Mapping[str, Any]]
    device: str = "cpu"
    notes: Sequence[str] = ()


def options(doc: str | None, *, repeats: int | None = None, device: bool = True) -> argparse.ArgumentParser:
    """The options that benchmarks share. repeats: the default, or None where nothing is repeated; device: whether it can be chosen."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats)
    if device:
        parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    return parser


def run(
    name: str,
    benchmark: Callable[[argparse.Namespace], Measured],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
) -> int:  # fmt: skip
    """Measure, print the headline and write the result; the exit status. name: of the module, as it was called."""
    given = parser.parse_args(arguments)
    command = module_command(f"benchmarks.{name}", sys.argv[1:] if arguments is None else arguments)
    began = time.perf_counter()
    try:
        if vars(given).get("repeats", 1) < 1:
            raise ConfigError(f"repeats must be at least 1, got {given.repeats}")
        found = benchmark(given)
        seconds = time.perf_counter() - began
        print(*(headline(key, figure) for key, figure in found.headline.items()), sep="\n")
        file = write_result(
            found.name, found.headline, found.rows, seconds, command=command, folder=given.out, device=found.device, notes=found.notes
        )
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"wrote {file}")
    return 0


def headline(key: str, figure: Figure | float) -> str:
    """A figure in a line, its smallest and largest behind it."""
    if not isinstance(figure, Figure):
        return f"{key}: {figure:.4g}"
    known = figure.low is not None and figure.high is not None
    return f"{key}: {figure.value:.4g}" + (f" ({figure.low:.4g} to {figure.high:.4g})" if known else "")


def turns(
    arms: Mapping[str, Callable[[], T]],
    repeats: int,
    device: torch.device = CPU,
    *,
    clock: Callable[[], float] = time.perf_counter,
    tell: bool = False,
) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Seconds of every call of every arm, and what each gave at last.

    Arms take turns and every repeat begins with another, so that a machine that slows down slows all of them. To warm up is the caller's.

    Args:
        clock: in seconds.
        tell: print a line a call.
    """
    names = list(arms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    given: dict[str, T] = {}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            wait(device)
            began = clock()
            given[name] = arms[name]()
            wait(device)
            seconds[name].append(clock() - began)
            if tell:
                print(f"{repeat + 1}/{repeats}  {name}: {seconds[name][-1]:.1f} s", flush=True)
    return seconds, given


def ratio(one: Sequence[float], other: Sequence[float]) -> Figure:
    """How often `one` is `other`: the median of the repeats' ratios, with the smallest and the largest."""
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    return Figure(value=statistics.median(ratios), low=min(ratios), high=max(ratios))
