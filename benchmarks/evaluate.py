"""What the long yardsticks cost: certificates against the published loop, corrupted copies against another maker's.

    python -m benchmarks.evaluate --out results

Shows: both measurements of `certify.py` and `corruptions.py`, one after another in one process, of the same test pictures; what their arms
are stands there, and either runs alone. A row's `table` says whose it is.
Expected: results/bench_evaluate.json. Needs the extra `corruptions`. Time: about 5 minutes of one core, 3 of them for certificates; these
grow with --certified times the draws of an image (six calls of the denoiser in a repeat), and each repeat and the one that warms up count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.common import Measured, options, run

from benchmarks import certify, corruptions
from rediffuse.errors import ConfigError

HEADLINE = ("certify_speedup", "certify_speedup_float32", "certify_speedup_one_classifier", "corruptions_seconds", "corruptions_speedup")


def benchmark(given: argparse.Namespace) -> Measured:
    if find_spec("imagecorruptions") is None:
        raise ConfigError(
            "the package that corruptions are compared with is not installed: pip install '.[corruptions]'; "
            "or run benchmarks.certify and benchmarks.corruptions one by one, which write bench_certify and bench_corruptions"
        )
    shared = {"data": given.data, "repeats": given.repeats}
    certificates = argparse.Namespace(
        **shared,
        model=given.model,
        dtype=given.dtype,
        classifiers=given.classifiers,
        images=given.certified,
        selection=given.selection,
        draws=given.draws,
        device=given.device,
    )
    copies = argparse.Namespace(**shared, images=given.corrupted)
    # Certificates first: corruptions are for one thread, which holds for the rest of the process.
    found = {
        "certificates": certify.benchmark(certify.parser().parse_args([], certificates)),
        "corruptions": corruptions.benchmark(corruptions.parser().parse_args([], copies)),
    }
    figures = {key: figure for part in found.values() for key, figure in part.headline.items()}
    return Measured(
        name="bench_evaluate",
        headline={key: figures[key] for key in HEADLINE},
        rows=[{"table": table, **row} for table, part in found.items() for row in part.rows],
        device=found["certificates"].device,
        notes=[f"{table}: {note}" for table, part in found.items() for note in part.notes],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, repeats=2)
    parser.add_argument("--model", default="cifar10-32", help="bundled name, file or folder of a pixel model, or `random`")
    parser.add_argument("--dtype", default="auto", help="numbers of the denoiser's trunk, but for the published loop")
    parser.add_argument("--classifiers", nargs="*", default=(), help="folders or names; two with random weights by default")
    parser.add_argument("--data", default="../shared/data/cifar10", help="square pictures of one size, of which the test split is taken")
    parser.add_argument("--certified", type=int, default=2, help="images to certify")
    parser.add_argument("--selection", type=int, default=50, help="draws that choose the class of an image")
    parser.add_argument("--draws", type=int, default=400, help="further draws that certify it")
    parser.add_argument("--corrupted", type=int, default=300, help="images to corrupt, in 95 copies each by either arm")
    return run("evaluate", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
