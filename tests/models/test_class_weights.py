"""Weights of classes in boosters and forests: they are sample weights that removals keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import upweight as uw
from upweight.trees.fixed_structure import base_changes, base_derivative

ROWS = 120
SEEDED: dict[str, dict[str, Any]] = {
    "sklearn.ensemble": {"random_state": 0},
    "lightgbm": {"n_jobs": 1, "verbose": -1, "n_estimators": 10},
    "xgboost": {"n_jobs": 1, "n_estimators": 10},
    "catboost": {
        "thread_count": 1,
        "iterations": 10,
        "verbose": 0,
        "allow_writing_files": False,
        "leaf_estimation_iterations": 1,
    },
}
UNEVEN = {0: 2.0, 1: 0.5}


def estimator(library: str, name: str, **settings: Any) -> Any:
    """An estimator that is not fitted."""
    return getattr(pytest.importorskip(library), name)(**SEEDED[library], **settings)


def table(load: Any) -> tuple[Any, Any]:
    """Rows with classes of different sizes, in a random order."""
    x, y = load(return_X_y=True)
    rows = np.flatnonzero((y > 0) | (np.arange(len(y)) % 3 == 0))
    rows = np.random.default_rng(0).permutation(rows)[:ROWS]
    return x[rows], y[rows]


TABLES = {"two": table(load_breast_cancer), "three": table(load_wine)}
WEIGHTS = {
    "equal": None,
    "counts": np.random.default_rng(1).integers(0, 4, ROWS).astype(float),
    "any": np.random.default_rng(2).uniform(0.3, 3.0, ROWS),
}
HISTOGRAMS = ("sklearn.ensemble", "HistGradientBoostingClassifier")
CASES = [
    (*HISTOGRAMS, "two", {"class_weight": "balanced"}),
    (*HISTOGRAMS, "three", {"class_weight": UNEVEN}),
    (*HISTOGRAMS, "three", {"class_weight": "balanced"}),
    ("lightgbm", "LGBMClassifier", "two", {"class_weight": "balanced"}),
    ("lightgbm", "LGBMClassifier", "three", {"class_weight": UNEVEN}),
    ("lightgbm", "LGBMClassifier", "two", {"scale_pos_weight": 3.0}),
    ("lightgbm", "LGBMClassifier", "two", {"is_unbalance": True}),
    ("lightgbm", "LGBMClassifier", "two", {"is_unbalance": True, "class_weight": UNEVEN}),
    ("xgboost", "XGBClassifier", "two", {"scale_pos_weight": 3.0}),
    ("catboost", "CatBoostClassifier", "two", {"scale_pos_weight": 3.0}),
    ("catboost", "CatBoostClassifier", "two", {"class_weights": [2.0, 0.5]}),
    (
        "catboost",
        "CatBoostClassifier",
        "three",
        {"class_weights": [2.0, 0.5, 1.0], "loss_function": "MultiClassOneVsAll"},
    ),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("library", "name", "data", "settings"), CASES)
def test_leaf_values_follow_from_the_weights_of_classes(library, name, data, settings, weights):
    x, y = TABLES[data]
    sample_weights = WEIGHTS[weights]
    booster = estimator(library, name, **settings).fit(x, y, sample_weight=sample_weights)
    train = uw.Examples(x, y, weights=sample_weights)
    model = uw.explainable(booster, train)
    assert model.grown(train).exact
    retrained = model.retrain(train, np.ones(ROWS))
    np.testing.assert_allclose(retrained.margins(train), model.margins(train), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "in_base"),
    [
        ("LGBMClassifier", {"class_weight": {0: 2.0, 1: 0.5}}, [2.0, 0.5]),
        ("LGBMClassifier", {"scale_pos_weight": 3.0}, [1.0, 1.0]),
        ("LGBMClassifier", {"scale_pos_weight": 3.0, "class_weight": {0: 2.0, 1: 0.5}}, [2.0, 0.5]),
        ("LGBMClassifier", {"class_weight": "balanced"}, None),
    ],
)
def test_the_base_follows_the_weights_that_the_library_fits_it_with(name, settings, in_base):
    x, y = TABLES["two"]
    train = uw.Examples(x, y)
    training = uw.explainable(estimator("lightgbm", name, **settings).fit(x, y), train).grown(train)
    weights = (ROWS / 2 / np.bincount(y) if in_base is None else np.array(in_base))[y]

    def base(of_weights: Any) -> Any:
        return training.loss.link(np.array([of_weights @ y / of_weights.sum()]))

    assert training.base_is_fitted
    np.testing.assert_allclose(training.ensemble.base, base(weights), atol=1e-12)
    without = np.where(np.arange(ROWS) == 5, 0.0, weights)
    np.testing.assert_allclose(base_changes(training, [np.array([5])])[:, 0], base(without) - base(weights), atol=1e-12)
    shift = 1e-6 * (np.arange(ROWS) == 5)
    slope = (base(weights * (1 + shift)) - base(weights * (1 - shift))) / 2e-6
    np.testing.assert_allclose(base_derivative(training)[:, 5] * training.weights[5], slope, rtol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize("class_weight", ["balanced", UNEVEN])
def test_leaf_means_of_forests_follow_from_the_weights_of_classes(class_weight, bootstrap, weights):
    x, y = TABLES["three"]
    settings = {"class_weight": class_weight, "bootstrap": bootstrap, "max_depth": 2, "n_estimators": 10}
    forest = estimator("sklearn.ensemble", "ExtraTreesClassifier", **settings)
    train = uw.Examples(x, y, weights=WEIGHTS[weights])
    model = uw.explainable(forest.fit(x, y, sample_weight=WEIGHTS[weights]), train)
    assert model.grown(train).exact
    assert np.isfinite(uw.ForestWeights().fit(model, train).attribute(train.take([0])).values).all()


@pytest.mark.parametrize(
    ("library", "name", "settings", "words"),
    [
        ("sklearn.ensemble", "HistGradientBoostingClassifier", {"class_weight": "balanced"}, "does not either"),
        ("sklearn.ensemble", "RandomForestClassifier", {"class_weight": "balanced"}, "does not either"),
        ("lightgbm", "LGBMClassifier", {"class_weight": "balanced"}, "does not either"),
        ("lightgbm", "LGBMClassifier", {"is_unbalance": True}, "counts the classes anew"),
    ],
)
def test_a_note_says_that_removals_keep_balanced_weights(library, name, settings, words):
    x, y = TABLES["two"]
    train = uw.Examples(x, y)
    [note] = uw.explainable(estimator(library, name, **settings).fit(x, y), train).notes
    assert "keep the weights of the full training set" in note and words in note


@pytest.mark.parametrize(
    ("library", "name", "settings"),
    [
        ("sklearn.ensemble", "HistGradientBoostingClassifier", {"class_weight": {0: 2.0, 1: 1.0}}),
        ("lightgbm", "LGBMClassifier", {"scale_pos_weight": 3.0}),
        ("catboost", "CatBoostClassifier", {"class_weights": [2.0, 1.0]}),
        ("xgboost", "XGBClassifier", {"scale_pos_weight": 3.0, "base_score": 0.5}),
    ],
)
def test_weights_that_do_not_depend_on_the_data_have_no_note(library, name, settings):
    x, y = TABLES["two"]
    assert uw.explainable(estimator(library, name, **settings).fit(x, y), uw.Examples(x, y)).notes == ()


def test_a_base_that_xgboost_estimates_in_one_step_has_a_note():
    x, y = TABLES["two"]
    booster = estimator("xgboost", "XGBClassifier", scale_pos_weight=3.0).fit(x, y)
    [note] = uw.explainable(booster, uw.Examples(x, y)).notes
    assert "is held fixed when an example is removed" in note and "base_score" in note


def test_class_weights_that_are_balanced_in_every_sample_are_refused_by_name():
    x, y = TABLES["three"]
    settings = {"class_weight": "balanced_subsample", "max_depth": 2, "n_estimators": 10}
    forest = estimator("sklearn.ensemble", "RandomForestClassifier", **settings).fit(x, y)
    train = uw.Examples(x, y)
    with pytest.raises(ValueError, match="class_weight='balanced_subsample' balanced the classes anew"):
        uw.ForestWeights().fit(uw.explainable(forest, train), train)


def test_automatic_weights_of_catboost_are_refused_by_name():
    x, y = TABLES["two"]
    booster = estimator("catboost", "CatBoostClassifier", auto_class_weights="Balanced").fit(x, y)
    train = uw.Examples(x, y)
    with pytest.raises(ValueError, match="auto_class_weights='Balanced' weighted the classes"):
        uw.LeafRefit().fit(uw.explainable(booster, train), train)


def test_histograms_take_class_weights_by_position_as_scikit_learn_does():
    x, y = TABLES["two"]
    train = uw.Examples(x, y + 1)
    booster = estimator(*HISTOGRAMS, class_weight={0: 2.0, 1: 0.5}).fit(train.x, train.y)
    training = uw.explainable(booster, train).grown(train)
    assert training.exact
    np.testing.assert_array_equal(training.weights, np.where(train.y == 1, 2.0, 0.5))


@pytest.mark.parametrize("is_linear", [True, False])
def test_retraining_holds_balanced_weights_and_refits_balance_anew(is_linear: bool) -> None:
    x, y = TABLES["two"]
    x, rest = StandardScaler().fit_transform(x[:, :4]), np.arange(ROWS) % 5 > 0
    make = LogisticRegression if is_linear else HistGradientBoostingClassifier
    settings = {"tol": 1e-10, "max_iter": 9999} if is_linear else {"max_iter": 5}
    balanced, train = make(class_weight="balanced", **settings).fit(x, y), uw.Examples(x, y)
    held = dict(enumerate((ROWS / (2 * np.bincount(y))).tolist()))
    queries = train.take(range(5))
    for read, weights, words in (
        (uw.explainable, held, "retraining does not either"),
        (uw.refittable, "balanced", "every refit balances the classes of its rows anew"),
    ):
        model = read(balanced, train, measure=uw.Probability(of=1))
        again = make(class_weight=weights, **settings).fit(x[rest], y[rest])
        measured = model.retrain(train, rest.astype(float)).measure(queries)
        np.testing.assert_allclose(measured, again.predict_proba(x[:5])[:, 1], atol=1e-5)
        assert any(words in note for note in model.notes)


def test_class_weights_are_no_copies():
    """A class that weighs twice as much is not seen twice: LeafInfluence of one margin follows one example."""
    x, y = TABLES["two"]
    booster = estimator("sklearn.ensemble", "HistGradientBoostingClassifier", class_weight={0: 2.0}, max_iter=5)
    train = uw.Examples(x, y)
    training = uw.explainable(booster.fit(x, y), train).grown(train)
    np.testing.assert_array_equal(training.counts, np.ones(ROWS))
    np.testing.assert_array_equal(training.weights, np.where(y == 0, 2.0, 1.0))


def test_a_linear_model_says_that_removals_keep_balanced_weights() -> None:
    """Effects are those of a refit with the weights held, not balanced anew."""
    x, y = TABLES["two"]
    x = StandardScaler().fit_transform(x[:, :4])
    train, tight = uw.Examples(x, y), {"tol": 1e-10, "max_iter": 9999}
    balanced = LogisticRegression(class_weight="balanced", **tight).fit(x, y)
    scores = uw.Influence().fit(uw.explainable(balanced, train), train).attribute(train.take(range(5)))
    assert any("does not either" in warning for warning in scores.diagnostics["warnings"])
    weights_by_class = dict(
        zip(*[part.tolist() for part in (np.arange(2), len(y) / (2 * np.bincount(y)))], strict=True)
    )
    again = LogisticRegression(class_weight=weights_by_class, **tight).fit(x[1:], y[1:])
    losses = [-np.log(fit.predict_proba(x[:5])[np.arange(5), y[:5]]) for fit in (again, balanced)]
    np.testing.assert_allclose(scores.values[:, 0], losses[0] - losses[1], rtol=1e-2, atol=1e-6)
    with_weights = LogisticRegression(class_weight=weights_by_class, **tight).fit(x, y)
    scores = uw.Influence().fit(uw.explainable(with_weights, train), train).attribute(train.take([0]))
    assert not scores.diagnostics["warnings"]
