"""The features `forty`: what a classifier knows that has seen 40 classes, none of them known-20; a level of every comparison.

    python -m rediffuse.recipes.forty --data DATA --out runs/forty

Shows: a small ResNet on 40 of the base classes (12,000 pictures), trained and written as a transformers folder; not bundled, because
minutes make it. The same command goes on where a killed or timed one (--minutes) stopped.
Expected: more than half of the validation pictures of its own 40 classes named rightly (in OUT.training/log.jsonl; no result is kept).
Time and hardware: about 10 minutes on 2 cores with AVX512-BF16 (estimate).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rediffuse.recipes.bundled import export, features
from rediffuse.recipes.bundled.common import load_checkpoint, tell

STEPS = 1500


def make(data: Path, known: Path, out: Path, steps: int, minutes: float | None) -> bool:
    """Train, and write the folder once all steps are done; whether they are."""
    training = out.with_name(out.name + ".training")
    features.train(data, known, "forty", training, minutes, steps)
    state = load_checkpoint(training / "checkpoint.pt")
    if state is None or state["step"] < steps:
        return False
    export.export_features(training, "forty", data, known, out)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=sets, help="folder of the sets; it holds tiny-imagenet-base and tiny-imagenet-known")
    parser.add_argument("--out", type=Path, default=Path("runs/forty"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    given = parser.parse_args(arguments)
    done = make(given.data / "tiny-imagenet-base", given.data / "tiny-imagenet-known", given.out, given.steps, given.minutes)
    print(f"wrote {given.out}" if done else "the steps are not done: the same command goes on")
    return 0 if done else 1


if __name__ == "__main__":
    tell(main)
