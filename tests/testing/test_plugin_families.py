"""The laws can be tried on model families of other packages, as on the package's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sklearn.datasets import load_wine

import upweight as uw
from support.naive_bayes import READER, Bayes, NaiveBayes
from upweight.models import registry
from upweight.testing import EstimatorFamily, Law, ModelLaw, Outcome, check_method, check_model, families
from upweight.testing.families import scaled


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> EstimatorFamily:
    installed = {"naive_bayes": SimpleNamespace(loaded=READER, point="naive_bayes")}
    monkeypatch.setattr(registry, "plugins", lambda *arguments: installed)
    return EstimatorFamily("naive Bayes", scaled(load_wine, 6), Bayes, other={"var_smoothing": 0.1})


@pytest.mark.parametrize("method", [uw.Chance, uw.KNNShapley, uw.LeaveOneOut])
def test_methods_keep_the_laws_on_a_plugin_family(method: type[uw.Attributor], family: EstimatorFamily) -> None:
    report = check_method(method(), [family])
    assert isinstance(family.trained, NaiveBayes) and not report.no_pairs
    held_laws = {result.law for result in report.results if result.outcome == Outcome.HELD}
    assert {str(Law.SHAPE), str(Law.IDENTITY), str(Law.UNTOUCHED), str(Law.PERMUTATION)} <= held_laws


def test_a_plugin_model_keeps_the_laws_of_models(family: EstimatorFamily) -> None:
    report = check_model(family.trained, family.train, family.queries, others=family.other_models)
    held_laws = {result.law for result in report.results if result.outcome == Outcome.HELD}
    assert {str(ModelLaw.RETRAIN), str(ModelLaw.WEIGHTS), str(ModelLaw.EMBED), str(ModelLaw.FOLDER)} <= held_laws


def test_other_measurements_that_the_reader_refuses_are_left_out(family: EstimatorFamily) -> None:
    assert set(family.other_models) == {"settings"}
    logistic = families()[0]
    measurements = {"measurement", "measurement of the same name"}
    assert set(logistic.other_models) == {*measurements, "objective", "settings"}


def test_a_change_to_the_estimator_is_noticed(family: EstimatorFamily) -> None:
    before = family.belongings(family.trained)
    family.trained.inner.theta_[0, 0] += 1e-9
    assert family.belongings(family.trained) != before


def test_a_model_that_another_family_made_is_refused(family: EstimatorFamily) -> None:
    with pytest.raises(ValueError, match="a model that the family 'naive Bayes' made"):
        family.belongings(families()[0].trained)
