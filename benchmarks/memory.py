"""How much memory a corruption, unknown inputs and accuracy take, and how that grows with the data.

    python -m benchmarks.memory --images 180000 270000 --out results

Peak resident memory of a process of its own that opens so many files of 32 pixels in class folders, judges a net of one layer by a
corruption of them at one severity, by every score (with a third as many unknown pictures and a third as many training pictures) or, among
1,000 classes, by accuracy, and ends. What is held of pictures themselves is bounded (512 MB decoded, 256 MB fitted), so that the smaller
number should fill both: 170,000 pictures of 32 pixels. Beyond, the slope of the opened set says what a further picture costs. Time: half an
hour of one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common import Measured, options, run
from benchmarks.machine import peak

from rediffuse.errors import ConfigError
from rediffuse.evaluation.results import Figure, render_table

SIDE = 32
CLASSES = ("cat", "dog")
MANY = (*CLASSES, *(f"class {number}" for number in range(998)))
"""What accuracy is told among, so that whatever holds a number an image and class shows."""
SUITES = ("corruptions", "unknown", "accuracy")
SHARE = 1000
"""Files in one folder."""


def write_pictures(home: Path, count: int, seed: int) -> None:
    """So many files of noise in folders of the classes."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    for row in range(count):
        folder = home / CLASSES[row % 2] / f"part-{row // SHARE:04d}"
        if row % SHARE < 2:
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{seed}-{row:07d}.bmp")


def work(suite: str, home: Path) -> None:
    """Judge; what is measured of it stands on the last line of standard output."""
    import torch
    from torch import nn

    from rediffuse.data import folder
    from rediffuse.evaluation.corruptions.accuracy import corruption_accuracy
    from rediffuse.evaluation.judged import Judged
    from rediffuse.evaluation.ood.asking import Asked
    from rediffuse.evaluation.ood.result import judge
    from rediffuse.evaluation.ood.scoring import score_sets
    from rediffuse.evaluation.suite.asking import Asking
    from rediffuse.evaluation.suite.parts import build
    from rediffuse.evaluation.suite.settings import ACCURACY, SuiteSettings

    torch.set_num_threads(1)
    torch.manual_seed(0)
    classes = MANY if suite == "accuracy" else CLASSES
    layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, len(classes)))
    net, before, began = Judged(layers.eval(), classes, name="net"), peak(), time.perf_counter()
    data = folder(home / "known")
    opened = peak()
    if suite == "corruptions":
        corruption_accuracy(net, data, corruptions=("brightness",), severities=(3,), size=SIDE).mean()
    elif suite == "accuracy":
        build(Asking(models=[net], data=data, settings=SuiteSettings(suite="few-shot", size=SIDE)), ACCURACY).run(None, None)
    else:
        far, train = folder(home / "unknown"), folder(home / "train")
        judge(score_sets(net, data, asked=Asked(size=SIDE), far={"far": far}, train=train), resamples=20)
    print(json.dumps({"peak_gb": peak(), "opened_gb": opened, "begun_gb": before, "seconds": time.perf_counter() - began}))


def benchmark(given: argparse.Namespace) -> Measured:
    few, many = min(given.images), max(given.images)
    if few < 200 or few == many:
        raise ConfigError(f"--images takes two different numbers of at least 200, got {' '.join(map(str, given.images))}")
    rows: list[dict[str, Any]] = []
    for images in (few, many):
        with tempfile.TemporaryDirectory() as place:
            for seed, (name, count) in enumerate((("known", images), ("unknown", images // 3), ("train", images // 3))):
                write_pictures(Path(place, name), count, seed)
            for suite in SUITES:
                line = [sys.executable, "-m", "benchmarks.memory", "--work", suite, "--home", place]
                done = subprocess.run(line, capture_output=True, text=True, check=True)
                rows.append({"suite": suite, "images": images, **json.loads(done.stdout.splitlines()[-1])})
    print(render_table(rows))
    headline: dict[str, Figure | float] = {}
    for suite in SUITES:
        less, more = (row for row in rows if row["suite"] == suite)
        headline[f"{suite}_peak_gb"] = max(less["peak_gb"], more["peak_gb"])
        # The peak differs more from run to run than with the number of pictures.
        headline[f"{suite}_kb_an_image"] = 1e6 * (more["opened_gb"] - less["opened_gb"]) / (many - few)
    notes = [f"files of noise at {SIDE} px; one net, one thread; unknown: a third as many unknown and training pictures beside them"]
    notes.append(f"accuracy among {len(MANY)} classes, all else among {len(CLASSES)}; 64 features")
    return Measured(name="bench_memory", headline=headline, rows=rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, device=False)
    parser.add_argument("--images", type=int, nargs=2, default=[180_000, 270_000], help="two numbers of pictures")
    parser.add_argument("--work", choices=SUITES, help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        work(given.work, given.home)
        return 0
    return run("memory", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
