"""The memory that this process takes."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes() -> int | None:
    """Memory that the process holds; None if the operating system does not say it in a file."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
