"""The published Inception network: what it is shown, what comes of it, and what is said where it cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluation.torchvision_shim import library
from tests.training.toys import striped
from torch import Tensor, nn

from rediffuse.errors import ConfigError, ModelError
from rediffuse.evaluation.fidelity.features import Taken, identity_of, take_features
from rediffuse.evaluation.fidelity.measure import Fidelity, measure_fidelity
from rediffuse.evaluation.fidelity.moments import frechet
from rediffuse.evaluation.fidelity.published import PublishedInception, inception

NAME = "torch_fidelity.feature_extractor_inceptionv3"
REAL, MADE = striped(4, size=8, seed=1), striped(4, size=8, seed=2)


class StandIn(nn.Module):
    """What torch-fidelity promises: weights from a path, uint8 in, a tuple of the asked features out."""

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str) -> None:
        super().__init__()
        self.fc, self.features_list = nn.Linear(3, 5), features_list
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        assert images.dtype == torch.uint8
        return tuple(self.fc(images.double().mean((2, 3)).float()) for _ in self.features_list)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of weights for it."""
    module: Any = ModuleType(NAME)
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, NAME, module)
    torch.save(nn.ModuleDict({"fc": nn.Linear(3, 5)}).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def levels(images: Any) -> Tensor:
    """(N, 3, H, W) uint8, of the pictures as they are."""
    return torch.stack([torch.from_numpy(np.array(example.image)).permute(2, 0, 1) for example in images])


def agrees(extractor: PublishedInception) -> None:
    """With the network itself on the levels of the pictures."""
    with torch.no_grad():
        real, made = (extractor.network(levels(images))[0] for images in (REAL, MADE))
    own = Taken(size=8, batch=5)
    assert torch.allclose(take_features(REAL, extractor, own).values, real, rtol=1e-4, atol=1e-5)
    found = measure_fidelity(REAL, MADE, extractor=extractor, settings=Fidelity(taken=own, per_class=False))
    assert found.extractor == "PublishedInception"
    assert found.whole.fid_like == pytest.approx(frechet(real, made), rel=1e-3)


def test_it_is_shown_the_levels_of_the_pictures(stand_in: Path, tmp_path: Path) -> None:
    extractor = inception(stand_in)
    agrees(extractor)
    torch.save(nn.ModuleDict({"fc": nn.Linear(3, 5)}).state_dict(), tmp_path / "others.pth")
    assert identity_of(inception(stand_in)) == identity_of(extractor) != identity_of(inception(tmp_path / "others.pth"))


def test_torch_fidelitys_own_network_agrees(tmp_path: Path) -> None:
    theirs = library(NAME).FeatureExtractorInceptionV3

    class Random(theirs):  # type: ignore[misc]
        def load_state_dict(self, *_: Any) -> None:  # type: ignore[override]
            """Keeps what it began with."""

    file = tmp_path / "random.pth"
    torch.save({}, file)
    torch.manual_seed(0)
    torch.save(Random("random", ["2048"], str(file)).state_dict(), file)
    extractor = inception(file)
    assert extractor(torch.rand(1, 3, 8, 8)).shape == (1, 2048)
    agrees(extractor)


def test_what_is_missing_is_said_with_the_fix(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"no Inception weights at .*none\.pth; download https://github.com/toshas"):
        inception(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"body.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "few.pth")
    for name in ("text", "foreign", "few"):
        with pytest.raises(ModelError, match=rf"{name}\.pth holds no weights of the published Inception network .*; download https"):
            inception(tmp_path / f"{name}.pth")
    monkeypatch.setitem(sys.modules, NAME, None)
    with pytest.raises(ConfigError, match=r"needs torch-fidelity, which cannot be imported .*; pip install torch-fidelity"):
        inception(stand_in)


def test_code_in_a_file_of_weights_is_not_run(stand_in: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"fc.weight": Code()}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match="holds no weights"):
        inception(tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()
