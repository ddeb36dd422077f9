"""The log of announcements of long work, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any


class _OnStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is at that moment: notebooks and progress bars replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


announcements = logging.getLogger("upweight.forecast")  # raise its level to silence it
announcements.setLevel(logging.INFO)
announcements.propagate = False
announcements.addHandler(_OnStandardError())
