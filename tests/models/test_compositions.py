"""Wrappers of estimators with exact removals: scores equal refits of the whole wrapper by scikit-learn."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import upweight as uw

N, M = 40, 6
TIGHT = {"tol": 1e-11, "max_iter": 20_000}
LOGISTIC = LogisticRegression(**TIGHT)
NAMES = np.array(["rome", "athens", "thebes"])


def rows(load: Any) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(y))[: N + M]
    return StandardScaler().fit_transform(x[order])[:, :4], y[order]


def two_targets() -> tuple[Any, Any]:
    x, y = rows(load_diabetes)
    return x, np.c_[y / 50, 3 * x[:, 1] + np.sin(y)]


def two_labels() -> tuple[Any, Any]:
    x, y = rows(load_diabetes)
    return x, np.c_[y > np.median(y), x[:, 0] + np.sin(y) > 0].astype(int)


WINE, NAMED = (lambda: rows(load_wine)), (lambda: (rows(load_wine)[0], NAMES[rows(load_wine)[1]]))
VOTERS = [("linear", LOGISTIC), ("bayes", GaussianNB()), ("near", KNeighborsClassifier(5))]
CASES = {
    "votes of probabilities": (VotingClassifier(VOTERS, voting="soft", weights=[1, 2, 1]), NAMED),
    "votes": (VotingClassifier([*VOTERS[:2], ("margin", LinearSVC(**TIGHT))]), WINE),
    "mean of regressors": (
        VotingRegressor([("ridge", Ridge()), ("lasso", Lasso(0.05, **TIGHT)), ("near", KNeighborsRegressor(4))]),
        lambda: rows(load_diabetes),
    ),
    "one against the rest": (OneVsRestClassifier(LOGISTIC), NAMED),
    "one of two": (OneVsRestClassifier(LOGISTIC), lambda: rows(load_breast_cancer)),
    "one margin against the rest": (OneVsRestClassifier(SVC(gamma=0.1, tol=1e-9)), WINE),
    "one against one": (OneVsOneClassifier(LOGISTIC), NAMED),
    "one against one by naive Bayes": (OneVsOneClassifier(GaussianNB()), lambda: rows(load_iris)),
    "several targets": (MultiOutputRegressor(Ridge()), two_targets),
    "several labels": (MultiOutputClassifier(LOGISTIC), two_labels),
    "chain": (RegressorChain(Ridge(), order=[1, 0]), two_targets),
    "chain of neighbours": (RegressorChain(KNeighborsRegressor(3)), two_targets),
    "chain of labels": (ClassifierChain(LOGISTIC), two_labels),
}


def measured(estimator: Any, x: Any, y: Any, kept: Any) -> np.ndarray:
    """The measurement of the queries by the family that only refits, on a wrapper fitted on some rows."""
    fitted = clone(estimator).fit(x[:N][kept], y[:N][kept])
    return uw.refittable(fitted, uw.Examples(x[:N][kept], y[:N][kept])).measure(uw.Examples(x[N:], y[N:]))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", CASES)
def test_scores_and_groups_equal_refits_of_the_whole_wrapper(name: str) -> None:
    estimator, data = CASES[name]
    x, y = data()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    fitted = uw.LeaveOneOut().fit(uw.explainable(clone(estimator).fit(x[:N], y[:N]), train), train)
    base, removals = measured(estimator, x, y, np.ones(N, bool)), range(0, N, 5)
    actual = np.stack([base - measured(estimator, x, y, np.arange(N) != i) for i in removals], axis=1)
    scores = fitted.attribute(queries)
    assert scores.unit == "EFFECT"
    assert scores.diagnostics["trainings"] == 0
    assert np.abs(scores.values[:, ::5] - actual).max() <= 1e-5 * max(np.abs(actual).max(), 1e-3 * np.abs(base).max())
    group = fitted.remove({"g": [1, 7, 30]}, queries).values[:, 0]
    assert np.abs(group - (base - measured(estimator, x, y, ~np.isin(np.arange(N), [1, 7, 30])))).max() <= 1e-6
    without = fitted.model.retrain(train, (np.arange(N) != 5).astype(float)).measure(queries)
    np.testing.assert_allclose(base - without, actual[:, 1], atol=1e-5 * np.abs(base).max())


def test_weights_reach_the_members_of_a_vote() -> None:
    x, y = rows(load_wine)
    weights = np.arange(N) % 3.0
    estimator = VotingClassifier(VOTERS[:2], voting="soft").fit(x[:N], y[:N], sample_weight=weights)
    train, queries = uw.Examples(x[:N], y[:N], weights=weights), uw.Examples(x[N:], y[N:])
    scores = uw.LeaveOneOut().fit(uw.explainable(estimator, train), train).attribute(queries).values
    copies = np.repeat(np.arange(N), weights.astype(int))
    refit = clone(estimator).fit(x[:N][copies[copies != 2]], y[:N][copies[copies != 2]])
    truth = [((p - (y[N:, None] == refit.classes_)) ** 2).sum(1) / 2 for p in map_proba((estimator, refit), x[N:])]
    np.testing.assert_allclose(scores[:, 2], truth[1] - truth[0], atol=1e-7)
    assert not scores[:, ::3].any()


def map_proba(estimators: Any, x: Any) -> Any:
    return [estimator.predict_proba(x) for estimator in estimators]


def test_pipelines_and_frames_are_taken_and_steps_stay() -> None:
    x, y = rows(load_wine)
    frame = pd.DataFrame(5 * x + 2, columns=list("abcd"))
    inside = VotingClassifier(
        [("scaled", make_pipeline(StandardScaler(), LOGISTIC)), ("bayes", GaussianNB())], voting="soft"
    )
    for estimator in (inside, make_pipeline(StandardScaler(), inside)):
        train = uw.Examples(frame[:N], y[:N])
        model = uw.explainable(clone(estimator).fit(frame[:N], y[:N]), train, measure=uw.Probability(of=1))
        explanation = uw.explain(model, train, uw.Examples(frame[N:], y[N:]))
        assert explanation.check is not None
        assert explanation.check.verdict == "agrees"
        assert "The steps before a member in a pipeline stay as they were fitted." in explanation.warnings


def test_what_a_wrapper_is_composed_of_describes_the_model_and_is_no_warning(tmp_path: Any) -> None:
    x, y = two_targets()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    model = uw.explainable(RegressorChain(Ridge()).fit(x[:N], y[:N]), train)
    explanation = uw.explain(model, train, queries, removals=0)
    sentence = "This RegressorChain is composed of its members (2: Ridge)"
    assert explanation.scores.diagnostics["model"][0].startswith(sentence)
    assert not any("composed" in warning for warning in explanation.warnings)
    page = uw.write_page(tmp_path / "page.html", explanation).read_text(encoding="utf-8")
    assert sentence in page.split('<div class="model"')[1].split("</div>")[0]


def test_a_member_without_exact_removals_and_a_lost_class() -> None:
    x, y = rows(load_wine)
    train = uw.Examples(x[:N], y[:N])
    mixed = VotingClassifier([*VOTERS[:1], ("tree", DecisionTreeClassifier(random_state=0))], voting="soft")
    model = uw.explainable(mixed.fit(x[:N], y[:N]), train)
    assert "DecisionTreeClassifier inside VotingClassifier has no removals without training" in model.notes[0]
    few = np.r_[np.flatnonzero(y[:N] != 2), np.flatnonzero(y[:N] == 2)[:1]]
    train = uw.Examples(x[few], y[few])
    fitted = uw.LeaveOneOut().fit(uw.explainable(OneVsRestClassifier(LOGISTIC).fit(x[few], y[few]), train), train)
    scores = fitted.attribute(uw.Examples(x[N:], y[N:]))
    assert np.isnan(scores.values[:, -1]).all()
    assert np.isfinite(scores.values[:, :-1]).all()
    assert any("would lose a class" in warning for warning in scores.diagnostics["warnings"])


def test_scores_of_several_targets_are_read_from_their_file_and_the_model_can_be_pickled(tmp_path: Any) -> None:
    x, y = two_targets()
    train, queries = uw.Examples(x[:N], y[:N]), uw.Examples(x[N:], y[N:])
    model = uw.explainable(RegressorChain(Ridge()).fit(x[:N], y[:N]), train)
    scores = uw.LeaveOneOut().fit(model, train).attribute(queries)
    scores.save(tmp_path / "scores.npz")
    read = uw.Scores.load(tmp_path / "scores.npz")
    assert read.predictions == scores.predictions and np.array_equal(read.values, scores.values)
    again = pickle.loads(pickle.dumps(model))  # as other processes get it
    np.testing.assert_allclose(uw.LeaveOneOut().fit(again, train).attribute(queries).values, scores.values)
