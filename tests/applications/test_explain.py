import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from upweight import Chance, Examples, Influence, LeaveOneOut, Margin, Probability, Retraining, explainable
from upweight.applications.explain import explain
from upweight.applications.query_choice import confident_mistakes, worth_explaining
from upweight.core.model import Measurable, Predictions

RNG = np.random.default_rng(3)
X = RNG.normal(size=(50, 3))
Y = (X[:, 0] + RNG.normal(size=50) > 0).astype(int)
NAMES = {0: "no", 1: "yes"}
TRAIN = Examples(X[:35], Y[:35], ids=[f"t{i}" for i in range(35)], labels=NAMES)
QUERIES = Examples(X[35:], Y[35:], ids=[f"q{i}" for i in range(15)], labels=NAMES)


def logistic(measure=None):
    return explainable(LogisticRegression(tol=1e-10).fit(TRAIN.x, TRAIN.y), TRAIN, measure)


class Unable(Measurable):
    """A model that only measures and predicts."""

    measurement = "nothing"

    def measure(self, queries):
        return np.zeros(len(queries))

    def predict(self, examples):
        return Predictions(("no",) * len(examples), ("no", "yes"))


def test_mistakes_are_wrong_and_the_surest_come_first():
    model = logistic()
    mistakes = confident_mistakes(model, QUERIES, k=3)
    predictions = model.predict(QUERIES.select(mistakes))
    assert all(p != QUERIES.label(i) for i, p in zip(mistakes, predictions.predicted, strict=True))
    sure = predictions.probabilities.max(axis=1)
    assert (np.diff(sure) <= 0).all()
    assert len(confident_mistakes(model, QUERIES, k=99)) < len(QUERIES)


def test_mistakes_do_not_depend_on_the_order_of_queries():
    order = np.random.default_rng(0).permutation(len(QUERIES))
    assert confident_mistakes(logistic(), QUERIES.take(order)) == confident_mistakes(logistic(), QUERIES)


def test_mistakes_of_a_machine_without_probabilities_are_those_of_lowest_measurement():
    model = explainable(LinearSVC(tol=1e-10, max_iter=100_000).fit(TRAIN.x, TRAIN.y), TRAIN)
    mistakes = confident_mistakes(model, QUERIES, k=3)
    assert (np.diff(model.measure(QUERIES.select(mistakes))) >= 0).all()


def test_mistakes_of_a_regression_are_its_largest_errors():
    train, queries = Examples(X[:35], X[:35, 1] + Y[:35]), Examples(X[35:], X[35:, 1] + Y[35:])
    fitted = Ridge().fit(train.x, train.y)
    mistakes = confident_mistakes(explainable(fitted, train), queries, k=2)
    assert mistakes == np.argsort(-np.abs(fitted.predict(queries.x) - queries.y))[:2].tolist()


def test_queries_without_labels_hold_no_mistakes_but_are_worth_explaining():
    unlabelled = Examples(QUERIES.x, ids=QUERIES.ids)
    model = logistic(Probability(of=1))
    with pytest.raises(ValueError, match="no labels"):
        confident_mistakes(model, unlabelled)
    mistakes, why = worth_explaining(model, unlabelled, k=2)
    chances = model.predict(unlabelled.select(mistakes)).probabilities.max(axis=1)
    assert len(mistakes) == 2 and chances[0] <= chances[1] and "least confident" in why


def test_a_model_without_mistakes_still_has_something_worth_explaining():
    model = logistic()
    right = QUERIES.without(confident_mistakes(model, QUERIES, k=99))
    mistakes, why = worth_explaining(model, right, k=3)
    assert len(mistakes) == 3 and "every query right" in why


def test_progress_reports_every_stage_from_start_to_end():
    reports = []
    explain(
        logistic(),
        TRAIN,
        QUERIES,
        Influence(),
        removals=2,
        retraining=Retraining(progress=lambda *news: reports.append(news)),
    )
    assert [(s, d) for s, d, _ in reports if d == 0] == [("fit", 0), ("attribute", 0), ("retrain", 0)]
    assert [s for s, d, total in reports if d == total] == ["fit", "attribute", "retrain"]
    assert reports[-1][0] == "retrain" and reports[-1][2] >= 2


def test_a_model_that_cannot_be_retrained_is_explained_with_a_warning():
    explained = explain(Unable(), TRAIN, QUERIES, Chance())
    assert explained.check is None
    assert any("Nothing was verified" in w for w in explained.warnings)
    assert explain(Unable(), TRAIN, QUERIES, Chance(), removals=0).notes == ()


def test_plain_values_are_json_even_where_there_is_nothing_to_correlate():
    explained = explain(logistic(), TRAIN, QUERIES.take([0]), Influence(), removals=1)
    answer = json.loads(json.dumps(explained.as_dict(), allow_nan=False))
    assert answer["check"]["pearson"] is None
    assert answer["check"]["groups"] == {"slope": None, "pearson": None, "spearman": None, "count": 0}


def test_the_chance_without_an_example_is_what_retraining_gives():
    model = logistic()
    explained = explain(model, TRAIN, QUERIES, LeaveOneOut(), removals=0)
    best = explained.scores.proponents("q0", 1)[0]
    keep = np.flatnonzero(TRAIN.ids != best.id)
    again = LogisticRegression(tol=1e-10).fit(TRAIN.x[keep], TRAIN.y[keep])
    expected = again.predict_proba(QUERIES.x[:1])[0, QUERIES.y[0]]
    assert explained.without(0, best.score) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("measure", "recipe"), [(Margin(), Influence()), (None, Chance())])
def test_no_chance_is_made_up_from_other_measurements_or_ranks(measure, recipe):
    explained = explain(logistic(measure), TRAIN, QUERIES, recipe, removals=0)
    assert explained.without(0, 0.1) is None
