"""DeepAugment on the fly: a small image-to-image network whose weights and activations are distorted at random.

Reference: Hendrycks et al., ICCV 2021, arXiv 2006.16241, section 4 (the idea; the networks here are others).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rediffuse.denoisers.precision import exact_region
from rediffuse.errors import ConfigError, DataError
from rediffuse.methods.base import Method, SeedDraw, check_draw, check_images

SIDE = 3
FILTERS = 3 * SIDE * SIDE
"""Filters of a layer: as many as numbers in the patch that they see, so that nothing is lost."""
FLAT = 3
"""The first of them see a patch's mean colour alone; they are weakened and mixed, but never dropped or turned round."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Distortion:
    """One layer's chances for N pictures; all but the kinds in float32.

    turn: (N, F, F) normal; scale: (N, F) normal; pick: (N, F) uniform; weights, activations: (N,) int64, the kind of distortion.
    """

    turn: Tensor
    scale: Tensor
    pick: Tensor
    weights: Tensor
    activations: Tensor

    def index(self, rows: Tensor) -> Distortion:
        return Distortion(**{name: value[rows] for name, value in vars(self).items()})


def drop_filters(filters: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Some filters are silent."""
    return filters * (1 - _some(chance, 0.6 * strength)).unsqueeze(2)


def negate_filters(filters: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Some filters see the opposite."""
    return filters * (1 - 2 * _some(chance, 0.25 * strength)).unsqueeze(2)


def scale_filters(filters: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Each filter is louder or softer."""
    return filters * _gains(chance, 0.7 * strength).unsqueeze(2)


def mix_filters(filters: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Each filter answers a little for all others."""
    return filters + 0.6 * strength / math.sqrt(FILTERS) * chance.turn @ filters


def swap_filters(filters: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Some filters answer in their neighbour's place; which two are neighbours is random, as the filters are."""
    neighbours = torch.cat([filters[:, :FLAT], filters[:, FLAT:].roll(1, 1)], 1)
    return torch.where(_some(chance, 0.35 * strength).unsqueeze(2) > 0, neighbours, filters)


def rectify(maps: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Negative answers of some filters fade."""
    fading = (_some(chance, 0.5) * min(1.0, strength)).view(*maps.shape[:2], 1, 1)
    return maps - fading * maps.clamp(max=0)


def shrink(maps: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Weak answers are taken for noise: small texture goes, edges stay."""
    spread = maps.abs().mean((2, 3), keepdim=True) * strength * chance.pick.view(*maps.shape[:2], 1, 1)
    spread[:, :FLAT] = 0
    return maps - maps.clamp(-spread, spread)


def coarsen(maps: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Answers are rounded, as a codec rounds them."""
    step = maps.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-3) * (0.2 + 1.6 * strength)
    step = step * (0.5 + chance.pick.view(*maps.shape[:2], 1, 1))
    step[:, :FLAT] *= 0.2
    return (maps / step).round() * step


def shift(maps: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Some maps slide by a pixel or two against the others."""
    reach = 1 + round(strength)
    move = (chance.turn[:, 0].clamp(-2, 2) * reach / 2).round() * _some(chance, 0.5)
    result = maps.clone()
    for step in range(-reach, reach + 1):
        if step:
            chosen = (move == step).view(*maps.shape[:2], 1, 1)
            result = torch.where(chosen, maps.roll(step, 3 if step % 2 else 2), result)
    return result


def gate(maps: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Each map is louder where another is loud."""
    other = maps.roll(1, 1)
    loud = torch.tanh(other / other.square().mean((2, 3), keepdim=True).sqrt().clamp(min=1e-3))
    gain = 0.8 * strength * chance.scale.clamp(-1.5, 1.5).view(*maps.shape[:2], 1, 1)
    gain[:, :FLAT] *= 0.1
    return maps * (1 + gain * loud)


Distort = Callable[[Tensor, Distortion, float], Tensor]
WEIGHTS: Sequence[Distort] = (drop_filters, negate_filters, scale_filters, mix_filters, swap_filters)
"""Each takes filters (N, F, P), chance and strength, and gives filters."""
ACTIVATIONS: Sequence[Distort] = (rectify, shrink, coarsen, shift, gate)
"""Each takes maps (N, F, H, W), chance and strength, and gives maps."""


class DeepAugment(Method[SeedDraw]):
    """A view of each picture that went through a small network with something wrong in every layer.

    Choose it as one more view beside the clean one, for robustness without a diffusion model and without a second data set on disk.

    It is a variant of DeepAugment, not a copy. The published one distorts two trained networks, a compressing autoencoder (CAE) and a
    super-resolution net (EDSR), and stores a copy of every image once; here nothing is trained and nothing stored, every view is
    new. The network is an exact identity until it is distorted: each layer writes every 3x3 patch in an orthonormal basis of its own (the
    patch's mean colours, and a random rotation of all the rest) and puts the patches back together. For each picture, each layer then gets
    one distortion of its filters (silent, negated, louder, mixed, swapped) and one of their answers (rectified, shrunk, rounded, shifted,
    gated). What it lacks beside the published one: trained features, so its distortions know no objects, and EDSR's sharp textures. The
    published copies, where one has them, are a data set of their own: see `training.objectives`.

    What a picture gets is a function of its seed. It costs 5 million multiplications a 32-pixel picture.

    Args:
        strength: how far distortions go, in (0, 1].
        layers: of the network, at least 1; more see farther.
    Shape: (B, 3, H, W) or (3, H, W) in [0, 1] -> the same; sides of at least 3.
    Raises:
        ConfigError: a setting out of range.
        DataError: images that are not float RGB in [0, 1].
    Reference: Hendrycks et al., ICCV 2021, arXiv 2006.16241.
    """

    name = "deepaugment"
    citation = """@inproceedings{hendrycks2021many,
  title = {The Many Faces of Robustness: A Critical Analysis of Out-of-Distribution Generalization},
  author = {Hendrycks, Dan and Basart, Steven and Mu, Norman and Kadavath, Saurav and Wang, Frank and Dorundo, Evan and Desai, Rahul
    and Zhu, Tyler and Parajuli, Samyak and Guo, Mike and Song, Dawn and Steinhardt, Jacob and Gilmer, Justin},
  booktitle = {International Conference on Computer Vision},
  year = {2021},
  eprint = {2006.16241},
  archivePrefix = {arXiv}
}"""

    def __init__(self, strength: float = 1.0, *, layers: int = 3) -> None:
        super().__init__()
        if not 0 < strength <= 1:
            raise ConfigError(f"strength of DeepAugment must be in (0, 1], got {strength}")
        if layers < 1:
            raise ConfigError(f"layers must be at least 1, got {layers}")
        self.strength, self.layers = float(strength), layers

    def draw(self, batch_size: int, generator: torch.Generator | None = None, labels: Tensor | None = None) -> SeedDraw:
        """A seed for each picture."""
        return SeedDraw.of(batch_size, self.generator() if generator is None else generator)

    @torch.no_grad()
    def apply(self, images: Tensor, draw: SeedDraw) -> Tensor:  # type: ignore[override]
        """The views of a draw; what a batch is cut into changes nothing but rounding. (B, 3, H, W) -> (B, 3, H, W)."""
        check_images(images)
        if min(images.shape[2:]) < SIDE:
            raise DataError(f"DeepAugment needs sides of at least {SIDE} pixels, got {tuple(images.shape[2:])}")
        check_draw(images, draw)
        if len(images) == 0:
            return images.clone()
        x = 2 * images.float() - 1
        with exact_region(x.device):  # a caller's autocast would mix two precisions
            for layer in draw_layers(draw, self.layers):
                x = run_layer(x, *layer, self.strength)
        return ((x + 1) / 2).clamp(0, 1).to(images.dtype)

    def settings(self) -> dict[str, Any]:
        """All that the method is, as JSON."""
        return {"method": self.name, "strength": self.strength, "layers": self.layers}

    def extra_repr(self) -> str:
        return f"strength={self.strength}, layers={self.layers}"


def draw_layers(draw: SeedDraw, layers: int) -> list[tuple[Tensor, Distortion]]:
    """For each layer its bases (N, F, P), orthonormal, and its distortions."""
    each = 2 * FILTERS * FILTERS + 2 * FILTERS + 2
    generators = [torch.Generator().manual_seed(seed) for seed in draw.seed.tolist()]
    found = []
    for _ in range(layers):
        normal = torch.stack([torch.randn(each, generator=generator) for generator in generators])
        rotation, turn, scale, pick, kinds = normal.split([FILTERS * FILTERS] * 2 + [FILTERS] * 2 + [2], 1)
        share = torch.special.ndtr(kinds)  # uniform in [0, 1]
        weights, activations = (
            (share[:, place] * len(table)).long().clamp(max=len(table) - 1) for place, table in enumerate((WEIGHTS, ACTIVATIONS))
        )
        chance = Distortion(
            turn=turn.view(-1, FILTERS, FILTERS), scale=scale, pick=torch.special.ndtr(pick), weights=weights, activations=activations
        )
        found.append((bases(rotation.view(-1, FILTERS, FILTERS)), chance))
    return found


def bases(normal: Tensor) -> Tensor:
    """Orthonormal bases of patches (N, F, P): three rows of one colour each, then random ones. normal: (N, F, F)."""
    flat = torch.zeros(FLAT, FILTERS)
    for colour in range(FLAT):
        flat[colour, colour * SIDE * SIDE : (colour + 1) * SIDE * SIDE] = 1 / SIDE
    rest = normal[:, FLAT:] - normal[:, FLAT:] @ flat.T @ flat
    return torch.cat([flat.expand(len(normal), -1, -1), torch.linalg.qr(rest.mT).Q.mT], 1)


def run_layer(x: Tensor, basis: Tensor, chance: Distortion, strength: float) -> Tensor:
    """Patches into the distorted basis, their answers distorted, and back by the basis as it should be. x: (N, 3, H, W)."""
    kinds = (chance.weights, chance.activations)  # where they were drawn: asking a device which ones there are would wait for it
    basis, chance = basis.to(x.device), Distortion(**{name: value.to(x.device) for name, value in vars(chance).items()})
    height, width = x.shape[2:]
    margin = SIDE - 1
    padded = F.pad(x, [margin] * 4, mode="reflect")  # so that every pixel lies in as many patches
    patches = F.unfold(padded, SIDE)  # (N, P, H' W')
    filters = _by_kind(basis, chance, kinds[0], WEIGHTS, strength)
    maps = (filters @ patches).view(len(x), FILTERS, height + margin, width + margin)
    answers = _by_kind(maps, chance, kinds[1], ACTIVATIONS, strength).flatten(2)
    whole = F.fold(basis.mT @ answers, padded.shape[2:], SIDE)[:, :, margin:-margin, margin:-margin]
    return whole / SIDE**2


def _by_kind(values: Tensor, chance: Distortion, kind: Tensor, table: Sequence[Distort], strength: float) -> Tensor:
    """Each row distorted by its own kind. kind: (N,) on the processor."""
    result = values.clone()
    for index in kind.unique().tolist():
        rows = (kind == index).nonzero().flatten().to(values.device)
        result[rows] = table[index](values[rows], chance.index(rows), strength)
    return result


def _some(chance: Distortion, share: float) -> Tensor:
    """(N, F): 1 for a random share of the filters, 0 for the others and for those of mean colour."""
    chosen = (chance.pick < share).float()
    chosen[:, :FLAT] = 0
    return chosen


def _gains(chance: Distortion, spread: float) -> Tensor:
    """(N, F) around 1; of the mean colours closer to it."""
    gain = spread * chance.scale
    gain[:, :FLAT] *= 0.3
    return gain.exp()
