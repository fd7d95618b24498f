"""The Inception network of published FID and KID, where its weights are at hand.

Reference: Heusel et al., NeurIPS 2017, arXiv 1706.08500; the network is torch-fidelity's, converted from TensorFlow's of 2015-12-05.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError, ModelError

FEATURE = "2048"
"""The last pooling, which FID and KID are published on."""
WEIGHTS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
# What damaged or foreign files make torch.load raise.
_BROKEN = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)


class PublishedInception(nn.Module):
    """Pictures in [0, 1] to a network that wants levels of 8 bits and gives a tuple of features.

    Args:
        network: (B, 3, H, W) uint8 -> a tuple, the first of it (B, D).
    Shape: (B, 3, H, W) float in [0, 1] -> (B, D) float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images.clamp(0, 1).mul(255).round().to(torch.uint8))[0]
        return features.float()


def inception(weights: str | Path) -> PublishedInception:
    """The published Inception network as an `extractor` of `measure_fidelity`; its 2,048 features alone make a FID that papers quote.

    Choose it to stand beside published figures, with `Taken(size=...)` of the pictures' own side: they then reach the network as they are,
    and its own resize, TensorFlow 1's bilinear one to 299 x 299 without antialiasing, is the only one, as published. Any other size, 299
    too, resizes with antialiasing before, which makes another figure.

    Args:
        weights: the file of torch-fidelity, 96 MB, see `WEIGHTS`; nothing is downloaded.
    Raises:
        ConfigError: torch-fidelity cannot be imported.
        ModelError: no such file, or not its weights.
    """
    file = Path(weights).expanduser()
    if not file.is_file():
        raise ModelError(f"no Inception weights at {file}; download {WEIGHTS} and give its path")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch, on which it rests
        raise ConfigError(
            f"the published Inception network needs torch-fidelity, which cannot be imported ({error}); pip install torch-fidelity, with "
            "the torchvision of this torch"
        ) from error
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)  # before torch-fidelity, which would run code that is in it
        if not isinstance(state, dict) or "fc.weight" not in state:
            raise ValueError("there is no layer fc")
        network = FeatureExtractorInceptionV3(PublishedInception.__name__, [FEATURE], feature_extractor_weights_path=str(file))
    except _BROKEN as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{file} holds no weights of the published Inception network ({first}); download {WEIGHTS}") from error
    return PublishedInception(network)
