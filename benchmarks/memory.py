"""How much memory the suites of corruptions and of unknown inputs take, and how that grows with the data.

    python -m benchmarks.memory --images 2000 20000 --out results

Peak resident memory of a process of its own that opens so many pictures of 32 pixels, judges a small net by every common corruption of them
at one severity or by every score (with a third as many unknown pictures and training pictures), and ends. The slope between the two
numbers of pictures says what a further picture costs. Time: 25 minutes of one core, nearly all of them for corruptions.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from benchmarks.common import Measured, options, run
from benchmarks.machine import peak

from rediffuse.errors import ConfigError
from rediffuse.evaluation.results import Figure, render_table

SIDE = 32
CLASSES = ("cat", "dog")
SUITES = ("corruptions", "unknown")


def pictures(count: int, seed: int) -> Any:
    """So many pictures of noise in two classes, held as encoded files are."""
    from PIL import Image

    from rediffuse.data.images import hash_pixels
    from rediffuse.data.types import ImageSet, Record

    generator, records = np.random.default_rng(seed), []
    for row in range(count):
        pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        digest = hash_pixels(SIDE, SIDE, pixels.tobytes())
        records.append(Record(id=f"{seed}-{row}", payload=Encoded(buffer.getvalue()), label=row % 2, digest=digest, size=(SIDE, SIDE)))
    return ImageSet(records, classes=CLASSES, name=f"noise {seed}")


class Encoded:
    """A picture as the bytes of its file."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> Any:
        from PIL import Image

        return Image.open(io.BytesIO(self.data)).convert("RGB")


def work(suite: str, images: int) -> None:
    """Judge; what is measured of it stands on the last line of standard output."""
    import torch

    from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
    from rediffuse.evaluation.judged import Judged
    from rediffuse.evaluation.ood.asking import Asked
    from rediffuse.evaluation.ood.result import judge
    from rediffuse.evaluation.ood.scoring import score_sets
    from rediffuse.training.backbones import open_backbone

    torch.set_num_threads(1)
    net = Judged(open_backbone("scratch", CLASSES, size=SIDE).eval(), CLASSES, name="net")
    data, before, began = pictures(images, 0), peak(), time.perf_counter()
    if suite == "corruptions":
        corruption_accuracy(net, data, severities=(3,), size=SIDE)
    else:
        far, train = pictures(max(60, images // 3), 1), pictures(max(60, images // 3), 2)
        judge(score_sets(net, data, asked=Asked(size=SIDE), far={"far": far}, train=train))
    print(json.dumps({"peak_gb": peak(), "opened_gb": before, "seconds": time.perf_counter() - began}))


def benchmark(given: argparse.Namespace) -> Measured:
    few, many = min(given.images), max(given.images)
    if few < 120 or few == many:
        raise ConfigError(f"--images takes two different numbers of at least 120, got {' '.join(map(str, given.images))}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as empty:
        for suite in SUITES:
            for images in (few, many):
                line = [sys.executable, "-m", "benchmarks.memory", "--work", suite, "--images", str(images), str(images), "--out", empty]
                done = subprocess.run(line, capture_output=True, text=True, check=True)
                rows.append({"suite": suite, "images": images, **json.loads(done.stdout.splitlines()[-1])})
    print(render_table(rows))
    headline: dict[str, Figure | float] = {}
    for suite in SUITES:
        less, more = (row["peak_gb"] for row in rows if row["suite"] == suite)
        headline |= {f"{suite}_peak_gb": more, f"{suite}_kb_an_image": 1e6 * (more - less) / (many - few)}
    notes = [f"pictures of noise at {SIDE} px, whose files of 3 kB each are held; one net, one thread"]
    return Measured(name="bench_memory", headline=headline, rows=rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, device=False)
    parser.add_argument("--images", type=int, nargs=2, default=[2000, 20_000], help="two numbers of pictures")
    parser.add_argument("--work", choices=SUITES, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(given.work, given.images[0])
        return 0
    return run("memory", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
