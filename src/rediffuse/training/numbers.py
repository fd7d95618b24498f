"""In which numbers a network's forward pass is computed while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.training.classifier import Classifier, evaluating
from rediffuse.training.procedure import Procedure


def forward_numbers(procedure: Procedure, classifier: Classifier) -> torch.dtype:
    """What the procedure asks for; "auto" is float32 where a processor computes a layer's gradients wrongly in bfloat16.

    Raises:
        ConfigError: bfloat16 was asked for by name and there is such a layer.
    """
    numbers = procedure.numbers(classifier.device)
    if numbers is torch.float32 or classifier.device.type != "cpu":
        return numbers
    layer = wrong_in_bfloat16(classifier)
    if layer is None:
        return numbers
    if procedure.dtype == "auto":
        return torch.float32
    raise ConfigError(
        f"the layer {layer} strides over maps of one pixel, and processors compute its gradient in bfloat16 from memory that was never "
        "written; give larger pictures, or dtype float32"
    )


def wrong_in_bfloat16(classifier: Classifier) -> str | None:
    """The first convolution that strides over maps of one pixel with a kernel larger than that; None where there is none.

    oneDNN, as torch 2.13 brings it, reads uninitialised memory for the weight gradient of those in bfloat16: of 10 equal calls all differ.
    """
    found: list[str] = []

    def look(name: str) -> object:
        def hook(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
            if min(inputs[0].shape[2:]) == 1 and max(layer.stride) > 1 and max(layer.kernel_size) > 1:
                found.append(name)

        return hook

    layers = [(name, layer) for name, layer in classifier.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(look(name)) for name, layer in layers]  # type: ignore[arg-type]
    try:
        with evaluating(classifier), torch.no_grad():
            classifier.from_input(torch.zeros(1, 3, *classifier.preprocessing.size, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
