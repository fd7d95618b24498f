"""A table of certificates on the disk, and beside it the seal by which the run that wrote it knows it again.

The published format has no room for whose the certificates are: a table that was copied from another run, or from another sigma, looks like
one's own. The seal holds a line for each certificate, a hash of the line before it and of the certificate, and begins with a hash of all
that decides them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from rediffuse.errors import DataError
from rediffuse.evaluation.certify.rows import Certificate, append, finished, rewrite
from rediffuse.writing import write_text, writing

SEAL = ".seal"
"""Ending of the file beside a table."""


class Table:
    """The certificates of one model at one sigma, written as they are made.

    Args:
        path: of the table; its seal lies beside it.
        owner: all that decides its certificates, as text.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path, self.seal = path, path.with_name(path.name.removesuffix(".tsv") + SEAL)
        self._first = self._last = _hash(owner)

    def left(self, labels: Sequence[int]) -> list[Certificate]:
        """What a run which may have been killed left for the first images. What is not sealed counts as not written.

        Raises:
            DataError: certificates of other images, of another run, without a seal, or changed since.
        """
        rows = finished(self.path, labels)
        if not rows:
            return []
        if not self.seal.exists():
            raise DataError(
                f"{self.path} lies without {self.seal.name}, which tells whose certificates these are; bring it along, or remove the table"
            )
        text = self.seal.read_text(encoding="utf-8", errors="replace")
        sealed = text[: text.rfind("\n") + 1].splitlines()
        for place, (there, wanted) in enumerate(zip(sealed, self._chain(rows, self._first), strict=False)):
            if there != wanted:
                raise DataError(
                    f"{self.path} line {place + 2} is not what this run wrote: it is of another run, or was changed since; remove "
                    f"{self.path.name} and {self.seal.name}, or give another folder"
                )
        return rows[: len(sealed)]

    def rewrite(self, rows: Sequence[Certificate]) -> None:
        """The whole table anew."""
        chain = self._chain(rows, self._first)
        rewrite(self.path, rows)
        write_text(self.seal, "".join(f"{line}\n" for line in chain))
        self._last = chain[-1] if chain else self._first

    def append(self, rows: Sequence[Certificate]) -> None:
        """Further certificates at the end, on the disk and sealed when this returns."""
        chain = self._chain(rows, self._last)
        append(self.path, rows)
        with writing(self.seal), self.seal.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in chain))
            file.flush()
            os.fsync(file.fileno())
        self._last = chain[-1] if chain else self._last

    @staticmethod
    def _chain(rows: Sequence[Certificate], before: str) -> list[str]:
        return list(accumulate((row.line() for row in rows), lambda last, line: _hash(last + line), initial=before))[1:]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
