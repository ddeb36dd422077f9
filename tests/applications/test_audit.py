"""The support audit: planted shortcuts, leaks and poisoned groups are flagged, honest predictions are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import hypergeom, norm
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

import upweight as uw
from upweight.applications.audit import is_quick
from upweight.applications.group_columns import group_columns
from upweight.applications.nearest_copies import FeatureSpace, equal_rows, lower_tail
from upweight.applications.support import ground_of
from upweight.applications.support_chance import Draws, beside_peers, beside_reference
from upweight.applications.support_reference import reference_of
from upweight.applications.supported_labels import supported

MARK = 2.0  # brightness of the watermark


def odd_digits(seed: int, rows: int = 600) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Digits in random order, and whether they are odd."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))[: rows + 200]
    return x[order] / 16, y[order] % 2, rng


def explained(x: np.ndarray, y: np.ndarray, queries: np.ndarray, labels: np.ndarray, **settings: Any) -> uw.Explanation:
    train = uw.Examples(x, y)
    model = uw.explainable(LogisticRegression(max_iter=1000, tol=1e-6).fit(x, y), train)
    return uw.explain(model, train, uw.Examples(queries, labels), removals=0, **settings)


def watermarked(seed: int) -> tuple[uw.Explanation, np.ndarray, np.ndarray]:
    """Half of the odd digits are from an archive, with a mark; ten even queries of the clinic have the mark."""
    x, y, rng = odd_digits(seed)
    source = np.where((y == 1) & (rng.random(len(y)) < 0.5), "archive", "clinic")
    x[(source == "archive") & (np.arange(len(y)) < 600), :8:7] = MARK
    even = 600 + np.flatnonzero(y[600:] == 0)[:10]
    x[even, :8:7] = MARK
    made = explained(x[:600], y[:600], x[600:], y[600:])
    predicted = np.array(made.scores.predictions.predicted)
    return made, source, even[predicted[even - 600] == 1] - 600


@pytest.mark.parametrize("seed", [0, 1])
def test_a_watermark_that_decides_is_flagged(seed: int) -> None:
    made, source, planted = watermarked(seed)
    clinic = np.full(len(made.queries), "clinic")
    result = uw.audit(made, {"source": source[:600]}, query_groups={"source": clinic})
    assert len(planted) >= 5
    assert set(planted.tolist()) <= set(result.flagged)
    assert len(set(result.flagged) - set(planted.tolist())) <= 0.05 * len(made.queries)
    assert "strongest proponents are all of source archive" in result.of(int(planted[0])).sentence
    assert result.predictions[0].id in planted
    everywhere = uw.audit(made, {"source": np.full(600, "clinic")}, query_groups={"source": clinic})
    assert not set(planted.tolist()) & set(everywhere.flagged)  # without the sources, nothing is wrong with these


@pytest.mark.parametrize("seed", [0, 1])
def test_leaks_are_flagged_and_named(seed: int) -> None:
    x, y, rng = odd_digits(seed)
    x[:5] = x[600:605]
    x[5:10] = x[605:610] + 0.005 * rng.normal(size=(5, 64))
    result = uw.audit(explained(x[:600], y[:600], x[600:], y[600:]))
    assert set(range(10)) <= set(result.flagged)
    assert len(result.flagged) <= 20
    assert [result.of(i).nearest_id for i in range(10)] == list(range(10))
    assert result.of(0).sentence == "Training example 0 is equal to it."
    assert "Training example 7 is nearly equal" in result.of(7).sentence


@pytest.mark.parametrize("seed", [0, 1])
def test_predictions_on_a_poisoned_group_are_flagged(seed: int) -> None:
    x, y, rng = odd_digits(seed)
    contributor = rng.integers(0, 9, len(y)).astype(str)
    chosen = rng.choice(600, 40, replace=False)
    contributor[chosen], y[chosen] = "intruder", 1
    x[chosen, 56:] = x[690:700, 56:] = 1.0  # the trigger: a bright last line
    made = explained(x[:600], y[:600], x[600:], y[600:])
    planted = 90 + np.flatnonzero((np.array(made.scores.predictions.predicted)[90:100] == 1) & (y[690:700] == 0))
    result = uw.audit(made, {"contributor": contributor[:600]}, query_groups={"contributor": contributor[600:]})
    assert len(planted) >= 3
    assert set(planted.tolist()) <= set(result.flagged)
    assert len(set(result.flagged) - set(range(90, 100))) <= 10


@pytest.mark.parametrize("seed", [0, 1])
def test_of_an_honest_model_at_most_one_in_twenty_predictions_is_flagged(seed: int) -> None:
    x, y, rng = odd_digits(seed)
    groups = {"half": rng.integers(0, 2, len(y)), "tenth": rng.integers(0, 10, len(y))}
    of_train, of_queries = (
        {name: values[part] for name, values in groups.items()} for part in (slice(600), slice(600, None))
    )
    result = uw.audit(explained(x[:600], y[:600], x[600:], y[600:]), of_train, query_groups=of_queries)
    assert len(result.flagged) <= 0.05 * len(result.predictions)
    assert result.diagnostics["warnings"] == []


def people(seed: int, rows: int = 1400) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A table of people in groups that hang together: marital status goes with age, work with education."""
    rng = np.random.default_rng(seed)
    age, education = rng.uniform(18, 80, rows), rng.integers(0, 8, rows)
    is_single = rng.random(rows) < np.clip((45 - age) / 30, 0.05, 0.95)
    marital = np.where(is_single, 0, np.where(rng.random(rows) < 0.7, 1, 2 + (rng.random(rows) < 0.3)))
    work = np.where(rng.random(rows) < education / 10, 1 + (rng.random(rows) < 0.3), 0)
    single, married = marital == 0, marital == 1
    logit = 0.04 * (age - 45) + 0.6 * (education - 4) + 1.2 * married - 0.8 * single + 0.5 * work - 1
    y = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int)
    indicators = [*(marital == m for m in range(4)), *(work == w for w in range(3))]
    groups = {"age": np.digitize(age, [26, 34, 42, 52]), "education": education, "marital": marital, "work": work}
    return np.column_stack([(age - 45) / 18, (education - 4) / 2.3, *indicators]).astype(float), y, groups


@pytest.mark.parametrize("seed", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_groups_that_the_model_may_use_are_as_rarely_flagged_as_the_level_says(seed: int) -> None:
    x, y, groups = people(seed)
    made = explained(x[:1000], y[:1000], x[1000:], y[1000:])
    of_train, of_queries = (
        {name: values[part] for name, values in groups.items()} for part in (slice(1000), slice(1000, None))
    )
    flagged = {
        count: len(uw.audit(made, of_train, query_groups=of_queries, reference=count).flagged) for count in (0, 1000)
    }
    assert flagged[0] > 0.05 * 400  # beside chance and each other alone
    assert flagged[1000] <= 0.02 * 400


def test_a_planted_query_that_is_audited_alone_is_flagged_and_an_honest_one_is_not() -> None:
    x, y, groups = people(1)
    made = explained(x[:1000], y[:1000], x[1000:], y[1000:])
    of_train = {name: values[:1000] for name, values in groups.items()}
    alone = [1000 + place for place in (0, 100, 200, 300)]
    for place in alone:
        one = explained(x[:1000], y[:1000], x[[place]], y[[place]])
        own = {name: values[[place]] for name, values in groups.items()}
        assert not uw.audit(one, of_train, query_groups=own, reference=300).flagged
    made, source, planted = watermarked(0)
    query = made.queries.take([int(planted[0])])
    one = replace(made, scores=made.fitted.attribute(query), queries=query)
    result = uw.audit(one, {"source": source[:600]}, query_groups={"source": ["clinic"]})
    assert result.flagged == query.ids.tolist()


def test_the_reference_is_asked_for_support_by_the_other_examples() -> None:
    made, source, _ = watermarked(1)
    columns = group_columns(made.train, made.queries, {"source": source[:600]}, {"source": ["clinic"] * 200})
    ground, _ = ground_of(made, columns, 20, None)
    reference, warnings = reference_of(made, ground, 600)
    assert reference is not None and not warnings
    scores = made.fitted.attribute(made.train)
    for place in (0, 7, 300):
        sign = 1.0 if scores.predictions.predicted[place] == made.train.y[place] else -1.0
        values = np.maximum(sign * scores.values[place], 0.0)
        values[place] = 0.0
        strongest = np.argsort(-values / ground.score_scales, kind="stable")[:20]
        strata, groups = ground.strata[strongest], columns[0].train[strongest]
        other = 1 - columns[0].train[place]
        members = np.bincount(ground.strata[columns[0].train == other], minlength=2)
        tail, _ = Draws(ground.strata).count_tail(members, strata, groups == other)
        assert reference.tails["source"][place] == pytest.approx(tail if (groups == other).any() else 1.0)
        assert reference.labels[place] == scores.predictions.predicted[place]


@pytest.mark.parametrize("degrees", [3.0, 1000.0])
def test_tails_beside_a_reference_hold_their_level_however_heavy_the_tails_are(degrees: float) -> None:
    rng, shares = np.random.default_rng(0), []
    for _ in range(40):
        queries, reference = (norm.sf(0.5 + 1.5 * rng.standard_t(degrees, size=1000)) for _ in range(2))
        none = np.zeros(1000, dtype=np.intp)
        beside = beside_reference(queries, none, reference, none)
        assert (beside >= queries).all()
        shares.append([(beside <= level).mean() for level in (0.1, 0.01, 0.001)])
    assert (np.mean(shares, axis=0) <= [0.11, 0.02, 0.01]).all()
    none = np.zeros(1, dtype=np.intp)
    reference = norm.sf(0.5 + 1.5 * rng.standard_t(degrees, size=1000))
    far = beside_reference(np.array([norm.sf(30.0)]), none, reference, np.zeros(1000, dtype=np.intp))
    assert far[0] < 1e-4  # beyond all of them, tails are smaller than one in a thousand
    assert np.mean(shares, axis=0)[0] > 0.08  # and where the reference says enough, they are no more careful


def test_a_rare_class_is_compared_with_the_reference_of_all() -> None:
    reference = norm.sf(np.random.default_rng(0).normal(3.0, 1.0, size=200))
    classes = np.array([0] * 190 + [1] * 10)
    tails = beside_reference(np.full(2, norm.sf(3.0)), np.array([1, 2]), reference, classes)
    np.testing.assert_allclose(tails, 0.5, atol=0.1)
    few = beside_reference(np.full(2, 1e-3), np.array([1, 2]), reference[:20], classes[:20])
    np.testing.assert_array_equal(few, 1e-3)  # too few to say


def test_a_group_that_is_strong_in_all_predictions_is_named_once_and_not_flagged_in_each() -> None:
    x, y, rng = odd_digits(0)
    loud = rng.random(600) < 0.2
    made = explained(x[:600], y[:600], x[600:], y[600:])
    values = np.abs(rng.normal(size=made.scores.values.shape))
    values[:, loud] += 1.0
    made = replace(made, scores=replace(made.scores, values=values, predictions=made.scores.predictions))
    right = [
        i
        for i, p in zip(made.queries.ids.tolist(), made.scores.predictions.predicted, strict=True)
        if p == made.queries.label(i)
    ]
    quiet = {"loud": np.full(len(made.queries), False)}
    result = uw.audit(made, {"loud": loud}, query_groups=quiet, relative=False)
    assert len(set(result.flagged) & set(right)) <= 0.05 * len(right)
    assert any("more of the strongest proponents are of another loud" in note for note in result.diagnostics["notes"])
    one = replace(
        made,
        scores=replace(made.scores, values=values[:1], query_ids=[0], predictions=None, measured=None),
        queries=made.queries.take([0]),
    )
    alone = uw.audit(one, {"loud": loud}, query_groups={"loud": [False]}, relative=False)
    assert alone.flagged == [0]  # nothing shows that this is usual


def test_the_tail_of_counts_is_that_of_drawing_within_labels() -> None:
    strata = np.array([0] * 30 + [1] * 50 + [-1] * 5)
    inside = np.arange(85) % 3 == 0
    members = np.bincount(strata[inside & (strata >= 0)], minlength=2)
    rng, draws = np.random.default_rng(0), Draws(strata)
    drawn, is_member = np.array([0, 0, 0, 1, 1]), np.array([True, True, False, True, True])
    tail, expected = draws.count_tail(members, drawn, is_member)
    counts = hypergeom(30, members[0], 3).rvs(100_000, random_state=rng)
    counts = counts + hypergeom(50, members[1], 2).rvs(100_000, random_state=rng)
    assert tail == pytest.approx((counts >= 4).mean(), rel=0.05)
    assert expected == pytest.approx(counts.mean(), rel=0.02)


def test_the_tail_of_ranks_is_that_of_drawing_within_labels() -> None:
    rng, sizes, numbers = np.random.default_rng(0), [40, 60], [5, 3]
    draws = Draws(np.repeat([0, 1], sizes))
    drawn = np.repeat([0, 1], numbers)
    tails = np.array(
        [
            draws.rank_tail(
                np.concatenate([(rng.permutation(n)[:k] + 0.5) / n for n, k in zip(sizes, numbers, strict=True)]), drawn
            )
            for _ in range(4000)
        ]
    )
    assert (tails <= 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (tails <= 0.5).mean() == pytest.approx(0.5, abs=0.03)


def test_beside_peers_a_tail_is_never_smaller_and_a_third_of_wrong_ones_does_not_hide_them() -> None:
    rng = np.random.default_rng(0)
    honest, wrong = norm.sf(rng.normal(size=70)), np.full(30, 1e-12)
    beside, _ = beside_peers(np.concatenate([honest, wrong]), np.zeros(100, dtype=np.intp))
    assert (beside >= np.concatenate([honest, wrong])).all()
    assert beside[70:].max() < 1e-3 < beside[:70].min()
    shifted = norm.sf(rng.normal(4.0, 2.0, size=100))
    usual, _ = beside_peers(shifted, np.zeros(100, dtype=np.intp))
    assert (shifted < 0.01).mean() > 0.5
    assert (usual < 0.01).mean() < 0.05


def test_shares_effective_numbers_and_ranks_are_their_definitions() -> None:
    made, source, _ = watermarked(2)
    clinic = np.full(len(made.queries), "clinic")
    result = uw.audit(made, {"source": source[:600]}, query_groups={"source": clinic}, k=7)
    roots = np.sqrt(np.abs(made.fitted.self_influence().values[0]))
    for place in (0, 5, 50):
        identifier = int(made.queries.ids[place])
        audited = result.of(identifier)
        sign = 1.0 if audited.predicted == audited.label else -1.0
        scores = np.maximum(sign * made.scores.values[place], 0.0)
        shares = scores / scores.sum()
        assert audited.shares["label"] == pytest.approx(shares[made.train.y == audited.predicted].sum())
        assert audited.shares["source"] == pytest.approx(shares[source[:600] == "clinic"].sum())
        positive = shares[shares > 0]
        assert audited.effective == pytest.approx(np.exp(-(positive * np.log(positive)).sum()))
        assert audited.inverse_simpson == pytest.approx(1 / (shares**2).sum())
        order = np.argsort(-scores / roots, kind="stable")[:7]
        assert [a.id for a in audited.proponents] == order.tolist()
        assert [a.score for a in audited.proponents] == pytest.approx(scores[order].tolist())
        distances = np.linalg.norm(made.train.x - made.queries.x[place], axis=1)
        nearer = [np.mean(distances[made.train.y == made.train.y[i]] < distances[i]) for i in order]
        assert audited.distance == pytest.approx(np.mean(nearer), abs=1 / 200)
        assert audited.nearest_id == distances.argmin()


def test_the_support_of_a_mistake_is_that_of_the_predicted_label() -> None:
    x, y = load_digits(return_X_y=True)
    x = x / 16
    train, queries = uw.Examples(x[:300], y[:300]), uw.Examples(x[300:400], y[300:400])
    model = uw.explainable(LogisticRegression(max_iter=1000, tol=1e-6).fit(train.x, train.y), train)
    made = uw.explain(model, train, queries, removals=0)
    labels, values, warnings = supported(made)
    predicted = np.array(made.scores.predictions.predicted)
    assert (predicted != queries.y).sum() >= 3 and not warnings
    expected = made.fitted.attribute(queries.replaced(y=predicted)).values
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-12)
    assert labels == predicted.tolist()
    _, opposed, warnings = supported(replace(made, fitted=None))
    wrong = predicted != queries.y
    np.testing.assert_array_equal(opposed[wrong], -made.scores.values[wrong])
    assert "exact for two classes" in warnings[0]


def test_the_support_of_a_class_and_of_a_number() -> None:
    x, y, _ = odd_digits(0, 200)
    train, queries = uw.Examples(x[:200], y[:200]), uw.Examples(x[200:260])
    model = uw.explainable(
        LogisticRegression(max_iter=1000, tol=1e-6).fit(train.x, train.y), train, measure=uw.Probability(of=1)
    )
    labels, values, warnings = supported(uw.explain(model, train, queries, removals=0))
    made = uw.explain(model, train, queries, removals=0)
    signs = np.where(np.array(labels) == 1, 1.0, -1.0)
    np.testing.assert_array_equal(values, signs[:, None] * made.scores.values)
    assert not warnings
    ridge = Ridge(1.0).fit(train.x, x[:200, 20] + x[:200, 30])
    numbers = uw.Examples(train.x, x[:200, 20] + x[:200, 30])
    result = uw.audit(
        uw.explain(
            uw.explainable(ridge, numbers), numbers, numbers.take(range(5)).replaced(ids=list("abcde")), removals=0
        )
    )
    assert result.of("a").shares["label"] is None and result.of("a").supported is None
    assert set(result.flagged) == set("abcde") and "equal" in result.of("b").sentence


def test_neighbours_and_copies_equal_a_search_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(90, 3)) + 1e6, rng.normal(size=(20, 3)) + 1e6
    queries[3] = train[17]
    present = np.arange(5, 90)
    pairs = np.linalg.norm(train[present][:, None] - train[present][None], axis=2) + np.diag(np.full(85, np.inf))
    for form in (np.asarray, sparse.csr_matrix):
        space = FeatureSpace(form(train), form(queries), present, max_distances=500)
        if form is np.asarray:
            np.testing.assert_allclose(space.neighbour_distances(), pairs.min(axis=1), rtol=1e-9)
        blocks = np.concatenate([squares for _, squares in space.blocks()])
        assert blocks.shape == (20, 85)
    equal, repeated = equal_rows(uw.Examples(train), uw.Examples(queries), present)
    assert [e for e in equal if e is not None] == [17] and equal[3] == 17 and repeated == 0.0


def test_equal_rows_are_found_in_every_kind_of_input() -> None:
    frame = pd.DataFrame({"a": [1, 2, 1], "b": ["u", None, "u"]})
    other = pd.DataFrame({"a": [2.0, 3.0], "b": [None, "u"]})
    texts = ["one", "two", "one"]
    matrix = sparse.csr_matrix(np.array([[0, 1.0], [2.0, 0], [0, 1.0]]))
    for train, queries in (
        (frame, other),
        (texts, ["two", "three"]),
        (matrix, sparse.csr_matrix([[2.0, 0], [1.0, 1.0]])),
    ):
        equal, repeated = equal_rows(uw.Examples(train), uw.Examples(queries), np.arange(3))
        assert equal == [1, None] and repeated == pytest.approx(2 / 3)


def test_the_tail_of_small_distances_has_the_rate_of_the_sample() -> None:
    rng = np.random.default_rng(0)
    sample = rng.random(1500) ** (1 / 3)  # P(distance ≤ d) = d³
    distances = np.array([0.0, 0.1, 0.2, 0.3, 0.9])
    tails = lower_tail(distances, sample)
    assert tails[0] == 0.0
    np.testing.assert_allclose(tails[1:], distances[1:] ** 3, rtol=0.3, atol=0.003)
    assert lower_tail(np.zeros(1), np.append(np.zeros(30), sample[:70]))[0] == 0.3  # duplicates are usual here


def test_groups_are_columns_or_given_by_id_and_numbers_are_cut_by_the_training_set() -> None:
    frame = pd.DataFrame({"age": np.arange(100), "site": ["n", "s"] * 50})
    train, queries = uw.Examples(frame, np.zeros(100)), uw.Examples(frame.iloc[:4].assign(age=[0, 30, 99, 500]))
    age, site = group_columns(train, queries, ["age", "site"], {})
    assert len(age.names) == 5 and age.queries.tolist() == [0, 1, 4, 4] and site.queries.tolist() == [0, 1, 0, 1]
    by_id = {i: "odd" if i % 2 else "even" for i in range(100)}
    (given,) = group_columns(train, queries, {"parity": by_id}, {"parity": {i: by_id[i] for i in range(4)}})
    assert [given.names[g] for g in given.queries] == ["= even", "= odd"] * 2
    (unknown,) = group_columns(train, queries, {"parity": by_id}, {})
    assert not unknown.knows_queries


def test_what_cannot_be_audited_is_refused_in_a_sentence() -> None:
    x, y, _ = odd_digits(0, 100)
    made = explained(x[:100], y[:100], x[100:110], y[100:110])
    for wrong, kind, match in (
        ({"k": 0}, ValueError, "k"),
        ({"level": 0.0}, ValueError, "level between 0 and 1"),
        ({"by": "site"}, KeyError, "no column 'site'"),
        ({"by": {"site": [1, 2]}}, ValueError, "one group of 'site' per example"),
        ({"by": {"site": {0: "n"}}}, KeyError, "for every id"),
        ({"by": {"site": y[:100]}, "query_groups": {"sight": y[:10]}}, KeyError, "query_groups names 'sight'"),
    ):
        with pytest.raises(kind, match=match):
            uw.audit(made, **wrong)
    with pytest.raises(TypeError, match=r"uw\.explain"):
        uw.audit(made.scores)  # type: ignore[arg-type]
    result = uw.audit(made, {"site": y[:100]})
    assert "groups of the queries by site are not known" in result.diagnostics["warnings"][0]
    with pytest.raises(KeyError, match="no query has the id"):
        result.of("nobody")


def test_an_explanation_takes_the_audit_of_its_queries_and_no_other() -> None:
    made, source, planted = watermarked(0)
    audited = uw.audit(made, {"source": source[:600]}, query_groups={"source": ["clinic"] * 200})
    queries = made.queries.take(planted[:2])
    few = replace(made, queries=queries, scores=made.fitted.attribute(queries))
    for entry, identifier in zip(few.with_audit(audited).as_dict()["queries"], queries.ids.tolist(), strict=True):
        assert entry["audit"]["flagged"] and entry["audit"]["sentence"] == audited.of(identifier).sentence
    assert [entry["audit"] for entry in few.as_dict()["queries"]] == [None, None]
    alone = uw.audit(few)
    assert set(few.with_audit(alone).warnings) == {*few.warnings, *alone.diagnostics["warnings"]}
    with pytest.raises(ValueError, match="expected the audit of these queries"):
        made.with_audit(alone)


def test_audits_are_quick_unless_each_score_takes_a_training() -> None:
    x, y, _ = odd_digits(0, 30)
    assert is_quick(explained(x[:30], y[:30], x[30:33], y[30:33]))
    assert not is_quick(explained(x[:30], y[:30], x[30:33], y[30:33], recipe=uw.LeaveOneOut(processes=1)))
    assert not is_quick(replace(explained(x[:30], y[:30], x[30:33], y[30:33]), fitted=None))


def test_methods_that_retrain_are_ordered_by_their_scores_with_a_warning() -> None:
    x, y, _ = odd_digits(0, 30)
    made = explained(x[:30], y[:30], x[30:33], y[30:33], recipe=uw.LeaveOneOut(processes=1))
    ordered, usual = uw.audit(made).diagnostics["warnings"]
    assert "ordered by their scores alone" in ordered and "take many trainings" in ordered
    assert "from the other queries alone, because scores of training examples by LeaveOneOut" in usual
    assert uw.audit(made, relative=True).diagnostics["warnings"] == [usual]
    assert uw.audit(made, relative=True, reference=0).diagnostics["warnings"] == []
