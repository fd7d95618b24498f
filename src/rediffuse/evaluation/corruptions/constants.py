"""The nineteen corruptions of ImageNet-C, and the constants that were published for each of three picture sizes.

Reference: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
The figures are those by which ImageNet-C (224 px), Tiny-ImageNet-C (64 px) and CIFAR-10-C (32 px) were made.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rediffuse.errors import ConfigError, DataError

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
"""Corruptions by kind; the paper's figures leave out `extra`, which was meant for validation."""

COMMON: tuple[str, ...] = tuple(name for group, names in GROUPS.items() if group != "extra" for name in names)
"""The fifteen of the paper's tables."""
ALL: tuple[str, ...] = COMMON + GROUPS["extra"]
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)
SIZES: tuple[int, ...] = (32, 64, 224)
"""Sides in pixels for which constants were published."""
IMAGENET_C = 224
"""Side of ImageNet-C's pictures."""
SMALLEST = 32
"""Below this side some corruptions have no room for their constants."""

Constants = tuple[float, ...]

ALEXNET_ERRORS: Mapping[str, float] = MappingProxyType(
    dict(
        zip(
            COMMON,
            (.886428, .894468, .922640, .819880, .826268, .785948, .798360, .866816, .826572, .819324, .564592, .853204, .646056, .717840,
             .606500),
            strict=True,
        )
    )
)  # fmt: skip
"""Mean error of AlexNet over five severities of ImageNet-C: what the paper's mCE is relative to. They mean nothing for other data."""


def _single(*values: float) -> tuple[Constants, ...]:
    return tuple((value,) for value in values)


# What the numbers of a row are: docs/corruptions.md.
_SNOW_SMALL = ((.1, .2, 1, .6, 8, 3), (.1, .2, 1, .5, 10, 4), (.15, .3, 1.75, .55, 10, 4), (.25, .3, 2.25, .6, 12, 6), (.3, .3, 1.25, .65, 14, 12))  # fmt: skip  # noqa: E501
_TABLES: dict[int, dict[str, tuple[Constants, ...]]] = {
    32: {
        "gaussian_noise": _single(.04, .06, .08, .09, .10),
        "shot_noise": _single(500, 250, 100, 75, 50),
        "impulse_noise": _single(.01, .02, .03, .05, .07),
        "speckle_noise": _single(.06, .1, .12, .16, .2),
        "defocus_blur": ((.3, .4), (.4, .5), (.5, .6), (1, .2), (1.5, .1)),
        "glass_blur": ((.05, 1, 1), (.25, 1, 1), (.4, 1, 1), (.25, 1, 2), (.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": ((.01, 7), (.01, 12), (.01, 16), (.01, 21), (.01, 26)),
        "gaussian_blur": _single(.4, .6, .7, .8, 1),
        "snow": tuple((*row, keep) for row, keep in zip(_SNOW_SMALL, (.95, .9, .9, .85, .8), strict=True)),
        "frost": ((1, .2), (1, .3), (.9, .4), (.85, .4), (.75, .45)),
        "fog": ((.2, 3), (.5, 3), (.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": _single(.05, .1, .15, .2, .3),
        "spatter": (
            (.62, .1, .7, .7, .5, 0), (.65, .1, .8, .7, .5, 0), (.65, .3, 1, .69, .5, 0),
            (.65, .1, .7, .69, .6, 1), (.65, .1, .5, .68, .6, 1),
        ),
        "contrast": _single(.75, .5, .4, .3, .15),
        "elastic_transform": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, .96, .96)),
        "pixelate": _single(.95, .9, .85, .75, .65),
        "jpeg_compression": _single(80, 65, 58, 50, 40),
        "saturate": ((.3, 0), (.1, 0), (1.5, 0), (2, .1), (2.5, .2)),
    },
    64: {
        "gaussian_noise": _single(.04, .08, .12, .15, .18),
        "shot_noise": _single(250, 100, 50, 30, 15),
        "impulse_noise": _single(.01, .02, .05, .08, .14),
        "speckle_noise": _single(.15, .2, .25, .3, .35),
        "defocus_blur": ((.5, .6), (1, .1), (1.5, .1), (2.5, .01), (3, .1)),
        "glass_blur": ((.1, 1, 1), (.5, 1, 1), (.6, 1, 2), (.7, 2, 1), (.9, 2, 2)),
        "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "zoom_blur": ((.01, 7), (.01, 12), (.01, 16), (.01, 21), (.01, 26)),
        "gaussian_blur": _single(.5, .75, 1, 1.25, 1.5),
        "snow": tuple((*row, keep) for row, keep in zip(_SNOW_SMALL, (.8, .8, .7, .65, .6), strict=True)),
        "frost": ((1, .3), (.9, .4), (.8, .45), (.75, .5), (.7, .55)),
        "fog": ((.4, 3), (.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "brightness": _single(.1, .2, .3, .4, .5),
        "spatter": (
            (.62, .1, .7, .7, .6, 0), (.65, .1, .8, .7, .6, 0), (.65, .3, 1, .69, .6, 0),
            (.65, .1, .7, .68, .6, 1), (.65, .1, .5, .67, .6, 1),
        ),
        "contrast": _single(.4, .3, .2, .1, .05),
        "elastic_transform": ((0, 0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)),
        "pixelate": _single(.9, .8, .7, .6, .5),
        "jpeg_compression": _single(65, 58, 50, 40, 25),
        "saturate": ((.3, 0), (.1, 0), (2, 0), (5, .1), (30, .2)),
    },
    224: {
        "gaussian_noise": _single(.08, .12, .18, .26, .38),
        "shot_noise": _single(60, 25, 12, 5, 3),
        "impulse_noise": _single(.03, .06, .09, .17, .27),
        "speckle_noise": _single(.15, .2, .35, .45, .6),
        "defocus_blur": ((3, .1), (4, .5), (6, .5), (8, .5), (10, .5)),
        "glass_blur": ((.7, 1, 2), (.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((.01, 12), (.01, 16), (.02, 11), (.02, 13), (.03, 11)),
        "gaussian_blur": _single(1, 2, 3, 4, 6),
        "snow": (
            (.1, .3, 3, .5, 10, 4, .8), (.2, .3, 2, .5, 12, 4, .7),
            (.55, .3, 4, .9, 12, 8, .7), (.55, .3, 4.5, .85, 12, 8, .65), (.55, .3, 2.5, .85, 12, 12, .55),
        ),
        "frost": ((1, .4), (.8, .6), (.7, .7), (.65, .7), (.6, .75)),
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": _single(.1, .2, .3, .4, .5),
        "spatter": (
            (.65, .3, 4, .69, .6, 0), (.65, .3, 3, .68, .6, 0), (.65, .3, 2, .68, .5, 0),
            (.65, .3, 1, .65, 1.5, 1), (.67, .4, 1, .65, 1.5, 1),
        ),
        "contrast": _single(.4, .3, .2, .1, .05),
        "elastic_transform": ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
        "pixelate": _single(.6, .5, .4, .3, .25),
        "jpeg_compression": _single(25, 18, 15, 10, 7),
        "saturate": ((.3, 0), (.1, 0), (2, 0), (5, .1), (20, .2)),
    },
}  # fmt: skip


def published_size(side: int) -> int:
    """The size whose constants hold for pictures of this side: the nearest one by ratio."""
    if side < SMALLEST:
        raise DataError(f"pictures of {side} px are too small to corrupt; {SMALLEST} px is the least, so scale them up or leave them out")
    return min(SIZES, key=lambda size: abs(math.log(side / size)))


def constants(corruption: str, severity: int, side: int) -> Constants:
    """The published numbers of a corruption. Raises ConfigError for an unknown name or severity, DataError for too small a side."""
    check_names((corruption,), (severity,))
    return _TABLES[published_size(side)][corruption][severity - 1]


def check_names(corruptions: Iterable[str], severities: Iterable[int]) -> None:
    """Raise ConfigError for a corruption that does not exist, with those that do, or a severity outside 1 to 5."""
    for name in corruptions:
        if name not in ALL:
            near = difflib.get_close_matches(str(name), ALL, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ConfigError(f"no corruption is called {name!r}{hint} There are {', '.join(ALL)}")
    for severity in severities:
        if isinstance(severity, bool) or severity not in SEVERITIES:
            raise ConfigError(f"severity must be a whole number from 1 to 5, got {severity!r}")
