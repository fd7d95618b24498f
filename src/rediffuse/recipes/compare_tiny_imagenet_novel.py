"""Twenty classes of Tiny ImageNet that no bundled model has seen: does DA-Fusion help in the generator's own domain?

    python -m rediffuse.recipes.compare_tiny_imagenet_novel --data DATA --forty runs/forty --hours 5

Shows: mean per-class accuracy on the 1,000 validation images, which judge here and choose nothing. The pictures come from the same
source as those that the generator and `resnet-64` learned from; the classes do not, though some have siblings there (American and spiny
lobster, limousine and convertible, cliff and cliff dwelling, ice cream and ice lolly, brain coral and coral reef).
Expected: with the bundled generator of three hours of one core copies hurt a little on forty, by .8 points (-1.5 to -.2); from scratch
(-.5) and on resnet-64 (-1.8, -3.6 to +.1) there is no evidence (results/compare_tiny_imagenet_novel.json).
Time and hardware: 18,400 images; 2.2 hours of one core with AVX512-BF16, shared with other work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rediffuse.recipes.few_shot import FewShot, run

RECIPE = FewShot(
    name="tiny_imagenet_novel",
    folder="tiny-imagenet-novel",
    test="validation",
    notes=("Some of the novel classes have siblings among those that generator and features have seen.",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(RECIPE, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
