"""Slices and what-if results carry the verdict of their retrainings, and EFFECT does not survive a failed one."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

import upweight as uw
from upweight.cli import app

X, Y = load_breast_cancer(return_X_y=True)
X = StandardScaler().fit_transform(X)
TRAIN, QUERIES = uw.Examples(X[:300], Y[:300]), uw.Examples(X[400:], Y[400:], ids=range(400, 569))
FAILS = "does not predict retraining here: do not act on single examples"


def explained(estimator):
    return uw.explainable(estimator.fit(TRAIN.x, TRAIN.y), TRAIN)


def linear():
    return explained(LogisticRegression(tol=1e-8, max_iter=9999))


def sliced(model, **how):
    groups = {"draw": np.random.default_rng(0).integers(0, 12, 300).astype(str)}
    return uw.slices(model, TRAIN, QUERIES, uw.Slicing(groups, {"all": QUERIES.ids}), **how)


def test_slices_and_changes_that_retraining_confirms_agree_and_stay_effects(tmp_path):
    change = {"half": uw.Change(remove=range(100)), "twice": uw.Change(reweight=dict.fromkeys(range(9), 2.0))}
    for result in (
        sliced(linear(), removals=12),
        uw.what_if(linear(), TRAIN, QUERIES.take(range(3)), change, removals=9),
    ):
        assert result.verdict is uw.Verdict.AGREES and result.unit is uw.Unit.EFFECT
        content = json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert content["verdict"] == "agrees" and content["agreement"]["slope"] == pytest.approx(1, abs=0.02)
        assert "agrees" in repr(result) and not any("retraining" in w.lower() for w in content["warnings"])
        page = uw.write_page(tmp_path / "page.html", result).read_text(encoding="utf-8")
        assert "checked by retraining: agrees" in page


def test_slices_that_retraining_contradicts_are_ranks_with_the_reason():
    result = sliced(explained(RandomForestClassifier(30, random_state=0)), removals=12)
    assert result.verdict is uw.Verdict.FAILS and result.unit is uw.Unit.RANK
    assert result.as_dict()["verdict"] == FAILS and result.as_dict()["agreement"]["slope"] is None
    assert any("over 12 removals of groups): do not act on single effects" in w for w in result.diagnostics["warnings"])


def test_changes_too_large_for_the_first_order_keep_their_order_only():
    change = {"half": uw.Change(remove=range(200)), "many": uw.Change(reweight=dict.fromkeys(range(50), 30.0))}
    result = uw.what_if(linear(), TRAIN, QUERIES.take(range(6)), change, form="first", removals=9)
    assert result.verdict is uw.Verdict.ORDER_ONLY and result.unit is uw.Unit.RANK
    assert any("over 20 changes" in w and "their unit is RANK" in w for w in result.diagnostics["warnings"])
    assert result.low is not None  # intervals come from retraining, and stay


def test_results_without_retraining_or_with_one_pair_have_no_verdict():
    for result, words in (
        (sliced(linear(), removals=0), "not checked"),
        (uw.what_if(linear(), TRAIN, QUERIES.take([0]), uw.Change(remove=[5]), removals=None), "not retrained"),
        (uw.what_if(linear(), TRAIN, QUERIES.take([0]), uw.Change(remove=[5]), removals=0), "too few retrainings"),
    ):
        assert result.verdict is None and result.as_dict()["verdict"] is None and words in repr(result)
        assert result.unit is uw.Unit.EFFECT


def test_the_command_line_says_the_verdict(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(
        "import numpy as np, upweight\nfrom sklearn.linear_model import LogisticRegression\n"
        "rng = np.random.default_rng(0)\nx = rng.normal(size=(140, 3))\n"
        "y = (x[:, 0] + 0.5 * rng.normal(size=140) > 0).astype(int)\n"
        "train, queries = upweight.Examples(x[:100], y[:100], names=list('abc')), upweight.Examples(x[100:], y[100:])\n"
        "model = LogisticRegression(tol=1e-8).fit(train.x, train.y)\n"
    )
    for arguments in (["slices", "task.py", "--by", "a", "--by", "b"], ["what-if", "task.py", "--remove", "3"]):
        output = CliRunner().invoke(app, arguments).output
        assert "Verdict: agrees. Effects compared with retraining: Pearson 1.00, slope 1.00." in output, output
