"""A test-time ensemble as a network, so that yardsticks judge it like any other classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rediffuse.evaluation.judged import Judged
from rediffuse.evaluation.test_time.ensembles import Ensemble, image_seeds


class AskedSeveralTimes(nn.Module):
    """Log of an ensemble's mean probabilities, as logits.

    Choose it to put an ensemble beside its classifier on the same yardstick. The noise of an image is a function of its own pixels and of
    the ensemble's seed, so that neither order nor company changes what is said of it; a corrupted copy has noise of its own.

    Without gradients images are asked a chunk at a time; with them all views of a batch are held.

    Args:
        ensemble: made of a classifier of [0, 1] images, such as `Judged.as_module`.
    Shape: (B, 3, H, W) in [0, 1] -> (B, K) float32; softmax gives the mean probabilities.
    """

    settings_hash: Tensor
    cuts_itself = True

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble
        told = hashlib.sha256(json.dumps(ensemble.settings, sort_keys=True, default=str).encode()).digest()
        # In the state, because what is kept of a network is told apart by a hash over its state.
        self.register_buffer("settings_hash", torch.frombuffer(bytearray(told), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        seeds = image_seeds(self.ensemble.seed, [pixels_key(image) for image in images])
        if torch.is_grad_enabled() and images.requires_grad:
            found: Tensor = self.ensemble(images, seeds)
            return found
        probabilities = self.ensemble.predict(images, seeds).probabilities
        # A probability that rounded to 0 stays finite: e^-87.
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()


def pixels_key(image: Tensor) -> str:
    """A hash of an image (3, H, W) as it is asked about."""
    raw = image.detach().float().cpu().contiguous()
    return hashlib.blake2b(raw.numpy().tobytes(), digest_size=16, person=str(tuple(raw.shape)).encode()[:16]).hexdigest()


def judged_by(judged: Judged, make: Callable[[nn.Module], Ensemble], name: str) -> Judged:
    """The ensemble that is made of a classifier, as a classifier of the same classes.

    Args:
        make: `lambda classifier: DiffAugEnsemble(classifier, denoiser)`.
        name: in tables and pages.
    """
    return Judged(AskedSeveralTimes(make(judged.as_module())), judged.classes, name=name)
