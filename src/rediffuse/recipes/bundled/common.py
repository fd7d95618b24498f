"""What the trainers of the bundled models share: pictures as one tensor, a clock, EMA, checkpoints that survive a kill."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.denoisers.precision import resolve_dtype, trunk_region
from rediffuse.errors import ConfigError, DataError, RediffuseError
from rediffuse.training.checkpoint import keep_checkpoint
from rediffuse.training.ema import Ema as Ema


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A labelled set held in memory. images: (N, 3, H, W) uint8; labels: (N,) int64; terms: the word each was collected under."""

    images: Tensor
    labels: Tensor
    terms: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def read_pictures(folder: str | Path, split: str, size: int = 64) -> Pictures:
    """Read every `split-*.parquet` of a folder in the `datasets` image layout; pictures of another size are resized."""
    import pyarrow.parquet as pq
    from PIL import Image

    files = sorted(Path(folder).glob(f"{split}-*.parquet"))
    if not files:
        raise DataError(f"no {split}-*.parquet in {folder}; give the folder that holds them")
    names = json.loads(pq.read_schema(files[0]).metadata[b"huggingface"])["info"]["features"]["label"]["names"]
    images, labels, terms = [], [], []
    for file in files:
        for row in pq.read_table(file).to_pylist():
            picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
            if picture.size != (size, size):
                picture = picture.resize((size, size), Image.Resampling.BICUBIC)
            images.append(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(size, size, 3))
            labels.append(row["label"])
            terms.append(row["term"] or "")
    stacked = torch.stack(images).permute(0, 3, 1, 2).contiguous()
    return Pictures(images=stacked, labels=torch.tensor(labels), terms=tuple(terms), names=tuple(names))


def tell(main: Callable[[], int | None]) -> None:
    """Run a trainer's command; what the user can mend is one paragraph and exit status 2."""
    try:
        sys.exit(main() or 0)
    except RediffuseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def signed(images: Tensor) -> Tensor:
    """uint8 to float in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def numbers(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where the hardware computes it; float16 would need its losses scaled."""
    dtype = resolve_dtype("auto", device)
    return trunk_region(device, torch.float32 if dtype is torch.float16 else dtype)


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of a batch, on its device. generator: on the CPU; elsewhere it seeds one there, for the CPU would be too slow."""
    if x.device.type == "cpu":
        return torch.randn(x.shape, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.randn(x.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)


def batches(count: int, batch: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Endless rows of shuffled epochs, a function of (seed, step) alone, so that a resumed run sees the same order."""
    per_epoch = count // batch
    if not per_epoch:
        raise ConfigError(f"{count} pictures are fewer than a batch of {batch}; give more of them, or a smaller --batch")
    step = start
    while True:
        epoch, offset = divmod(step, per_epoch)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        for place in range(offset, per_epoch):
            yield order[place * batch : (place + 1) * batch]
            step += 1


def cosine_rate(step: int, total: int, warmup: int, floor: float = 0.0) -> float:
    """Share of the base learning rate at a step: linear warm-up, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class Clock:
    """Stops a piece of training after so many minutes; the checkpoint hands on to the next piece."""

    def __init__(self, minutes: float | None) -> None:
        self.end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def over(self) -> bool:
        return time.monotonic() >= self.end


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """See `keep_checkpoint`."""
    keep_checkpoint(Path(path), state)


def load_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """The state of an earlier piece, or None at the first."""
    if not Path(path).exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def log_line(path: str | Path, **values: float | int | str) -> None:
    """Append one JSON line and print it."""
    line = json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})
    with Path(path).open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def save_grid(path: str | Path, images: Tensor, columns: int) -> None:
    """A sheet of pictures. images: (N, 3, H, W) in [0, 1]."""
    from PIL import Image

    rows = math.ceil(len(images) / columns)
    height, width = images.shape[-2:]
    sheet = torch.ones(3, rows * (height + 2), columns * (width + 2))
    for index, image in enumerate(images.clamp(0, 1).float().cpu()):
        top, left = (index // columns) * (height + 2), (index % columns) * (width + 2)
        sheet[:, top : top + height, left : left + width] = image
    pixels = (sheet * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    Image.frombytes("RGB", (sheet.shape[2], sheet.shape[1]), pixels.numpy().tobytes()).save(path)
