"""What all denoisers in pixel space share: a network beside a table of noise levels, x0_hat in float32.

A family (a diffusers UNet, an OpenAI checkpoint) is a subclass that knows how to build its network and what to call it with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.denoisers.base import Condition, Denoiser, DenoiserSpec, NoiseSchedule, Prediction, clean_from_output, training_target
from rediffuse.denoisers.precision import Float32Conv2d, denoiser_region, lower_trunk
from rediffuse.errors import ConfigError, DataError, ModelError

PROCESSOR_BYTES = 32 * 32 * 32 * 4
"""Of one plane of channels in one call on a processor: 32 images of 32 pixels in float32, 64 in bfloat16. `cifar10-32` makes 74 images a
second and core in calls of 32 in float32, 63 in calls of 64; in bfloat16 73 in calls of 64, 69 in calls of 128, 59 in calls of 256: what
lies between its layers stays in the cache, and its memory need not come from the system each time."""


class PixelDenoiser(Denoiser):
    """A network on pixels in [-1, 1]: x0_hat from one call, unclamped.

    Built directly it wraps any network in memory; the network is taken over as it is (frozen, in float32 but for the trunk). Gradients
    flow to x_t all the same. To train it, let its weights go again: `denoiser.requires_grad_(True).train()`, and use `loss`.

    Args:
        network: called as network(x, t) with x (B, C, H, W) float32 and t (B,) int64; puts out (B, C, H, W), or (B, 2C, H, W) of which
            the second half, a learned variance, is dropped.
        schedule: table of noise levels that `t` indexes.
        head: dotted name of the network's last convolution. It stays in float32: x0_hat = (x_t - sigma epsilon) / alpha enlarges what is
            rounded there by sigma / alpha, 157 times at the end of the linear schedule.
        exact: dotted names of further convolutions that stay in float32 where the trunk is half precision: those that the noise passes
            on its short way from x_t to epsilon.
        prediction: what the network puts out.
        channels: C.
        size: image side in pixels that the network was trained at, or None if any.
        multiple_of: image sides must be multiples of this.
        dtype: numbers of the network's trunk.
    Raises:
        ModelError: no convolution of that name.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        *,
        head: str,
        exact: Sequence[str] = (),
        prediction: Prediction = "epsilon",
        channels: int = 3,
        size: int | None = None,
        multiple_of: int = 1,
        dtype: torch.dtype = torch.float32,
        spec: DenoiserSpec | None = None,
    ) -> None:
        super().__init__()
        trunk: Any = network.float().requires_grad_(False)
        for name in (head, *(exact if dtype is not torch.float32 else ())):
            _keep_exact(trunk, name)
        lower_trunk(trunk, dtype)
        self.network: Any = trunk.to(memory_format=torch.channels_last)
        self.schedule = schedule
        self.prediction: Prediction = prediction
        self.channels, self.size, self.multiple_of = channels, size, multiple_of
        self.dtype = dtype
        self.spec = spec
        self.eval()

    def call(self, x_t: Tensor, t: Tensor, condition: Condition | None) -> Tensor:
        """The network's raw output. A family whose network is called otherwise overrides this."""
        output: Tensor = self.network(x_t, t)
        return output

    def output(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """What the network puts out in its own parameterisation, without a learned variance, (B, C, H, W) float32."""
        self._check(x_t, t)
        with denoiser_region(x_t.device, self.dtype):
            parts = [self.call(*part) for part in _cut(x_t.float(), t.to(x_t.device), condition, self.dtype.itemsize)]
        output = parts[0] if len(parts) == 1 else torch.cat(parts)
        if output.shape[1] not in (self.channels, 2 * self.channels):
            raise ModelError(f"the network puts out {output.shape[1]} channels; it must be {self.channels}, or twice that with a variance")
        return output[:, : self.channels].float()

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x0_hat (B, C, H, W) in float32, not clamped. x_t: (B, C, H, W) in [-1, 1] plus noise; t: (B,) int64.

        Raises DataError for channels or sides that the network cannot take.
        """
        output = self.output(x_t, t, condition)
        alpha, sigma = self.schedule.at(t, output)
        return clean_from_output(output, x_t, alpha, sigma, self.prediction)

    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Mean squared error in the network's own parameterisation, (B,). Reference: DDPM, arXiv 2006.11239, Eq. 14."""
        x0, noise = x0.float(), noise.float()
        alpha, sigma = self.schedule.at(t, x0)
        output = self.output(alpha * x0 + sigma * noise, t, condition)
        return (output - training_target(x0, noise, alpha, sigma, self.prediction)).square().mean((1, 2, 3))

    def _check(self, x_t: Tensor, t: Tensor) -> None:
        if t.dtype is not torch.int64 or t.shape != x_t.shape[:1]:
            raise ConfigError(
                f"t must be (B,) int64, one index a sample ({len(x_t)} here), got {tuple(t.shape)} {t.dtype}: "
                "half precision holds no whole number above 2048 (float16) or 256 (bfloat16) exactly"
            )
        if x_t.ndim != 4 or x_t.shape[1] != self.channels:
            raise DataError(f"this model takes (B, {self.channels}, H, W), got {tuple(x_t.shape)}; give images of {self.channels} channels")
        height, width = x_t.shape[2:]
        if height % self.multiple_of or width % self.multiple_of:
            raise DataError(
                f"images of {height}x{width} do not fit this model, whose sides must be multiples of {self.multiple_of}: "
                f"resize to {fitting(height, self.multiple_of)}x{fitting(width, self.multiple_of)}"
                + (f" (it was trained at {self.size})" if self.size else "")
            )


def _cut(x_t: Tensor, t: Tensor, condition: Condition | None, itemsize: int) -> Iterator[tuple[Tensor, Tensor, Condition | None]]:
    """A batch in the calls that a network is asked in: on a processor, where nothing keeps what lies between, in small ones."""
    rows = max(1, PROCESSOR_BYTES // (itemsize * x_t.shape[2] * x_t.shape[3]))
    if x_t.device.type != "cpu" or torch.is_grad_enabled() or len(x_t) <= rows:
        yield x_t, t, condition
        return
    calls = -(-len(x_t) // rows)
    for own in torch.arange(len(x_t)).tensor_split(calls):  # of nearly one size
        part = slice(int(own[0]), int(own[-1]) + 1)
        yield x_t[part], t[part], None if condition is None else condition.index(part)


def fitting(side: int, multiple_of: int) -> int:
    """The side nearest to this one, in pixels, that a model can take; of two the larger."""
    return max(multiple_of, (side + multiple_of // 2) // multiple_of * multiple_of)


def check_unconditional(denoiser: Denoiser, who: str) -> None:
    """Raise ConfigError, in the name of who asks, unless this is an unconditional RGB denoiser in pixel space."""
    if not isinstance(denoiser, Denoiser):
        raise ConfigError(f"{who} takes a denoiser as rediffuse.load gives it, such as load('cifar10-32'), got {denoiser!r:.60}")
    if denoiser.conditional or denoiser.factor != 1 or denoiser.channels != 3:
        kind = "conditional" if denoiser.conditional else f"latent (factor {denoiser.factor}, {denoiser.channels} channels)"
        raise ConfigError(f"{who} needs an unconditional RGB model in pixel space, got a {kind} {type(denoiser).__name__}; try cifar10-32")


def _keep_exact(network: nn.Module, name: str) -> None:
    """Put a convolution in the place of this one that stays in float32."""
    parent, _, last = name.rpartition(".")
    try:
        holder, conv = network.get_submodule(parent), network.get_submodule(name)
    except AttributeError as error:
        raise ModelError(f"the network has no layer {name!r}; head must name its last convolution, exact others") from error
    if isinstance(conv, Float32Conv2d):
        return
    if not isinstance(conv, nn.Conv2d):
        raise ModelError(f"{name!r} is a {type(conv).__name__}; head and exact name convolutions (Conv2d)")
    setattr(holder, last, Float32Conv2d.like(conv))
