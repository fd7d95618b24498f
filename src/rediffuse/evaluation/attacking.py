"""How much of a classifier's, a pipeline's or an ensemble's accuracy an attack leaves, over a set of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.geometry import Fit
from rediffuse.data.names import slug
from rediffuse.data.types import ImageSet
from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.adversarial import Attack, Victim, distance, perturb
from rediffuse.evaluation.kept import Kept, fingerprint, in_blocks
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval, paired_bootstrap, share
from rediffuse.evaluation.test_time.ensembles import image_seeds, seed_of

BLOCK = 16
"""Images that are attacked, and kept, together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Robustness:
    """What an attack left of one victim; one entry an image.

    clean: rightly named as it is, on fresh noise. attacked: so before, and also after the attack, on noise that the attack never saw.
    moved: distance in the attack's norm. flat: no gradient was ever other than 0; where many are, the attack has failed, not the adversary.
    draws: of the victim's noise behind each gradient.
    """

    victim: str
    draws: int
    clean: NDArray[np.bool_]
    attacked: NDArray[np.bool_]
    moved: NDArray[np.float64]
    flat: NDArray[np.bool_]

    def row(self) -> dict[str, Any]:
        found = share(self.attacked)
        return {
            "victim": self.victim,
            "draws": self.draws,
            "clean_accuracy": float(self.clean.mean()),
            "attacked_accuracy": found.value,
            "low": found.low,
            "high": found.high,
            "farthest": float(self.moved.max()),
            "without_gradient": float(self.flat.mean()),
        }


@dataclass(frozen=True, kw_only=True)
class Attacked(Saved):
    """An attack on several victims, on the same images. seconds: wall time of this call."""

    attack: Attack
    images: int
    victims: tuple[Robustness, ...]
    seconds: float = 0.0

    def find(self, victim: str) -> Robustness:
        for each in self.victims:
            if each.victim == victim:
                return each
        raise ConfigError(f"{victim!r} was not attacked; these were: {', '.join(each.victim for each in self.victims)}")

    def difference(self, victim: str, over: str) -> Interval:
        """Accuracy under attack of one victim minus that of another, paired by image."""
        return paired_bootstrap(self.find(victim).attacked[None], self.find(over).attacked[None], None)

    def table(self) -> list[dict[str, Any]]:
        return [each.row() for each in self.victims]

    def to_json(self) -> dict[str, Any]:
        """Attack, table, and the paired difference of each two victims, the earlier one minus the later."""
        differences = [
            {"victim": victim, "over": over, **self.difference(victim, over).to_json()}
            for victim, over in combinations([each.victim for each in self.victims], 2)
        ]
        told = {"attack": asdict(self.attack), "images": self.images, "seconds": self.seconds}
        return {**told, "table": self.table(), "differences": differences}

    def content(self) -> Content:
        """A row a victim; headline attacked_accuracy (of several VICTIM_attacked_accuracy)."""
        headline = {}
        for each in self.victims:
            key = f"{each.victim}_attacked_accuracy" if len(self.victims) > 1 else "attacked_accuracy"
            headline[key] = share(each.attacked)
        told = "; ".join(f"{key}: {value}" for key, value in asdict(self.attack).items())
        said = [f"{self.images} images; {told}", "an attack shows weakness only: what survives may fall to a better one"]
        return Content(headline=headline, rows=self.table(), seconds=self.seconds, notes=said)


def attack_images(
    victims: Victim | Sequence[Victim],
    images: ImageSet,
    attack: Attack | None = None,
    *,
    size: int,
    fit: str = "pad",
    keep: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Attacked:
    """Attack each victim on each image, and ask it again on noise that the attack did not see.

    Costs (steps + 1) x restarts x draws forward and backward passes of the victim for each image; draws is 1 for one without noise.

    Args:
        victims: from `adversarial.classifier`, `pipeline` or `ensemble`.
        images: labelled.
        size: side in pixels, a multiple of what the victims need. fit: how other shapes become that square.
        keep: folder for finished blocks; the same call continues from it. `kept.forget` removes it.
        progress: called with (images done, images in all), counting an image once for each victim.
    Raises:
        ConfigError: victims of one name, a size or folder that does not fit.
        DataError: no images, labels that a victim does not know.
        ModelError: a victim without gradients, or whose logits are NaN; finished blocks are kept.
    """
    began = time.perf_counter()
    chosen, plan = [victims] if isinstance(victims, Victim) else list(victims), attack or Attack()
    names = [victim.name for victim in chosen]
    if not chosen or len(set(names)) != len(names):
        raise ConfigError(f"an attack needs one victim or several of different names, got {', '.join(names) or 'none'}")
    if not len(images):
        raise DataError(f"{images.name} holds no images to attack")
    shapes = [Fit(mode=fit, size=size, multiple_of=victim.multiple_of) for victim in chosen]
    truth = [victim.judged.truth(images) for victim in chosen]
    identity = {"kind": "attacks", "images": fingerprint(images), "size": size, "fit": fit, "attack": asdict(plan), "block": BLOCK}
    told = {victim.name: {**victim.judged.identity(), **victim.identity} for victim in chosen}
    kept = None if keep is None else Kept(keep, {**identity, "victims": told})
    found = []
    for place, victim in enumerate(chosen):
        attacked, parts = partial(_block, victim, images, truth[place], plan, shapes[place]), []
        for rows, block in in_blocks(len(images), BLOCK, attacked, kept, f"{slug(victim.name)}-"):
            parts.append(block)
            if progress is not None:
                progress(place * len(images) + rows.stop, len(chosen) * len(images))
        whole = {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}
        found.append(Robustness(victim=victim.name, draws=plan.draws_for(victim), **whole))
    return Attacked(attack=plan, images=len(images), victims=tuple(found), seconds=time.perf_counter() - began)


def _block(victim: Victim, images: ImageSet, truth: Tensor, attack: Attack, shape: Fit, rows: slice) -> dict[str, Tensor]:
    part, labels = images[rows], truth[rows]
    pictures = torch.stack([shape.to_model(example.image)[0] for example in part])
    seeds = image_seeds(attack.seed, part.digests)
    fresh = torch.tensor([seed_of(seed, "judge") for seed in seeds.tolist()], dtype=torch.int64)
    done = perturb(victim, pictures, labels, attack, seeds)
    with torch.no_grad():
        before, after = (victim.ask(given, fresh).argmax(1).cpu() == labels for given in (pictures, done.images))
    moved = distance(done.images, pictures, attack.norm).cpu().double()
    return {"clean": before, "attacked": before & after, "moved": moved, "flat": done.flat}
