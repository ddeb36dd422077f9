"""Pipelines: the steps before an estimator, and the estimator."""

from __future__ import annotations

from typing import Any


def last_step(estimator: Any) -> Any:
    """The last step of a pipeline; any other estimator itself."""
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator


def steps_before(estimator: Any) -> Any:
    """The pipeline without its last step, None if there are no steps before it."""
    return estimator[:-1] if len(getattr(estimator, "steps", ())) > 1 else None
