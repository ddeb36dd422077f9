"""The laws of methods can fail: a faulty method for every law is caught by that law."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.broken_methods import BROKEN, Correct
from upweight.core.attributor import Promises
from upweight.testing import (
    BrokenLawError,
    Case,
    EstimatorFamily,
    Law,
    Outcome,
    check_method,
    families,
    laws_for,
    try_law,
)
from upweight.testing.families import TIGHT, scaled
from upweight.testing.registry import LAW_CHECKS


def family() -> EstimatorFamily:
    """Make a new family for every method, so that no method can affect another."""
    data = scaled(load_breast_cancer, 6)
    return EstimatorFamily("logistic", data, lambda: LogisticRegression(**TIGHT), other={"C": 2.0})


def test_a_correct_method_keeps_all_laws():
    report = check_method(Correct, families())
    assert not report.broken and not report.no_pairs
    held_laws = {result.law for result in report.results if result.outcome == Outcome.HELD}
    assert held_laws == {str(law) for law in Law}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_caught_by_its_law(fault):
    recipe, law = BROKEN[fault]
    result = try_law(law, Case(recipe, family()))
    assert result.outcome == Outcome.BROKEN, result
    with pytest.raises(BrokenLawError, match=f"{type(recipe).__name__} on logistic") as caught:
        result.require()
    assert str(law) in str(caught.value) and result.reason


def test_every_law_has_a_check_and_a_fault_that_it_catches():
    assert set(LAW_CHECKS) == set(Law) == {law for _, law in BROKEN.values()}


def test_a_report_lists_all_broken_laws():
    recipe, law = BROKEN["a flipped sign"]
    with pytest.raises(BrokenLawError, match=rf"laws are broken:\n  {law}: .* the copy scores -") as caught:
        check_method(recipe, [family()])
    assert isinstance(caught.value, AssertionError) and str(Law.RETRAINING) in str(caught.value)
    report = check_method(recipe, [family()], [law], strict=False)
    assert [result.law for result in report.broken] == [law] and repr(report) == "Report(1 broken)"


def test_equal_failures_are_listed_once():
    crashing, _ = BROKEN["crashes"]
    with pytest.raises(BrokenLawError) as caught:
        check_method(crashing, families()[:2])
    (line,) = (line for line in str(caught.value).splitlines() if "KeyError" in line)
    assert "(in " in line and " laws: first on CrashesMethod on logistic regression, by the law: " in line
    report = check_method(crashing, families()[:2], [Law.SHAPE], strict=False)
    with pytest.raises(BrokenLawError, match=rf"  {Law.SHAPE}: KeyError: .* \(in 2 pairs: first on CrashesMethod on"):
        report.require()


def test_all_missing_facts_are_listed_at_once():
    class Bare(type(BROKEN["states no floor"][0])):
        summary, cost, needs = "", "", ()

    result = try_law(Law.FACTS, Case(Bare(), family()))
    assert all(f"Bare.{fact}" in result.reason for fact in ("summary", "cost", "needs"))
    assert "expected a floor against retraining" in result.reason


@pytest.mark.parametrize("wrong", ["graddot", None, LogisticRegression])
def test_anything_that_is_not_a_method_is_refused(wrong):
    with pytest.raises(TypeError, match=r"expected a method, as a recipe such as GradDot\(\) or as its class, got "):
        check_method(wrong)


@pytest.mark.parametrize("wrong", ["ridge", LogisticRegression()])
def test_anything_that_is_not_a_list_of_families_is_refused(wrong):
    with pytest.raises(TypeError, match=r"expected families as a list of upweight\.testing\.Family, got "):
        check_method(uw.GradDot(), [wrong])
    with pytest.raises(TypeError, match="expected families as a list"):
        check_method(uw.GradDot(), family())


def test_a_waived_law_is_not_reported_as_held():
    report = check_method(uw.Chance(), families()[:1], [Law.COPY, Law.SHAPE])
    assert [result.outcome for result in report.results] == [Outcome.WAIVED, Outcome.HELD]
    assert report.results[0].reason == "chance does not look at the examples"


def test_a_method_that_fits_no_family_fails_because_nothing_was_checked():
    with pytest.raises(BrokenLawError, match="no law was tried: no family fits"):
        check_method(uw.LeafRefit(), families()[:2])
    linear = uw.Influence(curvature=uw.EKFAC())
    with pytest.raises(BrokenLawError, match=r"Influence on logistic regression: expected Hessian\(solver="):
        check_method(linear, families()[:1])


def test_a_class_is_tried_with_its_variants():
    pairs = {(case.settings, case.family.name) for _, case in laws_for(uw.RelatIF, families())}
    assert ("parameters", "ridge") in pairs and ("", "trained net") in pairs
    assert ("EK-FAC", "net") in pairs and ("EK-FAC", "ridge") not in pairs


@pytest.mark.parametrize(
    ("promises", "message"),
    [
        ({"waives": {"a copy is good": "why not"}}, "expected waives to name laws, got 'a copy is good'; the laws are"),
        ({"waives": {Law.COPY: ""}}, "expected the reason why the law 'a copy helps"),
        ({"correlation": 0.0}, "expected a floor of the correlation above 0 and at most 1, got 0.0"),
        ({"correlation": 0.5, "ranking": 2.0}, "above 0 and at most 1, got 2.0"),
        ({"correlation": 0.5, "no_floor": "it is hard"}, "or the reason why there is none, got both"),
        ({"slope": (0.5, 2.0), "no_floor": "it is hard"}, "beside what else is promised of it, got none"),
    ],
)
def test_contradictory_or_impossible_promises_are_refused(promises, message):
    with pytest.raises(ValueError, match=message):
        Promises(**promises)


def test_the_laws_need_no_pytest():
    code = "import sys, upweight.testing; assert not {'pytest', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
