"""The UNet of improved diffusion and guided diffusion ("ADM"), under the weight names of the published checkpoints.

Reference: Nichol & Dhariwal, ICML 2021, arXiv 2102.09672; Dhariwal & Nichol, NeurIPS 2021, arXiv 2105.05233, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rediffuse.denoisers.precision import Float32Linear
from rediffuse.errors import ModelError

GROUPS = 32  # of every normalisation
PERIOD = 10_000  # longest wave of the time embedding, in units of 2 pi steps
Resample = Literal["down", "up"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that the shapes of the weights tell; the heads of the attention are not among it.

    channels: base width; multipliers: of it, one a level, finest first; layers: residual blocks a level; attention: levels with attention
    (0 is full resolution); classes: entries of the class embedding; outputs: channels put out, twice the image's if a variance is learned;
    scale_shift: the embedding scales and shifts (else it is added); residual_resampling: sides change inside residual blocks (else in
    convolutions).
    """

    channels: int
    multipliers: tuple[float, ...]
    layers: int
    attention: tuple[int, ...]
    classes: int | None = None
    outputs: int = 6
    scale_shift: bool = True
    residual_resampling: bool = True

    def __post_init__(self) -> None:
        if any(width < GROUPS or width % GROUPS for width in self.widths):
            raise ModelError(f"widths must be multiples of {GROUPS}, the groups of each normalisation; got {self.widths}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(round(self.channels * multiplier) for multiplier in self.multipliers)  # a multiplier may be a rounded ratio

    @property
    def multiple_of(self) -> int:
        """Image sides must be multiples of this: every level but the first halves them."""
        return int(2 ** (len(self.multipliers) - 1))


@dataclass(frozen=True, kw_only=True)
class Heads:
    """How attention cuts its channels: into `number` heads, or into heads of `width` channels.

    new_order: queries, keys and values are the outer blocks of the projection and heads the inner; the legacy order is the other way round.
    """

    number: int | None = None
    width: int | None = None
    new_order: bool = False

    def of(self, channels: int) -> int:
        """Heads in a layer of this width."""
        number = channels // self.width if self.width else self.number or 1
        if channels % number or (self.width and channels % self.width):
            raise ModelError(f"{channels} channels cannot be cut into heads as told (number {self.number}, width {self.width})")
        return number


def sinusoids(t: Tensor, width: int) -> Tensor:
    """cos, then sin, of t at width / 2 frequencies from 1 down towards 1 / PERIOD. t: (B,) -> (B, width) float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(PERIOD) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def resample(x: Tensor, way: Resample | None) -> Tensor:
    """Halve the sides by averages, or double them by repetition. (B, C, H, W)."""
    if way == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if way == "up" else x


def split_heads(projection: Tensor, heads: int, new_order: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, N, C / heads) of a projection (B, N, 3 C)."""
    parts = projection.unflatten(2, (3, heads, -1) if new_order else (heads, 3, -1))
    query, key, value = parts.unbind(2 if new_order else 3)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class Pointwise(nn.Conv1d):
    """A linear layer on tokens (B, N, C) whose weight is stored as that of a convolution, (out, in, 1)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.squeeze(2), self.bias)


class Attention(nn.Module):
    """Every place of the image looks at every other. (B, C, H, W) -> the same."""

    def __init__(self, channels: int, heads: Heads) -> None:
        super().__init__()
        self.heads, self.new_order = heads.of(channels), heads.new_order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = Pointwise(channels, 3 * channels)
        self.proj_out = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        mixed = F.scaled_dot_product_attention(*split_heads(self.qkv(tokens), self.heads, self.new_order))  # (B, heads, H W, C / heads)
        out: Tensor = self.proj_out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2)  # (B, C, H W)
        return x + out.reshape(x.shape)


class ResidualBlock(nn.Module):
    """Two convolutions around the embedding, beside a skip; both paths may change the sides. Reference: arXiv 2105.05233, section 3.1.

    Shape: x (B, inputs, H, W), embedding (B, E) -> (B, outputs, H', W').
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, *, scale_shift: bool, way: Resample | None = None) -> None:
        super().__init__()
        self.scale_shift, self.way = scale_shift, way
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, outputs * (2 if scale_shift else 1)))
        # The third entry keeps the published numbering: dropout stood there in training.
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, first = self.in_layers
        h = first(resample(activation(norm(x)), self.way))
        told = self.emb_layers(embedding)[:, :, None, None]
        norm, activation, _, second = self.out_layers
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + told)
        out: Tensor = self.skip_connection(resample(x, self.way)) + second(activation(h))
        return out


class Downsample(nn.Module):
    """Halve the sides in a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Double the sides, then smooth in a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(resample(x, "up"))
        return out


class Stage(nn.ModuleList):
    """Layers one after the other; residual blocks are told the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class AdmNetwork(nn.Module):
    """The UNet. It puts out epsilon and, behind it in the channels, a learned variance where there is one.

    Attributes:
        checkpointing: compute activations again in the backward pass instead of keeping them: gradients to the input of a large frozen
            network then need little memory, for a third more time.
    Shape: x (B, 3, H, W), sides multiples of `architecture.multiple_of`; t (B,) in the network's own time, whole or not; labels (B,) int64
    if it has classes -> (B, outputs, H, W).
    """

    def __init__(self, architecture: Architecture, heads: Heads) -> None:
        super().__init__()
        self.architecture, self.heads = architecture, heads
        self.checkpointing = False
        width = 4 * architecture.channels
        self.time_embed = nn.Sequential(Float32Linear(architecture.channels, width), nn.SiLU(), Float32Linear(width, width))
        # From zeros: random numbers of this kind take seconds on the meta device, where a network waits for its weights.
        zeros = torch.zeros(architecture.classes or 0, width)
        self.label_emb = nn.Embedding.from_pretrained(zeros, freeze=False) if architecture.classes else None
        skips: list[int] = []  # channels that each step down leaves for the way up
        self.input_blocks = nn.ModuleList(self._down(skips))
        deepest, finest = architecture.widths[-1], architecture.widths[0]
        self.middle_block = Stage([self._residual(deepest, deepest), Attention(deepest, heads), self._residual(deepest, deepest)])
        self.output_blocks = nn.ModuleList(self._up(skips))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, finest), nn.SiLU(), nn.Conv2d(finest, architecture.outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(sinusoids(t, self.architecture.channels))
        if self.label_emb is not None:
            embedding = embedding + self.label_emb(labels)
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = self._run(stage, x, embedding)
            skips.append(x)
        x = self._run(self.middle_block, x, embedding)
        for stage in self.output_blocks:
            x = self._run(stage, torch.cat([x, skips.pop()], dim=1), embedding)
        out: Tensor = self.out(x)
        return out

    def _run(self, stage: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            x = checkpoint(stage, x, embedding, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random
            return x
        out: Tensor = stage(x, embedding)
        return out

    def _residual(self, inputs: int, outputs: int, way: Resample | None = None) -> ResidualBlock:
        return ResidualBlock(inputs, outputs, 4 * self.architecture.channels, scale_shift=self.architecture.scale_shift, way=way)

    def _attention(self, level: int) -> list[nn.Module]:
        plan = self.architecture
        return [Attention(plan.widths[level], self.heads)] if level in plan.attention else []

    def _down(self, skips: list[int]) -> Iterator[Stage]:
        plan, width = self.architecture, self.architecture.widths[0]
        skips.append(width)
        yield Stage([nn.Conv2d(3, width, 3, padding=1)])
        for level, wanted in enumerate(plan.widths):
            if level:
                skips.append(width)
                yield Stage([self._residual(width, width, "down") if plan.residual_resampling else Downsample(width)])
            for _ in range(plan.layers):
                skips.append(wanted)
                yield Stage([self._residual(width, wanted), *self._attention(level)])
                width = wanted

    def _up(self, skips: list[int]) -> Iterator[Stage]:
        plan, width = self.architecture, self.architecture.widths[-1]
        for level, wanted in reversed(list(enumerate(plan.widths))):
            for layer in range(plan.layers + 1):
                layers = [self._residual(width + skips.pop(), wanted), *self._attention(level)]
                width = wanted
                if level and layer == plan.layers:
                    layers.append(self._residual(width, width, "up") if plan.residual_resampling else Upsample(width))
                yield Stage(layers)
