"""A network in training by pieces: what each hands on to the next, and one step."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from rediffuse.recipes.bundled.common import Clock, Ema, batches, save_checkpoint


class Learner:
    """Weights, optimizer, averaged weights and the number of steps taken.

    Args:
        network: what learns.
        optimizer: of its weights.
        decay: of the average, in [0, 1).
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, decay: float) -> None:
        self.network, self.optimizer, self.step = network, optimizer, 0
        self.ema = Ema(network, decay)

    def restore(self, state: dict[str, Any] | None) -> bool:
        """Go on from `checkpoint.pt`; False where there is none yet."""
        if state is None:
            return False
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        self.step = state["step"]
        return True

    def save(self, out: Path, **more: Tensor) -> None:
        """Write `checkpoint.pt`, with whatever else belongs to the weights."""
        state = {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": self.ema.state_dict()}
        save_checkpoint(out / "checkpoint.pt", {**state, "step": self.step, **more})

    def rows(self, count: int, batch: int, seed: int, steps: int, clock: Clock) -> Iterator[Tensor]:
        """Rows of each batch from the present step on, until all steps are taken or the time is over."""
        for rows in batches(count, batch, seed, self.step):
            if self.step >= steps or clock.over():
                return
            yield rows

    def learn(self, loss: Tensor, rate: float, clip: float | None = None) -> None:
        """One step down this loss; `clip` bounds the norm of the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimizer.step()
        self.ema.update(self.network)
        self.step += 1


def options(text: str | None, *, steps: int, batch: int, rate: float, data: str = "folder tiny-imagenet-base") -> argparse.ArgumentParser:
    """What every trainer can be told."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="stop after them; the same command goes on")
    parser.add_argument("--steps", type=int, default=steps, help="of the whole training")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate, help="largest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="worth its minutes with an accelerator alone")
    return parser
