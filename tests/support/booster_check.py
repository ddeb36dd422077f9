"""The check that every booster that can be read has to pass, and settings for quiet, plain boosters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import upweight as uw

QUIET: dict[str, Any] = {"n_jobs": 1, "verbose": -1}
PLAIN: dict[str, Any] = {
    "bootstrap_type": "No",
    "leaf_estimation_iterations": 1,
    "boosting_type": "Plain",
    "verbose": 0,
    "allow_writing_files": False,
    "thread_count": 1,
}


def check(estimator: Any, x: Any, y: Any, weights: NDArray[Any] | None) -> uw.TreeModel:
    """The model of a fitted booster, whose training set reproduces its leaf values and whose retraining is the same.

    Reading it also compares margins with the library's own.
    """
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    assert isinstance(model, uw.TreeModel)
    training = model.grown(train)
    assert training.exact, training.mismatch
    retrained = model.retrain(train, np.ones(len(train)))
    np.testing.assert_allclose(retrained.margins(train), model.margins(train), atol=1e-6)
    return model
