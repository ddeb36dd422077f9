"""Reading trees of random tables with missing values, categories and weights, compared with the library itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

import upweight as uw
from support.booster_check import PLAIN, QUIET, check

pd = pytest.importorskip("pandas")


@st.composite
def tables(draw):
    """(x, y, weights, kind of target): 30 to 80 rows, some with missing values, and a column of categories."""
    seed, rows = draw(st.integers(0, 10_000)), draw(st.integers(30, 80))
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(np.round(rng.normal(size=(rows, 3)), draw(st.integers(0, 6))), columns=["a", "b", "c d"])
    if draw(st.booleans()):
        frame = frame.mask(rng.random(frame.shape) < draw(st.sampled_from([0.05, 0.5])))
    frame["kind"] = pd.Categorical(rng.choice(list("pqrstuvw")[: draw(st.integers(2, 8))], rows))
    kind = draw(st.sampled_from(["two", "three", "amount", "count"]))
    latent = rng.normal(size=rows) + (frame["kind"].cat.codes.to_numpy() % 3)
    y = {
        "two": np.where(latent > 1, "yes", "no"),
        "three": np.digitize(latent, [0.3, 1.5]),
        "amount": latent * draw(st.sampled_from([0.01, 1.0, 1000.0])),
        "count": np.floor(np.exp(latent / 2)),
    }[kind]
    classes = {"two": 2, "three": 3}.get(kind)
    if classes and len(np.unique(y)) < classes:
        y = np.array(["yes", "no"] * rows)[:rows] if kind == "two" else np.arange(rows) % 3
    return frame, y, rng.uniform(0.2, 3.0, rows) if draw(st.booleans()) else None, kind


SHAPES = st.fixed_dictionaries(
    {"trees": st.integers(1, 12), "depth": st.integers(1, 5), "rate": st.sampled_from([0.05, 0.3, 1.0])}
)


@settings(max_examples=40)
@given(tables(), SHAPES, st.sampled_from([0.0, 0.7]), st.sampled_from([0.0, 2.0]), st.booleans())
def test_lightgbm_is_read_exactly(table, shape, l1, l2, from_average):
    library = pytest.importorskip("lightgbm")
    x, y, weights, kind = table
    more = {
        "boost_from_average": from_average,
        "reg_alpha": l1,
        "reg_lambda": l2,
        "min_data_per_group": 5,
        "cat_smooth": 1,
    }
    more |= {"n_estimators": shape["trees"], "max_depth": shape["depth"], "learning_rate": shape["rate"]}
    more |= {"min_child_samples": 5, "objective": "poisson"} if kind == "count" else {"min_child_samples": 3}
    estimator_class = library.LGBMRegressor if kind in ("amount", "count") else library.LGBMClassifier
    booster = estimator_class(**QUIET, **more).fit(x, y, sample_weight=weights)
    if kind == "three" and not from_average:  # a test below is about a class without a split
        first = booster.booster_.dump_model(num_iteration=1)["tree_info"]
        assume(all(tree["num_leaves"] > 1 for tree in first))
    check(booster, x, y, weights)


@settings(max_examples=40)
@given(tables(), SHAPES, st.sampled_from([0.0, 0.7]), st.sampled_from([0.0, 2.0]), st.sampled_from(["hist", "approx"]))
def test_xgboost_is_read_exactly(table, shape, l1, l2, tree_method):
    library = pytest.importorskip("xgboost")
    x, y, weights, kind = table
    y = (y == "yes").astype(int) if kind == "two" else y
    x = x.rename(columns={"c d": "c"})
    more = {"reg_alpha": l1, "reg_lambda": l2, "tree_method": tree_method, "enable_categorical": True, "n_jobs": 1}
    more |= {"n_estimators": shape["trees"], "max_depth": shape["depth"], "learning_rate": shape["rate"]}
    more |= {"objective": "count:poisson"} if kind == "count" else {}
    estimator_class = library.XGBRegressor if kind in ("amount", "count") else library.XGBClassifier
    check(estimator_class(**more).fit(x, y, sample_weight=weights), x, y, weights)


@settings(max_examples=20)
@given(tables(), SHAPES, st.sampled_from(["SymmetricTree", "Lossguide"]))
def test_catboost_is_read_exactly(table, shape, policy):
    library = pytest.importorskip("catboost")
    x, y, weights, kind = table
    more = {
        "iterations": shape["trees"],
        "depth": shape["depth"],
        "learning_rate": shape["rate"],
        "grow_policy": policy,
    }
    more |= {"loss_function": "Poisson"} if kind == "count" else {}
    more |= {"leaf_estimation_method": "Gradient"} if kind == "three" else {}
    estimator_class = library.CatBoostRegressor if kind in ("amount", "count") else library.CatBoostClassifier
    check(
        estimator_class(**PLAIN, **more, cat_features=["kind"], one_hot_max_size=10).fit(x, y, sample_weight=weights),
        x,
        y,
        weights,
    )


@settings(max_examples=25)
@given(tables(), SHAPES, st.sampled_from([0.0, 2.0]), st.booleans())
def test_scikit_learns_boosting_is_read_exactly(table, shape, l2, histograms):
    x, y, weights, kind = table
    classes = kind in ("two", "three")
    shared = {"max_depth": shape["depth"], "learning_rate": shape["rate"], "random_state": 0}
    if histograms:
        estimator_class = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        more = {"max_iter": shape["trees"], "l2_regularization": l2, "categorical_features": "from_dtype"}
        more |= {"loss": "poisson"} if kind == "count" else {}
    else:
        estimator_class = GradientBoostingClassifier if classes else GradientBoostingRegressor
        more, x = {"n_estimators": shape["trees"]}, x[["a", "b"]].fillna(0.0)
    check(estimator_class(**shared, **more).fit(x, y, sample_weight=weights), x, y, weights)


@settings(max_examples=10)
@given(tables(), SHAPES, st.booleans())
def test_forests_are_read_exactly(table, shape, bootstrap):
    x, y, weights, kind = table
    estimator_class = RandomForestClassifier if kind in ("two", "three") else RandomForestRegressor
    forest = estimator_class(shape["trees"], max_depth=shape["depth"], bootstrap=bootstrap, random_state=0)
    check(forest.fit(x[["a", "b"]].fillna(0), y, sample_weight=weights), x[["a", "b"]].fillna(0), y, weights)


def test_a_class_that_lightgbm_finds_no_split_for_is_reported():
    library = pytest.importorskip("lightgbm")
    x = np.repeat([[0.0], [1.0]], 30, axis=0)
    y = np.repeat([0, 1, 2, 0, 1, 2], [20, 5, 5, 5, 20, 5])  # class 2 is as frequent on either side
    model = library.LGBMClassifier(**QUIET, n_estimators=1, boost_from_average=False).fit(x, y)
    train = uw.Examples(x, y)
    training = uw.explainable(model, train).grown(train)
    assert not training.exact and "after the first round" in training.unrecorded[0]


def twins():
    """A table whose first two columns are the same."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[:, 1] = x[:, 0]
    return x, np.where(x[:, 0] > 0, 1, 0)


@pytest.mark.parametrize("family", ["lightgbm", "xgboost", "catboost", "forest", "gradient boosting", "histograms"])
def test_trees_with_the_same_leaves_and_other_splits_have_another_identity(family):
    x, y = twins()
    make = {
        "lightgbm": lambda: pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=3, **QUIET),
        "xgboost": lambda: pytest.importorskip("xgboost").XGBClassifier(n_estimators=3, n_jobs=1),
        "catboost": lambda: pytest.importorskip("catboost").CatBoostClassifier(iterations=3, **PLAIN),
        "forest": lambda: RandomForestClassifier(3, random_state=0),
        "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=3, random_state=0),
        "histograms": lambda: HistGradientBoostingClassifier(max_iter=3, random_state=0),
    }[family]
    identities = []
    for constant in (1, 0, 1):  # the column whose splits move to its twin
        altered = x.copy()
        altered[:, constant] = 0.0
        train = uw.Examples(altered, y)
        identities.append(uw.explainable(make().fit(altered, y), train).identity()["parameters"])
    assert identities[0] == identities[2] != identities[1]
