"""Older keywords of every function that trains give today's results, and a warning that says what to write."""

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support import training_calls
from support.logistic_fit import logistic_fit
from support.training_calls import call, change, slicing, truth
from upweight.retraining.retraining import ONE_BY_ONE


def quiet(done, total):
    assert done <= total


def staged(stage, done, total):
    assert stage in ("fit", "attribute", "verify", "influence", "folds", "harm") and done <= total


PLAIN = uw.Influence(correction=None)
RETRAINING = ({"processes": 1}, {"how": "processes"}, {"folder": None}, {"progress": quiet})
CASES = [
    *((name, given, None) for name in ("verify", "retrain_truth", "removal_curve") for given in RETRAINING),
    *((name, given, None) for name in ("retrain", "brittleness") for given in RETRAINING),
    *((name, {"seeds": 2}, None) for name in ("verify", "retrain_truth", "removal_curve")),
    *((name, {"progress": staged}, {}) for name in ("explain", "slices", "mislabeled")),
    *((name, {"seed": 3}, {"retraining": replace(ONE_BY_ONE, seeds=[3])}) for name in ("slices", "what_if")),
    *((name, {"seed": 3}, {"retraining": replace(ONE_BY_ONE, seeds=[3])}) for name in ("mislabeled", "held_out_loss")),
    ("compare", {"progress": quiet}, {}),
    ("explain", {"method": PLAIN}, {"recipe": PLAIN}),
    ("slices", {"method": PLAIN}, {"recipe": PLAIN}),
    ("slices", {"refits": 2}, {"removals": 2}),
    ("slices", {"failing": ["q3", "q4"]}, {"by": slicing(failing=["q3", "q4"])}),
    ("slices", {"smallest": 30}, {"by": slicing(smallest=30)}),
    ("removal_curve", {"draws": 2}, {"removals": 2}),
    ("what_if", {"calibrate": 9}, {"removals": 9}),
    ("what_if", {"refit": True}, {}),
    ("what_if", {"calibrate": 9, "refit": False}, {"removals": 9}),
]


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("name", "older", "today"), CASES)
def test_older_keywords_give_the_same_result_and_warn_what_to_write(name, older, today):
    if today is None:
        today = {"retraining": uw.Retraining(**{k: v for k, v in older.items() if k != "progress"})}
    with pytest.warns(DeprecationWarning) as warned:
        before = call(name, **older)
    (warning,) = (w for w in warned if str(w.message).startswith("uw."))
    message = str(warning.message)
    assert message.startswith(
        f"uw.{name}: {', '.join(f'{k}=' for k in older)} {'is' if len(older) == 1 else 'are'} deprecated; write "
    )
    assert warning.filename == training_calls.__file__  # the caller of the function
    for keyword in today:
        assert f"{keyword}=" in message.partition("; write ")[2]
    np.testing.assert_array_equal(before, call(name, **today))


def test_older_keywords_can_be_passed_by_position():
    model, train, queries, *_ = logistic_fit()
    rows = 1 - np.eye(len(train))[:2]
    with pytest.warns(DeprecationWarning, match=r"how= is deprecated; write retraining=uw.Retraining\(how=…\)"):
        older = uw.retrain(model, train, rows, 0, "processes")
    np.testing.assert_array_equal(older.parameters, uw.retrain(model, train, rows).parameters)
    with pytest.warns(DeprecationWarning, match=r"failing= is deprecated; write by=uw.Slicing\(…, failing=…\)"):
        assert list(uw.slices(model, train, queries, slicing(), {"two": queries.ids[:2]}, removals=0).slices) == ["two"]


def test_what_if_without_any_training():
    model, train, queries, *_ = logistic_fit()
    with pytest.warns(DeprecationWarning, match="write removals=None in place of refit=False with calibrate=0"):
        older = uw.what_if(model, train, queries, change(), refit=False, calibrate=0)
    today = uw.what_if(model, train, queries, change(), removals=None)
    assert older.actual is today.actual is None and today.high is None and today.after == ()
    np.testing.assert_array_equal(older.predicted, today.predicted)


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"grey": 0.1, "steps": 2}, {"pgd": uw.PGD(grey=0.1, steps=2)}),
        ({"grey": 0.1, "radius": 1, "step": 0.5, "bounds": (-1, 1), "steps": 1}, None),
    ],
)
def test_older_keywords_of_attack(older, today):
    model, train, queries, *_ = logistic_fit()
    today = {"pgd": uw.PGD(**older)} if today is None else today
    with pytest.warns(DeprecationWarning, match=r"uw.attack: grey=, .* are deprecated; write pgd=uw.PGD\(grey=…, "):
        before = uw.attack(model, train, queries, **older)
    np.testing.assert_array_equal(before.measured, uw.attack(model, train, queries, **today).measured)


def test_older_progress_of_functions_that_keep_the_keyword():
    model, train, queries, *_ = logistic_fit()
    reports, moves = [], uw.PGD(grey=0.1, steps=1)
    with pytest.warns(DeprecationWarning, match=r"uw.attack: write progress\(stage, done, total\)") as warned:
        uw.attack(model, train, queries, pgd=moves, progress=lambda done, total: reports.append((done, total)))
    assert warned[0].filename == __file__ and reports == [(1, 1)]
    uw.attack(model, train, queries, pgd=moves, progress=lambda *report: reports.append(report))
    with pytest.warns(DeprecationWarning, match=r"uw.tune_damping: write progress\(stage, done, total\)") as warned:
        uw.tune_damping(uw.Influence(), [0, 1], model, train, queries, truth(), progress=quiet)
    assert warned[0].filename == __file__
    uw.tune_damping(
        uw.Influence(), [0, 1], model, train, queries, truth(), progress=lambda *report: reports.append(report)
    )
    assert reports[1:] == [("retrain", 1, 1), ("tune", 1, 2), ("tune", 2, 2)]


def test_older_names_of_recipes():
    model, train, queries, *_ = logistic_fit()
    plain = uw.Influence(correction=None, polish=0)
    with pytest.warns(DeprecationWarning, match="uw.perturb: method= is deprecated; write recipe=…"):
        older = uw.perturb(model, train, queries, method=plain)
    np.testing.assert_array_equal(older.gradients, uw.perturb(model, train, queries, recipe=plain).gradients)
    with pytest.warns(DeprecationWarning, match="uw.Metagradient: gate= is deprecated; write removals=…"):
        assert uw.Metagradient(gate=5) == uw.Metagradient(removals=5)
    assert uw.Metagradient(removals=5).described()["removals"] == 5
