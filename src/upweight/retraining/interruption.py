"""What an interrupted or failed run says: what was finished, where it is saved, and how to continue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger("upweight")


@dataclass(frozen=True)
class Unfinished:
    """How far a run came.

    Attributes:
        done: the number of finished trainings.
        total: the number of trainings of the run.
        folder: where they are saved; None if they are lost.
    """

    done: int
    total: int
    folder: Path | None

    def __str__(self) -> str:
        trainings = f"{self.done} of {self.total} trainings were finished"
        if self.folder is None:
            return f"{trainings} and are lost; with uw.Retraining(folder=…) they are saved, and the same call continues"
        return f"{trainings}; they are saved in {self.folder}, and the same call continues from there"


@contextmanager
def report_unfinished(progress: dict[int, Any], total: int, folder: str | Path | None) -> Iterator[None]:
    """An error or interrupt inside gets a note that says how to continue, and `unfinished_of` reads how far it came.

    Args:
        progress: the results, as they come.
        total: the number of trainings.
        folder: where results are saved.
    """
    try:
        yield
    except BaseException as error:
        if unfinished_of(error) is None and len(progress) < total:
            unfinished = Unfinished(len(progress), total, None if folder is None else Path(folder))
            error.unfinished = unfinished  # type: ignore[attr-defined]
            if isinstance(error, SystemExit):  # Python does not print its notes
                logger.warning("stopped: %s", unfinished)
            elif progress or not isinstance(error, Exception):
                error.add_note(f"{str(unfinished)[0].upper()}{str(unfinished)[1:]}.")
        raise


def unfinished_of(error: BaseException) -> Unfinished | None:
    """How far the run came that ended with this error; None if it was not in a run."""
    return getattr(error, "unfinished", None)
