"""What is asked of the machine."""

from __future__ import annotations

import os
from typing import Any


def is_alive(pid: Any) -> bool:
    """Whether a process of this number runs on this machine; where the system does not say, it does."""
    try:
        number = int(pid)
        if number <= 0 or os.name == "nt":  # on Windows signal 0 is Ctrl-C
            return True
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (ValueError, TypeError, PermissionError):
        return True
    return True
