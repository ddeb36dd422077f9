"""Retrieve and re-rank: exact scores of the union of candidates, and certificates that hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

import upweight as uw
from upweight.evaluate.certificate import certify_queries, least_mean, least_share, most_above

torch = pytest.importorskip("torch")

from support.stored_nets import QUERIES, TRAIN, model, store  # noqa: E402
from upweight.curvature import ekfac  # noqa: E402
from upweight.gradients import captured_rows  # noqa: E402

METHOD = uw.Influence(curvature=uw.EKFAC())


def test_candidates_have_the_scores_of_the_exact_method_and_say_who_found_them(tmp_path):
    made = model()
    exact = METHOD.fit(made, TRAIN).attribute(QUERIES)
    found = uw.retrieve(made, TRAIN, QUERIES, uw.Retrieval(candidates=8, k=4), store=store(tmp_path))
    for query in QUERIES.ids.tolist():
        scores = dict(zip(exact.train_ids.tolist(), exact.row(query).tolist(), strict=True))
        values = [example.score for example in found.examples[query]]
        assert values == sorted(values, reverse=True)
        assert values == pytest.approx([scores[e.id] for e in found.examples[query]], rel=1e-5, abs=1e-9)
        assert {name for e in found.examples[query] for name in e.by} == {"Influence", "RepSim"}
        assert [e.id for e in found.proponents(query)] == [a.id for a in exact.proponents(query, 4)]
    assert found.unit is exact.unit and found.as_dict()["queries"][0]["query"] == "q0"
    with pytest.raises(KeyError, match="no query has the id 'z'"):
        found.proponents("z")


def test_re_ranking_from_a_store_computes_gradients_of_candidates_alone(tmp_path, monkeypatch):
    store(tmp_path).build(model(), TRAIN)
    monkeypatch.setattr(ekfac, "kronecker_factors", None)
    captured, real = set(), captured_rows.capture

    def watched(network, quantity, examples, *more):
        captured.update(examples.ids.tolist())
        return real(network, quantity, examples, *more)

    monkeypatch.setattr(captured_rows, "capture", watched)
    found = uw.retrieve(model(), TRAIN, QUERIES, uw.Retrieval(by=[METHOD], candidates=2), store=store(tmp_path))
    wanted = {e.id for examples in found.examples.values() for e in examples}
    assert captured == wanted | set(QUERIES.ids.tolist()) and len(wanted) < len(TRAIN)


def test_other_queries_change_no_answer(tmp_path):
    made, kept, few = model(), store(tmp_path), uw.Retrieval(candidates=5)
    together = uw.retrieve(made, TRAIN, QUERIES, few, store=kept)
    alone = uw.retrieve(made, TRAIN, QUERIES.take([2]), few, store=kept)
    for a, b in zip(together.examples["q2"], alone.examples["q2"], strict=True):
        assert a.id == b.id and a.by == b.by and a.score == pytest.approx(b.score, rel=1e-5)


def test_the_audit_of_queries_counts_what_was_missed(tmp_path):
    made = model()
    exact = METHOD.fit(made, TRAIN).attribute(QUERIES)
    found = uw.retrieve(
        made,
        TRAIN,
        QUERIES,
        uw.Retrieval(by=[uw.RepSim()], candidates=6, k=3),
        audit=uw.RetrievalAudit(queries=6, rows=60),
    )
    recalls = []
    for query in QUERIES.ids.tolist():
        true = {a.id for a in exact.proponents(query, 3)}
        own = found.examples[query]
        recalls.append(len(true & {e.id for e in own}) / len(true))
        others = set(TRAIN.ids.tolist()) - {e.id for e in own}
        scores = dict(zip(exact.train_ids.tolist(), exact.row(query).tolist(), strict=True))
        assert found.rows_above[query] == sum(scores[i] > own[2].score for i in others)  # all rows were audited
    certificate = found.certificate
    assert certificate.recall == pytest.approx(np.mean(recalls)) and certificate.recall < 1
    assert certificate.complete == sum(recall == 1 for recall in recalls)
    assert "drawn at random (seed 0)" in str(certificate) and "95% confidence" in str(certificate)


def test_the_certificate_of_queries_fails_no_more_often_than_it_says():
    generator, failures = np.random.default_rng(0), 0
    for share in np.repeat([0.5, 0.8, 0.95, 0.99], 25):
        recalls = np.where(generator.random(59) < share, 1.0, 0.9)
        failures += certify_queries(recalls, 10, 0.95, 0).least_complete > share
    assert failures <= 11


def test_the_bound_of_rows_fails_no_more_often_than_it_says():
    generator, failures = np.random.default_rng(1), 0
    for above in np.repeat([0, 3, 40, 200], 25):
        scores = np.zeros(1000)
        scores[:above] = 1.0
        drawn = generator.choice(1000, 150, replace=False)
        failures += most_above(int(scores[drawn].sum()), 150, 1000, 0.95) < above
    assert failures <= 11


def test_the_bound_of_the_mean_recall_fails_no_more_often_than_it_says():
    generator, failures = np.random.default_rng(2), 0
    for share in np.repeat([0.3, 0.8, 0.95, 0.99], 25):
        recalls = generator.binomial(5, share, 20) / 5
        failures += certify_queries(recalls, 5, 0.95, 0).least_recall > share
    assert failures <= 11


def test_the_bound_of_the_mean_recall_is_sharp_where_all_is_found_and_never_the_weaker_one():
    complete = certify_queries(np.ones(8), 5, 0.95, 0)
    assert complete.least_recall == pytest.approx(0.05 ** (1 / 8)) == complete.least_complete
    for mean in (0.0, 1e-4, 0.3, 0.7, 0.99, 1.0):
        for count in (1, 20, 400):
            bound = least_mean(mean, count, 0.95)
            assert max(0.0, mean - np.sqrt(np.log(20) / (2 * count))) <= bound + 1e-12
            assert binom.sf(np.ceil(mean * count - 1e-9) - 1, count, bound) <= 0.05 + 1e-9 or bound == 0.0


def test_the_bounds_are_those_of_the_textbook():
    assert least_share(59, 59, 0.95) == pytest.approx(0.05 ** (1 / 59))
    assert least_share(0, 10, 0.95) == 0.0
    assert most_above(0, 100, 10**6, 0.95) == pytest.approx(3e4, rel=0.02)  # the rule of three
    assert most_above(2, 10, 10, 0.95) == 2


def test_numbers_that_are_impossible_are_refused():
    with pytest.raises(ValueError, match="candidates of at least 1"):
        uw.Retrieval(candidates=0)
    with pytest.raises(ValueError, match="a confidence between 0 and 1"):
        uw.RetrievalAudit(confidence=1.0)
    for audit, message in (
        (uw.RetrievalAudit(queries=7), "at most 6 audited queries"),
        (uw.RetrievalAudit(rows=61), "60"),
    ):
        with pytest.raises(ValueError, match=message):
            uw.retrieve(model(), TRAIN, QUERIES, uw.Retrieval(by=[uw.RepSim()]), audit=audit)


def test_without_a_method_for_candidates_it_says_what_to_pass():
    with pytest.raises(TypeError, match="pass store="):
        uw.retrieve(model(), TRAIN, QUERIES, uw.Retrieval(by=[]))


def test_bm25_is_the_formula_and_finds_the_text_with_the_words():
    texts = ["the cat sat on the mat", "a dog ran", "the dog sat", "green ideas sleep", "the the the"]
    train = uw.Examples(texts, [0, 1, 0, 1, 0])
    queries = uw.Examples(["dog sat"], [0], ids=["q"])
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(CountVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y)
    scores = uw.BM25().fit(uw.explainable(pipeline, train), train).attribute(queries).values[0]
    mean = np.mean([6, 3, 3, 3, 3])

    def term(frequency, documents, length):
        rarity = np.log1p((5 - documents + 0.5) / (documents + 0.5))
        return rarity * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / mean))

    expected = [term(1, 2, 6), term(1, 2, 3), 2 * term(1, 2, 3), 0, 0]
    np.testing.assert_allclose(scores, expected)
    tokens = uw.Examples(np.array([[5, 7, 9], [5, 5, 1]]), [0, 1])
    again = uw.BM25().fit(uw.explainable(LogisticRegression(tol=1e-8).fit(tokens.x, tokens.y), tokens), tokens)
    assert again.attribute(uw.Examples(np.array([[9, 9, 9]]), [0])).values[0, 1] == 0.0


def test_bm25_needs_words():
    with pytest.raises(TypeError, match="BM25 needs texts, or sequences of token ids"):
        uw.BM25().fit(model(), TRAIN)
