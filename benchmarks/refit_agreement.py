"""Leave-one-out by exact routes beside refits of scikit-learn, on ten data sets, and what both cost.

`python -m benchmarks.refit_agreement`, with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.results import Section, Table, verdict
from sklearn import datasets
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.linear_model import (
    ARDRegression,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LogisticRegression,
    Perceptron,
    QuantileRegressor,
    Ridge,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

import upweight as uw
from upweight.evaluate.agreement import agreement

COMMAND = "python -m benchmarks.refit_agreement"
ROWS, QUERIES, LEFT_OUT = 100, 20, 25
SLOPE, PEARSON = 0.01, 0.999
TIGHT = {"tol": 1e-10, "max_iter": 100_000}
TARGET = f"slope within 1 ± {SLOPE}, Pearson ≥ {PEARSON}, of the effects of {LEFT_OUT} removals on {QUERIES} queries"


def _generated(make: Callable[..., Any], **settings: Any) -> Callable[[], Any]:
    return lambda: make(n_samples=ROWS + QUERIES, random_state=0, **settings)


def _loaded(load: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: load(return_X_y=True)


def _linnerud() -> Any:
    """Repeated measurements of twenty people, with noise, so that there are enough rows."""
    x, y = datasets.load_linnerud(return_X_y=True)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(x), size=ROWS + QUERIES)
    return x[rows] + rng.normal(size=(len(rows), 3)) * 0.2 * x.std(axis=0), y[rows, 0]


CLASSES = {
    "breast cancer": _loaded(datasets.load_breast_cancer),
    "wine": _loaded(datasets.load_wine),
    "iris": _loaded(datasets.load_iris),
    "digits 0 to 3": lambda: datasets.load_digits(n_class=4, return_X_y=True),
    "two moons": _generated(datasets.make_moons, noise=0.3),
}
NUMBERS = {
    "diabetes": _loaded(datasets.load_diabetes),
    "linnerud": _linnerud,
    "friedman 1": _generated(datasets.make_friedman1, noise=1.0),
    "friedman 2": _generated(datasets.make_friedman2, noise=50.0),
    "sparse uncorrelated": _generated(datasets.make_sparse_uncorrelated),
}
CLASSIFIERS = {
    "LogisticRegression": LogisticRegression(**TIGHT),
    "SVC": SVC(gamma=0.1, tol=1e-9),
    "NuSVC": NuSVC(nu=0.4, gamma=0.3, tol=1e-9),
    "GaussianNB": GaussianNB(var_smoothing=1e-3),
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
    "KNeighborsClassifier": KNeighborsClassifier(5),
    "OneVsRestClassifier": OneVsRestClassifier(LogisticRegression(**TIGHT)),
    "VotingClassifier": VotingClassifier(
        [("linear", LogisticRegression(**TIGHT)), ("bayes", GaussianNB(var_smoothing=1e-3))], voting="soft"
    ),
    "Perceptron, at weight 0": Perceptron(),
}
REGRESSORS = {
    "Ridge": Ridge(),
    "Lasso": Lasso(0.05, **TIGHT),
    "ElasticNet": ElasticNet(0.05, **TIGHT),
    "HuberRegressor": HuberRegressor(tol=1e-9, max_iter=100_000),
    "QuantileRegressor": QuantileRegressor(quantile=0.4, alpha=0.01),
    "SVR": SVR(gamma=0.1, tol=1e-9),
    "NuSVR": NuSVR(nu=0.4, gamma=0.1, tol=1e-9),
    "RadiusNeighborsRegressor": RadiusNeighborsRegressor(30.0, weights="distance"),
    "VotingRegressor": VotingRegressor([("ridge", Ridge()), ("lasso", Lasso(0.05, **TIGHT))]),
}
HELD = {"ARDRegression": ARDRegression()}  # compared with refits that find new precisions


def _data(make: Callable[[], Any], is_number: bool) -> Any:
    x, y = make()
    order = np.random.default_rng(1).permutation(len(y))[: ROWS + QUERIES]
    x, y = StandardScaler().fit_transform(x[order])[:, :10], y[order]
    return (x, (y - y.mean()) / y.std()) if is_number else (x, y)


def _measure(outputs: Any, _: Any) -> Any:
    return outputs[:, -1]


def _outputs(estimator: Any, x: Any, kind: str) -> Any:
    if kind == "predict":
        return estimator.predict(x)
    if hasattr(estimator, "predict_joint_log_proba"):
        return estimator.predict_joint_log_proba(x)[:, -1]
    if kind == "decision" or not hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.decision_function(x)).reshape(len(x), -1)[:, -1]
    return estimator.predict_proba(x)[:, -1]


def _compare(estimator: Any, x: Any, y: Any, is_number: bool) -> tuple[Any, float, float]:
    """(agreement with refits, CPU seconds of all removals here, CPU seconds of as many refits)."""
    train, queries = uw.Examples(x[:ROWS], y[:ROWS]), uw.Examples(x[ROWS:])
    if isinstance(estimator, SVC | NuSVC):
        estimator = clone(estimator).set_params(decision_function_shape="ovo")
    fitted = clone(estimator).fit(train.x, train.y)
    begin = time.process_time()
    model = uw.explainable(fitted, train, measure=_measure)
    recipe = uw.LeaveOneOut() if hasattr(model, "undefined_removals") else uw.Influence()
    values = recipe.fit(model, train).attribute(queries).values
    ours = time.process_time() - begin
    has_linear_outputs = hasattr(model, "theta") or isinstance(estimator, LinearDiscriminantAnalysis | Perceptron)
    kind = "predict" if is_number else "decision" if has_linear_outputs else "probabilities"
    base, actual, removed = _outputs(fitted, queries.x, kind), [], np.arange(0, ROWS, ROWS // LEFT_OUT)
    begin = time.process_time()
    for i in removed:
        if isinstance(estimator, Perceptron):
            weights = (np.arange(ROWS) != i).astype(float)
            refit = clone(estimator).fit(train.x, train.y, sample_weight=weights)
        else:
            refit = clone(estimator).fit(np.delete(train.x, i, 0), np.delete(y[:ROWS], i))
        actual.append(base - _outputs(refit, queries.x, kind))
    theirs = (time.process_time() - begin) * ROWS / len(removed)
    effects = np.stack(actual, axis=1)
    if not effects.any() and not values[:, removed].any():
        return None, ours, theirs
    return agreement(values[:, removed], effects), ours, theirs


def _row(name: str, data: str, found: Any) -> list[str]:
    """A row of the table; without agreement, no removal changes anything by either way."""
    if found is None:
        return [name, data, "no effect", "no effect", verdict(True)]
    is_met = verdict(abs(found.slope - 1) <= SLOPE and found.pearson >= PEARSON)
    return [name, data, f"{found.pearson:.6f}", f"{found.slope:.4f}", "" if name in HELD else is_met]


def main() -> None:
    """Compare every estimator on the five data sets of its kind."""
    title = f"Leaving out single examples, {ROWS} rows × {QUERIES} queries"
    table = Table(title, TARGET, ["estimator", "data", "Pearson", "slope", ""])
    costs = Table(
        "CPU seconds of n refits ÷ those of all removals",
        "none",
        ["estimator", "median of five data sets", "least and most"],
        notes=[f"Reading the model is counted; {LEFT_OUT} refits are timed and scaled to {ROWS}."],
    )
    for is_number, estimators in ((False, CLASSIFIERS), (True, {**REGRESSORS, **HELD})):
        for name, estimator in estimators.items():
            ratios: list[float] = []
            for data, make in (NUMBERS if is_number else CLASSES).items():
                x, y = _data(make, is_number)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found, ours, theirs = _compare(estimator, x, y, is_number)
                row = _row(name, data, found)
                table.add(*row)
                ratios.append(theirs / ours)
                print(*row, f"{ours:.2f} s, refits {theirs:.2f} s", flush=True)
            costs.add(name, f"{np.median(ratios):.1f}", f"{min(ratios):.1f} to {max(ratios):.1f}")
    table.notes = [
        "Measured is the last output: decision value, log-probability, probability or predicted number.",
        "ARDRegression has no target: refits find new precisions, which are held fixed here.",
        "Perceptron: refits are with weight 0, in the same order of the other examples.",
    ]
    Section("refit agreement", "Exact routes beside refits", COMMAND, [table, costs]).keep()


if __name__ == "__main__":
    main()
