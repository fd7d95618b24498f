"""An exponential moving average of a network's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Ema:
    """Exponential moving average of a module's floating-point state, warmed up as (1 + n) / (10 + n); whole numbers are copied.

    Args:
        module: what is averaged; its present state is the start.
        decay: share that stays in a step, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.shadow = {k: v.detach().clone().float() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take a step's weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.shadow[key].lerp_(value.float(), 1 - decay)
            else:
                self.shadow[key].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.shadow = {k: v.to(self.shadow[k].device) for k, v in state["shadow"].items()}

    def copy_to(self, module: nn.Module) -> None:
        """Put the average into a module."""
        own = module.state_dict()
        module.load_state_dict({k: v.to(own[k].dtype) for k, v in self.shadow.items()})
