import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw
from support.additive_game import game
from support.logistic_fit import logistic_fit
from upweight.evaluate.compare import compare, cpu_seconds
from upweight.evaluate.label_errors import plant
from upweight.evaluate.lds import lds
from upweight.evaluate.removals import subsets
from upweight.evaluate.retrain_truth import retrain_truth


def truth_of(model, train, queries, count=20):
    return retrain_truth(model, train, queries, subsets(train, count, 0.7), retraining=uw.Retraining(processes=1))


def test_every_method_is_compared_with_the_same_truth():
    model, train, queries, _, scores = logistic_fit()
    truth, reports = truth_of(model, train, queries), []
    comparison = compare(
        {"chance": uw.Chance(), "influence": uw.Influence()}, model, train, queries, truth,
        retraining=uw.Retraining(progress=lambda *a: reports.append(a)),
    )  # fmt: skip
    assert [e.name for e in comparison.entries] == ["influence", "chance", "similar"]
    assert (
        comparison["influence"].lds.mean == pytest.approx(lds(scores, truth).mean)
        and comparison["influence"].lds.mean > 0.9
    )
    assert comparison["influence"].lds.mean > comparison["similar"].lds.mean > comparison["chance"].lds.mean
    assert np.isnan(comparison["chance"].slope) and 0.5 < comparison["influence"].slope < 1.5
    assert comparison["influence"].seconds > 0 and reports == [("compare", done, 3) for done in (1, 2, 3)]
    assert comparison.warnings == [] and "influence" in repr(comparison) and "of ceiling" in comparison._repr_html_()
    with pytest.raises(KeyError, match="no method is called 'inflence'; there are influence"):
        comparison["inflence"]


def test_every_method_is_tested_on_planted_labels():
    _, clean, queries, _, _ = logistic_fit()
    train, ids = plant(clean, 0.1, seed=1)
    model = uw.explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y), train)
    truth = truth_of(model, train, queries)
    comparison = compare({"influence": uw.Influence()}, model, train, queries, truth, planted=ids)
    assert {e.name for e in comparison.entries} == {"influence", "chance", "similar", "loss", "held_out_loss"}
    assert all(e.detection is not None and e.detection.planted == len(ids) for e in comparison.entries)
    assert comparison["influence"].detection.auc > 0.75 and comparison["held_out_loss"].lds is None
    document = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert document["methods"][0]["found"]["auc"] == comparison["influence"].detection.auc
    with pytest.raises(KeyError, match="no example has the id"):
        compare({"influence": uw.Influence()}, model, train, queries, truth, planted=["nobody"])


def test_bm25_is_a_baseline_for_texts():
    texts = ["good film", "fine good plot", "bad film", "dull bad plot", "good wit", "bad and dull"] * 6
    y = [1, 1, 0, 0, 1, 0] * 6
    train, queries = uw.Examples(texts, y), uw.Examples(["good", "dull film"], [1, 0])
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-10)).fit(texts, y), train)
    comparison = compare({"influence": uw.Influence()}, model, train, queries, truth_of(model, train, queries, 12))
    assert {e.name for e in comparison.entries} == {"influence", "chance", "similar", "bm25"}
    assert comparison["bm25"].lds.mean > 0.2


def test_a_method_that_cannot_run_is_a_row_that_says_why():
    model, train, queries, _ = game()
    comparison = compare({"influence": uw.Influence()}, model, train, queries, truth_of(model, train, queries))
    last = comparison.entries[-1]
    assert last.name == "influence" and "needs a model that is Differentiable" in last.why
    assert "influence was not run" in comparison.warnings[-1] and comparison.as_dict()["methods"][-1]["lds"] is None


def test_another_truth_and_no_method_are_refused():
    model, train, queries, _, _ = logistic_fit()
    truth = truth_of(model, train, queries, 5)
    with pytest.raises(ValueError, match="made with another set of queries"):
        compare({"chance": uw.Chance()}, model, train, queries.take([1]), truth)
    with pytest.raises(ValueError, match="expected methods by name"):
        compare({}, model, train, queries, truth)


def test_cost_counts_child_processes():
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(i * i for i in range(3_000_000))"], check=True)
    assert cpu_seconds() - before > 0.02
