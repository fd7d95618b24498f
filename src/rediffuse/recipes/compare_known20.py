"""Known-20: what is a generator worth that has seen the classes under their names, while the classifier has not?

    python -m rediffuse.recipes.compare_known20 --data DATA --forty runs/forty --hours 5

Shows: mean per-class accuracy on 2,000 test images of 20 classes. The bundled generator has learned each of them from 300 other pictures,
under its name; neither `forty` nor `resnet-64` has seen any. It is the case in which the method has most to give, as with Stable Diffusion
in the paper, and the test bed of leakage: a gain here says what the generator knew, not that such a gain is to be had elsewhere.
Expected: with the bundled generator of three hours of one core copies hurt a little even here: by .8 points from scratch
(-1.5 to -.1) and 2.3 on resnet-64 (-3.9 to -.8); no evidence on forty, -.9 (-3.1 to 1.2) (results/compare_known20.json).
Time and hardware: 18,400 images; 2.3 hours of one core with AVX512-BF16, shared with other work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rediffuse.recipes.few_shot import FewShot, run

RECIPE = FewShot(
    name="known20",
    folder="tiny-imagenet-known",
    notes=("The generator has seen 300 other pictures of each of these classes under its name; the features have seen none.",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(RECIPE, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
