"""Runs `generate` on a small network in processes that a test may kill: `python -m tests.generation.killable MODEL`."""

from __future__ import annotations

import sys

import pyarrow as pa
import torch
from tests.generation.conftest import take_photos
from tests.killable import serve

from rediffuse.denoisers.load import load
from rediffuse.generation import local
from rediffuse.generation.run import generate
from rediffuse.methods.real_guidance import RealGuidance

local.SHARD_SECONDS = 0  # shards of four batches: many commits to be killed in


def main(model: str) -> None:
    torch.set_num_threads(1)
    method = RealGuidance(load(model, device="cpu", dtype="float32"), ("cat", "dog"), steps=6)
    photos = take_photos(each=5, size=(16, 16))
    pa.Table.from_pylist([{"imports": "pandas"}])
    serve(lambda out: generate(photos, method, out, copies=6, batch=2, rate=1.0, keep_real=True, progress=False))


if __name__ == "__main__":
    main(sys.argv[1])
