"""Whether a part's memory grows with images x classes: `python -m tests.evaluation.suite.growing PART` prints MB.

By how much the peak of this process rises from a run on few images to one on many more, beside the images themselves.
"""

from __future__ import annotations

import resource
import sys

import numpy as np
import torch
from PIL import Image
from torch import nn

from rediffuse.data.types import Example, ImageSet
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.suite.asking import Asking
from rediffuse.evaluation.suite.parts import build
from rediffuse.evaluation.suite.settings import SuiteSettings

CLASSES = tuple(f"class {number}" for number in range(1000))
FEW, MANY = 4_000, 16_000
SIDE = 32


def main(part: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (MANY, SIDE, SIDE, 3), dtype=np.uint8)
    examples = [Example(id=str(row), image=Image.fromarray(each), label=row % len(CLASSES)) for row, each in enumerate(pictures)]
    images = ImageSet.of(examples, classes=CLASSES, name="noise")
    model = Judged(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, len(CLASSES))), CLASSES, name="net")
    peaks = []
    for count in (FEW, MANY):
        asking = Asking(models=[model], data=images[:count], settings=SuiteSettings(suite="few-shot", size=SIDE))
        build(asking, part).run(None, None)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)  # kB on Linux
    print(peaks[1] - peaks[0])


if __name__ == "__main__":
    main(sys.argv[1])
