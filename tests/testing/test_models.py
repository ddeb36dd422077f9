"""The laws of models can fail: every fault is caught, by the law that is meant for it."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from upweight.core.model import Predictions
from upweight.linear.model import LinearModel
from upweight.linear.rows import FactoredRows
from upweight.models.pytorch import TorchModel
from upweight.testing import BrokenLawError, ModelLaw, Outcome, check_model, families, try_model_law
from upweight.testing.laws_of_models import MODEL_RULES, Modelled
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
        super().__init__(**parts, notes="one sentence, in which every letter is a note")


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
    ModelLaw.STACK: Unstacked,
    ModelLaw.REPLAY: Backwards,
    ModelLaw.TREES: Sloped,
    ModelLaw.FOLDER: OneForAll,
}


@cache
def family(name):
    return next(one for one in families() if one.name == name)


def faulty(kind, model):
    """The same model as one of this kind."""
    if issubclass(kind, TorchModel):
        network = model.network
        return kind(network.net, network.loss, objective=model.objective, training=model.training)
    parts = {part.name: getattr(model, part.name) for part in fields(model) if part.name not in ("_seen", "notes")}
    return kind(**{**parts, **({"theta": model.theta.copy()} if hasattr(model, "theta") else {})})


@pytest.mark.parametrize("law", FAULTS, ids=lambda law: law.name.lower())
def test_a_fault_is_caught_by_its_law(law):
    kind = FAULTS[law]
    name = {TorchModel: "trained net", TreeModel: "boosted trees"}.get(kind.__base__, "logistic regression")
    others = {what: faulty(kind, model) for what, model in family(name).other_models.items()}
    of = Modelled(faulty(kind, family(name).trained), family(name).train, family(name).queries, others)
    result = try_model_law(law, of)
    assert result.outcome == Outcome.BROKEN and result.reason, result
    with pytest.raises(BrokenLawError, match=str(law)):
        result.require()


def test_every_model_law_has_a_rule_and_a_fault_that_it_catches():
    assert set(MODEL_RULES) == set(ModelLaw) == set(FAULTS)


@pytest.mark.parametrize("one", families(), ids=repr)
def test_the_families_that_come_with_the_package_keep_all_laws(one):
    report = check_model(one.trained, one.train, one.queries, others=one.other_models)
    silent = {result.law for result in report.results if result.outcome == Outcome.SILENT}
    assert str(ModelLaw.MEASURE) not in silent and not report.broken
