"""Estimators that are explained by refitting them, on small data sets, for the laws."""

from __future__ import annotations

from typing import Any

from sklearn.datasets import load_diabetes
from sklearn.ensemble import BaggingRegressor
from sklearn.linear_model import Lars, Ridge

import upweight as uw
from upweight.testing import EstimatorFamily
from upweight.testing.families import DRAWS_POSITIONS, coarse, scaled


class RefitFamily(EstimatorFamily):
    """An estimator that is explained by refitting it, whether or not it has a family of its own."""

    def explained(self, estimator: Any, train: uw.Examples, **options: Any) -> Any:
        """Return the fitted estimator as a model of which only predictions and `fit` are used."""
        model = uw.refittable(estimator, train, **options)
        self._made.append((model, estimator))
        return model


REFITS = [
    RefitFamily(
        "refitted ridge",
        scaled(load_diabetes, 4, 100.0),
        lambda: Ridge(alpha=3.0),
        is_regression=True,
        train_size=24,
        query_size=6,
        other={"alpha": 2.0},
    ),
    RefitFamily(
        "refitted least angles",
        scaled(load_diabetes, 4, 100.0),
        lambda: Lars(n_nonzero_coefs=3),
        is_regression=True,
        train_size=24,
        query_size=6,
        not_weighted="its fit takes no sample weights",
        other={"n_nonzero_coefs": 1},
    ),
]
BAGS = RefitFamily(
    "refitted bagging",
    coarse(load_diabetes, 4, 100.0),
    lambda: BaggingRegressor(n_estimators=10, random_state=0),
    is_regression=True,
    train_size=24,
    query_size=6,
    not_permuted=DRAWS_POSITIONS,
    not_weighted="a bag of weighted examples is another draw",
    other={"random_state": 1},
)
