"""What corruptions leave of several models' accuracy: a typed value whose figures all follow from outcomes of single pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rediffuse.errors import ConfigError
from rediffuse.evaluation.corruptions.constants import ALEXNET_ERRORS, COMMON, GROUPS, IMAGENET_C, SEVERITIES
from rediffuse.evaluation.saved import Content, Saved
from rediffuse.evaluation.statistics import Interval, bootstrap, paired_bootstrap, share


@dataclass(frozen=True, kw_only=True, eq=False)
class CorruptionResult(Saved):
    """Which pictures M models name rightly under C corruptions at S severities.

    Attributes:
        name: of the set.
        models, corruptions, severities: names and numbers along the axes of `right`.
        right: (M, C, S, N) bool.
        clean: (M, N) bool without corruption; None where the set holds no clean pictures.
        comparable: one a corruption: whether it may stand beside published figures; not at sides without constants of their own;
            none says of all that they may not.
        side: of the pictures, px.
    """

    name: str
    models: tuple[str, ...]
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    right: NDArray[np.bool_]
    clean: NDArray[np.bool_] | None = None
    comparable: tuple[bool, ...] = ()
    side: int = 0
    seconds: float = 0.0
    notes: Sequence[str] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        axes = (len(self.models), len(self.corruptions), len(self.severities))
        if self.right.shape[:3] != axes or self.right.ndim != 4:
            raise ConfigError(f"outcomes must be {axes} pictures, got {self.right.shape}")
        if not self.comparable:  # of a result made by hand nothing is known
            object.__setattr__(self, "comparable", (False,) * len(self.corruptions))
        if len(self.comparable) != len(self.corruptions):
            raise ConfigError(f"comparable must hold one of {len(self.corruptions)} corruptions, got {len(self.comparable)}")

    def table(self, model: str | None = None) -> NDArray[np.float64]:
        """(C, S) accuracies. model: may be left out where there is one."""
        found: NDArray[np.float64] = self.right[self._model(model)].mean(axis=-1)
        return found

    def clean_accuracy(self, model: str | None = None) -> float | None:
        return None if self.clean is None else float(self.clean[self._model(model)].mean())

    def mean(
        self, model: str | None = None, *, corruptions: Sequence[str] | None = None, severities: Sequence[int] | None = None
    ) -> Interval:
        """Mean accuracy over corruptions and severities, with the interval over pictures.

        Args:
            corruptions: None takes the common ones that were measured: the extra four never count unless they are named.
            severities: None takes all that were measured; the paper on DiffAug reports (5,).
        """
        return bootstrap(self._shares(model, corruptions, severities)[None], None)

    def group(self, group: str, model: str | None = None, *, severities: Sequence[int] | None = None) -> Interval:
        """Mean over a group: noise, blur, weather, digital, extra; or `without_noise`: the common ones but for noise."""
        return self.mean(model, corruptions=self.members(group), severities=severities)

    def members(self, group: str) -> tuple[str, ...]:
        """The measured corruptions of a group, or of `without_noise`."""
        if group != "without_noise" and group not in GROUPS:
            raise ConfigError(f"group must be one of {', '.join((*GROUPS, 'without_noise'))}, got {group!r}")
        wanted = GROUPS[group] if group in GROUPS else tuple(name for name in COMMON if name not in GROUPS["noise"])
        return tuple(name for name in self.corruptions if name in wanted)

    def groups(self) -> tuple[str, ...]:
        """Those that something was measured of; `without_noise` where it differs from the mean over all."""
        found = tuple(name for name in GROUPS if self.members(name))
        return (*found, "without_noise") if "noise" in found and self.members("without_noise") else found

    def difference(
        self, ours: str, theirs: str, *, corruptions: Sequence[str] | None = None, severities: Sequence[int] | None = None
    ) -> Interval:
        """How much better one model is than another, paired over pictures; arguments as in `mean`."""
        first, second = (self._shares(model, corruptions, severities)[None] for model in (ours, theirs))
        return paired_bootstrap(first, second, None)

    def mce(
        self, reference: CorruptionResult | Mapping[str, float], model: str | None = None, *, reference_model: str | None = None
    ) -> float:
        """Mean corruption error: each corruption's summed error over the reference's, averaged over the common ones; 1 is as bad.

        Args:
            reference: another result (`reference_model` of it) with the same corruptions and severities, or a mean error for each
                corruption, such as `constants.ALEXNET_ERRORS` for all of ImageNet-C.
        Raises:
            ConfigError: the reference lacks something, makes no error, or is AlexNet's and not all of ImageNet-C was measured.
        Reference: Hendrycks and Dietterich 2019, section 4.2.
        """
        names = self._chosen(None)
        if isinstance(reference, CorruptionResult):
            if reference.severities != self.severities:
                raise ConfigError(f"the reference has severities {reference.severities}, this result {self.severities}")
            errors = {name: 1 - reference.table(reference_model)[place].mean() for place, name in enumerate(reference.corruptions)}
        else:
            errors = dict(reference)
            if errors == dict(ALEXNET_ERRORS):
                self._check_imagenet_c()
        missing = [name for name in names if name not in errors]
        if missing:
            raise ConfigError(f"the reference lacks {', '.join(missing)}; measure them there too")
        perfect = [name for name in names if errors[name] <= 0]
        if perfect:
            raise ConfigError(f"the reference makes no error under {perfect[0]}, and nothing can be relative to it")
        own = 1 - self.table(model).mean(axis=1)
        return float(np.mean([own[self.corruptions.index(name)] / errors[name] for name in names]))

    def rows(self) -> list[dict[str, Any]]:
        """One a model, corruption and severity; clean first, as severity 0."""
        rows: list[dict[str, Any]] = []
        kind = {name: group for group, names in GROUPS.items() for name in names}
        for model in self.models:
            clean = self.clean_accuracy(model)
            if clean is not None:
                rows.append({"model": model, "corruption": "clean", "group": "", "severity": 0, "accuracy": clean, "comparable": True})
            for name, comparable, line in zip(self.corruptions, self.comparable, self.table(model), strict=True):
                for severity, value in zip(self.severities, line, strict=True):
                    row = {"model": model, "corruption": name, "group": kind[name], "severity": severity}
                    rows.append({**row, "accuracy": float(value), "comparable": comparable})
        return rows

    def headline(self) -> dict[str, Interval | float]:
        """For each model: clean, mean, mean5 (severity 5), mean5_without_noise and the groups; for the first the gain over each other."""
        found: dict[str, Interval | float] = {}
        worst = (5,) if 5 in self.severities else None
        common = any(name in COMMON for name in self.corruptions)
        for model in self.models:
            clean = None if self.clean is None else share(self.clean[self._model(model)])
            found |= {} if clean is None else {f"{model}_clean": clean}
            found |= {f"{model}_mean": self.mean(model)} if common else {}
            found |= {f"{model}_mean5": self.mean(model, severities=worst)} if worst and common else {}
            found |= {f"{model}_{group}": self.group(group, model) for group in self.groups()}
            if worst and "without_noise" in self.groups():
                found[f"{model}_mean5_without_noise"] = self.group("without_noise", model, severities=worst)
        for other in self.models[1:] if common else ():
            found[f"gain_over_{other}"] = self.difference(self.models[0], other)
            if worst:
                found[f"gain5_over_{other}"] = self.difference(self.models[0], other, severities=worst)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; outcomes of single pictures are left out."""
        figures = {key: value.to_json() if isinstance(value, Interval) else value for key, value in self.headline().items()}
        return {
            "name": self.name,
            "models": list(self.models),
            "images": int(self.right.shape[-1]),
            "side": self.side,
            "headline": figures,
            "rows": self.rows(),
            "differences": self.differences(),
            "notes": list(self.notes),
        }

    def differences(self) -> list[dict[str, Any]]:
        """How much better each model is than each later one under each corruption: over all severities and at the hardest."""
        most = max(self.severities)
        return [
            {"model": ours, "over": theirs, "corruption": name, "severities": list(at), **gap.to_json()}
            for ours, theirs in combinations(self.models, 2)
            for name in self.corruptions
            for at in dict.fromkeys((tuple(self.severities), (most,)))
            for gap in (self.difference(ours, theirs, corruptions=(name,), severities=at),)
        ]

    def content(self) -> Content:
        """The headline and a row a model, corruption and severity."""
        return Content(headline=self.headline(), rows=self.rows(), seconds=self.seconds, notes=self.notes)

    def _check_imagenet_c(self) -> None:
        """Raise ConfigError with what is missing of the pictures that AlexNet's errors are of; results made by hand may lack a side."""
        lost = [name for name in COMMON if name not in self.corruptions]
        lost += [f"severity {severity}" for severity in SEVERITIES if severity not in self.severities]
        lost += [f"a side of {IMAGENET_C} px (it is {self.side})"] if self.side not in (0, IMAGENET_C) else []
        if lost:
            raise ConfigError(
                f"AlexNet's errors are means over 15 corruptions at 5 severities of {IMAGENET_C} px, and {self.name} lacks "
                f"{', '.join(lost)}; measure all of them, or give the result of another model on the same pictures as reference"
            )

    def _model(self, model: str | None) -> int:
        if model is None and len(self.models) == 1:
            return 0
        if model not in self.models:
            raise ConfigError(f"model must be one of {', '.join(self.models)}, got {model!r}")
        return self.models.index(model)

    def _chosen(self, corruptions: Sequence[str] | None) -> tuple[str, ...]:
        wanted = tuple(name for name in self.corruptions if name in COMMON) if corruptions is None else tuple(corruptions)
        missing = [name for name in wanted if name not in self.corruptions]
        if missing or not wanted:
            raise ConfigError(f"measured were {', '.join(self.corruptions)}; asked for {', '.join(missing) or 'the common ones'}")
        return wanted

    def _shares(self, model: str | None, corruptions: Sequence[str] | None, severities: Sequence[int] | None) -> NDArray[np.float64]:
        """(N,) share of the chosen copies of each picture that are named rightly."""
        lost = [severity for severity in severities or () if severity not in self.severities]
        if lost or (severities is not None and not len(severities)):
            raise ConfigError(f"measured were severities {', '.join(map(str, self.severities))}; asked for {lost or 'none'}")
        rows = [self.corruptions.index(name) for name in self._chosen(corruptions)]
        columns = [self.severities.index(severity) for severity in severities or self.severities]
        found: NDArray[np.float64] = self.right[self._model(model)][np.ix_(rows, columns)].mean(axis=(0, 1))
        return found
