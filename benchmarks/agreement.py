"""How near the figures of this package come to those of other libraries, and of the formulas themselves.

    python -m benchmarks.agreement --out results

On seeded inputs, the same for both sides: a row a figure and library, with the largest absolute difference over all inputs and the largest
value that the other side gave. A library that is not installed has a row that says so; `pip install torchmetrics torch-fidelity
pytorch-ood` brings them. Expected: below 1e-9 for what is computed in float64 on both sides, below 1e-4 where the other side computes in
float32. Time: ten seconds of one core. No clock decides anything here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.agreement_references import fid, kid_of_all, manifold_of_all
from benchmarks.common import Measured, options, run
from benchmarks.foreign import declared, torchvision_importable
from safetensors.torch import load_file
from torch import Tensor, nn

from rediffuse.errors import DataError
from rediffuse.evaluation.calibration import calibration_error, judge
from rediffuse.evaluation.certify.bounds import lower_bound
from rediffuse.evaluation.fidelity.inception import ClassSums
from rediffuse.evaluation.fidelity.kernel import kid
from rediffuse.evaluation.fidelity.manifold import manifold
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.ood import metrics, scores
from rediffuse.evaluation.ood.reference import Mahalanobis, Neighbours, react_threshold
from rediffuse.evaluation.results import render_table

Pairs = Mapping[str, Sequence[tuple[Any, Any]]]
"""Figure -> (ours, theirs) on each input, numbers or arrays."""
FIXTURE = Path("tests/evaluation/ood/fixtures/ood_scores.safetensors")
ABSENT = "not importable here"
MANIFOLD = ("precision", "recall", "density", "coverage")
IS = "Inception Score, features as logits, one split"
MAHALANOBIS = "Mahalanobis, theirs times 2 N"
"""They halve the squared distance, and leave out the division of the covariance by the number of images."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is compared with.

    Attributes:
        package: as installed; empty for stored numbers.
        module: that `compare` is called with. what: its figures, in words. inputs: the same.
        name: where the package is not what is compared with.
    """

    package: str
    module: str
    what: str
    inputs: str
    compare: Callable[[Any], Pairs]
    name: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """A row a figure; one that says so where the library is not there."""
        try:
            module = import_module(self.module)
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision of another torch, on which some rest
            return [{"figure": self.what, "library": self.name or self.package, "version": ABSENT, "inputs": self.inputs}]
        beside = {"library": self.name or self.package, "version": metadata.version(self.package) if self.package else ""}
        return [{"figure": figure, **beside, **difference(pairs), "inputs": self.inputs} for figure, pairs in self.compare(module).items()]


def difference(pairs: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """The largest over all inputs, and the largest value of the other side."""
    ours, theirs = (np.concatenate([np.ravel(np.asarray(pair[side], dtype=np.float64)) for pair in pairs]) for side in (0, 1))
    return {"largest_difference": float(np.abs(ours - theirs).max()), "values_up_to": float(np.abs(theirs).max())}


def drawn_scores() -> list[tuple[Any, Any]]:
    """(known, unknown) scores of forty sets, half of them rounded, so that many tie."""
    found = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        counts = generator.integers(2, 3000, 2)
        known, unknown = generator.normal(seed / 20, 1, counts[0]), generator.normal(0, 1.5, counts[1])
        found.append((known.round(1), unknown.round(1)) if seed % 2 else (known, unknown))
    return found


def by_scikit_learn(module: Any) -> Pairs:
    found: dict[str, list[tuple[Any, Any]]] = {"AUROC": [], "AUPR, known": [], "AUPR, unknown": [], "FPR95": []}
    for known, unknown in drawn_scores():
        every = np.concatenate([known, unknown])
        is_known = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
        false, true, _ = module.roc_curve(1 - is_known, -every, drop_intermediate=False)
        found["AUROC"].append((metrics.auroc(known, unknown), module.roc_auc_score(is_known, every)))
        found["AUPR, known"].append((metrics.aupr_known(known, unknown), module.average_precision_score(is_known, every)))
        found["AUPR, unknown"].append((metrics.aupr_unknown(known, unknown), module.average_precision_score(1 - is_known, -every)))
        found["FPR95"].append((metrics.fpr95(known, unknown), false[np.flatnonzero(true >= 0.95 - 1e-12)[0]]))
    return found


def by_torchmetrics(module: Any) -> Pairs:
    pairs = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        logits, labels = 3 * torch.randn(5000, 7, generator=generator), torch.randint(7, (5000,), generator=generator)
        found = judge(logits, labels)
        theirs = module.multiclass_calibration_error(logits.double().softmax(1), labels, num_classes=7, n_bins=15, norm="l1")
        pairs.append((calibration_error(found.confidence, found.right), theirs))
    return {"ECE": pairs}


def by_scipy(module: Any) -> Pairs:
    pairs = []
    for draws, counts in ((100, range(101)), (100_000, range(0, 100_001, 2500))):
        for alpha in (0.001, 0.05):
            ours = lower_bound(list(counts), draws, alpha)
            theirs = [module.binomtest(count, draws, alternative="greater").proportion_ci(1 - alpha, "exact").low for count in counts]
            pairs.append((ours, theirs))
    return {"Clopper-Pearson, lower": pairs}


def drawn_features() -> list[tuple[Tensor, Tensor]]:
    """(real, made) features of eight sets."""
    found = []
    for seed in range(8):
        generator, width = torch.Generator().manual_seed(seed), (8, 32)[seed % 2]
        found.append((torch.randn(400, width, generator=generator), 0.8 * torch.randn(400, width, generator=generator) + 0.1 * seed))
    return found


def by_formula(_: Any) -> Pairs:
    sets = drawn_features()
    every = [(manifold(*own), manifold_of_all(*(features.double().numpy() for features in own))) for own in sets]
    return {
        "FID": [(frechet(*own), fid(*(features.double().numpy() for features in own))) for own in sets],
        "KID": [(kid(*own).value, kid_of_all(*(features.double().numpy() for features in own))) for own in sets],
        **{name: [(getattr(ours, name), theirs[name]) for ours, theirs in every] for name in MANIFOLD},
    }


def by_torch_fidelity(module: Any) -> Pairs:
    fidelity, kernel, ranges, decided = (import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "prc", "isc"))
    found: dict[str, list[tuple[Any, Any]]] = {"FID": [], "KID": [], "precision": [], "recall": [], IS: []}
    for real, made in drawn_features():
        statistics = (fidelity.fid_features_to_statistics(features) for features in (real, made))
        theirs = fidelity.fid_statistics_to_metric(*statistics, False)
        theirs |= kernel.kid_features_to_metric(real, made, kid_subsets=2, kid_subset_size=len(real), verbose=False)
        theirs |= ranges.prc_features_to_metric(
            made, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False
        )  # fmt: skip
        theirs |= decided.isc_features_to_metric(made, splits=1, shuffle=False)
        ours = manifold(real, made)
        found["FID"].append((frechet(real, made), theirs["frechet_inception_distance"]))
        found["KID"].append((kid(real, made).value, theirs["kernel_inception_distance_mean"]))
        found["precision"].append((ours.precision, theirs["precision"]))
        found["recall"].append((ours.recall, theirs["recall"]))
        found[IS].append((ClassSums.of(made, splits=1).score()[0], theirs["inception_score_mean"]))
    return found


def by_published(file: Path, _: Any) -> Pairs:
    if not file.exists():
        raise DataError(f"no fixture at {file}; run this from the root of a checkout, or name it with --fixture")
    given = load_file(file)
    features, head = given["features"], layer(given["weight"], given["bias"])
    logits = head(features)
    found: dict[str, list[tuple[Any, Any]]] = {
        "MSP": [(scores.msp(logits), given["msp"])],
        "energy": [(scores.energy(logits), given["energy"])],
        "ReAct": [(scores.of_altered(scores.react(features, react_threshold(features)), head), given["react_90"])],
    }
    for title, name in (("ASH-B", "ash_b"), ("ASH-S", "ash_s"), ("SCALE", "scale")):
        altered = getattr(scores, name)
        found[title] = [(scores.of_altered(altered(features, part), head), given[f"{name}_{part}"]) for part in (65, 85, 90)]
    return found


def by_pytorch_ood(module: Any) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    features, bank = (torch.randn(count, 40, generator=generator).relu() for count in (200, 300))
    head = layer(torch.randn(5, 40, generator=generator), torch.randn(5, generator=generator))
    logits, threshold, maps = head(features), react_threshold(bank), features[:, :, None, None]
    shared: dict[str, Any] = {"backbone": None, "head": lambda found: head(found.flatten(1))}
    neighbours, gaussian, labels = module.KNN(None, k=7), module.Mahalanobis(None), torch.arange(len(bank)) % 5
    neighbours.fit_features(bank, labels)
    gaussian.fit_features(bank, labels)
    theirs = {  # high for unknown images
        "MSP": (scores.msp(logits), module.MaxSoftmax.score(logits)),
        "largest logit": (scores.max_logit(logits), module.MaxLogit.score(logits)),
        "energy": (scores.energy(logits), module.EnergyBased.score(logits)),
        "KNN": (Neighbours.of(bank, 7).score(features), torch.as_tensor(neighbours.predict_features(features))),
        MAHALANOBIS: (Mahalanobis.of(bank, labels).score(features), 2 * len(bank) * gaussian.predict_features(features).double()),
    }
    for title, altered, detector in (
        ("ReAct", scores.react(features, threshold), module.ReAct(threshold=threshold, **shared)),
        ("ASH-B", scores.ash_b(features), module.ASH(variant="ash-b", percentile=0.9, **shared)),
        ("ASH-S", scores.ash_s(features), module.ASH(variant="ash-s", percentile=0.9, **shared)),
        ("SCALE", scores.scale(features), module.SCALE(percentile=0.85, **shared)),
    ):
        theirs[title] = (scores.of_altered(altered, head), detector.predict_feature_maps(maps))
    return {title: [(ours, -found)] for title, (ours, found) in theirs.items()}


def layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight, "bias": bias})
    return made.requires_grad_(False)


def sides(fixture: Path) -> list[Side]:
    """All that is compared with, in the order of the table."""
    features = "8 pairs of 400 normal features, of 8 and 32 dimensions"
    return [
        Side(package="scikit-learn", module="sklearn.metrics", what="AUROC, AUPR, FPR95", compare=by_scikit_learn,
             inputs="40 pairs of 2 to 3,000 normal scores, half with ties"),
        Side(package="torchmetrics", module="torchmetrics.functional.classification", what="ECE", compare=by_torchmetrics,
             inputs="10 sets of 5,000 normal logits of 7 classes, 15 bins"),
        Side(package="scipy", module="scipy.stats", what="Clopper-Pearson, lower", compare=by_scipy,
             inputs="101 counts of 100 draws, 41 of 100,000, at alpha 0.001 and 0.05"),
        Side(package="numpy", module="numpy", name="formulas, in numpy", what="FID, KID, manifolds", compare=by_formula, inputs=features),
        Side(package="torch-fidelity", module="torch_fidelity", what="FID, KID, precision, recall, Inception Score",
             compare=by_torch_fidelity, inputs=features),
        Side(package="", module="safetensors", name="OpenOOD's rules, stored", what="scores",
             compare=partial(by_published, fixture), inputs="stored features and head, percentiles 65, 85 and 90"),
        Side(package="pytorch-ood", module="pytorch_ood.detector", what="MSP, largest logit, energy, KNN, Mahalanobis, ReAct, ASH, SCALE",
             compare=by_pytorch_ood, inputs="200 rectified normal features of 40 dimensions, 300 in the bank"),
    ]  # fmt: skip


def benchmark(given: argparse.Namespace) -> Measured:
    torchvision_importable()
    rows = [row for side in sides(given.fixture) for row in side.rows()]
    print(render_table(rows))
    found = [row for row in rows if "largest_difference" in row]
    absent = [row["library"] for row in rows if row["version"] == ABSENT]
    headline = {
        "figures": float(len(found)),
        "largest_difference": max(row["largest_difference"] for row in found),
        "largest_relative_difference": max(row["largest_difference"] / row["values_up_to"] for row in found),
    }
    notes = ["absolute differences; values up to: the largest of the other side"]
    notes += [f"not importable where this ran, so not compared here: {', '.join(absent)}"] if absent else []
    if declared():
        version = metadata.version("torchvision")
        notes.append(f"torchvision {version}, which some import, is of another build of torch: its operators were declared, never called")
    return Measured(name="agreement", headline=headline, rows=rows, notes=notes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, device=False)
    parser.add_argument("--fixture", type=Path, default=FIXTURE, help="stored scores of the published rules")
    return run("agreement", benchmark, parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
