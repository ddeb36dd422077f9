"""What queries and the training examples behind them share."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4))
Y = (X[:, 0] - X[:, 1] + 0.5 * RNG.normal(size=80) > 0).astype(int)
NAMES = {"names": list("abcd"), "labels": {0: "no", 1: "yes"}}
TRAIN, QUERIES = uw.Examples(X[:70], Y[:70], **NAMES), uw.Examples(X[70:], Y[70:], ids=range(100, 110), **NAMES)


@pytest.fixture(scope="module")
def explained():
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)
    return model, uw.explain(model, TRAIN, QUERIES, removals=0)


def test_training_examples_have_the_largest_scores_and_are_attributed_for_the_output_of_the_query(explained):
    model, explanation = explained
    result = uw.shared_inputs(model, explanation, k=3)
    predicted = model.predict(QUERIES).predicted
    for q, identifier in enumerate(QUERIES.ids.tolist()):
        row = explanation.scores.values[q]
        ids = TRAIN.ids[np.argsort(-np.abs(row), kind="stable")[:3]].tolist()
        assert [example.id for example in result.examples[identifier]] == ids
        assert [example.score for example in result.examples[identifier]] == [row[i] for i in ids]
        beside = uw.attribute_inputs(model, TRAIN.select(ids), of=predicted[q], train=TRAIN)
        assert result.train[identifier].targets == (predicted[q],) * 3
        assert np.allclose(result.train[identifier].values, beside.values)
    assert np.allclose(result.queries.values, uw.attribute_inputs(model, QUERIES, train=TRAIN).values)


def test_the_overlap_is_the_common_share_of_the_attributions(explained):
    model, explanation = explained
    result = uw.shared_inputs(model, explanation, k=2)
    for identifier in QUERIES.ids.tolist():
        mine = result.queries.of(identifier)
        mine = mine / np.abs(mine).sum()
        for j, example in enumerate(result.examples[identifier]):
            theirs = result.train[identifier].values[j]
            theirs = theirs / np.abs(theirs).sum()
            common = np.where(mine * theirs > 0, np.minimum(np.abs(mine), np.abs(theirs)), 0)
            assert example.overlap == pytest.approx(common.sum())
            assert [p.name for p in example.parts] == ["abcd"[c] for c in np.argsort(-common) if common[c] > 0]


def test_a_copy_of_the_query_shares_everything():
    train = uw.Examples(np.concatenate([X[:70], X[70:71] * 1.0]), np.append(Y[:70], Y[70]))
    model = uw.explainable(LogisticRegression(tol=1e-8, C=100).fit(train.x, train.y), train)
    explanation = uw.explain(model, train, uw.Examples(X[70:71], Y[70:71]), removals=0)
    examples = uw.shared_inputs(model, explanation, k=71).examples[0]
    assert next(example for example in examples if example.id == 70).overlap == pytest.approx(1)
    assert max(example.overlap for example in examples) <= 1 + 1e-12


def test_texts_share_words_whatever_their_case_and_place():
    texts = ["good film", "bad film", "a good play", "bad and dull", "good cast", "dull play"] * 4
    train = uw.Examples(texts, [1, 0, 1, 0, 1, 0] * 4)
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y), train)
    explanation = uw.explain(model, train, uw.Examples(["Good, and a FILM"], [1]), removals=0)
    result = uw.shared_inputs(model, explanation, of=1, k=4)
    for example in result.examples[0]:
        words = set(texts[example.id].split())
        assert {part.name for part in example.parts} <= words & {"good", "and", "a", "film"}
    assert any(part.name == "good" for example in result.examples[0] for part in example.parts)


def test_orderings_of_the_queries_stand_beside(explained):
    model, explanation = explained
    result = uw.shared_inputs(model, explanation, k=1)
    need = uw.necessity(model, result.queries, train=TRAIN, points=10)
    assert np.allclose(result.necessity.values, need.values) and result.sufficiency.criterion == "sufficiency"
    facts = result.as_dict()
    assert facts["necessity"]["area"] == pytest.approx(need.areas.mean())
    assert len(facts["examples"]) == 10 and facts["examples"][0]["train"][0]["overlap"] <= 1


def test_what_cannot_be_shown_side_by_side_is_refused(explained):
    model, explanation = explained
    with pytest.raises(TypeError, match=r"expected what uw\.explain\(model, train, queries\) returned, got Scores"):
        uw.shared_inputs(model, explanation.scores)
    with pytest.raises(ValueError, match="expected k of at least 1"):
        uw.shared_inputs(model, explanation, k=0)
    with pytest.raises(TypeError, match="expected words= as a function of examples"):
        uw.shared_inputs(model, explanation, words=[["a"]])
