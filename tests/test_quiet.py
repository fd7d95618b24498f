"""Silence while a library reads, and as it was afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest
from transformers.utils import logging

from rediffuse.quiet import quiet


def test_notes_and_bars_are_off_inside_and_as_they_were_outside() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(ZeroDivisionError), quiet():
        print(1 / 0)
    with quiet():
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_bars_that_were_off_stay_off() -> None:
    on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with quiet():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        if on:
            logging.enable_progress_bar()


def test_no_library_is_imported_to_be_silenced() -> None:
    code = "import sys\nfrom rediffuse.quiet import quiet\nwith quiet(): print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "rediffuse.quiet" in loaded
    assert not {"transformers", "diffusers"} & set(loaded)
