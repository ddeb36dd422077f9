"""Representer points against a direct optimisation, and sums of scores against the logits of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

import upweight as uw
from upweight.core.archive import read_archive, write_archive
from upweight.core.model import Embeddable, Predictions
from upweight.core.saved_fit import SCHEMA
from upweight.linear.representer_head import fit_head
from upweight.testing import Law, candidates, families, try_law


def digits(classes: int = 10, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    chosen = np.flatnonzero(y < classes)[:rows]
    return x[chosen] / 16, y[chosen]


def logistic(x: np.ndarray, y: np.ndarray, **settings: Any) -> tuple[Any, Any, uw.Examples]:
    estimator = LogisticRegression(max_iter=10_000, tol=1e-10, **settings).fit(x, y)
    train = uw.Examples(x, y)
    return estimator, uw.explainable(estimator, train), train


class NonLinear(Embeddable):
    """A model whose probabilities are not a function of a linear head on its features."""

    measurement = "−loss"

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.estimator = KNeighborsClassifier(3).fit(x, y)

    def measure(self, queries: uw.Examples) -> np.ndarray:
        return np.zeros(len(queries))

    def predict(self, examples: uw.Examples) -> Predictions:
        probabilities = self.estimator.predict_proba(examples.x)
        return Predictions(tuple(probabilities.argmax(axis=1).tolist()), (0, 1), probabilities)

    def embed(self, examples: uw.Examples) -> np.ndarray:
        return np.asarray(examples.x)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_the_head_is_the_minimum_over_all_sums_of_examples(classes: int, is_sparse: bool) -> None:
    rng = np.random.default_rng(0)
    x, weights, l2 = rng.normal(size=(30, 4)), rng.integers(1, 4, 30).astype(float), 0.05
    targets = rng.dirichlet(np.ones(classes), 30)
    head = fit_head(sparse.csr_array(x) if is_sparse else x, targets, weights, l2)

    def objective(flat: np.ndarray) -> float:  # of W = Σ αᵢ fᵢ with one logit per class, and b
        alpha, intercept = flat[:-classes].reshape(30, classes), flat[-classes:]
        coefficients = x.T @ alpha
        loss = -(targets * log_softmax(x @ coefficients + intercept, axis=1)).sum(axis=1)
        return float(weights @ loss / weights.sum() + l2 / 2 * (coefficients**2).sum())

    optimum = minimize(objective, np.zeros(30 * classes + classes), method="BFGS", options={"gtol": 1e-8}).x
    best = x @ x.T @ optimum[:-classes].reshape(30, classes) + optimum[-classes:]
    expected = best[:, 1:] - best[:, :1] if classes == 2 else best - best.mean(axis=1, keepdims=True)
    logits = head.logits(x)
    np.testing.assert_allclose(logits - (logits.mean(axis=1, keepdims=True) if classes > 2 else 0), expected, atol=1e-4)
    np.testing.assert_allclose(head.logits(x), x @ x.T @ head.alpha + head.intercept, atol=1e-12)
    assert head.unexplained < 1e-6


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 10])
def test_scores_add_up_to_the_logits_of_scikit_learn(classes: int, fit_intercept: bool) -> None:
    x, y = digits(classes)
    estimator, model, train = logistic(x[:200], y[:200], fit_intercept=fit_intercept)
    queries = uw.Examples(x[200:], y[200:])
    fitted = uw.RepresenterPoints().fit(model, train)
    decision = estimator.decision_function(queries.x) - estimator.intercept_
    labels = queries.y
    logits = np.where(labels == 1, decision, -decision) if classes == 2 else decision[np.arange(len(labels)), labels]
    np.testing.assert_allclose(fitted.attribute(queries).values.sum(axis=1), logits, atol=1e-4)
    assert fitted.diagnostics["targets"] == "labels"
    assert fitted.diagnostics["change"] < 1e-6
    assert not fitted.attribute(queries).diagnostics["warnings"]


def test_class_weights_and_sample_weights_belong_to_the_models_own_head() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    estimator = LogisticRegression(class_weight={0: 3.0, 1: 1.0}, max_iter=10_000, tol=1e-10)
    estimator.fit(x, y, weights)
    train = uw.Examples(x, y, weights=weights)
    fitted = uw.RepresenterPoints().fit(uw.explainable(estimator, train), train)
    assert fitted.diagnostics["change"] < 1e-6
    assert (fitted.head.alpha[weights == 0] == 0).all()


def test_a_net_is_explained_by_its_own_predictions_and_left_as_it_was() -> None:
    x, y = digits()
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    train = uw.Examples(x.astype(np.float32), y)
    training = uw.Training(lr=0.1, momentum=0.9, epochs=20, batch_size=50)
    model = uw.TorchModel.trained(net, cross_entropy, train, training=training)
    fitted = uw.RepresenterPoints(targets="predictions").fit(model, train)
    assert fitted.diagnostics["faithful"] > 0.99
    predicted = model.predict(train).probabilities
    reconstructed = fitted.head.probabilities(model.embed(train))
    assert np.corrcoef(predicted.ravel(), reconstructed.ravel())[0, 1] > 0.99


def cross_entropy(net: torch.nn.Module, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(net(batch.x), batch.y.long(), reduction="none")


def test_label_errors_have_large_alphas() -> None:
    x, y = digits()
    wrong = np.random.default_rng(0).choice(len(y), 30, replace=False)
    y = y.copy()
    y[wrong] = (y[wrong] + 1) % 10
    _, model, train = logistic(x, y)
    suspicion = np.abs(uw.RepresenterPoints().fit(model, train).label_alpha())
    first = np.argsort(-suspicion)[:60]
    assert np.isin(wrong, first).mean() > 0.8


def test_labels_can_be_ranked_by_the_size_of_alpha() -> None:
    x, y = digits(rows=200)
    y = y.copy()
    y[::10] = (y[::10] + 1) % 10
    weights = np.ones(200)
    weights[10] = 0.0
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(LogisticRegression(max_iter=10_000, tol=1e-10).fit(x, y, weights), train)
    fitted = uw.RepresenterPoints().fit(model, train)
    suspects = uw.mislabeled(model, train, budget=20, ranking=uw.RepresenterPoints())
    alpha = np.abs(fitted.label_alpha())
    assert suspects.ids.tolist() == np.argsort(-alpha, kind="stable")[:20].tolist()
    np.testing.assert_array_equal(fitted.suspicion(), alpha)
    assert "ranked by RepresenterPoints alone" in suspects.notes[-1] and suspects.held_out is None
    influence = uw.mislabeled(model, train, budget=20, ranking=uw.Influence(correction=None))
    own = uw.Influence(correction=None).fit(model, train).self_influence().values[0]
    assert influence.ids.tolist() == np.argsort(-own, kind="stable")[:20].tolist()
    ridge = uw.explainable(Ridge().fit(x, x[:, 20]), uw.Examples(x, x[:, 20]))
    with pytest.raises(ValueError, match="labels of classes to rank by RepresenterPoints"):
        uw.mislabeled(ridge, uw.Examples(x, x[:, 20]), ranking=uw.RepresenterPoints())


def test_a_saved_head_of_another_form_is_refused(tmp_path) -> None:
    x, y = load_iris(return_X_y=True)
    train = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(max_iter=10_000, tol=1e-10).fit(x, y), train)
    fitted = uw.RepresenterPoints().fit(model, train)
    fitted.save(tmp_path / "fit.npz")
    arrays, facts = read_archive(tmp_path / "fit.npz", "fitted", SCHEMA)
    assert uw.RepresenterPoints().load(tmp_path / "fit.npz", model, train).width == 4
    wrong = [(name, array) for name in arrays for array in (arrays[name][..., None], arrays[name].astype(complex))]
    wrong += [("alpha", arrays["alpha"][:, :2]), ("coefficients", arrays["coefficients"][:3])]
    for name, array in wrong:
        write_archive(tmp_path / "wrong.npz", "fitted", {**arrays, name: array}, facts, SCHEMA)
        with pytest.raises(ValueError, match=r"wrong\.npz is damaged"):
            uw.RepresenterPoints().load(tmp_path / "wrong.npz", model, train)
    write_archive(tmp_path / "wrong.npz", "fitted", arrays, {**facts, "head": "x"}, SCHEMA)
    with pytest.raises(ValueError, match=r"wrong\.npz is damaged"):
        uw.RepresenterPoints().load(tmp_path / "wrong.npz", model, train)


def test_what_is_no_linear_head_on_the_features_is_refused() -> None:
    x, y = load_iris(return_X_y=True)
    x, y = x[50:, :2], (y[50:] == 2).astype(int)
    train = uw.Examples(x, y)
    for targets in ("labels", "predictions"):
        with pytest.raises(TypeError, match="linear head on its features"):
            uw.RepresenterPoints(targets=targets).fit(NonLinear(x, y), train)  # type: ignore[arg-type]


def test_what_has_no_logit_of_a_label_is_refused_in_a_sentence() -> None:
    x, y = digits(2, 60)
    estimator, model, train = logistic(x, y)
    with pytest.raises(TypeError, match="logit of the query's label, not of 'probability of 1'"):
        uw.RepresenterPoints().fit(uw.explainable(estimator, train, measure=uw.Probability(of=1)), train)
    ridge = uw.explainable(Ridge().fit(x, y), train)
    with pytest.raises(TypeError, match="a classifier with probabilities"):
        uw.RepresenterPoints().fit(ridge, train)
    fitted = uw.RepresenterPoints().fit(model, train)
    with pytest.raises(ValueError, match="expected labels"):
        fitted.attribute(uw.Examples(x[:2], np.array([0, 7])))
    with pytest.raises(ValueError, match="no labels"):
        fitted.attribute(uw.Examples(x[:2]))
    for settings in ({"l2": 0.0}, {"l2": float("nan")}, {"targets": "logits"}):
        with pytest.raises(ValueError, match="expected"):
            uw.RepresenterPoints(**settings)  # type: ignore[arg-type]


def test_queries_of_which_the_head_says_another_label_are_named() -> None:
    x, y = digits(3, 200)
    _, model, train = logistic(x, y)
    fitted = uw.RepresenterPoints(targets="predictions", l2=0.006).fit(model, train)
    queries = uw.Examples(x, y)
    probabilities, rebuilt = model.predict(queries).probabilities, fitted.head.probabilities(x)
    fitted.head.intercept[:] += np.array([50.0, 0.0, 0.0])  # a head that always says 0
    others = np.flatnonzero(probabilities.argmax(axis=1) != 0)
    warning = fitted.attribute(queries).diagnostics["warnings"][-1]
    assert f"For {len(others)} of {len(queries)} queries" in warning
    assert (probabilities.argmax(axis=1) == rebuilt.argmax(axis=1)).mean() > 0.95


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    "law", [Law.WEIGHTS, Law.SAVED, Law.PERMUTATION, Law.BATCHES], ids=lambda law: law.name.lower()
)
def test_the_laws_hold_with_predictions_as_targets(law: Law) -> None:
    tried = 0
    for case in candidates(uw.RepresenterPoints(targets="predictions"), families()):
        if case.lacks is None:
            try_law(law, case).require()
            tried += 1
    assert tried


def forest(flipped: int = 60) -> tuple[Any, uw.Examples, uw.Examples]:
    """A forest that has memorised its labels, some of which are wrong."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, clean = x[order], y[order]
    y = clean.copy()
    y[:flipped] = 1 - y[:flipped]
    train = uw.Examples(x[:300], y[:300])
    trees = RandomForestClassifier(50, bootstrap=False, random_state=0).fit(train.x, train.y)
    return uw.explainable(trees, train), train, uw.Examples(x[300:], clean[300:])


def test_a_head_on_labels_that_predicts_only_the_training_set_is_refused_on_held_out_examples() -> None:
    model, train, others = forest()
    fitted = uw.RepresenterPoints().fit(model, train)
    assert fitted.diagnostics["faithful"] > 0.99 and fitted.compare(others)["faithful"] < 0.99
    assert "on the training set alone" in fitted.diagnostics["warnings"][-1]
    assert any(
        "differ from the model's by more than 0.1" in w for w in fitted.attribute(others).diagnostics["warnings"]
    )
    with pytest.raises(TypeError, match="on held-out examples correlate with the head's"):
        uw.RepresenterPoints().fit(model, train, held_out=uw.Examples(others.x))


def test_held_out_examples_decide_which_head_is_used_and_are_said_to_have_decided() -> None:
    x, y = digits(rows=1000)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    train, others = uw.Examples(x[:700].astype(np.float32), y[:700]), uw.Examples(x[700:].astype(np.float32), y[700:])
    training = uw.Training(lr=0.1, momentum=0.9, epochs=10, batch_size=50)
    model = uw.TorchModel.trained(net, cross_entropy, train, training=training)
    for targets in ("labels", "predictions"):
        fitted = uw.RepresenterPoints(targets=targets).fit(model, train, held_out=others)
        own, rebuilt = model.predict(others).probabilities, fitted.head.probabilities(model.embed(others))
        assert fitted.diagnostics["faithful"] == pytest.approx(np.corrcoef(own.ravel(), rebuilt.ravel())[0, 1])
        assert fitted.diagnostics["change"] == pytest.approx(np.abs(own - rebuilt).mean())
        assert fitted.compare(others) == {name: fitted.diagnostics[name] for name in ("faithful", "change")}
        assert fitted.diagnostics["compared_on"] == "held-out examples" and not fitted.diagnostics["warnings"]


def test_a_model_that_is_its_own_head_is_not_warned_about() -> None:
    x, y = digits(3, 200)
    _, model, train = logistic(x[:150], y[:150], C=100.0)
    fitted = uw.RepresenterPoints().fit(model, train)
    assert fitted.compare(uw.Examples(x[150:]))["faithful"] > 0.9999
    assert not fitted.diagnostics["warnings"] and "is such a head" in fitted.diagnostics["compared_on"]
