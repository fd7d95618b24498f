"""The one abstraction: a denoiser gives the clean image that it believes in.

    x0_hat = denoiser(x_t, t, condition)        x_t = alpha[t] * x0 + sigma[t] * noise

Everything else (one-step views, many-step editing, learned words, guidance) is built on this call.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError

Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseSchedule:
    """A finite table of noise levels; `t` is an index into it everywhere.

    Attributes (each (T,) float32, computed in float64; noise grows with the index):
        alpha: weight of the clean image; may be 0 at the end (zero terminal SNR).
        sigma: standard deviation of the noise that is added.
        ratio: sigma / alpha, the noise level on data that was not scaled down; inf where alpha is 0.
        log_snr: 2 log(alpha / sigma).
    """

    alpha: Tensor
    sigma: Tensor
    ratio: Tensor
    log_snr: Tensor
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)  # so that `at` never waits

    @classmethod
    def from_tables(cls, alpha: Tensor, sigma: Tensor) -> Self:
        """From float64 tables (T,) of any parameterisation."""
        alpha, sigma = alpha.double(), sigma.double()
        if alpha.ndim != 1 or alpha.shape != sigma.shape or len(alpha) < 2:
            shapes = f"{tuple(alpha.shape)} and {tuple(sigma.shape)}"
            raise ConfigError(f"alpha and sigma must be tables (T,) of one length of at least 2, got {shapes}")
        ratio = sigma / alpha
        if bool((ratio[1:] < ratio[:-1]).any()):
            raise ConfigError("the noise level sigma / alpha must not fall with t; reverse the table")
        return cls(alpha=alpha.float(), sigma=sigma.float(), ratio=ratio.float(), log_snr=(-2 * ratio.log()).float())

    @classmethod
    def from_betas(cls, betas: Tensor) -> Self:
        """Variance-preserving: alpha² = prod(1 - beta) (DDPM, arXiv 2006.11239, Eq. 4). betas: (T,)."""
        kept = (1 - betas.double()).cumprod(0)
        return cls.from_tables(kept.sqrt(), (1 - kept).sqrt())

    @classmethod
    def from_ratios(cls, ratio: Tensor) -> Self:
        """Variance-exploding: alpha is 1 and sigma the given levels (T,), growing."""
        return cls.from_tables(torch.ones_like(ratio, dtype=torch.float64), ratio)

    def __len__(self) -> int:
        return len(self.alpha)

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha[t] and sigma[t] shaped to multiply `like` (B, ...), in float32 on its device."""
        if like.device not in self._copies:
            with torch.inference_mode(False):  # a sampler may ask first; gradients may pass through what it leaves here
                self._copies[like.device] = (self.alpha.to(like.device), self.sigma.to(like.device))
        alpha, sigma = self._copies[like.device]
        shape, index = (-1,) + (1,) * (like.ndim - 1), t.to(like.device)
        return alpha[index].view(shape), sigma[index].view(shape)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = alpha[t] x0 + sigma[t] noise. x0, noise: (B, ...); t: (B,) int64."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0 + sigma * noise


@dataclass(frozen=True, eq=False, kw_only=True)
class Condition:
    """What a conditional denoiser is told, one row a sample.

    embedding: (B, L, D) text states for cross-attention; pooled: (B, P); labels: (B,) int64 classes.
    """

    embedding: Tensor | None = None
    pooled: Tensor | None = None
    labels: Tensor | None = None

    def _map(self, function: Any) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: None if value is None else function(value) for name, value in values.items()})

    def index(self, rows: Tensor | Sequence[int] | slice) -> Self:
        """The rows asked for, in that order; a row may come twice."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
        return self._map(lambda value: value[rows if isinstance(rows, slice) else rows.to(value.device)])

    def to(self, device: torch.device | str) -> Self:
        return self._map(lambda value: value.to(device))

    def __len__(self) -> int:
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                return len(value)
        return 0

    @classmethod
    def cat(cls, parts: Sequence[Condition]) -> Self:
        """One condition of all rows; every part must hold the same fields."""
        joined: dict[str, Tensor | None] = {}
        for f in fields(cls):
            values = [getattr(part, f.name) for part in parts]
            if any((value is None) != (values[0] is None) for value in values):
                raise ConfigError(f"conditions cannot be joined: some hold {f.name} and some do not")
            joined[f.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)


@dataclass(frozen=True, kw_only=True)
class DenoiserSpec:
    """Where a denoiser came from: what a plan and a worker carry in its place, and what every row of a run records.

    name: what the user typed; path: the folder or file it resolved to; revision: the hub commit, if any;
    weights_hash: sha256 over the weights, the vocabulary and the configurations; options: what `load` was told besides.
    """

    name: str
    path: str
    revision: str | None = None
    weights_hash: str = ""
    options: tuple[tuple[str, str], ...] = ()


class Denoiser(nn.Module, ABC):
    """Base class of every model family. One family is one file.

    Attributes:
        schedule: the table of noise levels that `t` indexes.
        channels: channels of x.
        size: image side in pixels that the model was trained at, or None if any.
        factor: pixels of an image per number of x, along a side (1 in pixel space).
        multiple_of: image sides must be multiples of this.
        conditional: whether `forward` and `loss` need a condition.
        spec: where it came from; None if it was built in memory.
    """

    schedule: NoiseSchedule
    channels: int
    size: int | None = None
    factor: int = 1
    multiple_of: int = 1
    conditional: bool = False
    spec: DenoiserSpec | None = None
    _vouched: Mapping[str, Tensor] | None = None  # some numbers of each weight, as they were when the spec was vouched for
    _written: Mapping[str, int] | None = None  # how often each had been written to then

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """x0_hat in float32. x_t: (B, C, H, W) in the model's space; t: (B,) int64; condition: B rows. Gradients flow."""

    @abstractmethod
    def loss(self, x0: Tensor, t: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        """Training loss in the network's own parameterisation, one value a sample (B,)."""

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] to x. Pixel models: 2 images - 1."""
        return 2 * images - 1

    def decode(self, x: Tensor) -> Tensor:
        """x to images in [0, 1], clamped."""
        return ((x + 1) / 2).clamp(0, 1)

    def embed(self, prompts: Sequence[str], words: Mapping[str, Tensor] | None = None) -> Condition:
        """The condition of these prompts, one row each.

        words: learned vectors (k, D) by placeholder ("<goldfish>"); a prompt holds the placeholder once and it stands for its k tokens.
        Gradients flow into them. A placeholder in a prompt that is not in `words` raises ModelError, it is never read as plain text.
        Raises ConfigError where the model takes no prompts.
        """
        raise ConfigError(f"{type(self).__name__} takes no prompts; use a text-to-image model such as tiny-imagenet-64")

    def vouch(self, spec: DenoiserSpec) -> None:
        """Take a spec whose hash is that of the weights as they stand; once a weight is written to, it is not asked any more."""
        self.spec, self._written = spec, {name: value._version for name, value in self.named_parameters()}
        self._vouched = {name: value.cpu() for name, value in _some_of(self.named_parameters())}

    def fingerprint(self) -> str:
        """What tells it from other denoisers: the hash in its spec or, built in memory or trained on, one over its kind, weights and noise
        levels."""
        if self.spec is not None and self.spec.weights_hash and not self._is_changed():
            return self.spec.weights_hash
        digest = hashlib.sha256(type(self).__qualname__.encode())
        levels = {"alpha of the schedule": self.schedule.alpha, "sigma of the schedule": self.schedule.sigma}
        for name, value in {**self.state_dict(), **levels}.items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _is_changed(self) -> bool:
        """Whether a weight was added or written to since the spec was vouched for. Another device or number type counts as no writing.

        Writing through `.data`, as is done to fuse a LoRA, raises no count; it shows in the numbers, of which a few of each weight are
        looked at. A weight that was rounded and is held in finer numbers again has changed.
        """
        if self._written is None or self._vouched is None:
            return False
        if any(value._version > self._written.get(name, -1) for name, value in self.named_parameters()):
            return True
        return any(not _alike(value.cpu(), self._vouched.get(name)) for name, value in _some_of(self.named_parameters()))

    def __repr__(self) -> str:
        name = "in memory" if self.spec is None else self.spec.name
        weights = sum(value.numel() for value in self.parameters()) / 1e6
        side = "any size" if self.size is None else f"{self.size} pixels"
        asks = "prompts or labels" if self.conditional else "nothing"
        return f"{type(self).__name__}({name}: {side}, {weights:.1f} M weights, conditioned on {asks}, {self.device})"

    @property
    def device(self) -> torch.device:
        return next((value.device for value in chain(self.parameters(), self.buffers())), self.schedule.alpha.device)


def check_denoiser(model: object, who: str) -> None:
    """Raise ConfigError, in the name of who asks, unless it is a model."""
    if not isinstance(model, Denoiser):
        raise ConfigError(f"{who} takes a model as rediffuse.load gives it, such as load('tiny-imagenet-64'), got {model!r:.60}")


def _alike(now: Tensor, before: Tensor | None) -> bool:
    """Whether these are the numbers of before, rounded to today's type; a weight that had none is another one."""
    return before is not None and torch.allclose(now.double(), before.to(now.dtype).double(), rtol=0, atol=0, equal_nan=True)


def _some_of(weights: Iterable[tuple[str, Tensor]], count: int = 16) -> Iterator[tuple[str, Tensor]]:
    """So many numbers of each weight, spread over it, whatever its memory format; none of one that holds no numbers yet."""
    for name, value in weights:
        if value.is_meta or not value.numel():
            continue
        places = torch.linspace(0, value.numel() - 1, min(count, value.numel()), dtype=torch.float64).round().long()
        yield name, value.detach()[torch.unravel_index(places.to(value.device), value.shape)]


def clean_from_output(output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """x0_hat from a network's output, in float32; alpha and sigma broadcast to x_t.

    epsilon: (x_t - sigma output) / alpha (DDPM, arXiv 2006.11239, Eq. 9 solved for x0); v: alpha x_t - sigma output
    (Salimans & Ho, arXiv 2202.00512, appendix D); sample: the output itself.
    """
    output, x_t = output.float(), x_t.float()
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    if prediction == "v_prediction":
        return alpha * x_t - sigma * output
    return output


def training_target(x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """What the network is trained to put out: noise, v = alpha noise - sigma x0, or x0."""
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        return alpha * noise - sigma * x0
    return x0


def noise_from_clean(x_t: Tensor, x0_hat: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The noise that this belief implies: (x_t - alpha x0_hat) / sigma."""
    return (x_t - alpha * x0_hat) / sigma
