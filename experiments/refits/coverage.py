"""How often the 90 % intervals of budgeted routes contain what the route estimates, found with many more trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from experiments.results import Result, Row
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import BaggingClassifier, BaggingRegressor, RandomForestClassifier
from sklearn.linear_model import Ridge, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

import upweight as uw

Array = NDArray[np.float64]
LEVEL = 0.9
TRUTH_SEEDS = 150
TRUTH_REFITS = 3000
REPEATS = 4  # estimates of the same numbers, each with other random numbers
REMOVALS = 10  # examples of which leave-one-out effects are compared


def data(is_regression: bool, rows: int) -> tuple[uw.Examples, uw.Examples]:
    """A training set and ten queries, with standardised columns."""
    x, y = (load_diabetes if is_regression else load_breast_cancer)(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[: rows + 10]
    x, y = StandardScaler().fit_transform(x)[order, :6], (y / 100.0 if is_regression else y)[order]
    return uw.Examples(x[:rows], y[:rows]), uw.Examples(x[rows:], y[rows:])


def leave_one_out(make: Callable[[int], Any], is_regression: bool, seeds: int) -> Iterator[NDArray[np.bool_]]:
    """For each repeat, whether intervals over few seeds contain the mean effect over many."""
    train, queries = data(is_regression, 60)
    model = uw.refittable(make(0).fit(train.x, train.y), train)
    weights = np.ones((REMOVALS + 1, len(train)))
    weights[np.arange(1, REMOVALS + 1), np.arange(REMOVALS)] = 0.0
    truth = np.zeros((len(queries), REMOVALS))
    for seed in range(10_000, 10_000 + TRUTH_SEEDS):
        measured = np.stack([model.retrain(train, row, seed).measure(queries) for row in weights], axis=1)
        truth += (measured[:, :1] - measured[:, 1:]) / TRUTH_SEEDS
    for repeat in range(REPEATS):
        model = uw.refittable(make(repeat).fit(train.x, train.y), train)
        scores = uw.ShortlistLeaveOneOut(seeds=seeds).fit(model, train).attribute(queries)
        yield contained(scores, truth, slice(0, REMOVALS))


def contained(scores: uw.Scores, truth: Array, columns: slice = slice(None)) -> NDArray[np.bool_]:
    """Whether each interval contains the truth."""
    assert scores.half_widths is not None
    return np.abs(scores.values[:, columns] - truth) <= scores.half_widths[:, columns] + 1e-12


def regression(
    estimator: Any, is_regression: bool, truth: Any, estimates: list[Any], rows: int = 40
) -> Iterator[NDArray[np.bool_]]:
    """For each estimate, whether its intervals contain the scores of a recipe with many more refits."""
    train, queries = data(is_regression, rows)
    model = uw.refittable(estimator.fit(train.x, train.y), train)
    expected = truth.fit(model, train).attribute(queries).values
    for recipe in estimates:
        yield contained(recipe.fit(model, train).attribute(queries), expected)


def out_of_bag(make: Callable[[int, int], Any], is_regression: bool, members: int) -> Iterator[NDArray[np.bool_]]:
    """For each repeat, whether intervals from few members contain the scores of an ensemble of many."""
    train, queries = data(is_regression, 60)

    def scores(ensemble: Any) -> uw.Scores:
        model = uw.refittable(ensemble.fit(train.x, train.y), train)
        return uw.DataOOB().fit(model, train).attribute(queries)

    expected = scores(make(10_000, TRUTH_REFITS)).values
    for repeat in range(REPEATS):
        yield contained(scores(make(repeat, members)), expected)


def cases() -> Iterator[tuple[str, Iterator[NDArray[np.bool_]]]]:
    """(route and estimator, for each repeat which intervals contain the truth)."""
    for seeds in (4, 8):
        route = f"leave-one-out over {seeds} seeds"
        yield (
            f"{route}: bagging, 5 trees",
            leave_one_out(lambda r: BaggingRegressor(None, 5, random_state=r), True, seeds),
        )
        yield f"{route}: one extra tree", leave_one_out(lambda r: ExtraTreeRegressor(random_state=r), True, seeds)
        yield f"{route}: SGD", leave_one_out(lambda r: SGDRegressor(random_state=r), True, seeds)
    route = "leave-one-out over 4 seeds"
    yield f"{route}: forest, 5 trees", leave_one_out(lambda r: RandomForestClassifier(5, random_state=r), False, 4)
    seeds_of, many = range(REPEATS), uw.Datamodels(refits=TRUTH_REFITS, seed=99)
    tree = DecisionTreeRegressor(max_depth=4, random_state=0)
    for name, estimator, is_regression in (
        ("ridge", Ridge(3.0), True),
        ("5 neighbours", KNeighborsClassifier(), False),
        ("one tree", tree, True),
    ):
        estimates = [uw.Datamodels(refits=refits, seed=s) for refits in (60, 200) for s in seeds_of]
        yield f"Datamodels, 60 and 200 refits: {name}", regression(estimator, is_regression, many, estimates)
    more = uw.WeightCovariance(refits=TRUTH_REFITS, seed=99)
    perturbed = [uw.WeightCovariance(refits=refits, seed=s) for refits in (60, 200) for s in seeds_of]
    yield "WeightCovariance, 60 and 200 refits: ridge", regression(Ridge(3.0), True, more, perturbed)
    yield "WeightCovariance, 60 and 200 refits: naive Bayes", regression(GaussianNB(), False, more, perturbed)
    orders = [uw.DataShapley(refits=160, tolerance=0.0, seed=s) for s in seeds_of]
    exact = uw.DataShapley(refits=TRUTH_REFITS, tolerance=0.0, seed=99)
    yield "DataShapley, 8 orders: ridge", regression(Ridge(3.0), True, exact, orders, rows=20)
    yield "DataShapley, 8 orders: 5 neighbours", regression(KNeighborsClassifier(), False, exact, orders, rows=20)
    yield (
        "DataOOB, 50 members: bagging of trees",
        out_of_bag(lambda r, m: BaggingRegressor(n_estimators=m, random_state=r), True, 50),
    )
    yield (
        "DataOOB, 50 members: bagging of trees, classes",
        out_of_bag(lambda r, m: BaggingClassifier(n_estimators=m, random_state=r), False, 50),
    )


def run() -> Result:
    """The share of intervals that contain the truth, for each route and estimator, and over all."""
    rows, hits, pairs = [], 0, 0
    for name, repeats in cases():
        results = list(repeats)
        inside = np.stack(results)
        rows.append(_row(name, float(inside.mean()), inside[0].size, len(results)))
        print(rows[-1], flush=True)
        hits, pairs = hits + int(inside.sum()), pairs + inside.size
    overall = Row(f"all routes, {pairs:,} intervals", "–", f"{hits / pairs:.3f}", hits / pairs >= LEVEL - _error(pairs))
    return Result(
        title="Intervals of scores from refits",
        claim="A 90 % interval of a score contains what the score estimates in at least 90 % of the pairs.",
        rows=[overall, *rows],
        settings=(
            f"Breast cancer and diabetes, 6 columns; 20 to 60 rows, 10 queries; {REPEATS} estimates with other random "
            f"numbers. Truth: {TRUTH_SEEDS} seeds, {TRUTH_REFITS:,} refits or members."
        ),
        section="Scores from refits: any estimator of scikit-learn",
        name="coverage",
        command="python -m experiments.refits --only coverage",
        notes=[
            "Met: not below 90 % by more than two standard errors of a share over the pairs of one estimate (query, "
            "example), since repeats share the truth.",
        ],
    )


def _row(name: str, share: float, pairs: int, repeats: int) -> Row:
    return Row(f"{name} ({pairs:,} pairs × {repeats})", "–", f"{share:.3f}", share >= LEVEL - _error(pairs))


def _error(pairs: int) -> float:
    """Two standard errors of a share of 90 %."""
    return 2.0 * float(np.sqrt(LEVEL * (1 - LEVEL) / pairs))
