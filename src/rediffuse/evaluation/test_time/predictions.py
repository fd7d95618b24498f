"""What a classifier says of images, with what it said on the way to that: a typed value that saves itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.accuracy import Accuracy, measure
from rediffuse.evaluation.results import write_result
from rediffuse.evaluation.statistics import Interval, bootstrap, paired_bootstrap


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What an ensemble said of N images.

    Attributes:
        members: what was asked, in turn: "raw" for the image itself, "t=50" for a view of it.
        probabilities: (N, K) float32, over the members that were asked.
        decisions: (N, M) int64, the class after the first m + 1 members; the last column is the prediction.
        asked: (N,) int64, how many members were asked; fewer than M where the rest could not change the decision.
        seconds: wall time.
        settings: of the ensemble, plain values.
    """

    members: tuple[str, ...]
    probabilities: Tensor
    decisions: Tensor
    asked: Tensor
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.probabilities)
        if self.probabilities.ndim != 2 or self.decisions.shape != (count, len(self.members)) or self.asked.shape != (count,):
            shapes = f"{tuple(self.probabilities.shape)}, {tuple(self.decisions.shape)} and {tuple(self.asked.shape)}"
            raise DataError(
                f"probabilities, decisions and asked must be (N, K), (N, {len(self.members)}) (one column a member) and (N,), got {shapes}"
            )

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def predicted(self) -> Tensor:
        """(N,) int64 class of each image."""
        return self.decisions[:, -1]

    @property
    def confidence(self) -> Tensor:
        """(N,) float32 probability of that class."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]

    @classmethod
    def cat(cls, parts: Sequence[Predictions]) -> Predictions:
        """One of all images, in order. Raises DataError for no parts, or parts of different ensembles."""
        if not parts or any((part.members, part.settings) != (parts[0].members, parts[0].settings) for part in parts):
            raise DataError(f"predictions are joined from parts of one ensemble, got {len(parts)} of different members or settings")
        return cls(
            members=parts[0].members,
            probabilities=torch.cat([part.probabilities for part in parts]),
            decisions=torch.cat([part.decisions for part in parts]),
            asked=torch.cat([part.asked for part in parts]),
            seconds=sum(part.seconds for part in parts),
            settings=parts[0].settings,
        )

    def index(self, rows: Sequence[int]) -> Predictions:
        """Those of some images, in that order."""
        kept = torch.as_tensor(rows, dtype=torch.int64)
        return Predictions(
            members=self.members,
            probabilities=self.probabilities[kept],
            decisions=self.decisions[kept],
            asked=self.asked[kept],
            seconds=self.seconds,
            settings=self.settings,
        )

    def accuracy(self, labels: Sequence[int], classes: Sequence[str]) -> Accuracy:
        """How often the prediction is right. labels: (N,) class indices; classes: names, in label order."""
        return measure(self.predicted.tolist(), labels, classes)

    def curve(self, labels: Sequence[int]) -> tuple[float, ...]:
        """Share of images that are named rightly by the first member, the first two, ... all."""
        return tuple(float(value) for value in self._right(labels).mean(axis=1))

    def save(
        self,
        labels: Sequence[int],
        classes: Sequence[str],
        name: str,
        folder: str | Path = "results",
        *,
        command: str | None = None,
        device: str = "cpu",
        notes: Sequence[str] = (),
    ) -> Path:
        """Write `folder/NAME.json`: accuracy of all members, of the first alone, their difference, and the curve as rows.

        Headline keys: accuracy, members_asked (mean over images) and, where there are several members, first_member and gain over it.
        Accuracies are means over classes; their intervals resample test images within the class, see `statistics.paired_bootstrap`.

        Args:
            labels: (N,) class indices.
            classes: names, in label order.
            name, folder, command, device, notes: as in `results.write_result`.
        Returns: the file.
        """
        if len(labels) == 0:
            raise DataError("a result needs labelled images, got none")
        right = self._right(labels)
        headline: dict[str, Interval | float] = {
            "accuracy": bootstrap(right[-1:], labels),
            "members_asked": float(self.asked.double().mean()),
        }
        if len(self.members) > 1:  # a gain of one member over itself, such as of DDA alone, would read as a finding
            headline["first_member"] = bootstrap(right[:1], labels)
            headline["gain"] = paired_bootstrap(right[-1:], right[:1], labels)
        rows = []
        for place, member in enumerate(self.members):
            found = measure(self.decisions[:, place].tolist(), labels, classes)
            asked = int((self.asked > place).sum())
            rows.append(
                {"members": place + 1, "member": member, "top1": found.top1, "mean_per_class": found.mean_per_class, "asked": asked}
            )
        said = "; ".join(f"{key}: {value}" for key, value in self.settings.items())
        told = [*([f"settings: {said}"] if said else []), *notes]
        return write_result(name, headline, rows, self.seconds, command=command, folder=folder, device=device, notes=told)

    def _right(self, labels: Sequence[int]) -> NDArray[np.float64]:
        """(M, N) 1 where the first m + 1 members are right."""
        if len(labels) != len(self):
            raise ConfigError(f"one label an image: {len(self)} images, {len(labels)} labels")
        truth = torch.as_tensor(labels, dtype=torch.int64)
        right: NDArray[np.float64] = (self.decisions == truth[:, None]).T.double().numpy()
        return right
