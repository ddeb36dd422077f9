"""Progress reports of long computations."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, Protocol


class Progress(Protocol):
    """Called with (stage, done, total); a stage is a word such as "fit", "attribute" or "retrain"."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """A stage starts (done = 0), continues, or ends (done = total)."""


def no_progress(stage: str, done: int, total: int, /) -> None:
    """Report no progress."""


def accepts_arguments(function: Callable[..., Any], arguments: int) -> bool:
    """Whether the function can be called with this many arguments; True if its signature is unknown."""
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def adapt_old_progress(progress: Callable[[int, int], None] | None) -> Progress | None:
    """The old progress(done, total) as progress(stage, done, total)."""
    if progress is None:
        return None
    return lambda stage, done, total, /: progress(done, total)


def rename_stages(names: dict[str, str], progress: Progress | None) -> Progress | None:
    """Progress with some stages renamed."""
    if progress is None:
        return None

    def renamed(stage: str, done: int, total: int, /) -> None:
        progress(names.get(stage, stage), done, total)

    return renamed


def as_progress(progress: Callable[..., None] | None, function: str, stacklevel: int = 3) -> Progress:
    """The progress to report to. Accepts the old progress(done, total), with a DeprecationWarning.

    Args:
        progress: what the user passed.
        function: name of the public function, for the warning.
        stacklevel: as in `warnings.warn`; 3 is the caller of the function that calls this one.
    """
    if progress is None:
        return no_progress
    if accepts_arguments(progress, 3) or not accepts_arguments(progress, 2):
        return progress
    warnings.warn(
        f"uw.{function}: write progress(stage, done, total); progress(done, total) is deprecated",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
    older = adapt_old_progress(progress)
    assert older is not None
    return older
