"""Runs `evaluate` on small things in processes that a test may kill: `python -m tests.evaluation.suite.killable`.

The folder that it is told is named after the suite.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from tests.evaluation.suite.toys import DATA, MODELS, SHORT, asked
from tests.killable import serve

from rediffuse.evaluation import attacking, calibrating, entropy
from rediffuse.evaluation.ood import scoring
from rediffuse.evaluation.suite import evaluate as suite
from rediffuse.evaluation.suite import keeping
from rediffuse.evaluation.test_time import predicting

for module in (attacking, calibrating, entropy, scoring, predicting):
    module.BLOCK = 2  # many blocks to be killed between
keeping.STATE_EVERY = 0  # a note at every step
FEW = replace(SHORT, attacked_images=2)


def main() -> None:
    torch.set_num_threads(1)
    serve(lambda out: suite.evaluate(MODELS, DATA, keep=out / "work", images=5, **asked(out.name, settings=FEW)).save(out))


if __name__ == "__main__":
    main()
