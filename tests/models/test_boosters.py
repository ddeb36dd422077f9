"""Boosters of every library: read as they predict, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.trees.losses import Custom

pd = pytest.importorskip("pandas")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
catboost = pytest.importorskip("catboost")

QUIET = {"n_jobs": 1, "verbose": -1}
PLAIN = {"bootstrap_type": "No", "leaf_estimation_iterations": 1, "boosting_type": "Plain", "verbose": 0}
PLAIN |= {"allow_writing_files": False, "thread_count": 1}


@st.composite
def tables(draw):
    """(x, y, weights, kind of target): 30 to 80 rows, some of them with holes, one category."""
    seed, rows = draw(st.integers(0, 10_000)), draw(st.integers(30, 80))
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(np.round(rng.normal(size=(rows, 3)), draw(st.integers(0, 6))), columns=["a", "b", "c d"])
    if draw(st.booleans()):
        frame = frame.mask(rng.random(frame.shape) < draw(st.sampled_from([0.05, 0.5])))
    frame["kind"] = pd.Categorical(rng.choice(list("pqrstuvw")[: draw(st.integers(2, 8))], rows))
    kind = draw(st.sampled_from(["two", "three", "amount", "count"]))
    lean = rng.normal(size=rows) + (frame["kind"].cat.codes.to_numpy() % 3)
    y = {
        "two": np.where(lean > 1, "yes", "no"),
        "three": np.digitize(lean, [0.3, 1.5]),
        "amount": lean * draw(st.sampled_from([0.01, 1.0, 1000.0])),
        "count": np.floor(np.exp(lean / 2)),
    }[kind]
    classes = {"two": 2, "three": 3}.get(kind)
    if classes and len(np.unique(y)) < classes:
        y = np.array(["yes", "no"] * rows)[:rows] if kind == "two" else np.arange(rows) % 3
    return frame, y, rng.uniform(0.2, 3.0, rows) if draw(st.booleans()) else None, kind


SHAPES = st.fixed_dictionaries(
    {"trees": st.integers(1, 12), "depth": st.integers(1, 5), "rate": st.sampled_from([0.05, 0.3, 1.0])}
)


def check(estimator, x, y, weights):
    """Reading it succeeds only if margins are the library's; leaf values too must be made again."""
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(estimator, train)
    assert model.grown(train).exact, model.grown(train).mismatch
    again = model.retrain(train, np.ones(len(train)))
    np.testing.assert_allclose(again.margins(train), model.margins(train), atol=1e-6)
    return model


@settings(max_examples=40)
@given(tables(), SHAPES, st.sampled_from([0.0, 0.7]), st.sampled_from([0.0, 2.0]), st.booleans())
def test_lightgbm_is_read_exactly(table, shape, l1, l2, from_average):
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
    maker = lightgbm.LGBMRegressor if kind in ("amount", "count") else lightgbm.LGBMClassifier
    check(maker(**QUIET, **more).fit(x, y, sample_weight=weights), x, y, weights)


def test_a_lightgbm_tree_with_nothing_to_split_is_a_constant():
    x, y = np.ones((30, 2)), np.arange(30.0)
    for from_average in (True, False):
        model = check(regressor(boost_from_average=from_average).fit(x, y), x, y, None)
        np.testing.assert_allclose(model.margins(uw.Examples(x[:1])), 14.5)


@settings(max_examples=40)
@given(tables(), SHAPES, st.sampled_from([0.0, 0.7]), st.sampled_from([0.0, 2.0]), st.sampled_from(["hist", "approx"]))
def test_xgboost_is_read_exactly(table, shape, l1, l2, tree_method):
    x, y, weights, kind = table
    y = (y == "yes").astype(int) if kind == "two" else y
    x = x.rename(columns={"c d": "c"})
    more = {"reg_alpha": l1, "reg_lambda": l2, "tree_method": tree_method, "enable_categorical": True, "n_jobs": 1}
    more |= {"n_estimators": shape["trees"], "max_depth": shape["depth"], "learning_rate": shape["rate"]}
    more |= {"objective": "count:poisson"} if kind == "count" else {}
    maker = xgboost.XGBRegressor if kind in ("amount", "count") else xgboost.XGBClassifier
    check(maker(**more).fit(x, y, sample_weight=weights), x, y, weights)


@settings(max_examples=20)
@given(tables(), SHAPES, st.sampled_from(["SymmetricTree", "Lossguide"]))
def test_catboost_is_read_exactly(table, shape, policy):
    x, y, weights, kind = table
    more = {
        "iterations": shape["trees"],
        "depth": shape["depth"],
        "learning_rate": shape["rate"],
        "grow_policy": policy,
    }
    more |= {"loss_function": "Poisson"} if kind == "count" else {}
    more |= {"leaf_estimation_method": "Gradient"} if kind == "three" else {}
    maker = catboost.CatBoostRegressor if kind in ("amount", "count") else catboost.CatBoostClassifier
    check(
        maker(**PLAIN, **more, cat_features=["kind"], one_hot_max_size=10).fit(x, y, sample_weight=weights),
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
        maker = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        more = {"max_iter": shape["trees"], "l2_regularization": l2, "categorical_features": "from_dtype"}
        more |= {"loss": "poisson"} if kind == "count" else {}
    else:
        maker = GradientBoostingClassifier if classes else GradientBoostingRegressor
        more, x = {"n_estimators": shape["trees"]}, x[["a", "b"]].fillna(0.0)
    check(maker(**shared, **more).fit(x, y, sample_weight=weights), x, y, weights)


@settings(max_examples=10)
@given(tables(), SHAPES, st.booleans())
def test_forests_are_read_exactly(table, shape, bootstrap):
    x, y, weights, kind = table
    maker = RandomForestClassifier if kind in ("two", "three") else RandomForestRegressor
    forest = maker(shape["trees"], max_depth=shape["depth"], bootstrap=bootstrap, random_state=0)
    check(forest.fit(x[["a", "b"]].fillna(0), y, sample_weight=weights), x[["a", "b"]].fillna(0), y, weights)


def amounts(rows=120):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    return x, x[:, 0] + 0.3 * rng.normal(size=rows)


def regressor(**more):
    return lightgbm.LGBMRegressor(n_estimators=8, min_child_samples=5, **QUIET, **more)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"boosting_type": "dart"}, "DART drops trees"),
        ({"data_sample_strategy": "goss", "learning_rate": 0.9}, "GOSS samples rows"),
        ({"subsample": 0.5, "subsample_freq": 1}, "bagging_fraction samples rows"),
    ],
)
def test_what_training_did_not_record_is_named_and_ranking_still_works(settings, says):
    x, y = amounts()
    train = uw.Examples(x, y)
    model = uw.explainable(regressor(**settings).fit(x, y), train)
    assert says in model.notes[0]
    for method in (uw.TreeSim(), uw.TREX(), uw.BoostIn()):
        assert says in method.fit(model, train).attribute(train.take([0])).diagnostics["warnings"][0]
    with pytest.raises(ValueError, match=f"LeafRefit works on leaf values as sums.*{says}"):
        uw.LeafRefit().fit(model, train)


@pytest.mark.parametrize("sampling", ["MVS", "Bayesian", "Bernoulli", "No"])
def test_catboost_samples_for_splits_alone(sampling):
    x, y = amounts()
    more = {"iterations": 6, "bootstrap_type": sampling, "random_seed": 1}
    check(catboost.CatBoostClassifier(**{**PLAIN, **more}).fit(x, y > 0), x, y > 0, None)


def test_catboosts_ordered_boosting_orders_splits_alone():
    x, y = amounts()
    check(catboost.CatBoostRegressor(iterations=5, **{**PLAIN, "boosting_type": "Ordered"}).fit(x, y), x, y, None)


def test_what_catboost_did_beyond_one_plain_step_is_named():
    x, y = amounts()
    several = catboost.CatBoostClassifier(iterations=5, **{**PLAIN, "leaf_estimation_iterations": 5}).fit(x, y > 0)
    assert "leaf_estimation_iterations=1" in uw.explainable(several, uw.Examples(x, y > 0)).notes[0]
    frame = pd.DataFrame(x).assign(kind=np.arange(120) % 7).astype({"kind": str})
    coded = catboost.CatBoostRegressor(iterations=5, **PLAIN, cat_features=["kind"]).fit(frame, y + np.arange(120) % 7)
    assert "one_hot_max_size" in uw.explainable(coded, uw.Examples(frame, y + np.arange(120) % 7)).notes[0]


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost"])
def test_a_ranking_objective_is_refused(kind):
    x, y = amounts()
    label = (y > 0).astype(int)
    if kind == "lightgbm":
        ranker = lightgbm.LGBMRanker(n_estimators=3, **QUIET).fit(x, label, group=[60, 60])
    else:
        ranker = xgboost.XGBRanker(n_estimators=3).fit(x, label, qid=np.arange(120) // 60)
    with pytest.raises(ValueError, match=r"rank.*not supported.*pairs or lists.*there are"):
        uw.explainable(ranker, uw.Examples(x, label))


def test_other_data_are_refused():
    x, y = amounts()
    booster = regressor().fit(x, y)
    with pytest.raises(ValueError, match="expected the data that LGBMRegressor was fitted on"):
        uw.explainable(booster, uw.Examples(x, y[::-1]))
    with pytest.raises(ValueError, match="expected inputs with 4 columns"):
        uw.explainable(booster, uw.Examples(x[:, :3], y))
    frame = pd.DataFrame(x, columns=list("abcd"))
    booster = regressor().fit(frame, y)
    with pytest.raises(ValueError, match=r"expected the columns \['a', 'b', 'c', 'd'\] in this order"):
        uw.explainable(booster, uw.Examples(frame[list("dcba")], y))


def test_an_unfitted_booster_is_refused():
    x, y = amounts()
    for booster in (regressor(), xgboost.XGBRegressor(), catboost.CatBoostRegressor(), GradientBoostingRegressor()):
        with pytest.raises(ValueError, match="is not fitted"):
            uw.explainable(booster, uw.Examples(x, y))


def test_linear_leaves_are_refused():
    x, y = amounts()
    with pytest.raises(ValueError, match="linear leaves"):
        uw.explainable(regressor(linear_tree=True).fit(x, y), uw.Examples(x, y))


def test_early_stopping_counts_the_trees_that_predict():
    x, y = amounts()
    stop = [lightgbm.early_stopping(2, verbose=False)]
    booster = lightgbm.LGBMRegressor(n_estimators=200, learning_rate=0.5, min_child_samples=5, **QUIET)
    booster.fit(x[:80], y[:80], eval_set=[(x[80:], y[80:])], callbacks=stop)
    model = check(booster, x[:80], y[:80], None)
    assert model.trees().trees == booster.best_iteration_ < 200
    booster = xgboost.XGBRegressor(n_estimators=200, early_stopping_rounds=2, n_jobs=1)
    booster.fit(x[:80], y[:80], eval_set=[(x[80:], y[80:])], verbose=False)
    model = check(booster, x[:80], y[:80], None)
    assert model.trees().trees == booster.best_iteration + 1 < 200


def test_native_boosters_are_read_and_trained_again():
    x, y = amounts()
    label = (y > 0).astype(int)
    check(lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(x, label), 6), x, label, None)
    check(xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, label), 6), x, label, None)
    settings = {**PLAIN, "loss_function": "Logloss", "iterations": 6}
    check(catboost.CatBoost(settings).fit(x, label), x, label, None)


def test_a_pipeline_is_held_fixed():
    x, y = amounts()
    pipeline = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=5)).fit(x, y)
    check(pipeline, x, y, None)


def test_a_loss_of_ones_own_is_given_by_three_derivatives():
    x, y = amounts()

    def cosh(labels, outputs):
        off = outputs - labels
        return np.tanh(off), 1 / np.cosh(off) ** 2

    booster = lightgbm.LGBMRegressor(objective=cosh, n_estimators=6, min_child_samples=5, **QUIET).fit(x, y)
    loss = Custom(
        lambda z, t: np.tanh(z - t),
        lambda z, t: 1 / np.cosh(z - t) ** 2,
        lambda z, t: -2 * np.tanh(z - t) / np.cosh(z - t) ** 2,
        lambda z, t: np.log(np.cosh(z - t)),
    )
    train = uw.Examples(x, y)
    with pytest.raises(ValueError, match=r"loss=upweight\.trees\.losses\.Custom"):
        uw.explainable(booster, train)
    model = uw.explainable(booster, train, loss=loss)
    assert model.grown(train).exact
    assert np.ptp(uw.LeafRefit().fit(model, train).attribute(train.take([3])).row(3)) > 0


@pytest.mark.parametrize("level", [0.2, 0.7])
def test_quantiles_rank_and_say_why_no_more(level):
    x, y = amounts()
    train = uw.Examples(x, y)
    model = uw.explainable(regressor(objective="quantile", alpha=level).fit(x, y), train)
    assert "pinball" in model.measurement
    off = y - model.margins(train)[:, 0]
    np.testing.assert_allclose(model.measure(train), -np.maximum(level * off, (level - 1) * off))
    assert np.isfinite(uw.TreeSim().fit(model, train).attribute(train).values).all()
    with pytest.raises(ValueError, match="order statistics"):
        uw.LeafRefit().fit(model, train)


def test_a_class_that_would_be_lost_is_named():
    x, _ = amounts()
    y = np.array(["a"] * 118 + ["b"] * 2)
    model = uw.explainable(lightgbm.LGBMClassifier(n_estimators=3, **QUIET).fit(x, y), uw.Examples(x, y))
    with pytest.raises(ValueError, match="none of class 'b' is left"):
        model.retrain(uw.Examples(x, y), np.where(y == "b", 0.0, 1.0))


def test_measurements_are_the_same_as_everywhere():
    x, y = amounts()
    label = np.where(y > 0, "up", "down")
    booster = lightgbm.LGBMClassifier(n_estimators=8, min_child_samples=5, **QUIET).fit(x, label)
    train = uw.Examples(x, label)
    p = booster.predict_proba(x)[:, 1]
    np.testing.assert_allclose(uw.explainable(booster, train, uw.Probability(of="up")).measure(train), p)
    margin = np.log(p / (1 - p)) * np.where(label == "up", 1, -1)
    np.testing.assert_allclose(uw.explainable(booster, train, uw.Margin()).measure(train), margin, atol=1e-9)
    chance = np.where(label == "up", p, 1 - p)
    np.testing.assert_allclose(uw.explainable(booster, train).measure(train), np.log(chance), atol=1e-9)
