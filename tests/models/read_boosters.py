"""What a booster that was read has to fulfil."""

from __future__ import annotations

import numpy as np

import upweight as uw

QUIET = {"n_jobs": 1, "verbose": -1}
PLAIN = {"bootstrap_type": "No", "leaf_estimation_iterations": 1, "boosting_type": "Plain", "verbose": 0}
PLAIN |= {"allow_writing_files": False, "thread_count": 1}


def check(estimator, x, y, weights):
    """Reading it succeeds only if margins are the library's; leaf values too must be made again."""
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    assert model.grown(train).exact, model.grown(train).mismatch
    again = model.retrain(train, np.ones(len(train)))
    np.testing.assert_allclose(again.margins(train), model.margins(train), atol=1e-6)
    return model
