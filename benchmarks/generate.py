"""Generation against the published loop of DA-Fusion: how much faster, and by which measures.

    python -m benchmarks.generate --model tiny-imagenet-64 --images 64 --repeats 5

Shows: images a second of the published loop (one image a call, 50 steps of PNDM, guidance 7.5, everything encoded every time), of
`rediffuse.generate` with the same maths, and with the default solver; the share of each measure, added one by one and taken away one by
one; operations of a call as a share of this machine's matrix products. Strengths .25 .5 .75 1, all in one process, repetitions interleaved.
Expected: with AVX512-BF16 and no AMX 3.1 times at equal steps, 1.7 in float32, 12 times with the default solver; the aims were 1.5 (with
AMX 5) and 10. Time: 15 minutes on 2 cores for three repeats.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.arms import COPIES, MEASURES, Arm, Kit, arms_of
from benchmarks.common import Measured, options, ratio, run, turns
from benchmarks.machine import describe, matmul_peak, median_seconds
from benchmarks.published import largest_difference

from rediffuse.errors import ConfigError
from rediffuse.evaluation.results import Figure, render_table
from rediffuse.methods.da_fusion import STRENGTHS
from rediffuse.training.cost import operations_of

PUBLISHED, EQUAL, DEFAULT = "published loop", "rediffuse.generate, equal steps", "rediffuse.generate, default solver"
SAME_MATHS = 1e-3  # of [0, 1]: float32 rounding over 50 steps stays far below it


def measure(arms: Mapping[str, Arm], repeats: int, scratch: Path) -> dict[str, list[float]]:
    """Images a second of every arm, once a repetition; each repetition begins with another arm. scratch: a folder for the files."""

    def make(arm: Arm, images: int | None = None) -> int:
        return arm.run(Path(tempfile.mkdtemp(dir=scratch)), images)

    for arm in arms.values():
        make(arm, COPIES)  # warms up
    seconds, made = turns({name: partial(make, arm) for name, arm in arms.items()}, repeats, tell=True)
    return {name: [made[name] / each for each in own] for name, own in seconds.items()}


def rate_rows(arms: Mapping[str, Arm], rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    rows = []
    for name, arm in arms.items():
        if arm.shown:
            speedup, work = ratio(rates[name], rates[PUBLISHED]), arm.work()
            rows.append(
                {
                    "table": "rates",
                    "arm": name,
                    "numbers": arm.numbers,
                    "solver": arm.solver,
                    "calls_an_image": work.steps / work.images,
                    "images_a_second": statistics.median(rates[name]),
                    "speedup": speedup.value,
                    "from": speedup.low,
                    "to": speedup.high,
                    "images_a_call": work.images_a_call,
                    "slot_use": work.slot_use,
                }
            )
    return rows


def share_rows(kit: Kit, rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Each measure added to those above it, and taken alone out of all of them: factors of time."""
    everything = frozenset(kit.measures)
    rows, before, taken = [], rates[PUBLISHED], frozenset[str]()
    for measure in ("", *kit.measures):
        taken = taken | {measure} if measure else taken
        now = rates[kit.label(taken)]
        row = {
            "table": "shares",
            "measure": MEASURES.get(measure, "our sampler, one image a call"),
            "adds": ratio(now, before).value,
            "speedup_so_far": ratio(now, rates[PUBLISHED]).value,
        }
        if measure:
            row["lost_without_it"] = ratio(rates[kit.label(everything)], rates[kit.label(kit.without(measure))]).value
        rows.append(row)
        before = now
    return rows


def machine_rows(kit: Kit, rates: Mapping[str, Sequence[float]], arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Operations of one guided call, and what share of the machine's matrix products the call and a whole run reach."""
    rows = []
    for numbers, model in kit.models.items():
        peak = matmul_peak(model.dtype, kit.device)
        guided, arguments = kit.call(model)
        flops = operations_of(lambda guided=guided, arguments=arguments: guided(*arguments))  # type: ignore[misc]
        with torch.no_grad():
            seconds = median_seconds(lambda guided=guided, arguments=arguments: guided(*arguments), kit.device)  # type: ignore[misc]
        name = next((name for name, arm in arms.items() if name.startswith(EQUAL) and arm.numbers == numbers), None)
        whole = None
        if name is not None:
            work = arms[name].work()
            whole = statistics.median(rates[name]) * work.steps / work.images * flops / kit.batch / peak
        rows.append(
            {
                "table": "machine",
                "numbers": numbers,
                "batch": kit.batch,
                "gflop_an_image_step": flops / kit.batch / 1e9,
                "call_milliseconds": 1000 * seconds,
                "matmul_peak_gflops": peak / 1e9,
                "share_of_peak_call": flops / seconds / peak,
                "share_of_peak_run": whole,
            }
        )
    return rows


def benchmark(given: argparse.Namespace) -> Measured:
    if given.images < 2 * COPIES or given.images % COPIES:
        raise ConfigError(f"images must be a multiple of {COPIES} (copies of a photo) and at least {2 * COPIES}, got {given.images}")
    if given.threads:
        torch.set_num_threads(given.threads)
    kit = Kit.open(given.model, given.data, given.images, given.batch, given.device)
    print(describe(kit.device))
    method = kit.method("float32", "published")
    difference = largest_difference(kit.pipeline, method, kit.photos[0].image, kit.prompt, STRENGTHS)
    print(f"same noise, float32: pixels of the published loop and ours differ by at most {difference:.1e}")
    if not difference < SAME_MATHS:
        raise RuntimeError(f"the arms do not do the same maths: pixels differ by {difference:.3g} of 1, at most {SAME_MATHS} is rounding")
    if given.loop_dtype != "float32":
        kit.pipeline.to(dtype=getattr(torch, given.loop_dtype))
    arms = arms_of(kit, PUBLISHED, EQUAL, DEFAULT)
    with tempfile.TemporaryDirectory() as scratch:
        rates = measure(arms, given.repeats, Path(scratch))
    tables = [rate_rows(arms, rates), share_rows(kit, rates), machine_rows(kit, rates, arms)]
    for table in tables:
        print(f"\n{render_table([{key.replace('_', ' '): value for key, value in row.items() if key != 'table'} for row in table])}")
    work = arms[EQUAL].work()
    print(f"\n{work.images_a_call:.1f} images a call, slot use {work.slot_use:.3f}; images a second as in the first table")
    in_float32 = next((name for name in rates if name.startswith(EQUAL) and name != EQUAL), None)
    headline: dict[str, Figure | float] = {
        "speedup_equal_steps": ratio(rates[EQUAL], rates[PUBLISHED]),
        **({} if in_float32 is None else {"speedup_equal_steps_float32": ratio(rates[in_float32], rates[PUBLISHED])}),
        "speedup_default": ratio(rates[DEFAULT], rates[PUBLISHED]),
        "slot_use": work.slot_use,
        "images_per_call": work.images_a_call,
    }
    notes = [
        f"Speed-ups are medians of {given.repeats} interleaved repetitions; their intervals are the smallest and the largest of them.",
        f"Same noise in float32: pixels of both differ by at most {difference:.1e}.",
        *([] if "half" in kit.measures else ["This processor has no instructions for bfloat16: every row is float32."]),
    ]
    rows = [row for table in tables for row in table]
    return Measured(name="bench_generate", headline=headline, rows=rows, device=str(kit.device), notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, repeats=5)
    parser.add_argument("--model", default="tiny-imagenet-64", help="bundled name or Stable Diffusion folder")
    parser.add_argument("--data", default="digits", help="photos: digits, or anything that rediffuse opens")
    parser.add_argument("--images", type=int, default=64, help=f"of each arm a repetition ({COPIES} a photo); of one-image arms an eighth")
    parser.add_argument("--batch", type=int, help="slots of a call; default: that of rediffuse.generate")
    parser.add_argument("--threads", type=int, help="of the processor; default: torch's own")
    parser.add_argument(
        "--loop-dtype", choices=["float32", "float16"], default="float32", help="of the loop; on CUDA float16 was published"
    )
    return run("generate", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
