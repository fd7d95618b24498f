"""Runs `generate` on a small network in processes that a test may kill: `python -m tests.generation.killable MODEL`.

For each line OUT on standard input it forks a process that generates into OUT and says its number; on the next line it waits for that
process and says how it ended (until then the number cannot be another's). The imports are paid once; what is killed is a real process.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import pyarrow as pa
import torch
from tests.generation.conftest import take_photos

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
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                generate(photos, method, Path(line.strip()), copies=6, batch=2, rate=1.0, keep_real=True, progress=False)
                status = 0
            except BaseException:  # noqa: BLE001  (the report of a process that is about to end)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
