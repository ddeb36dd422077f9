"""The memory that this process takes, and by how much work has increased it."""

from __future__ import annotations

import os
from pathlib import Path

PROCESS = Path("/proc/self")


def resident_bytes() -> int | None:
    """Memory that the process holds; None if the operating system does not say it in a file."""
    try:
        pages = int((PROCESS / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int | None:
    """The most memory that the process has held; None if the operating system does not say it in a file."""
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


class MemoryGrowth:
    """The memory that the process has come to hold since a moment: at its most, if that is more than ever before."""

    __slots__ = ("_held", "_peak")

    def __init__(self) -> None:
        self._held, self._peak = resident_bytes(), peak_resident_bytes()

    @property
    def bytes(self) -> int | None:
        """What was added, also for a time between two looks; None if it is not known."""
        held = resident_bytes()
        if self._held is None or held is None:
            return None
        peak = peak_resident_bytes() or 0
        return max(held - self._held, peak - self._held if peak > (self._peak or peak) else 0, 0)
