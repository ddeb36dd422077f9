"""Fixed structure: against refits by the libraries themselves, a slow replay, and finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

import upweight as uw
from tree_families import BOOSTERS
from upweight.trees.boosting import Boosting
from upweight.trees.fixed_structure import (
    forward_derivative,
    margin_changes,
    refit,
    reverse_derivative,
    single_point_derivative,
)


def replayed(grown: Boosting, weights: np.ndarray, moving: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(leaf values, base) of boosting with these weights, one leaf at a time; margins move for `moving` alone."""
    ensemble, loss, rule = grown.ensemble, grown.loss, grown.rule
    n = len(weights)
    base = ensemble.base
    if grown.base_is_fitted:
        before, after = (loss.link(grown.targets @ w / w.sum()) for w in (grown.weights, weights))
        base = base + after - before
    own = np.arange(n) if moving is None else moving
    margins = np.tile(ensemble.base[:, None], (1, n))
    margins[:, own] = base[:, None]
    values, old = np.zeros_like(ensemble.values), grown.reproduced
    for trees in ensemble.by_step():
        g, h = loss.derivatives(margins, grown.targets)
        h = h if rule.newton else np.ones_like(h)
        for tree in trees:
            for leaf in range(*ensemble.leaves_of(tree).indices(len(values))):
                inside = grown.leaves[:, tree] == leaf
                for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(base)))):
                    total = (weights * h[output])[inside].sum()
                    step = -(weights * g[output])[inside].sum() / (total + rule.l2[leaf]) if total > 0 else 0.0
                    values[leaf, place] = rule.learning_rate * step
            for place, output in enumerate(range(*ensemble.outputs_of(tree).indices(len(base)))):
                at = grown.leaves[:, tree]
                margins[output] += ensemble.values[at, place]
                margins[output, own] += (values - old)[at, place][own]
    return values, base


def grown_of(problem):
    train, _ = problem.examples()
    return problem.model(train).grown(train)


@pytest.fixture(params=BOOSTERS, ids=lambda p: p.name, scope="module")
def grown(request):
    return grown_of(request.param)


def test_leaf_values_are_made_again(grown):
    assert grown.exact and grown.mismatch < 1e-5


def test_removals_all_at_once_are_slow_replays_one_by_one(grown):
    removed = [np.array([3]), np.array([5, 17, 40]), np.arange(0, 60, 2)]
    change, base = refit(grown, removed)
    for column, gone in enumerate(removed):
        weights = grown.weights.copy()
        weights[gone] = 0.0
        values, start = replayed(grown, weights)
        np.testing.assert_allclose(change[..., column], values - grown.reproduced, atol=1e-10)
        np.testing.assert_allclose(base[:, column], start - grown.ensemble.base, atol=1e-10)


def test_all_points_is_the_finite_difference_of_weights(grown):
    examples, step = np.array([2, 30, 59]), 1e-5
    change, base = forward_derivative(grown, examples)
    for column, one in enumerate(examples):
        up, down = (grown.weights * (1 + sign * step * (np.arange(60) == one)) for sign in (1, -1))
        (high, start), (low, other) = replayed(grown, up), replayed(grown, down)
        np.testing.assert_allclose(change[..., column], (high - low) / (2 * step), atol=2e-7)
        np.testing.assert_allclose(base[:, column], (start - other) / (2 * step), atol=2e-7)


def test_from_the_last_tree_back_it_is_the_same_derivative(grown):
    rng = np.random.default_rng(0)
    places, slopes = grown.leaves[:7], rng.normal(size=(7, len(grown.targets)))
    forward = margin_changes(grown.ensemble, places, *forward_derivative(grown, np.arange(60)))
    expected = np.einsum("mk,mkn->mn", slopes, forward)
    np.testing.assert_allclose(reverse_derivative(grown, places, slopes) * grown.weights, expected, atol=1e-12)


def test_single_point_is_the_finite_difference_with_everyone_else_held(grown):
    change, _ = single_point_derivative(grown)
    step = 1e-5
    for one in (2, 30, 59):
        up, down = (grown.weights * (1 + sign * step * (np.arange(60) == one)) for sign in (1, -1))
        high, low = (replayed(grown, w, np.array([one]))[0] for w in (up, down))
        slope = (high - low)[grown.leaves[one]] / (2 * step)
        np.testing.assert_allclose(change[one], slope, atol=2e-7)


def test_enough_top_leaves_are_all_points(grown):
    examples = np.array([1, 50])
    for ours, theirs in zip(forward_derivative(grown, examples, 100), forward_derivative(grown, examples), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_what_breaks_a_leaf_is_seen(grown):
    broken = replace(grown, rule=replace(grown.rule, learning_rate=grown.rule.learning_rate * 1.01))
    assert not broken.exact
    with pytest.raises(ValueError, match=r"LeafRefit needs leaf values that are sums.*TreeSim, TREX or BoostIn"):
        broken.require_exact("LeafRefit")


def table(load):
    x, y = load(return_X_y=True)
    return uw.Examples(x[:150], y[:150] / (100 if y.max() > 1 else 1)), x[150:170]


@pytest.mark.parametrize("objective", ["binary", "regression"])
def test_it_is_what_lightgbm_refits(objective):
    library = pytest.importorskip("lightgbm")
    train, asked = table(load_breast_cancer if objective == "binary" else load_diabetes)
    settings = {"objective": objective, "num_leaves": 6, "boost_from_average": False, "lambda_l2": 0.5, "verbose": -1}
    booster = library.train({**settings, "num_threads": 1}, library.Dataset(train.x, train.y), 12)
    model = uw.explainable(booster, train)
    queries = uw.Examples(asked)
    before = model.margins(queries)
    for gone in ([0], [7, 8, 9, 90]):
        kept = train.without(gone)
        theirs = booster.refit(kept.x, kept.y, decay_rate=0.0).predict(asked, raw_score=True)
        moved = margin_changes(model.trees(), model.leaves(queries), *refit(model.grown(train), [np.array(gone)]))
        np.testing.assert_allclose((before + moved[..., 0])[:, 0], theirs, atol=1e-6)
        assert np.abs(moved).max() > 1e-4


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "count:poisson"])
def test_it_is_what_xgboost_refreshes(objective):
    library = pytest.importorskip("xgboost")
    train, asked = table(load_breast_cancer if "binary" in objective else load_diabetes)
    settings = {"objective": objective, "max_depth": 3, "base_score": 0.5, "lambda": 2.0, "nthread": 1}
    settings |= {"min_child_weight": 0}  # its refresh empties leaves below it, training only forbids splits
    booster = library.train(settings, library.DMatrix(train.x, train.y), 12)
    model = uw.explainable(booster, train)
    queries = uw.Examples(asked)
    before = model.margins(queries)
    again = {**settings, "process_type": "update", "updater": "refresh", "refresh_leaf": True}
    for gone in ([0], [7, 8, 9, 90]):
        kept = train.without(gone)
        refreshed = library.train(again, library.DMatrix(kept.x, kept.y), 12, xgb_model=booster.copy())
        theirs = refreshed.predict(library.DMatrix(asked), output_margin=True)
        moved = margin_changes(model.trees(), model.leaves(queries), *refit(model.grown(train), [np.array(gone)]))
        np.testing.assert_allclose((before + moved[..., 0])[:, 0], theirs, atol=2e-6)
        assert np.abs(moved).max() > 1e-4
