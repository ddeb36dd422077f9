"""What users write, with the types that their checker has to see. Checked by mypy in `test_types.py`, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import upweight as uw


def explain(estimator: object, train: uw.Examples, queries: uw.Examples) -> None:
    model = uw.explainable(estimator, train, measure=uw.Margin(), objective="mean")
    assert_type(model, uw.Retrainable)
    assert_type(model.measure(queries), NDArray[np.float64])
    assert_type(model.predict(queries), uw.Predictions)
    if isinstance(model, uw.LinearModel):
        assert_type(model.objective, uw.Objective)

    fitted = uw.Influence(curvature=uw.Hessian(), damping=0.1).fit(model, train)
    scores = fitted.attribute(queries)
    assert_type(scores, uw.Scores)
    assert_type(scores.unit, uw.Unit)
    assert_type(scores.proponents(0), list[uw.Attribution])
    assert_type(fitted.self_influence(), uw.Scores)
    top = fitted.top(queries, k=3)
    assert_type(top, uw.Top)
    assert_type(top.opponents(0)[0].score, float)

    check = uw.verify(model, train, queries, scores, removals=8)
    assert_type(check, uw.Check)
    assert_type(check.coverage(level=0.9), uw.Coverage)
    explanation = uw.explain(model, train, queries, uw.LeaveOneOut())
    assert_type(explanation, uw.Explanation)
    assert_type(explanation.check, uw.Check | None)
    uw.write_report("report.html", scores, train, queries, check)


def evaluate(model: uw.Retrainable, train: uw.Examples, queries: uw.Examples, scores: uw.Scores) -> None:
    truth = uw.retrain_truth(model, train, queries, uw.subsets(train, 20, share=0.5))
    assert_type(truth, uw.Truth)
    assert_type(uw.lds(scores, truth), uw.LDS)
    assert_type(uw.loo(scores, truth), uw.LOO)
    assert_type(uw.noise_ceiling(truth), uw.Ceiling)
    assert_type(uw.compare({"influence": uw.Influence()}, model, train, queries, truth), uw.Comparison)
    assert_type(uw.tune_damping(uw.Influence(), [0.1, 1.0], model, train, queries, truth), uw.Tuned)
    assert_type(uw.brittleness(model, train, queries, scores), uw.Brittleness)
    assert_type(uw.removal_curve(model, train, queries, scores), uw.RemovalCurve)


def apply(model: uw.Retrainable, train: uw.Examples, queries: uw.Examples) -> None:
    suspects = uw.mislabeled(model, train)
    assert_type(suspects, uw.Suspects)
    assert_type(uw.repair(model, train, uw.Patch.of(train, {0: 1}), queries), uw.Repaired)
    assert_type(uw.slices(model, train, queries, by="group"), uw.Slices)
    assert_type(uw.what_if(model, train, queries, uw.Change(remove=[0])), uw.WhatIf)
    assert_type(uw.perturb(model, train, queries), uw.Perturbation)
    assert_type(uw.attack(model, train, queries, pgd=uw.PGD(grey=1 / 255)), uw.Attack)


def list_methods() -> list[str]:
    methods = uw.methods()
    assert_type(methods, dict[str, type[uw.Attributor]])
    assert_type(uw.__version__, str)
    return [name for name, recipe in methods.items() if recipe().promises.slope is None]


@dataclass(frozen=True, kw_only=True)
class Zero(uw.Attributor):
    """A method of one's own."""

    scale: float = 0.0

    @property
    def promises(self) -> uw.Promises:
        return uw.Promises()

    def fit(self, model: uw.Measurable, train: uw.Examples) -> FittedZero:
        return FittedZero(self, model, train, uw.Unit.RANK)

    def restore(
        self, model: uw.Measurable, train: uw.Examples, state: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> FittedZero:
        return self.fit(model, train)


class FittedZero(uw.Fitted):
    """A fitted method of one's own."""

    def blocks(self, queries: uw.Examples) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        yield slice(0, len(self.train)), np.zeros((len(queries), len(self.train)))

    def self_values(self) -> NDArray[np.float64]:
        return np.zeros(len(self.train))

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        return {}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        return {}, {}


class Constant(uw.Retrainable):
    """A model of one's own."""

    @property
    def measurement(self) -> str:
        return "1"

    def measure(self, queries: uw.Examples) -> NDArray[np.float64]:
        return np.ones(len(queries))

    def predict(self, examples: uw.Examples) -> uw.Predictions:
        return uw.Predictions((1,) * len(examples))

    def retrain(self, train: uw.Examples, weights: NDArray[np.float64], seed: int = 0) -> Constant:
        return self


class ConstantReader:
    """A model family of one's own."""

    def reads(self, estimator: Any) -> bool:
        return estimator is None

    def read(self, estimator: Any, train: uw.Examples, measure: uw.Measurement) -> Constant:
        return Constant()


reader: uw.ModelReader = ConstantReader()
