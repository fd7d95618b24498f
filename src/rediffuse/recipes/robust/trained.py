"""Classifiers of finished cells, and their figures by arm: a mean over seeds, paired by picture."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from rediffuse.denoisers.precision import resolve_device
from rediffuse.errors import ConfigError, RediffuseError
from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.provenance import module_command
from rediffuse.evaluation.statistics import MIN_SEEDS, Interval, basis_of_runs, bootstrap, paired_bootstrap, paired_t_interval, t_interval
from rediffuse.recipes.asked import departures
from rediffuse.recipes.robust.arms import ARMS, DIFFAUG, NOISE, PLAIN
from rediffuse.recipes.robust.bench import SEEDS
from rediffuse.recipes.robust.cells import Cell
from rediffuse.recipes.robust.nets import NETS, NETS_FOLDER, Lowered
from rediffuse.training.classifier import Classifier
from rediffuse.training.procedure import Numbers, Procedure

MORE = ("images", "entropy_images", "seeds", "selection", "draws", "bank")
"""Options of which more is better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """Trained nets. models: in the order of arms, then seeds; arms: arm -> names of its models, one a seed."""

    models: tuple[Judged, ...]
    arms: Mapping[str, tuple[str, ...]]

    @classmethod
    def open(
        cls, store: Path, net: str, arms: Sequence[str], seeds: Iterable[int], device: torch.device, dtype: Numbers = "auto"
    ) -> Trained:  # fmt: skip
        """Those of an experiment's store, to be asked in these numbers. Raises ConfigError with the first that is not there."""
        models, named = [], {}
        for arm in arms:
            cells = [Cell(net=net, arm=arm, seed=seed) for seed in seeds]
            for cell in cells:
                folder = store / NETS_FOLDER / cell.name
                if not (folder / "config.json").exists():
                    told = f"--net {net} --arms {arm} --seeds {cell.seed + 1} --store {store}"
                    raise ConfigError(
                        f"{folder} is not there; python -m rediffuse.recipes.diffaug_cifar10 {told} makes it. Where its cell is finished "
                        "already, bring the net along from the machine that trained it"
                    )
                models.append(opened(folder, device, f"{arm} {cell.seed}", dtype))
            named[arm] = tuple(f"{arm} {cell.seed}" for cell in cells)
        return cls(models=tuple(models), arms=named)

    def some(self, arms: Iterable[str]) -> Trained:
        """Those of some arms."""
        own = {arm: self.arms[arm] for arm in arms}
        names = {name for part in own.values() for name in part}
        return Trained(models=tuple(model for model in self.models if model.name in names), arms=own)

    def conditions(self) -> list[str]:
        """What must stand beside every interval."""
        return conditions_of(len(names) for names in self.arms.values())

    def keep(self, given: argparse.Namespace, what: str, *, lasting: bool = False) -> Path:
        """Where finished pieces of a yardstick lie: a place for each choice of nets and pictures, so that a larger one is another's.

        lasting: what is small and took hours lies in the store.
        """
        nets = hashlib.sha256(repr((given.net, [model.name for model in self.models])).encode()).hexdigest()[:8]
        home = (given.store or given.work) if lasting else given.work
        return Path(home) / "yardsticks" / f"{what}-{nets}-{getattr(given, 'images', None) or 'all'}"


def kept_before(*folders: Path, whole: bool = False) -> list[str]:
    """A note for a result whose time is not that of all its work on one machine; to be asked before the work.

    whole: what is kept has its own time, and that is counted.
    """
    if not any(folder.exists() and any(folder.iterdir()) for folder in folders):
        return []
    told = "that of all, on whatever machines" if whole else "that of the rest"
    return [f"goes on from what an earlier run of this command had kept; the time is {told}"]


def opened(folder: Path, device: torch.device, name: str, dtype: Numbers = "auto") -> Judged:
    """A trained net as yardsticks ask it; auto is half the time of float32, where bfloat16 is fast.

    It is folded on the processor, so that what is kept of it is known by the same hash on every device.
    """
    classifier = Classifier.load(folder).eval()
    lowered = Lowered(classifier, Procedure(dtype=dtype).numbers(device)).to(device)
    classifier.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Judged(lowered, classifier.classes, name=name)


def conditions_of(seeds: Iterable[int]) -> list[str]:
    """What must stand beside intervals of arms with so many seeds each."""
    counts = sorted(set(seeds))
    if counts[0] >= MIN_SEEDS:
        return []
    told = basis_of_runs(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} training runs"
    return [f"intervals are over test pictures ({told} of each way): what another training would change is not in them"]


def figure(values: NDArray[Any]) -> Interval:
    """Mean of (seeds, pictures): over seeds where there are enough, else over drawn pictures."""
    if len(values) >= MIN_SEEDS:
        return t_interval(values.mean(axis=1).tolist())
    return bootstrap(values, None)


def difference(ours: NDArray[Any], theirs: NDArray[Any]) -> Interval:
    """Of two (seeds, pictures), seed by seed and picture by picture."""
    if len(ours) >= MIN_SEEDS:
        return paired_t_interval(ours.mean(axis=1).tolist(), theirs.mean(axis=1).tolist())
    return paired_bootstrap(np.asarray(ours), np.asarray(theirs), None)


def flat(name: str, found: Interval) -> dict[str, Any]:
    """A figure and its ends as columns of a table."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def options(name: str, text: str | None, images: int | None, arms: Sequence[str] = (PLAIN, NOISE, DIFFAUG)) -> argparse.ArgumentParser:
    """What every yardstick of trained nets can be told. images: how many test pictures, by default; None for all."""
    parser = argparse.ArgumentParser(
        prog=f"python -m rediffuse.recipes.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=sets, help="folder of the sets")
    parser.add_argument("--net", choices=NETS, default=NETS[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(arms))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--images", type=int, default=images, help=f"test pictures, a seeded choice; by default {images or 'all'}")
    parser.add_argument("--work", type=Path, default=Path("runs/robust"), help="folder of what is done")
    parser.add_argument("--store", type=Path, help="folder of the trained nets, by default --work")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the result")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--dtype", choices=get_args(Numbers), default="auto", help="of nets and denoiser; begun tables go on in theirs alone"
    )
    return parser


def run(
    name: str,
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Trained], Path],
    arguments: Sequence[str] | None,
    usual: Callable[[torch.device], Mapping[str, Any]] = lambda _: {},
) -> int:
    """A yardstick from its command line to the file that it writes; one that asks for less than the recipe has a name of its own.

    Args:
        usual: defaults that depend on the device.
    """
    given = parser.parse_args(arguments)
    try:
        device = resolve_device(given.device)
        parser.set_defaults(**usual(device))
        given = parser.parse_args(arguments)
        given.name = f"reduced_{name}" if reduced(given, parser) else name
        given.command = module_command(f"rediffuse.recipes.{name}", sys.argv[1:] if arguments is None else arguments)
        trained = Trained.open(given.store or given.work, given.net, given.arms, range(given.seeds), device, given.dtype)
        print(f"wrote {work(given, trained)}")
    except RediffuseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def reduced(given: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Whether a command asks for less than its recipe, or for something else; more pictures, draws, seeds, arms or sigmas are neither."""
    keys = sorted(set(vars(given)) - {"data", "work", "store", "out", "device", "dtype"})
    more = [key for key in keys if key in MORE or isinstance(parser.get_default(key), list)]
    return bool(departures(given, parser, [key for key in keys if key not in more], more))


def against(arms: Iterable[str]) -> list[tuple[str, str]]:
    """(key, arm) of what DiffAug is held against: ("gain", plain) and ("gain_over_noise", noise), those that are there."""
    there = set(arms)
    pairs = [("gain", PLAIN), ("gain_over_noise", NOISE)]
    return [(key, arm) for key, arm in pairs if {arm, DIFFAUG} <= there]
