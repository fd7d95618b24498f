"""Values reach accelerate's trackers; a name that cannot be served is an error, not silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from tests.training import robust_run, toys

from rediffuse.errors import ConfigError
from rediffuse.training.loop import fit_network
from rediffuse.training.pool import PixelBank, pool_of
from rediffuse.training.tracking import tracked


class Notebook(GeneralTracker):  # type: ignore[misc]
    """Keeps what it is told."""

    name = "notebook"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.settings: Mapping[str, Any] = {}
        self.values: list[tuple[int | None, Mapping[str, float]]] = []
        self.ended = False

    @property
    def tracker(self) -> Notebook:
        return self

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.settings = values

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        self.values.append((step, dict(values)))

    def finish(self) -> None:
        self.ended = True


def test_a_training_is_followed(tmp_path: Path) -> None:
    notebook = Notebook()
    with tracked([notebook], tmp_path, settings={"seed": 3}) as watch:
        pool = pool_of(toys.striped(4), None, PixelBank(16))
        fit_network(robust_run.steady_net(), pool, settings=robust_run.settings(5), watch=watch, watch_every=2)
    assert notebook.settings == {"seed": 3}
    assert [step for step, _ in notebook.values] == [2, 4, 5]
    assert all({"loss", "clean", "learning_rate"} == set(values) for _, values in notebook.values)
    assert notebook.ended


def test_a_tracker_that_is_not_there_is_named(tmp_path: Path) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    with pytest.raises(ConfigError, match="no tracker 'abacus'; there are"), tracked(["abacus"], tmp_path):
        pass
    missing = sorted(
        {str(kind) for kind in LOGGER_TYPE_TO_CLASS} - {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    )
    if not missing:
        pytest.skip("every tracker that accelerate knows is installed")
    with pytest.raises(ConfigError, match=f"the tracker {missing[0]} is not installed"), tracked(missing[:1], tmp_path):
        pass
