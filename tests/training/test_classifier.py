"""What a classifier takes: pictures in [0, 1], and at its inner door those with noise; all else is refused with a fix that works."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rediffuse.errors import DataError
from rediffuse.training.backbones import open_backbone
from rediffuse.training.classifier import Classifier

BYTES = torch.randint(256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
UNIT = BYTES / 255


@pytest.fixture(scope="module")
def net() -> Classifier:
    return open_backbone("scratch", ("cat", "dog"), size=16).eval()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (BYTES, r"uint8; for bytes use images\.float\(\) / 255"),
        (UNIT[:, :1], r"images\.expand"),
        (UNIT.movedim(1, -1), r"images\.movedim"),
        (UNIT[0], r"got \(3, 16, 16\); for one picture use images\[None\]"),
    ],
)
def test_a_call_refuses_what_is_no_batch_of_floats(net: Classifier, bad: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        net(bad)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (BYTES / 127.5 - 1, r"from \[-1, 1\] use \(images \+ 1\) / 2"),
        (BYTES.float(), r"from \[0, 255\] use images / 255"),
        (BYTES.long(), r"for bytes use images\.float\(\) / 255"),
        (torch.full((2, 3, 16, 16), torch.nan), "finite"),
        (BYTES[0], r"for one picture use images\[None\]"),
    ],
)
def test_a_prediction_refuses_what_lies_outside_the_unit_range(net: Classifier, bad: Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        net.predict(bad)
    with pytest.raises(DataError, match=says):
        net.features(bad)


def test_bytes_and_floats_are_predicted_alike(net: Classifier) -> None:
    with torch.no_grad():
        assert torch.equal(net.predict(BYTES), net(UNIT))
    assert torch.equal(net.predict(BYTES), net.predict(UNIT))


def test_a_call_takes_noise_has_a_gradient_and_compiles_whole(net: Classifier) -> None:
    """What certificates, attacks and torch.compile ask of it."""
    noisy = (UNIT + torch.randn(UNIT.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    logits = net(noisy)
    logits.sum().backward()
    assert noisy.grad is not None
    assert float(noisy.grad.abs().max()) > 0
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(noisy), logits)
