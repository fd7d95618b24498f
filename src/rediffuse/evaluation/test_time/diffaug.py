"""DiffAug at test time: a classifier's mean over an image and its one-step views at growing noise.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from rediffuse.denoisers.base import Denoiser
from rediffuse.errors import ConfigError
from rediffuse.evaluation.test_time.ensembles import CHUNK, Ensemble, Reduce, seed_of
from rediffuse.methods.diffaug import DiffAug, DiffAugDraw
from rediffuse.methods.noise_times import REFERENCE_SIZE, Levels, levels
from rediffuse.training.cost import denoiser_operations


@dataclass(frozen=True, kw_only=True)
class DiffAugSettings:
    """Which views a DiffAug ensemble takes, and how it joins them.

    Args:
        step: of the noise times 0, step, 2 step, ... of the reference schedule (ADM's, 1,000 steps); time 0 is the raw image. The paper
            finds 25, 50 and 75 almost alike.
        t_max: no time lies above it, 0 to 999; 0 leaves the raw image alone.
        reduce: "probabilities" (the paper) or "logits", which lets sure members count for more.
        early_exit: let an image go when its decision cannot change; probabilities alone, since logits have no bound.
        reference_size: side in pixels for which the times are meant: sigma is multiplied by size / reference_size. None takes sigma as it
            is, for ablations: on small images it destroys too much.
    """

    step: int = 50
    t_max: int = 450
    reduce: Reduce = "probabilities"
    early_exit: bool = False
    reference_size: int | None = REFERENCE_SIZE

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ConfigError(f"step must be at least 1, got {self.step}; the paper's is 50")
        if not 0 <= self.t_max <= 999:
            raise ConfigError(f"t_max must be 0 to 999, a time of the reference schedule, got {self.t_max}")
        if self.reduce not in get_args(Reduce):
            raise ConfigError(f"reduce must be one of {', '.join(get_args(Reduce))}, got {self.reduce!r}")
        if self.early_exit and self.reduce == "logits":
            raise ConfigError("early_exit needs reduce='probabilities': a logit has no bound, so no lead is safe")

    @property
    def times(self) -> tuple[int, ...]:
        """0, step, 2 step, ... up to t_max."""
        return tuple(range(0, self.t_max + 1, self.step))


class DiffAugEnsemble(Ensemble):
    """The mean of a classifier over an image and its one-step views at growing noise.

    Choose it for a classifier that must survive corruptions, trained with DiffAug for preference: there it gains most, and costs about a
    point on clean images (in the paper 75.95 to 75.07 %; 76.15 to 71.43 % where the classifier never saw such views). It takes one
    denoiser call a view (9 by default), an eleventh of DDA. A strong classifier that never saw such views can lose on corrupted images
    too; compare with `Predictions.curve`.

    p(y | x) = (1 / M) sum_m softmax f(view(x, t_m))                                                                        (1)
    view(x, t) = clamp x0_hat(alpha_t x + sigma_t z, t), one z for each image and time; view(x, 0) = x                       (2)

    Noise is made on the CPU from (image seed, time): the same on every device, for any step, t_max or cutting into batches.

    Args:
        classifier: (B, 3, H, W) in [0, 1] -> logits (B, K).
        denoiser: in pixel space, unconditional.
        settings: which times.
        seed: of all noise.
        chunk: views in one call.
    Raises: ConfigError for a latent or conditional denoiser.
    Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192 (DiffAug ensemble; times 0, 50, ... 450).
    """

    def __init__(
        self, classifier: nn.Module, denoiser: Denoiser, settings: DiffAugSettings | None = None, *, seed: int = 0, chunk: int = CHUNK
    ) -> None:
        super().__init__(classifier, seed=seed, chunk=chunk)
        self.method, self.chosen = DiffAug(denoiser, gradients=True), settings or DiffAugSettings()
        self._fingerprint = denoiser.fingerprint()
        self.members = tuple("raw" if t == 0 else f"t={t}" for t in self.chosen.times)
        self.reduce, self.early_exit, self.multiple_of = self.chosen.reduce, self.chosen.early_exit, denoiser.multiple_of

    @property
    def settings(self) -> dict[str, Any]:
        return {"ensemble": "diffaug", "seed": self.seed, "denoiser": self._fingerprint, **asdict(self.chosen)}

    def operations(self, size: int) -> float:
        views = sum(t > 0 for t in self.chosen.times)
        return views * denoiser_operations(self.method.denoiser, (size, size))

    def levels(self, size: int) -> Levels:
        """How much noise each member gets, for images whose shorter side is this, in pixels."""
        return levels(self.method.denoiser.schedule, self.chosen.times, size, self.chosen.reference_size)

    def views(self, images: Tensor, member: Tensor, seeds: Tensor) -> Tensor:
        found = self.levels(min(images.shape[-2:]))
        seed = [seed_of(own, time) for own, time in zip(seeds.tolist(), found.times[member].tolist(), strict=True)]
        alone = torch.ones_like(member)  # each row has a generator of its own
        draw = DiffAugDraw(t=found.t[member], seed=torch.tensor(seed, dtype=torch.int64), among=alone, place=alone - 1)
        return self.method.apply(images, draw)
