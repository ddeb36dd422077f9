"""Support vector machines: removals that follow the kinks of the loss equal real refits."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR

import upweight as uw
from upweight.linear import kink_curvature, kink_path

pytestmark = pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
N, M = 60, 10
LINEAR = {"tol": 1e-10, "max_iter": 1_000_000, "random_state": 0}


def data(load: Any, unit: float = 1.0) -> tuple[Any, Any]:
    x, y = load(return_X_y=True)
    order = np.random.default_rng(2).permutation(len(y))[: N + M]
    return StandardScaler().fit_transform(x[order][:, :5]), y[order] if unit == 1.0 else y[order] / unit


CASES = {
    "hinge": (SVC(C=5.0, gamma=0.1, tol=1e-9), load_breast_cancer),
    "hinge on columns": (LinearSVC(loss="hinge", **LINEAR), load_breast_cancer),
    "hinge of pairs of classes": (SVC(gamma=0.2, tol=1e-9, decision_function_shape="ovo"), load_wine),
    "hinge of one class against the others": (LinearSVC(loss="hinge", **LINEAR), load_wine),
    "tube": (SVR(C=2.0, gamma=0.1, epsilon=0.3, tol=1e-9), load_diabetes),
    "tube of width 0": (SVR(C=2.0, gamma=0.1, epsilon=0.0, tol=1e-9), load_diabetes),
    "hinge of nu": (NuSVC(nu=0.3, gamma=0.1, tol=1e-9), load_breast_cancer),
    "hinge of nu for pairs": (NuSVC(nu=0.4, gamma=0.2, tol=1e-9, decision_function_shape="ovo"), load_wine),
    "tube of nu": (NuSVR(nu=0.4, C=2.0, gamma=0.1, tol=1e-9), load_diabetes),
    "tube on columns": (LinearSVR(epsilon=0.2, **LINEAR), load_diabetes),
}


class Fitted:
    """An estimator, its training set and queries, and what it gives for the queries when it is fitted on some rows."""

    def __init__(self, name: str, weights: Any = None) -> None:
        self.estimator, load = CASES[name]
        self.x, self.y = data(load, 50.0 if load is load_diabetes else 1.0)
        self.weights = weights
        self.train = uw.Examples(self.x[:N], self.y[:N], weights=weights)
        self.queries = uw.Examples(self.x[N:], self.y[N:])

    def fit(self, *removed: int) -> Any:
        remaining = ~np.isin(np.arange(N), removed)
        more = {} if self.weights is None else {"sample_weight": self.weights[remaining]}
        return clone(self.estimator).fit(self.x[:N][remaining], self.y[:N][remaining], **more)

    def outputs(self, *removed: int) -> np.ndarray:
        estimator = self.fit(*removed)
        decide = estimator.decision_function if hasattr(estimator, "classes_") else estimator.predict
        return np.asarray(decide(self.x[N:])).reshape(M, -1)[:, -1]

    def scores(self, recipe: uw.Influence) -> Any:
        model = uw.explainable(self.fit(), self.train, measure=lambda z, _: z[:, -1])
        return recipe.fit(model, self.train)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_removals_along_the_kinks_equal_real_refits(name: str, weighted: bool) -> None:
    case = Fitted(name, np.arange(N) % 3.0 if weighted else None)
    fitted, base = case.scores(uw.Influence()), case.outputs()
    values = fitted.attribute(case.queries).values
    actual = np.stack([base - case.outputs(i) for i in range(1, N, 4)], axis=1)
    assert np.abs(values[:, 1::4] - actual).max() <= 1e-4 * np.abs(actual).max()
    group = fitted.remove({"g": [1, 4, 5, 50]}, case.queries).values[:, 0]
    assert np.abs(group - (base - case.outputs(1, 4, 5, 50))).max() <= 1e-4 * np.abs(group).max()
    assert fitted.diagnostics["warnings"] == []


def test_paths_that_get_stuck_are_those_of_the_smoothed_loss_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Fitted("hinge")
    monkeypatch.setattr(kink_path, "MAX_EVENTS", 1)
    fitted = case.scores(uw.Influence())
    assert any("could not be followed from kink to kink" in w for w in fitted.diagnostics["warnings"])
    monkeypatch.undo()
    exact = case.scores(uw.Influence()).attribute(case.queries).values
    assert np.corrcoef(fitted.attribute(case.queries).values.ravel(), exact.ravel())[0, 1] > 0.9


def test_with_too_many_examples_for_their_inner_products_removals_are_those_of_the_smoothed_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kink_curvature, "MAX_EXAMPLES", 10)
    assert "Removals are those of the smoothed loss" in " ".join(
        Fitted("tube").scores(uw.Influence()).diagnostics["warnings"]
    )


def test_a_kernel_width_from_the_data_is_held_and_reported_and_a_given_one_is_not() -> None:
    x, y = data(load_breast_cancer)
    train = uw.Examples(x[:N], y[:N])
    notes = [uw.explainable(SVC(gamma=gamma).fit(train.x, train.y), train).notes for gamma in ("scale", 0.2)]
    assert "the kernel keeps the width of the full training set" in notes[0][0]
    assert notes[1] == ()


def test_an_intercept_that_no_example_on_a_margin_determines_is_reported() -> None:
    x, y = load_wine(return_X_y=True)  # one kernel width for columns of all scales: every example is inside the margin
    train = uw.Examples(x[::2], y[::2])
    model = uw.explainable(SVC(C=0.01, gamma=1e-6).fit(train.x, train.y), train)
    warnings = uw.Influence().fit(model, train).diagnostics["warnings"]
    assert any("the intercept may be anywhere in an interval" in warning for warning in warnings)


def test_a_machine_all_of_whose_examples_are_support_vectors_is_read() -> None:
    x, y = data(load_breast_cancer)
    rows = np.concatenate([np.flatnonzero(y == label)[:20] for label in (0, 1)])
    train = uw.Examples(x[rows], y[rows])
    estimator = SVC(C=1e-3, gamma=0.1).fit(train.x, train.y)
    assert len(estimator.support_) == len(train)
    assert np.isfinite(uw.explainable(estimator, train).measure(train)).all()


def leave_one_out(estimator: Any, x: Any, y: Any, queries: Any) -> tuple[Any, Any]:
    """The model of a decision value, and the difference of its scores from refits over the largest effect."""
    train = uw.Examples(x, y)
    model = uw.explainable(clone(estimator).fit(x, y), train, measure=lambda outputs, labels: outputs[:, 0])
    fitted = [clone(estimator).fit(np.delete(x, i, 0), np.delete(y, i)) for i in range(0, len(y), 4)]
    truth = model.predictor.decision_function(queries)[:, None] - np.stack(
        [other.decision_function(queries) for other in fitted], axis=1
    )
    scores = uw.LeaveOneOut().fit(model, train).attribute(uw.Examples(queries)).values[:, ::4]
    return model, np.abs(scores - truth).max() / np.abs(truth).max()


@pytest.mark.parametrize("estimator", [SVC(gamma=0.3, tol=1e-9), NuSVC(nu=0.02, gamma=0.3, tol=1e-9)], ids=repr)
def test_a_class_of_two_examples_is_recognised_as_the_data_of_the_fit(estimator: Any) -> None:
    x = np.random.default_rng(7).normal(size=(66, 3))
    y = np.where(np.arange(60) < 2, "few", "many")
    assert leave_one_out(estimator, x[:60], y, x[60:])[1] < 1e-4
    with pytest.raises(ValueError, match=r"the data that .*SVC was fitted on"):
        uw.explainable(clone(estimator).fit(x[:60], y), uw.Examples(x[:60], y[::-1]))
    if isinstance(estimator, SVC):  # the forces of that fit are larger than these rows can have without weights
        weighted = clone(estimator).fit(x[:60], y, sample_weight=np.r_[20.0, 20.0, np.ones(58)])
        with pytest.raises(ValueError, match="the data that SVC was fitted on"):
            uw.explainable(weighted, uw.Examples(x[:60], y))


def test_nu_svc_does_not_use_its_class_weight() -> None:
    x, y = data(load_breast_cancer)
    estimator = NuSVC(nu=0.3, gamma=0.1, tol=1e-9, class_weight={0: 3.0, 1: 1.0})
    model, difference = leave_one_out(estimator, x[:N], y[:N], x[N:])
    assert difference < 1e-4
    assert any("does not use its class_weight" in note for note in model.notes)


@pytest.mark.parametrize("estimator", [SVR(), NuSVR()], ids=repr)
def test_an_svm_without_support_vectors_is_refitted(estimator: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 2)), np.ones(12)
    model = uw.explainable(estimator.fit(x, y), uw.Examples(x, y))
    assert any("no support vectors" in note for note in model.notes)
    assert not uw.LeaveOneOut().fit(model, uw.Examples(x, y)).attribute(uw.Examples(x[:2], y[:2])).values.any()
