"""Boosters of every library: refusals, warnings about what training did not record, and retraining."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw
from support.booster_check import PLAIN, QUIET, check
from upweight.retraining import task as retraining_task
from upweight.trees.losses import Custom

pd = pytest.importorskip("pandas")
lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
catboost = pytest.importorskip("catboost")


def amounts(rows=120):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4))
    return x, x[:, 0] + 0.3 * rng.normal(size=rows)


def regressor(**more):
    return lightgbm.LGBMRegressor(n_estimators=8, min_child_samples=5, **QUIET, **more)


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"boosting_type": "dart"}, "DART drops trees"),
        ({"data_sample_strategy": "goss", "learning_rate": 0.9}, "GOSS samples rows"),
        ({"subsample": 0.5, "subsample_freq": 1}, "bagging_fraction samples rows"),
    ],
)
def test_a_model_warns_of_what_training_did_not_record_and_ranking_still_works(settings, warning):
    x, y = amounts()
    train = uw.Examples(x, y)
    model = uw.explainable(regressor(**settings).fit(x, y), train)
    assert warning in model.notes[0]
    for method in (uw.TreeSim(), uw.TREX(), uw.BoostIn()):
        assert warning in method.fit(model, train).attribute(train.take([0])).diagnostics["warnings"][0]
    with pytest.raises(ValueError, match=f"LeafRefit needs leaf values that are sums.*{warning}"):
        uw.LeafRefit().fit(model, train)


@pytest.mark.parametrize("sampling", ["MVS", "Bayesian", "Bernoulli", "No"])
def test_catboost_samples_only_for_splits(sampling):
    x, y = amounts()
    more = {"iterations": 6, "bootstrap_type": sampling, "random_seed": 1}
    check(catboost.CatBoostClassifier(**{**PLAIN, **more}).fit(x, y > 0), x, y > 0, None)


def test_catboosts_ordered_boosting_changes_only_splits():
    x, y = amounts()
    check(catboost.CatBoostRegressor(iterations=5, **{**PLAIN, "boosting_type": "Ordered"}).fit(x, y), x, y, None)


def test_a_model_warns_of_what_catboost_did_beyond_one_plain_step():
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
    with pytest.raises(ValueError, match=r"rank.*not supported.*pairs or lists.*train with one of"):
        uw.explainable(ranker, uw.Examples(x, label))


def test_a_reason_suggests_loss_only_if_the_library_takes_it():
    x, y = amounts()
    booster = GradientBoostingRegressor(n_estimators=3, loss="huber").fit(x, y)
    (note,) = uw.explainable(booster, uw.Examples(x, y)).notes
    assert re.search(r"'huber' is not supported.*train with one of squared_error", note)
    assert "loss=" not in note
    with_row_bases = regressor().fit(x, y, init_score=x[:, 1])
    with pytest.raises(ValueError, match=r"Not supported .*\(init_score, base_margin, baseline\)"):
        uw.explainable(with_row_bases, uw.Examples(x, y))


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


def test_an_unknown_format_is_refused_with_library_and_version(monkeypatch):
    x, y = amounts()
    train = uw.Examples(x, y)
    boosters = xgboost.XGBRegressor(n_estimators=2).fit(x, y), regressor().fit(x, y)
    text = boosters[0].get_booster().save_raw("json").decode().replace("split_conditions", "conditions_of_splits")
    monkeypatch.setattr(xgboost.Booster, "save_raw", lambda *given: text.encode())
    monkeypatch.setattr(
        lightgbm.Booster, "dump_model", lambda *given, **more: {"average_output": 0, "objective": "regression"}
    )
    for booster, name, missing in zip(
        boosters, ("XGBoost", "LightGBM"), ("split_conditions", "tree_info"), strict=True
    ):
        with pytest.raises(
            ValueError, match=rf"{name} \d.*describes its trees in a form that is not known.*{missing}.*newer version"
        ):
            uw.explainable(booster, train)


def test_the_error_for_a_misread_model_of_a_newer_catboost_names_both_versions(monkeypatch):
    x, y = amounts()
    model = catboost.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False).fit(x, y)
    stamp = {"catboost_version_info": "Summary: CatBoost release 99.1. commit_hash:0"}
    monkeypatch.setattr(catboost.CatBoostRegressor, "get_metadata", lambda self: stamp)
    uw.explainable(model, uw.Examples(x, y))  # a newer version alone is no error
    monkeypatch.setattr(catboost.CatBoostRegressor, "get_scale_and_bias", lambda self: (1.0, 3.0))
    with pytest.raises(ValueError, match=r"CatBoost \d.*, trained by the newer 99.1\), got margins that differ"):
        uw.explainable(model, uw.Examples(x, y))


@pytest.mark.parametrize("classes", [False, True])
def test_labels_that_are_not_numbers_are_refused(classes):
    x, y = amounts()
    y = (y > 0) * 1.0 if classes else y
    kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    booster = kind(n_estimators=3, **QUIET).fit(x, y)
    broken = y.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match=r"nan|NaN"):
        uw.LeafRefit().fit(uw.explainable(booster, uw.Examples(x, broken)), uw.Examples(x, broken))


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "catboost"])
@pytest.mark.parametrize("jobs", [None, 1])
def test_a_library_with_threads_of_its_own_is_never_forked(kind, jobs, monkeypatch):
    x, y = amounts()
    train = uw.Examples(x, y)
    estimator = {
        "lightgbm": lambda: lightgbm.LGBMRegressor(n_estimators=3, verbose=-1, n_jobs=jobs),
        "xgboost": lambda: xgboost.XGBRegressor(n_estimators=3, n_jobs=jobs),
        "catboost": lambda: catboost.CatBoostRegressor(
            n_estimators=3, verbose=0, thread_count=jobs, allow_writing_files=False
        ),
    }[kind]()
    model = uw.explainable(estimator.fit(x, y), train)
    processes, run = [], retraining_task.run_in_processes
    monkeypatch.setattr(
        retraining_task, "run_in_processes", lambda *given, **more: processes.append(given[3]) or run(*given[:3], 1)
    )
    uw.retrain_truth(model, train, train.take([0]), uw.singles(train, [1, 2, 3]), retraining=uw.Retraining(processes=2))
    assert set(processes) == {2 if jobs == 1 else 1}


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


def test_native_boosters_are_read_and_retrained():
    x, y = amounts()
    label = (y > 0).astype(int)
    check(lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(x, label), 6), x, label, None)
    check(xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(x, label), 6), x, label, None)
    settings = {**PLAIN, "loss_function": "Logloss", "iterations": 6}
    check(catboost.CatBoost(settings).fit(x, label), x, label, None)


SAMPLED = {"colsample_bytree": 0.5, "random_state": None}


@pytest.mark.parametrize(
    "booster",
    [
        lambda x, y: regressor(**SAMPLED).fit(x, y),
        lambda x, y: regressor(extra_trees=True, random_state=None).fit(x, y),
        lambda x, y: regressor().fit(x, y, categorical_feature=[3]),
        lambda x, y: regressor(early_stopping_rounds=2).fit(x, y, eval_set=[(x[::2], y[::2])]),
        lambda x, y: lightgbm.train({**QUIET, "colsample_bytree": 0.5}, lightgbm.Dataset(x, y), 5),
        lambda x, y: lightgbm.train(QUIET, lightgbm.Dataset(x, y, categorical_feature=[3]), 5),
        lambda x, y: xgboost.train({"lambda": 0, "min_child_weight": 0}, xgboost.DMatrix(x, y), 5),
        lambda x, y: xgboost.train({"max_depth": 0, "max_leaves": 90}, xgboost.DMatrix(x, y), 5),
        lambda x, y: xgboost.train({"num_parallel_tree": 3, "colsample_bynode": 0.5}, xgboost.DMatrix(x, y), 5),
        lambda x, y: xgboost.train({"booster": "dart", "rate_drop": 0.9}, xgboost.DMatrix(x, y), 5),
        lambda x, y: xgboost.train({}, xgboost.DMatrix(x, y, feature_types=["q"] * 3 + ["c"]), 5),
        lambda x, y: xgboost.XGBRegressor(n_estimators=5, feature_types=["q"] * 3 + ["c"]).fit(x, y),
        lambda x, y: xgboost.XGBRFRegressor(n_estimators=5).fit(x, y),
        lambda x, y: xgboost.XGBRegressor(n_estimators=5, missing=0).fit(x, y),
        lambda x, y: catboost.CatBoostRegressor(iterations=5, verbose=0, allow_writing_files=False).fit(x, y),
    ],
)
def test_retraining_on_everything_reproduces_the_model(booster):
    x, y = amounts()
    x[:, 3] = np.arange(120) * 7 % 11
    estimator = booster(x, y + x[:, 3] ** 2 % 5)
    train = uw.Examples(x, y + x[:, 3] ** 2 % 5)
    model = uw.explainable(estimator, train)
    np.testing.assert_allclose(model.retrain(train, np.ones(120)).measure(train), model.measure(train), atol=1e-6)


def test_another_seed_is_another_run_if_the_estimator_has_no_seed():
    x, y = amounts()
    train = uw.Examples(x, y)
    settings = {"verbose": 0, "allow_writing_files": False, "iterations": 5, "bootstrap_type": "Bernoulli"}
    boosters = (
        regressor(**SAMPLED).fit(x, y),
        lightgbm.train({**QUIET, "colsample_bytree": 0.5}, lightgbm.Dataset(x, y), 5),
        xgboost.XGBRegressor(n_estimators=5, subsample=0.5).fit(x, y),
        catboost.CatBoostRegressor(subsample=0.5, **settings).fit(x, y),
    )
    for booster in boosters:
        model = uw.explainable(booster, train)
        retrained = model.retrain(train, np.ones(120), seed=1).measure(train)
        assert np.abs(retrained - model.measure(train)).max() > 1e-3, type(booster)


def test_values_that_xgboost_treats_as_missing_are_missing_here():
    x, y = amounts()
    x[::3, 0] = 0.0
    booster = xgboost.XGBRegressor(n_estimators=5, missing=0.0).fit(x, y)
    model = uw.explainable(booster, uw.Examples(x, y))
    np.testing.assert_allclose(model.margins(uw.Examples(x))[:, 0], booster.predict(x), atol=1e-5)


def test_a_pipeline_is_read_with_its_steps_held_fixed():
    x, y = amounts()
    pipeline = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=5)).fit(x, y)
    check(pipeline, x, y, None)


def test_a_custom_loss_is_given_by_three_derivatives():
    x, y = amounts()

    def cosh(labels, outputs):
        residual = outputs - labels
        return np.tanh(residual), 1 / np.cosh(residual) ** 2

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


def test_a_booster_of_xgboost_with_an_objective_of_ones_own_is_not_trained_with_another():
    """It does not hold the function, and would be trained on squared errors."""
    x, y = amounts()

    def softened(margins, data):
        residual = margins - data.get_label()
        root = np.sqrt(1 + residual**2)
        return residual / root, root**-3

    booster = xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(x, y), 4, obj=softened)
    loss = Custom(
        lambda z, t: (z - t) / np.sqrt(1 + (z - t) ** 2),
        lambda z, t: (1 + (z - t) ** 2) ** -1.5,
        lambda z, t: -3 * (z - t) * (1 + (z - t) ** 2) ** -2.5,
        lambda z, t: np.sqrt(1 + (z - t) ** 2) - 1,
    )
    train = uw.Examples(x, y)
    model = uw.explainable(booster, train, loss=loss)
    assert model.grown(train).exact
    with pytest.raises(ValueError, match=r"does not hold an objective of your own.*XGBRegressor\(objective"):
        model.retrain(train, np.ones(len(train)))


def test_a_base_that_xgboost_does_not_fit_to_the_best_constant_is_said_to_be_held():
    x, y = amounts()
    settings = {"n_estimators": 3, "objective": "reg:squaredlogerror", "min_child_weight": 0, "n_jobs": 1}
    booster = xgboost.XGBRegressor(**settings).fit(x, np.abs(y))
    if json.loads(booster.get_booster().save_config())["learner"]["learner_model_param"]["boost_from_average"] == "0":
        pytest.skip("this version starts from a constant")
    assert "held fixed when an example is removed" in uw.explainable(booster, uw.Examples(x, np.abs(y))).notes[0]


@pytest.mark.parametrize("level", [0.2, 0.7])
def test_quantile_losses_allow_ranking_and_refuse_leaf_refit(level):
    x, y = amounts()
    train = uw.Examples(x, y)
    model = uw.explainable(regressor(objective="quantile", alpha=level).fit(x, y), train)
    assert "pinball" in model.measurement
    residual = y - model.margins(train)[:, 0]
    np.testing.assert_allclose(model.measure(train), -np.maximum(level * residual, (level - 1) * residual))
    assert np.isfinite(uw.TreeSim().fit(model, train).attribute(train).values).all()
    with pytest.raises(ValueError, match="order statistics"):
        uw.LeafRefit().fit(model, train)


def test_retraining_without_a_class_is_refused_with_its_name():
    x, _ = amounts()
    y = np.array(["a"] * 118 + ["b"] * 2)
    model = uw.explainable(lightgbm.LGBMClassifier(n_estimators=3, **QUIET).fit(x, y), uw.Examples(x, y))
    with pytest.raises(ValueError, match="none of class 'b' is left"):
        model.retrain(uw.Examples(x, y), np.where(y == "b", 0.0, 1.0))


def test_measurements_follow_from_the_boosters_probabilities():
    x, y = amounts()
    label = np.where(y > 0, "up", "down")
    booster = lightgbm.LGBMClassifier(n_estimators=8, min_child_samples=5, **QUIET).fit(x, label)
    train = uw.Examples(x, label)
    p = booster.predict_proba(x)[:, 1]
    np.testing.assert_allclose(uw.explainable(booster, train, uw.Probability(of="up")).measure(train), p)
    margin = np.log(p / (1 - p)) * np.where(label == "up", 1, -1)
    np.testing.assert_allclose(uw.explainable(booster, train, uw.Margin()).measure(train), margin, atol=1e-9)
    probability = np.where(label == "up", p, 1 - p)
    np.testing.assert_allclose(uw.explainable(booster, train).measure(train), np.log(probability), atol=1e-9)


def test_a_lightgbm_tree_with_nothing_to_split_is_a_constant():
    x, y = np.ones((30, 2)), np.arange(30.0)
    for from_average in (True, False):
        model = check(regressor(boost_from_average=from_average).fit(x, y), x, y, None)
        np.testing.assert_allclose(model.margins(uw.Examples(x[:1])), 14.5)


def test_a_loss_for_a_linear_model_is_refused():
    x, y = amounts()
    with pytest.raises(TypeError, match="boosters trained on an objective of your own"):
        uw.explainable(LinearRegression().fit(x, y), uw.Examples(x, y), loss=Custom(np.sign, np.sign, np.sign))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"objective": "mean"},
            "objective= is for models with an l2 on their parameters, got a HistGradientBoosting",
        ),
        ({"smoothing": 0.1}, "smoothing= is for support vector machines, got a HistGradientBoosting"),
    ],
)
def test_options_for_linear_models_are_refused_for_trees(option, message):
    x, y = amounts()
    with pytest.raises(TypeError, match=message):
        uw.explainable(HistGradientBoostingRegressor(max_iter=2).fit(x, y), uw.Examples(x, y), **option)
