"""DiffAug: into noise and back in one step.

    x_t = alpha_t x0 + sigma_t z        view = clamp(x0_hat(x_t, t))

The view is x0_hat itself, as in the authors' program; the paper's formula, x_t + sigma² score, is alpha times that.

Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from rediffuse.denoisers.base import Denoiser
from rediffuse.denoisers.pixel import check_unconditional
from rediffuse.denoisers.precision import no_autocast
from rediffuse.errors import ConfigError
from rediffuse.methods.base import Draw, Method, check_draw, check_images
from rediffuse.methods.noise_times import RAW, REFERENCE_SIZE, AdmUniform, NoiseTimes, law_from
from rediffuse.sampling.sampler import noise_generator


@dataclass(frozen=True, eq=False, kw_only=True)
class DiffAugDraw(Draw):
    """What a view is, one entry an image.

    t: index into the denoiser's schedule, or RAW (-1): this image comes back as it was. seed, among, place: its noise is row `place` of the
    `among` samples that a generator with this seed makes in one go. One alone is made on the CPU and is the same on every device; several
    are made on the images' device. All int64. Any rows of a draw, in any order, give the views that the whole draw gives.
    """

    t: Tensor = field(metadata={"dtype": torch.int64})
    seed: Tensor = field(metadata={"dtype": torch.int64})
    among: Tensor = field(metadata={"dtype": torch.int64})
    place: Tensor = field(metadata={"dtype": torch.int64})

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool((self.t < RAW).any() or (self.seed < 0).any() or (self.place < 0).any() or (self.place >= self.among).any()):
            raise ConfigError("a draw needs t of at least -1, seeds of at least 0 and places below among; make it with `draw`")

    @property
    def denoised(self) -> Tensor:
        """Rows that go through the denoiser, (R,) int64."""
        return (self.t != RAW).nonzero().flatten()


def make_noise(draw: DiffAugDraw, shape: Sequence[int], device: torch.device) -> Tensor:
    """The standard normal noise of a draw, (B, *shape) float32 on a device."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, key in enumerate(zip(draw.seed.tolist(), draw.among.tolist(), strict=True)):
        rows.setdefault(key, []).append(row)
    noise = torch.empty((len(draw), *shape), device=device)
    alone = {row: seed for (seed, among), members in rows.items() for row in members if among == 1}
    if alone:
        made = torch.stack([torch.randn(*shape, generator=noise_generator(seed)) for seed in alone.values()])
        noise[torch.tensor(list(alone), device=device)] = made.to(device)
    for (seed, among), members in rows.items():
        if among > 1:
            generator = torch.Generator(device).manual_seed(noise_generator(seed).initial_seed())
            made = torch.randn((among, *shape), generator=generator, device=device)
            noise[torch.tensor(members, device=device)] = made[draw.place[members].to(device)]
    return noise


def believe(denoiser: Denoiser, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x0_hat of images that went into noise: (B, 3, H, W) float32 in the denoiser's space, not clamped.

    Args:
        images: (B, 3, H, W) in [0, 1]; t: (B,) int64; noise: (B, 3, H, W) standard normal.
    """
    x0_hat: Tensor = denoiser(denoiser.schedule.add_noise(denoiser.encode(images.float()), noise, t), t)
    return x0_hat


def part_of(count: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Rows of a random part of a batch, in order, (R,) int64. R is fraction * count, rounded at random so that its mean is exact."""
    wanted = fraction * count
    whole = int(wanted)
    taken = whole + int(float(torch.rand((), generator=generator, dtype=torch.float64)) < wanted - whole)
    return torch.randperm(count, generator=generator)[:taken].sort().values


class DiffAug(Method[DiffAugDraw]):
    """A view of each image that went into noise and came back in one call of a denoiser; the label stays.

    Choose it for classifiers that must survive corruption, shift and unknown inputs, with no data but their own: as a further view beside
    the clean one, never in its place. It costs a denoiser call an image; `fraction` and `methods.bank` make that less.

    The denoiser is frozen, in eval mode, and no part of this module's parameters or state; it follows `.to(device)`, not `.to(dtype)`.
    Views are float32 and lie on the denoiser's device.

    Args:
        denoiser: an unconditional one in pixel space, such as `load("cifar10-32")`.
        times: law of the noise times; the default is the paper's, in sigma, for any schedule.
        fraction: share of a batch that is denoised, in [0, 1]; the others come back as they were and cost nothing.
        reference_size: image side in pixels at which `times` is stated: sigma is multiplied by size / reference_size, because equal noise
            destroys more of a small image. None is the law unscaled, an ablation.
        gradients: let gradients pass through to the images; else views carry none.
        per_sample: noise of each image from a seed of its own, made on the CPU and equal on every device; else one seed a batch, on the
            images' device.
        chunk: most images of a denoiser call; None: the whole batch, which a pixel model on a processor cuts by itself.
    Shape: (B, 3, H, W) or (3, H, W) in [0, 1] -> the same; H and W multiples of `denoiser.multiple_of`.
    Raises:
        ConfigError: a latent or conditional denoiser; a setting out of range; an accelerator's denoiser inside a DataLoader worker.
        DataError: images that are not float RGB in [0, 1], or of a size that the denoiser cannot take.
    Reference: Sastry, Dumpala, Oore. NeurIPS 2024, arXiv 2306.09192.
    """

    name = "diffaug"
    citation = """@inproceedings{sastry2024diffaug,
  title = {DiffAug: A Diffuse-and-Denoise Augmentation for Training Robust Classifiers},
  author = {Sastry, Chandramouli Shama and Dumpala, Sri Harsha and Oore, Sageev},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2024},
  eprint = {2306.09192},
  archivePrefix = {arXiv}
}"""

    def __init__(
        self,
        denoiser: Denoiser,
        times: NoiseTimes | None = None,
        fraction: float = 1.0,
        reference_size: int | None = REFERENCE_SIZE,
        *,
        gradients: bool = False,
        per_sample: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        check_unconditional(denoiser, "DiffAug")
        if not 0 <= fraction <= 1:
            raise ConfigError(f"fraction is a share of the batch and must be in [0, 1], got {fraction}")
        if times is not None and not isinstance(times, NoiseTimes):
            raise ConfigError(f"times is a law of rediffuse.methods.noise_times, such as Uniform() or Fixed(t=300), got {times!r:.60}")
        if chunk is not None and chunk < 1:
            raise ConfigError(f"chunk is a number of images and must be at least 1, got {chunk}; None takes the batch whole")
        self._held = (denoiser.requires_grad_(False).eval(),)  # in a tuple: no submodule, so no parameters and no state
        self.times = AdmUniform() if times is None else times
        self.fraction, self.reference_size = float(fraction), reference_size
        self.gradients, self.per_sample, self.chunk = gradients, per_sample, chunk
        self.times.draw(
            1, denoiser.schedule, reference_size or 1, torch.Generator(), reference_size
        )  # a law that does not fit is an error now

    @property
    def denoiser(self) -> Denoiser:
        return self._held[0]

    def draw(
        self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None, *, size: int | None = None
    ) -> DiffAugDraw:
        """Which images go into noise, how far, and the seed of it.

        Args:
            size: shorter side of the images in pixels; default: what the denoiser was trained at.
        """
        generator = self.generator() if generator is None else generator
        rows = part_of(batch_size, self.fraction, generator)
        t = torch.full((batch_size,), RAW)
        size = self.denoiser.size if size is None else size
        t[rows] = self.times.draw(len(rows), self.denoiser.schedule, size, generator, self.reference_size)
        return self.draw_at(t, generator)

    def draw_at(self, t: Tensor, generator: torch.Generator | None = None) -> DiffAugDraw:
        """A draw whose levels are given: t (B,) int64, RAW where an image stays. For test time (`noise_times.levels`)."""
        generator = self.generator() if generator is None else generator
        ones, noised = torch.ones_like(t), t != RAW
        if self.per_sample:
            return DiffAugDraw(t=t, seed=torch.randint(2**63 - 1, t.shape, generator=generator), among=ones, place=0 * ones)
        seed = torch.randint(2**63 - 1, (1,), generator=generator).expand(t.shape)
        place = torch.where(noised, noised.cumsum(0) - 1, 0)
        return DiffAugDraw(t=t, seed=seed, among=ones * max(1, int(noised.sum())), place=place)

    def apply(self, images: Tensor, draw: DiffAugDraw) -> Tensor:  # type: ignore[override]
        """The views of a draw; what a batch is cut into changes nothing but rounding. (B, 3, H, W) -> (B, 3, H, W) float32."""
        denoiser = self.denoiser
        self._check(images, draw)
        images, rows = images.to(denoiser.device, torch.float32), draw.denoised
        with torch.set_grad_enabled(self.gradients and torch.is_grad_enabled()):  # inference mode would forbid training on the views
            if not len(rows):
                return images.clone()
            here, part = rows.to(images.device), draw.index(rows)
            noise = make_noise(part, images.shape[1:], images.device)
            chosen, t = images if len(rows) == len(images) else images[here], part.t.to(images.device)
            step = self.chunk or len(rows)
            pieces = zip(chosen.split(step), t.split(step), noise.split(step), strict=True)
            with no_autocast(images.device):  # a float32 denoiser would take a caller's, and x0_hat enlarges what that gets wrong
                made = torch.cat([denoiser.decode(believe(denoiser, *piece)) for piece in pieces])  # clamped
            return made if len(rows) == len(images) else images.index_copy(0, here, made)

    def settings(self) -> dict[str, Any]:
        """What decides the views but the denoiser, as JSON."""
        return {
            "method": self.name,
            "times": self.times.settings(),
            "fraction": self.fraction,
            "reference_size": self.reference_size,
            "per_sample": self.per_sample,
        }

    @classmethod
    def from_settings(cls, model: Denoiser, settings: Mapping[str, Any], words: Any = None) -> Self:
        """The method that `settings()` came from."""
        values = {name: value for name, value in settings.items() if name not in ("method", "times")}
        return cls(model, law_from(settings["times"]), **values)

    def extra_repr(self) -> str:
        return f"{type(self.denoiser).__name__}, {json.dumps(self.settings())}"

    def _draw_for(self, images: Tensor, rest: tuple[Any, ...]) -> DiffAugDraw:
        return self.draw(len(images), size=min(images.shape[-2:]))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `.to`, `.cuda` and the like come down to: the denoiser follows to the device and keeps its number formats."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.empty(0, device=self.denoiser.device)).device
        if device != self.denoiser.device:
            self.denoiser.to(device)
        return self

    def _check(self, images: Tensor, draw: DiffAugDraw) -> None:
        device = self.denoiser.device
        if get_worker_info() is not None and device.type != "cpu":
            raise ConfigError(
                f"the denoiser of DiffAug is on {device}, which a DataLoader worker cannot use; take it out of the data set and call it "
                f"on whole batches:\n    for images, labels in loader:\n        views, labels = diffaug(images, labels)"
            )
        check_images(images, self.denoiser.multiple_of)
        check_draw(images, draw)
        last = max(draw.t.tolist(), default=RAW)
        if last >= len(self.denoiser.schedule):
            raise ConfigError(f"noise time {last} is outside the denoiser's schedule, 0 to {len(self.denoiser.schedule) - 1}")
