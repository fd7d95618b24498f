"""Laws of noise times: how much noise a one-step view gets, on any schedule, at any image size.

"Uniform over t" means other noise on every schedule, and equal noise destroys more of a small image: averaging f x f pixels divides its
deviation by f. So a law is stated at a reference size and speaks of sigma, the noise level on data in [-1, 1] that was not scaled down
(the schedule's ratio, sigma / alpha); the index comes last.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from rediffuse.denoisers.base import NoiseSchedule
from rediffuse.denoisers.schedules import linear_betas
from rediffuse.errors import ConfigError

REFERENCE_SIZE = 224
RAW = -1
"""Stands where an index would: the image stays as it is, no noise and no denoiser."""


@dataclass(frozen=True, kw_only=True)
class NoiseTimes(ABC):
    """Base of the laws.

    A law of one's own is a frozen dataclass with `quantile`. It is told from others by the name of its class and its fields, so another
    formula wants another name; `law_from` knows those of this module alone.

    Args:
        stratified: one draw from each of `count` equal shares of the law, in random order. The law of each sample stays the same; the
            mean over a batch varies less.
    """

    name: ClassVar[str] = ""
    stratified: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):  # a law of one's own
            cls.name = cls.__name__

    @abstractmethod
    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        """The noise levels, at the reference size, below which these shares of the draws lie. share: (B,) float64 in [0, 1)."""

    def draw(
        self,
        count: int,
        schedule: NoiseSchedule,
        size: int | None,
        generator: torch.Generator,
        reference_size: int | None = REFERENCE_SIZE,
    ) -> Tensor:
        """`count` indices into a schedule, (count,) int64; a level beyond the table is its end.

        Args:
            size: shorter side of the images in pixels; may be None where there is no reference size.
            generator: on the CPU.
            reference_size: sigma is multiplied by size / reference_size; None takes the law as it is stated.
        """
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        if self.stratified:
            share = (torch.randperm(count, generator=generator) + share) / max(1, count)
        share = share.clamp(max=1 - 2**-53)
        return nearest(schedule, self.quantile(share, schedule) * size_factor(size, reference_size))

    def settings(self) -> dict[str, Any]:
        """The law as JSON, for `law_from`."""
        return {"law": self.name, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Uniform(NoiseTimes):
    """Every index of the denoiser's own table alike: the paper's words, taken to whatever schedule there is.

    So it is at the reference size; at others the noise of each index is scaled like that of every law. `reference_size=None` takes the
    indices as they are.
    """

    name: ClassVar[str] = "uniform"

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        return _among(schedule, share, 0, len(schedule) - 1)


@dataclass(frozen=True, kw_only=True)
class Range(NoiseTimes):
    """Uniform over the indices low, ..., high (both included) of the denoiser's own table, at the reference size; see `Uniform`."""

    name: ClassVar[str] = "range"
    low: int
    high: int

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        return _among(schedule, share, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class AdmUniform(NoiseTimes):
    """The paper's law on any schedule: t uniform over low, ..., high (both included) of ADM's 1,000 linear steps, mapped in sigma."""

    name: ClassVar[str] = "adm_uniform"
    low: int = 0
    high: int = 999

    def __post_init__(self) -> None:
        _check_range(self.low, self.high)
        _check_index(self.high, reference_schedule())

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        return _among(reference_schedule(), share, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class LogNormal(NoiseTimes):
    """log sigma is normal; the default is the law that EDM is trained under (Karras et al., arXiv 2206.00364, Table 1)."""

    name: ClassVar[str] = "log_normal"
    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise ConfigError(f"mean and std of log sigma must be numbers and std above 0, got {self.mean} and {self.std}")

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        sigma: Tensor = (self.mean + self.std * torch.special.ndtri(share)).exp()
        return sigma


@dataclass(frozen=True, kw_only=True)
class Fixed(NoiseTimes):
    """One level: index t of the denoiser's own table, or the one nearest to sigma, at the reference size; see `Uniform`."""

    name: ClassVar[str] = "fixed"
    t: int | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        if (self.t is None) == (self.sigma is None):
            raise ConfigError(f"a fixed level needs t or sigma and not both, got t={self.t} and sigma={self.sigma}")
        if self.t is not None:
            _check_range(self.t, self.t)
        if self.sigma is not None and not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ConfigError(f"sigma must be a number of at least 0, got {self.sigma}")

    def quantile(self, share: Tensor, schedule: NoiseSchedule) -> Tensor:
        if self.t is not None:
            return _among(schedule, share, self.t, self.t)
        return torch.full_like(share, float(self.sigma or 0))


LAWS: Mapping[str, type[NoiseTimes]] = {law.name: law for law in (Uniform, Range, AdmUniform, LogNormal, Fixed)}


def law_from(settings: Mapping[str, Any]) -> NoiseTimes:
    """The law that `settings()` came from: {"law": "range", "low": 0, "high": 500}."""
    known, values = f"laws are {', '.join(LAWS)}", dict(settings)
    name = str(values.pop("law", ""))
    if name not in LAWS:
        raise ConfigError(f"no law of noise times {name!r}; {known}")
    try:
        return LAWS[name](**values)
    except TypeError as error:
        raise ConfigError(f"the law {name} does not take {values}: {error}") from error


@dataclass(frozen=True, eq=False, kw_only=True)
class Levels:
    """A test-time set on one schedule at one size.

    times: (S,) int64 as given; sigma: (S,) float64, what they ask for; t: (S,) int64, the nearest index, or RAW.
    """

    times: Tensor
    sigma: Tensor
    t: Tensor


def levels(schedule: NoiseSchedule, times: Iterable[int], size: int, reference_size: int | None = REFERENCE_SIZE) -> Levels:
    """Times of the reference (ADM's 1,000 linear steps at `reference_size`), such as {0, 50, ..., 450}, as levels of this schedule.

    Time 0 is the raw image: sigma 0, index RAW. Args as in `NoiseTimes.draw`. Reference: Sastry et al., NeurIPS 2024, arXiv 2306.09192.
    """
    wanted = torch.tensor(list(times), dtype=torch.int64)
    for time in wanted.tolist():
        _check_range(time, time)
        _check_index(time, reference_schedule())
    sigma = reference_schedule().ratio.double()[wanted] * size_factor(size, reference_size)
    sigma = torch.where(wanted == 0, 0.0, sigma)
    return Levels(times=wanted, sigma=sigma, t=torch.where(wanted == 0, RAW, nearest(schedule, sigma)))


def nearest(schedule: NoiseSchedule, sigma: Tensor) -> Tensor:
    """The index whose noise level lies nearest to each sigma, (B,) float64 -> (B,) int64; beyond the table its end."""
    ratio = schedule.ratio.double().cpu()
    return torch.searchsorted((ratio[1:] + ratio[:-1]) / 2, sigma, right=True)


def size_factor(size: int | None, reference_size: int | None) -> float:
    """What sigma is multiplied by, so that it destroys at `size` what it destroys at the reference."""
    if reference_size is None:
        return 1.0
    if reference_size < 1:
        raise ConfigError(f"reference_size is in pixels and must be at least 1, got {reference_size}; None takes the law unscaled")
    if size is None or size < 1:
        raise ConfigError(f"the law is stated at {reference_size} pixels: say at which size it is used, got size={size}")
    return size / reference_size


@cache
def reference_schedule() -> NoiseSchedule:
    """ADM's 1,000 linear steps (Dhariwal & Nichol, NeurIPS 2021, arXiv 2105.05233), on which the paper's times are stated."""
    return NoiseSchedule.from_betas(linear_betas())


def _among(schedule: NoiseSchedule, share: Tensor, low: int, high: int) -> Tensor:
    """Noise levels of indices that are uniform over low, ..., high."""
    _check_index(high, schedule)
    index = (low + (share * (high - low + 1)).floor().long()).clamp(max=high)
    return schedule.ratio.double().cpu()[index]


def _check_range(low: int, high: int) -> None:
    if not 0 <= low <= high:
        raise ConfigError(f"noise times are indices from 0, the low one first, got {low} to {high}")


def _check_index(t: int, schedule: NoiseSchedule) -> None:
    if t >= len(schedule):
        raise ConfigError(f"the schedule has noise times 0 to {len(schedule) - 1}, got {t}")
