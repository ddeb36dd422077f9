"""Changes of a training set: predicted against scikit-learn's own refits, refused as a whole when they are wrong."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import upweight as uw
from support.network_families import cross_entropy, mlp

TIGHT = {"tol": 1e-12, "max_iter": 50_000}
X, Y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
NAMES = {0: "malignant", 1: "benign"}
TRAIN = uw.Examples(X[:200], Y[:200], ids=[f"t{i}" for i in range(200)], labels=NAMES)
QUERIES = uw.Examples(X[300:306], Y[300:306], ids=[f"q{i}" for i in range(6)], labels=NAMES)
EXTRA = uw.Examples(X[400:415], Y[400:415], ids=[f"n{i}" for i in range(15)])


def logistic():
    return uw.explainable(LogisticRegression(**TIGHT).fit(TRAIN.x, TRAIN.y), TRAIN)


def refitted(x, y, weights=None):
    """log p(true label) of the queries by scikit-learn itself."""
    estimator = LogisticRegression(**TIGHT).fit(x, y, sample_weight=weights)
    return estimator.predict_log_proba(QUERIES.x)[np.arange(6), QUERIES.y]


def changed(names):
    y, weights = TRAIN.y.copy(), np.ones(200)
    x = TRAIN.x
    if "relabel" in names:
        y[[5, 9]] = 1 - y[[5, 9]]
    if "remove" in names:
        weights[[1, 2, 3]] = 0.0
    if "reweight" in names:
        weights[20:24] = [3.0, 0.5, 0.0, 2.0]
    if "add" in names:
        x, y, weights = np.vstack([x, EXTRA.x]), np.append(y, EXTRA.y), np.append(weights, np.ones(15))
    return refitted(x, y, weights) - refitted(TRAIN.x, TRAIN.y)


PARTS = {
    "remove": {"remove": ["t1", "t2", "t3"]},
    "relabel": {"relabel": {"t5": 1 - Y[5], "t9": NAMES[1 - Y[9]]}},
    "reweight": {"reweight": {"t20": 3.0, "t21": 0.5, "t22": 0, "t23": 2}},
    "add": {"add": EXTRA},
}


@pytest.mark.parametrize("names", [["remove"], ["relabel"], ["reweight"], ["add"], list(PARTS)], ids="+".join)
def test_predicts_and_does_what_scikit_learn_does(names):
    change = uw.Change(**{k: v for name in names for k, v in PARTS[name].items()})
    effects = uw.what_if(logistic(), TRAIN, QUERIES, change, removals=0)
    truth = changed(names)
    assert effects.form == "newton" and effects.unit == uw.Unit.EFFECT
    np.testing.assert_allclose(effects.actual[:, 0], truth, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(effects.predicted[:, 0], truth, rtol=1e-4, atol=1e-8)


def test_first_order_is_the_derivative():
    """Slopes at zero: a factor of 1 ± ε on the weights, and labels that move by ε are two weights that move by ε."""
    model = logistic()
    small = {f"t{i}": 1 + 1e-4 * s for i, s in zip(range(30, 34), (1, -1, 1, 1), strict=True)}
    both = uw.what_if(model, TRAIN, QUERIES, uw.Change(reweight=small), form="first", removals=0)
    np.testing.assert_allclose(both.predicted, both.actual, rtol=1e-3)
    removal_of_t7 = uw.what_if(model, TRAIN, QUERIES, uw.Change(remove=["t7"]), form="first", removals=None)
    score = uw.Influence(correction=None).fit(model, TRAIN).attribute(QUERIES).values[:, 7]
    np.testing.assert_allclose(removal_of_t7.predicted[:, 0], -score, rtol=1e-5)
    assert "first order" in removal_of_t7.diagnostics["warnings"][-1]


def test_intervals_hold_what_happens():
    """First order errs; nine in ten of the changes must still be inside, of which these are many."""
    rng = np.random.default_rng(5)
    changes = {f"c{i}": uw.Change(remove=rng.choice(TRAIN.ids, 20, replace=False)) for i in range(8)}
    effects = uw.what_if(logistic(), TRAIN, QUERIES, changes, form="first", removals=10)
    inside = (effects.low <= effects.actual) & (effects.actual <= effects.high)
    assert inside.mean() >= 0.8
    width = effects.high - effects.low
    assert (width > 0).all() and np.median(width) < 6 * np.abs(effects.actual).mean()


@pytest.mark.parametrize("estimator", [Ridge(alpha=2.0), PoissonRegressor(alpha=0.1, **TIGHT)], ids=["sum", "mean"])
def test_predictions_of_amounts_agree_with_a_refit_on_the_changed_targets(estimator):
    y = np.abs(X[:, 0] + 0.3 * X[:, 5]) + 0.1
    train = uw.Examples(X[:150], y[:150])
    queries = uw.Examples(X[200:204], y[200:204], ids=range(200, 204))
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    change = uw.Change(relabel={3: 2.5}, remove=[8, 9])
    effects = uw.what_if(model, train, queries, change, removals=9)
    other = train.y.copy()
    other[3] = 2.5
    remaining = ~np.isin(np.arange(150), [8, 9])
    again = estimator.fit(train.x[remaining], other[remaining]).predict(queries.x)
    np.testing.assert_allclose(effects.after[0].predicted, again, rtol=1e-6)
    np.testing.assert_allclose(effects.predicted, effects.actual, rtol=1e-4, atol=1e-9)
    assert effects.flipped("change") == []


def test_texts_with_new_words_in_the_middle_of_a_pipeline():
    texts = [f"{a} {b}" for a in ("good", "fine", "bad", "dull") for b in ("film", "plot", "wit", "cast", "score")] * 2
    y = np.array(["praise"] * 10 + ["blame"] * 10 + ["praise"] * 10 + ["blame"] * 10)
    train, queries = uw.Examples(texts, y), uw.Examples(["good film", "bad cast"], ["praise", "blame"], ids=["a", "b"])
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(**TIGHT)).fit(texts, y)
    new = uw.Examples(["good bad", "film dull plot"], ["blame", "blame"], ids=[100, 101])
    effects = uw.what_if(uw.explainable(pipeline, train), train, queries, uw.Change(add=new), removals=0)
    head = LogisticRegression(**TIGHT).fit(pipeline[:-1].transform([*texts, *new.x]), np.append(y, new.y))
    log_ratios = head.predict_log_proba(pipeline[:-1].transform(queries.x)) - pipeline.predict_log_proba(queries.x)
    np.testing.assert_allclose(effects.actual[:, 0], [log_ratios[0, 1], log_ratios[1, 0]], rtol=1e-4)
    np.testing.assert_allclose(effects.predicted, effects.actual, rtol=1e-4)


def test_new_rows_of_a_data_frame_flip_the_predictions_that_a_refit_flips():
    frame = pd.DataFrame(X[:200, :3], columns=["a", "b", "c"], index=TRAIN.ids)
    train = uw.Examples(frame, Y[:200])
    model = uw.explainable(LogisticRegression(C=10.0, **TIGHT).fit(frame, Y[:200]), train)
    queries = uw.Examples(pd.DataFrame(X[300:400, :3], columns=["a", "b", "c"]), Y[300:400])
    new = uw.Examples(
        pd.DataFrame(X[400:500, :3], columns=["a", "b", "c"]), 1 - Y[400:500], ids=[f"n{i}" for i in range(100)]
    )
    effects = uw.what_if(model, train, queries, {"noise": uw.Change(add=new)}, removals=0)
    truth = LogisticRegression(C=10.0, **TIGHT).fit(pd.concat([frame, new.x]), np.append(Y[:200], new.y))
    expected = np.flatnonzero(truth.predict(queries.x) != model.predictor.predict(queries.x)).tolist()
    assert effects.flipped("noise") == expected and len(expected) > 0
    assert json.loads(json.dumps(effects.as_dict()))["flipped"]["noise"] == expected


def test_networks_are_predicted_to_first_order_and_say_so():
    x, y = load_digits(n_class=3, return_X_y=True)
    train, queries = uw.Examples(x[:60] / 16, y[:60]), uw.Examples(x[60:63] / 16, y[60:63], ids=[60, 61, 62])
    torch.manual_seed(0)
    model = uw.TorchModel(mlp().double(), cross_entropy, objective=uw.Objective("mean", l2=0.1))
    change = uw.Change(remove=[3], relabel={5: (y[5] + 1) % 3})
    effects = uw.what_if(model, train, queries, change)
    assert effects.form == "first" and effects.actual is None and effects.low is None
    assert "cannot be retrained" in effects.diagnostics["warnings"][-1]
    curvature = model.curvature(train, None, None)
    wrong = uw.Examples(train.x[[5]], (y[[5]] + 1) % 3, ids=[0])
    pulled = -model.loss_rows(train.take([3])).dense()[0] - model.loss_rows(train.take([5])).dense()[0]
    pulled += model.loss_rows(wrong).dense()[0]
    from upweight.core.rows import DenseRows

    moved = -curvature.solve(DenseRows(pulled[None])).rows.dense()[0]
    np.testing.assert_allclose(effects.predicted[:, 0], model.measure_rows(queries).dense() @ moved, rtol=1e-4)


def test_a_kernel_machine_takes_new_labels_but_no_new_inputs():
    model = uw.explainable(SVC(tol=1e-9).fit(TRAIN.x, TRAIN.y), TRAIN)
    effects = uw.what_if(model, TRAIN, QUERIES, uw.Change(relabel={"t5": 1 - Y[5]}), removals=0)
    np.testing.assert_allclose(effects.predicted, effects.actual, atol=0.05 * np.abs(effects.actual).max() + 1e-3)
    with pytest.raises(TypeError, match="kernel machine"):
        uw.what_if(model, TRAIN, QUERIES, uw.Change(add=EXTRA))


BAD = {
    "expected something to change": uw.Change,
    "expected one change per example": lambda: uw.Change(remove=["t1"], relabel={"t1": 0}),
    "factors ≥ 0": lambda: uw.Change(reweight={"t1": -1.0}),
    "no example has the id 'nobody'": lambda: uw.Change(remove=["t1", "nobody"]),
    r"expected one of the training labels \['malignant', 'benign'\], got 'ham'": lambda: uw.Change(
        relabel={"t1": "ham"}
    ),
    "expected a new label for 't1', got the label that it already has": lambda: uw.Change(relabel={"t1": int(Y[1])}),
    "nothing to train on": lambda: uw.Change(remove=TRAIN.ids),
    "added examples to have labels": lambda: uw.Change(add=uw.Examples(X[:2], ids=["a", "b"])),
    "labels of the training set on added examples, got 7": lambda: uw.Change(add=uw.Examples(X[:1], [7], ids=["a"])),
    "expected unique ids, got 't0'": lambda: uw.Change(add=uw.Examples(X[:1], [1], ids=["t0"])),
    "cannot be put below each other": lambda: uw.Change(add=uw.Examples(X[:1, :4], [1], ids=["a"])),
    "ids of one kind": lambda: uw.Change(add=uw.Examples(X[:1], [1], ids=[5])),
}


@pytest.mark.parametrize("match", BAD)
def test_what_cannot_be_done_is_refused_before_anything_is(match, monkeypatch):
    monkeypatch.setattr("upweight.linear.model.LinearModel.curvature", None)
    with pytest.raises((ValueError, KeyError), match=match):
        uw.what_if(logistic(), TRAIN, QUERIES, BAD[match]())


def test_calls_that_make_no_sense():
    change = uw.Change(remove=["t1"])
    with pytest.raises(ValueError, match="at least one change"):
        uw.what_if(logistic(), TRAIN, QUERIES, {})
    with pytest.raises(TypeError, match=r"expected ids to remove as a list, got the text 't1'; pass \['t1'\]"):
        uw.Change(remove="t1")
    with pytest.raises(ValueError, match="at least 9"):
        uw.what_if(logistic(), TRAIN, QUERIES, change, removals=3)
    with pytest.raises(ValueError, match='expected form "newton", "first"'):
        uw.what_if(logistic(), TRAIN, QUERIES, change, form="third")
    with pytest.raises(ValueError, match="expected the data that LogisticRegression was fitted on"):
        uw.what_if(logistic(), uw.Examples(TRAIN.x, 1 - TRAIN.y, ids=TRAIN.ids), QUERIES, change)


def test_one_class_cannot_be_changed_at_random():
    train = uw.Examples(TRAIN.x, TRAIN.y.astype(float) + X[:200, 3], ids=TRAIN.ids)
    model = uw.explainable(Ridge().fit(train.x, train.y), train)
    assert (
        uw.what_if(
            model, train, uw.Examples(X[300:302], [0.5, 1.0], ids=["a", "b"]), uw.Change(relabel={"t1": 0.1})
        ).low
        is not None
    )


@pytest.fixture(scope="module")
def forest_parts():
    x, y = load_breast_cancer(return_X_y=True)
    forest = RandomForestClassifier(10, max_depth=4, random_state=3).fit(x[:200], y[:200])
    train, queries = uw.Examples(x[:200], y[:200]), uw.Examples(x[200:206], y[200:206], ids=list("abcdef"))
    return forest, uw.explainable(forest, train), train, queries


@pytest.fixture(scope="module")
def forest_result(forest_parts):
    _, model, train, queries = forest_parts
    changes = {
        "removed": uw.Change(remove=range(20)),
        "relabelled": uw.Change(relabel={i: 1 - train.y[i] for i in range(20)}),
    }
    return uw.what_if(model, train, queries, changes)


def test_effects_of_a_forest_are_those_of_a_fresh_fit_by_scikit_learn(forest_parts, forest_result):
    forest, _, train, queries = forest_parts
    labels = np.where(np.arange(200) < 20, 1 - train.y, train.y)
    for j, (x, y) in enumerate([(train.x[20:], train.y[20:]), (train.x, labels)]):
        fresh = clone(forest).fit(x, y)
        np.testing.assert_allclose(forest_result.after[j].probabilities, fresh.predict_proba(queries.x), atol=1e-12)
        effect = fresh.predict_proba(queries.x) - forest.predict_proba(queries.x)
        own = effect[np.arange(6), queries.y]
        moved = np.abs(own) > 1e-9
        assert moved.any() and (np.sign(forest_result.actual[moved, j]) == np.sign(own[moved])).all()


def test_the_answer_of_a_forest_says_that_nothing_was_predicted(forest_result, tmp_path):
    assert (forest_result.predicted, forest_result.low, forest_result.verdict, forest_result.form) == (
        None,
        None,
        None,
        "retraining",
    )
    assert json.loads(json.dumps(forest_result.as_dict()))["predicted"] is None
    assert "retrained" in repr(forest_result)
    assert any("no gradients" in warning for warning in forest_result.diagnostics["warnings"])
    uw.write_page(tmp_path / "page.html", forest_result)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "each change was retrained" in page and "nan" not in page.lower().split("<body")[1]


@pytest.mark.parametrize("asked", [{"removals": None}, {"form": "first"}])
def test_predicted_effects_of_a_forest_are_refused_by_name(forest_parts, asked):
    _, model, train, queries = forest_parts
    with pytest.raises(TypeError, match=r"has no gradients to predict them by; leave it out"):
        uw.what_if(model, train, queries, uw.Change(remove=[0]), **asked)
