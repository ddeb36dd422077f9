"""The laws of models can fail: a faulty model for every law is caught by that law."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from upweight.core.model import Predictions
from upweight.linear.model import LinearModel
from upweight.linear.rows import FactoredRows
from upweight.models.pytorch.torch_model import TorchModel
from upweight.testing import BrokenLawError, ModelLaw, Outcome, check_model, families, try_model_law
from upweight.testing.laws_of_models import MODEL_LAW_CHECKS
from upweight.testing.model_case import ModelCase
from upweight.trees.model import TreeModel


class ByCompany(LinearModel):
    def measure(self, queries):
        return super().measure(queries) / len(queries)


class Wordy(LinearModel):
    def predict(self, examples):
        predictions = super().predict(examples)
        return Predictions(predictions.predicted[:-1], predictions.classes, predictions.probabilities)


class OneString(LinearModel):
    def __init__(self, **parts):
        super().__init__(**parts, notes="one sentence instead of a sequence of sentences")


class OneForAll(LinearModel):
    def identity(self):
        return {"parameters": "the best"}


class Remembering(LinearModel):
    def measure(self, queries):
        return self._seen.setdefault(id(queries), (queries, super().measure(queries)))[1]


class Steeper(LinearModel):
    def measure_rows(self, queries):
        rows = super().measure_rows(queries)
        return FactoredRows(rows.features, 1.1 * rows.slopes)


class Flat(LinearModel):
    def embed(self, examples):
        return np.asarray(super().embed(examples)).ravel()


class Moved(LinearModel):
    def with_parameters(self, parameters):
        self.theta[:] = np.asarray(parameters).reshape(self.theta.shape)
        return self


class Elsewhere(LinearModel):
    def retrain(self, train, weights, seed=0):
        return replace(super().retrain(train, weights, seed), theta=1.1 * self.theta)


class Unweighted(LinearModel):
    def retrain(self, train, weights, seed=0):
        return super().retrain(train, np.ones(len(train)), seed)


class Itself(LinearModel):
    def retrain(self, train, weights, seed=0):
        self.theta[:] = super().retrain(train, weights, seed).theta
        return self


class PresentOrNot(LinearModel):
    def retrain(self, train, weights, seed=0):
        return super().retrain(train, (weights > 0).astype(float), seed)


class CountsRows(LinearModel):
    def retrain(self, train, weights, seed=0):
        shrunk = super().retrain(train, weights, seed)
        return replace(shrunk, theta=shrunk.theta * len(train) / self.rows)

    rows = 60


class Unstacked(TorchModel):
    def retrain_many(self, train, weights, seeds):
        return super().retrain_many(train, weights[::-1], seeds)


class Backwards(TorchModel):
    def replay(self, train, weights, seed=0):
        return super().replay(train, 0.5 * weights, seed)


class Sloped(TreeModel):
    def measure_slopes(self, queries, margins):
        return -super().measure_slopes(queries, margins)


FAULTS = {
    ModelLaw.MEASURE: ByCompany,
    ModelLaw.PREDICT: Wordy,
    ModelLaw.NOTES: OneString,
    ModelLaw.IDENTITY: OneForAll,
    ModelLaw.CHANGED: Remembering,
    ModelLaw.ROWS: Steeper,
    ModelLaw.EMBED: Flat,
    ModelLaw.PARAMETERS: Moved,
    ModelLaw.RETRAIN: Elsewhere,
    ModelLaw.WEIGHTS: PresentOrNot,
    ModelLaw.STACK: Unstacked,
    ModelLaw.REPLAY: Backwards,
    ModelLaw.TREES: Sloped,
    ModelLaw.FOLDER: OneForAll,
}


@cache
def family(name):
    return next(family for family in families() if family.name == name)


def faulty(kind, model):
    """Return the same model as an instance of this faulty class."""
    if issubclass(kind, TorchModel):
        network = model.network
        return kind(network.net, network.loss, objective=model.objective, training=model.training)
    parts = {part.name: getattr(model, part.name) for part in fields(model) if part.name not in ("_cache", "notes")}
    return kind(**{**parts, **({"theta": model.theta.copy()} if hasattr(model, "theta") else {})})


@pytest.mark.parametrize("law", FAULTS, ids=lambda law: law.name.lower())
def test_a_fault_is_caught_by_its_law(law):
    kind = FAULTS[law]
    name = {TorchModel: "trained net", TreeModel: "boosted trees"}.get(kind.__base__, "logistic regression")
    others = {what: faulty(kind, model) for what, model in family(name).other_models.items()}
    of = ModelCase(faulty(kind, family(name).trained), family(name).train, family(name).queries, others)
    result = try_model_law(law, of)
    assert result.outcome == Outcome.BROKEN and result.reason, result
    with pytest.raises(BrokenLawError, match=str(law)):
        result.require()


@pytest.mark.parametrize(
    ("law", "kind", "message"),
    [
        (ModelLaw.RETRAIN, Unweighted, "with half of the weights 0, it measures the same as with all of them 1"),
        (ModelLaw.RETRAIN, Itself, "expected `retrain` to return another model"),
        (ModelLaw.WEIGHTS, Itself, "expected `retrain` to return another model"),
        (ModelLaw.WEIGHTS, Unweighted, "a weight of 0 for e.* without that example: they differ"),
        (ModelLaw.WEIGHTS, PresentOrNot, "a weight of 2 for e.* with a copy of it: they differ"),
        (ModelLaw.WEIGHTS, CountsRows, "a weight of 0 for e.* without that example: they differ"),
    ],
)
def test_a_faulty_retrain_is_caught(law, kind, message):
    small = family("logistic regression")
    result = try_model_law(law, ModelCase(faulty(kind, small.trained), small.train, small.queries))
    assert result.outcome == Outcome.BROKEN and re.search(message, result.reason), result


def test_the_weights_law_changes_neither_the_only_example_of_a_class_nor_one_of_weight_0():
    small = family("softmax")
    y = small.train.y.copy()
    first, *rest = np.flatnonzero(y == y[0])
    y[rest] = y[y != y[0]][0]  # one example of the first class is left, amid another class: the hardest example
    x = small.train.x.copy()
    x[first] = x[y == y[rest[0]]].mean(axis=0)
    train = small.train.replaced(x=x, y=y, weights=np.where(np.arange(len(y)) == 1, 0.0, 1.0))
    model = small.model(train)
    assert int(np.argmin(model.measure(train))) == first
    report = check_model(model, train, small.queries, laws=[ModelLaw.RETRAIN, ModelLaw.WEIGHTS])
    assert [result.outcome for result in report.results] == [Outcome.HELD] * 2


def test_a_model_whose_weights_are_not_copies_is_excused_with_a_reason():
    small = family("logistic regression")
    report = check_model(
        faulty(PresentOrNot, small.trained), small.train, small.queries, not_weighted="it only knows present and absent"
    )
    waived = [(result.law, result.reason) for result in report.results if result.outcome == Outcome.WAIVED]
    assert waived == [(str(ModelLaw.WEIGHTS), "it only knows present and absent")]


def test_every_model_law_has_a_check_and_a_fault_that_it_catches():
    assert set(MODEL_LAW_CHECKS) == set(ModelLaw) == set(FAULTS)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("small", families(), ids=repr)
def test_the_models_of_the_package_families_keep_all_laws(small, logged):
    report = check_model(
        small.trained, small.train, small.queries, others=small.other_models, not_weighted=small.not_retrained_as_copies
    )
    silent = {result.law for result in report.results if result.outcome == Outcome.SILENT}
    assert str(ModelLaw.MEASURE) not in silent and not report.broken
    assert "is of this model" not in logged.getvalue()


def test_an_estimator_in_place_of_a_model_and_arrays_in_place_of_examples_are_refused():
    small = family("logistic regression")
    with pytest.raises(TypeError, match="check_model needs a model that is Measurable, got LogisticRegression; wrap a"):
        check_model(small.fitted(small.train), small.train, small.queries)
    with pytest.raises(TypeError, match=r"expected the queries as upweight.Examples\(x, y\), got ndarray"):
        check_model(small.trained, small.train, small.queries.x)
