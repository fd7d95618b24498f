"""Work in processes that a test may kill: a helper pays for the imports once, then forks a process for each call.

A helper module ends in `serve(work)`; `Killable(module, root, *words)` runs it and speaks with it. For each line OUT on standard input the
helper forks a process that does `work(OUT)` and says its number; on the next line it waits for that process and says how it ended. Until
then the number cannot be another's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class Killable:
    """A helper process, one piece of work at a time."""

    def __init__(self, module: str, root: Path, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
        command = [sys.executable, "-m", module, *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)

    def begin(self, out: Path) -> int:
        """The number of the process that works into OUT."""
        self._write(f"{out}\n")
        child = int(self._line())
        assert child > 1  # a signal to 0 would go to this whole group
        return child

    def end(self) -> int:
        """Its exit status; of a signal its negative number."""
        self._write("\n")
        return int(self._line())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def serve(work: Callable[[Path], object]) -> None:
    """What the helper does until its standard input ends."""
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(Path(line.strip()))
                status = 0
            except BaseException:  # noqa: BLE001  (the report of a process that is about to end)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
