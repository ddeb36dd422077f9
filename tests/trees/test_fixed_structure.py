"""Fixed structure, compared with the refits of the libraries themselves, a slow replay, and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

import upweight as uw
from support.tree_families import BOOSTERS
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import (
    forward_derivative,
    margin_changes,
    refit,
    reverse_derivative,
    single_point_derivative,
)
from upweight.trees.top_leaves import top_leaves_derivative


def slow_replay(
    boosting: Boosting, weights: np.ndarray, moving: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(leaf values, base) of boosting with these weights, one leaf at a time.

    `moving` are the examples whose margins follow the new leaf values; None lets all of them follow.
    """
    ensemble, loss, rule = boosting.ensemble, boosting.loss, boosting.rule
    n = len(weights)
    base = ensemble.base
    if boosting.base_is_fitted:
        before, after = (loss.link(boosting.targets @ w / w.sum()) for w in (boosting.weights, weights))
        base = base + after - before
    moving = np.arange(n) if moving is None else moving
    margins = np.tile(ensemble.base[:, None], (1, n))
    margins[:, moving] = base[:, None]
    values, old = np.zeros_like(ensemble.values), boosting.reproduced
    for trees in ensemble.by_step():
        g, h = loss.derivatives(margins, boosting.targets)
        h = h if rule.newton else np.ones_like(h)
        for tree in trees:
            leaves = boosting.leaves[:, tree]
            for leaf in range(*ensemble.leaves_of(tree).indices(len(values))):
                inside = leaves == leaf
                for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(base)))):
                    total = (weights * h[output])[inside].sum()
                    step = -(weights * g[output])[inside].sum() / (total + rule.l2[leaf]) if total > 0 else 0.0
                    values[leaf, column] = rule.learning_rate * step
            for column, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(base)))):
                margins[output] += ensemble.values[leaves, column]
                margins[output, moving] += (values - old)[leaves, column][moving]
    return values, base


def boosting_of(problem):
    """How the leaf values of a problem's booster follow from its training set."""
    train, _ = problem.examples()
    return problem.model(train).grown(train)


@pytest.fixture(params=BOOSTERS, ids=lambda p: p.name, scope="module")
def boosting(request):
    return boosting_of(request.param)


def test_the_training_set_reproduces_leaf_values(boosting):
    assert boosting.exact and boosting.mismatch < 1e-5


def test_a_block_of_removals_is_a_slow_replay_of_each(boosting):
    removed = [np.array([3]), np.array([5, 17, 40]), np.arange(0, 60, 2)]
    change, base = refit(boosting, removed)
    for column, rows in enumerate(removed):
        weights = boosting.weights.copy()
        weights[rows] = 0.0
        values, base_without = slow_replay(boosting, weights)
        np.testing.assert_allclose(change[..., column], values - boosting.reproduced, atol=1e-10)
        np.testing.assert_allclose(base[:, column], base_without - boosting.ensemble.base, atol=1e-10)


def test_the_forward_derivative_is_the_finite_difference_in_the_weights(boosting):
    examples, step = np.array([2, 30, 59]), 1e-5
    change, base = forward_derivative(boosting, examples)
    for column, example in enumerate(examples):
        up, down = (boosting.weights * (1 + sign * step * (np.arange(60) == example)) for sign in (1, -1))
        (high, high_base), (low, low_base) = slow_replay(boosting, up), slow_replay(boosting, down)
        np.testing.assert_allclose(change[..., column], (high - low) / (2 * step), atol=2e-7)
        np.testing.assert_allclose(base[:, column], (high_base - low_base) / (2 * step), atol=2e-7)


def test_the_reverse_derivative_is_the_forward_derivative(boosting):
    rng = np.random.default_rng(0)
    leaves, slopes = boosting.leaves[:7], rng.normal(size=(7, len(boosting.targets)))
    forward = margin_changes(boosting.ensemble, leaves, *forward_derivative(boosting, np.arange(60)))
    expected = np.einsum("mk,mkn->mn", slopes, forward)
    np.testing.assert_allclose(reverse_derivative(boosting, leaves, slopes) * boosting.weights, expected, atol=1e-12)


def test_the_single_point_derivative_is_the_finite_difference_with_other_margins_held(boosting):
    change, _ = single_point_derivative(boosting)
    step = 1e-5
    for example in (2, 30, 59):
        up, down = (boosting.weights * (1 + sign * step * (np.arange(60) == example)) for sign in (1, -1))
        high, low = (slow_replay(boosting, w, np.array([example]))[0] for w in (up, down))
        slope = (high - low)[boosting.leaves[example]] / (2 * step)
        np.testing.assert_allclose(change[example], slope, atol=2e-7)


def test_top_leaves_that_are_all_leaves_are_all_points(boosting):
    examples = np.array([1, 50])
    top, everything = top_leaves_derivative(boosting, examples, 100), forward_derivative(boosting, examples)
    for of_top, of_all in zip(top, everything, strict=True):
        np.testing.assert_allclose(of_top, of_all, atol=1e-12)


@pytest.mark.parametrize(
    ("load", "settings"),
    [
        (load_diabetes, {"loss_function": "RMSE", "depth": 6}),
        (load_breast_cancer, {"loss_function": "Logloss", "depth": 4}),
    ],
    ids=["regression", "two classes with Newton leaves"],
)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_leaves_are_what_catboost_follows(load, settings, k):
    library = pytest.importorskip("catboost")
    train, query_inputs = table(load)
    train = train.replaced(y=np.round(train.y * 4) / 4)  # CatBoost holds labels in single precision
    queries = uw.Examples(query_inputs, train.y[:20])
    settings = {**settings, "iterations": 12, "learning_rate": 0.2, "leaf_estimation_iterations": 1, "random_seed": 1}
    settings |= {"boosting_type": "Plain", "bootstrap_type": "No", "boost_from_average": False, "thread_count": 1}
    booster = library.CatBoost({**settings, "verbose": 0, "allow_writing_files": False}).fit(train.x, train.y)
    pools = (library.Pool(examples.x, examples.y) for examples in (queries, train))
    positions, importances = booster.get_object_importance(
        *pools, type="PerObject", update_method=f"TopKLeaves:top={k}", importance_values_sign="All", thread_count=1
    )
    expected = np.zeros((len(queries), len(train)))
    np.put_along_axis(expected, np.array(positions), -np.array(importances), axis=1)
    scores = uw.LeafInfluence(update=k).fit(uw.explainable(booster, train), train).attribute(queries)
    np.testing.assert_allclose(scores.values, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_leaf_values_that_do_not_follow_from_the_training_set_are_refused(boosting):
    broken = replace(boosting, rule=replace(boosting.rule, learning_rate=boosting.rule.learning_rate * 1.01))
    assert not broken.exact
    with pytest.raises(ValueError, match=r"LeafRefit needs leaf values that are sums.*TreeSim, TREX or BoostIn"):
        broken.require_exact("LeafRefit")


def table(load):
    """A training set and query inputs from one of scikit-learn's data sets."""
    x, y = load(return_X_y=True)
    return uw.Examples(x[:150], y[:150] / (100 if y.max() > 1 else 1)), x[150:170]


@pytest.mark.parametrize("objective", ["binary", "regression"])
def test_refit_is_what_lightgbm_refits(objective):
    library = pytest.importorskip("lightgbm")
    train, query_inputs = table(load_breast_cancer if objective == "binary" else load_diabetes)
    settings = {"objective": objective, "num_leaves": 6, "boost_from_average": False, "lambda_l2": 0.5, "verbose": -1}
    booster = library.train({**settings, "num_threads": 1}, library.Dataset(train.x, train.y), 12)
    model = uw.explainable(booster, train)
    queries = uw.Examples(query_inputs)
    before = model.margins(queries)
    for removed in ([0], [7, 8, 9, 90]):
        remaining = train.without(removed)
        expected = booster.refit(remaining.x, remaining.y, decay_rate=0.0).predict(query_inputs, raw_score=True)
        changes = margin_changes(model.trees(), model.leaves(queries), *refit(model.grown(train), [np.array(removed)]))
        np.testing.assert_allclose((before + changes[..., 0])[:, 0], expected, atol=1e-6)
        assert np.abs(changes).max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "settings", "is_weighted"),
    [
        ("CatBoostRegressor", {}, True),
        ("CatBoostClassifier", {}, True),
        ("CatBoostClassifier", {"class_weights": [1, 4]}, False),
        ("CatBoostClassifier", {"loss_function": "MultiClass"}, True),
    ],
    ids=["regression", "two classes", "weights of classes", "classes solved for jointly"],
)
def test_refit_is_what_catboost_trains_where_splits_stay(kind, settings, is_weighted):
    """Its l2 is per mean weight, which a removal changes. The columns are so unlike that no removal moves a split."""
    library = pytest.importorskip("catboost")
    rng = np.random.default_rng(0)
    x = np.stack([np.tile([0, 1], 30), np.tile([0, 0, 1, 1], 15), np.repeat([0, 1], 30)], axis=1).astype(float)
    y = x @ [4.0, 1.5, 0.4] + rng.normal(size=60) * 0.3
    is_regression = kind == "CatBoostRegressor"
    y = y if is_regression else np.digitize(y, [1.7, 4.2] if "loss_function" in settings else [2.8])
    plain = {"iterations": 3, "depth": 1, "learning_rate": 0.3, "leaf_estimation_iterations": 1, "thread_count": 1}
    plain |= {"boosting_type": "Plain", "bootstrap_type": "No", "random_strength": 0, "l2_leaf_reg": 9}
    booster = getattr(library, kind)(**plain, **settings, verbose=0, allow_writing_files=False)
    train = uw.Examples(x, y, weights=1.0 + np.arange(60) % 5 * 0.7 if is_weighted else None)
    model = uw.explainable(booster.fit(x, y, sample_weight=train.weights), train)
    for row in (4, 8, 31):
        remaining = np.arange(60) != row
        retrained = model.retrain(train, remaining.astype(float))
        for tree, other in zip(model.leaves(train).T, retrained.leaves(train).T, strict=True):
            assert len(np.unique(np.stack([tree, other]), axis=1).T) == len(np.unique(tree))
        changes = margin_changes(model.trees(), model.leaves(train), *refit(model.grown(train), [np.array([row])]))
        expected = retrained.margins(train) - model.margins(train)
        np.testing.assert_allclose(changes[..., 0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "count:poisson"])
def test_refit_is_what_xgboost_refreshes(objective):
    library = pytest.importorskip("xgboost")
    train, query_inputs = table(load_breast_cancer if "binary" in objective else load_diabetes)
    settings = {"objective": objective, "max_depth": 3, "base_score": 0.5, "lambda": 2.0, "nthread": 1}
    settings |= {"min_child_weight": 0}  # its refresh empties leaves below it, training only forbids splits
    booster = library.train(settings, library.DMatrix(train.x, train.y), 12)
    model = uw.explainable(booster, train)
    queries = uw.Examples(query_inputs)
    before = model.margins(queries)
    refresh = {**settings, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    for removed in ([0], [7, 8, 9, 90]):
        remaining = train.without(removed)
        refreshed = library.train(refresh, library.DMatrix(remaining.x, remaining.y), 12, xgb_model=booster.copy())
        expected = refreshed.predict(library.DMatrix(query_inputs), output_margin=True)
        changes = margin_changes(model.trees(), model.leaves(queries), *refit(model.grown(train), [np.array(removed)]))
        np.testing.assert_allclose((before + changes[..., 0])[:, 0], expected, atol=2e-6)
        assert np.abs(changes).max() > 1e-4
