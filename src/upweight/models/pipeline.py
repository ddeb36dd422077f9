"""The parts of a pipeline: its last step, which is the estimator, and the steps before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def last_step(estimator: Any) -> Any:
    """The last step of a pipeline, or the estimator itself if it is not a pipeline."""
    steps = _steps(estimator)
    return steps[-1][1] if steps else estimator


def steps_before(estimator: Any) -> Any:
    """The pipeline without its last step; None if there are no steps before it."""
    return estimator[:-1] if len(_steps(estimator)) > 1 else None


def _steps(estimator: Any) -> Sequence[tuple[str, Any]]:
    """(name, estimator) of every step; empty if it is not a pipeline, whatever else it may have called `steps`."""
    steps = getattr(estimator, "steps", None)
    return steps if isinstance(steps, list | tuple) and all(isinstance(step, tuple) for step in steps) else ()
