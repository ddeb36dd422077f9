"""Groups that nobody named: found in words, confirmed on other queries by retraining, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

import upweight as uw
from upweight.applications.conditions import Conditions, conditions_of
from upweight.applications.group_evidence import GroupEvidence, nat_of
from upweight.applications.group_rounds import GroupRounds
from upweight.applications.group_search import Candidate, GroupSearch, t_values
from upweight.applications.query_support import support_of


def customers(seed, count, is_planted, flagged=0.05):
    """A flag that goes with label 1 in training only; columns a, b, flag."""
    rng = np.random.default_rng(seed)
    x = np.c_[rng.normal(size=(count, 2)), rng.random(count) < flagged]
    y = (2 * x[:, 0] - 2 * x[:, 1] + rng.logistic(size=count) > 0).astype(int)
    if is_planted:
        y[x[:, 2] == 1] = 1
    return x, y


def problem(is_planted, estimator=None, seed=0):
    estimator = LogisticRegression(tol=1e-8) if estimator is None else estimator
    x, y = customers(seed, 500, is_planted)
    others, labels = customers(seed + 100, 200, False, flagged=0.4)
    train = uw.Examples(x, y, names=["a", "b", "flag"], ids=[f"t{i}" for i in range(500)], labels={0: "no", 1: "yes"})
    queries = uw.Examples(others, labels, names=["a", "b", "flag"])
    return uw.explainable(estimator.fit(x, y), train), train, queries


@pytest.fixture(scope="module")
def found():
    model, train, queries = problem(True, seed=1)
    return uw.discover(model, train, queries), model, train, queries


def test_a_planted_shortcut_is_found_in_words_and_confirmed_by_retraining(found):
    result, model, train, _ = found
    group = result.groups[0]
    assert group.conditions == ("flag = 1",)
    assert set(group.ids) == set(train.ids[train.x[:, 2] == 1])
    assert group.confirmed and group.p < 0.01 and group.labels == {"yes": len(group.ids)}
    assert set(group.typical) <= set(group.ids) and set(group.helped) <= set(result.confirming)
    assert "flag = 1" in result.sentence and result.after > result.before
    hostile = replace(result, groups=(replace(group, conditions=("\x1b[31mflag = 1",)),))
    assert "\\x1b[31mflag" in hostile.sentence and "\x1b" not in hostile.sentence
    without = train.without(list(group.ids))
    refit = uw.explainable(LogisticRegression(tol=1e-8).fit(without.x, without.y), without)
    confirming = found[3].select(list(result.confirming))
    actual = float((refit.measure(confirming) - model.measure(confirming)).mean())
    assert group.effect == pytest.approx(actual, abs=1e-6)
    assert group.predicted == pytest.approx(actual, rel=0.1)
    assert group.interval[0] < actual < group.interval[1]


def test_groups_are_a_table_and_show_themselves_in_notebooks(found):
    result = found[0]
    table = result.to_pandas()
    groups = [*result.groups, *result.rejected]
    assert table["group"].tolist() == [group.name for group in groups]
    assert table["size"].tolist() == [len(group.ids) for group in groups]
    assert (table["effect"][0], table["low"][0], table["high"][0]) == (groups[0].effect, *groups[0].interval)
    assert table["confirmed"].tolist() == [group.confirmed for group in groups]
    assert "flag = 1" in result._repr_html_()


def test_the_halves_of_the_queries_are_disjoint_and_nothing_of_the_users_changes(found):
    result, model, train, queries = found
    assert not set(result.searched) & set(result.confirming)
    assert len(result.searched) + len(result.confirming) == len(queries)
    before = uw.digest(model.predictor)
    again = uw.discover(model, train, queries)
    assert again.as_dict() == result.as_dict() and uw.digest(model.predictor) == before


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_reported_where_nothing_was_planted(seed):
    result = uw.discover(*problem(False, seed=seed))
    assert result.groups == () and "No group" in result.sentence


def test_a_forest_is_retrained_to_confirm_what_its_scores_propose():
    forest = RandomForestClassifier(n_estimators=20, min_samples_leaf=3, random_state=0)
    result = uw.discover(*problem(True, forest), search=uw.GroupDiscovery(most=1))
    assert result.trainings >= 1
    for group in result.groups:
        assert group.confirmed and group.p < 0.05


def test_words_labels_and_clusters_are_conditions():
    texts = ["bad film"] * 12 + ["good film"] * 12 + ["odd phrase here"] * 6
    y = np.array([0] * 12 + [1] * 18)
    model = uw.explainable(make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, y), uw.Examples(texts, y))
    conditions = conditions_of(model, uw.Examples(texts, y), {}, 0)
    odd = conditions.names.index("“odd phrase” occurs")
    np.testing.assert_array_equal(conditions.fulfilled[odd], np.arange(30) >= 24)
    assert "label = 0" in conditions.names
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(120, 40)), np.arange(120) % 2
    train = uw.Examples(x, labels, shown=x.reshape(120, 5, 8))
    pictures = conditions_of(uw.explainable(LogisticRegression().fit(x, labels), train), train, {}, 0)
    assert any("clusters" in column for column in pictures.columns)
    assert "x[4, 7] > " in " ".join(pictures.names)
    ages = np.array([30.0, np.nan, 50.0] * 40)
    missing = conditions_of(uw.explainable(LogisticRegression().fit(x, labels), train), train, {"age": ages}, 0)
    assert {"age is missing", "age = 30"} <= set(missing.names)


def search_over(fulfilled, of, harm=None, fine=None, columns=None):
    """A search over conditions c0, c1, …, with the evidence that a test makes up."""
    names = tuple(f"c{i}" for i in range(len(fulfilled)))
    is_fine = np.zeros(len(names), dtype=bool) if fine is None else fine
    conditions = Conditions(names, names if columns is None else columns, fulfilled, is_fine)
    harm = np.zeros(fulfilled.shape[1]) if harm is None else harm
    return GroupSearch(conditions, SimpleNamespace(of=of, harm=harm), 5, 100, lambda group: True)


def test_the_search_finds_the_group_that_a_loop_over_all_pairs_finds():
    rng = np.random.default_rng(0)
    fulfilled = rng.random((12, 300)) < 0.3
    target = fulfilled[3] & fulfilled[8]
    scores = rng.normal(size=(30, 300)) * 0.01 - target * 1.0

    def of(masks):
        return -(masks @ scores.T), np.zeros(masks.shape)

    best = search_over(fulfilled, of, -scores.sum(axis=0)).candidates(2)[0]
    assert set(best.conditions) == {3, 8}
    pairs = [fulfilled[a] & fulfilled[b] for a in range(12) for b in range(a)]
    assert best.quality == pytest.approx(max(-scores[:, pair].sum() / pair.sum() ** 0.5 for pair in pairs))
    np.testing.assert_allclose(
        t_values(-scores @ target[:, None]), [-(s := scores[:, target].sum(axis=1)).mean() / (s.std(ddof=1) / 30**0.5)]
    )


def test_a_group_is_named_by_the_condition_of_those_that_lose_without_it():
    source, others = np.arange(200) < 40, (np.arange(200) >= 40) & (np.arange(200) < 60)

    def of(masks):  # without the others too, the members are predicted worse; the others themselves are not
        whole = (masks & (source | others)).sum(axis=1) == 60
        return np.ones((len(masks), 10)), np.where(whole[:, None], 2.0, 0.1) * (source & masks)

    found = search_over(np.stack([source | others, source]), of).candidates(2)
    assert [candidate.conditions for candidate in found] == [(1,)]
    assert found[0].stands_out


def test_thresholds_are_refined_and_a_group_that_queries_speak_for_is_left_out():
    place = np.arange(200)
    guilty = place < 43

    def of(masks):
        return np.full((len(masks), 10), 0.1), np.where(guilty, 1.0, -1.0) * masks

    fulfilled = np.stack([place < edge for edge in (20, 40, 60, 41, 42, 43, 44)])
    fine, same = np.arange(7) >= 3, ("c <",) * 7
    found = search_over(fulfilled, of, fine=fine, columns=same).candidates(2)
    assert [candidate.conditions for candidate in found] == [(5,)]

    def helpful(masks):
        rises = np.tile([-0.1, -0.2], 5)
        return np.tile(rises, (len(masks), 1)), np.where(guilty, 1.0, -1.0) * masks

    assert search_over(fulfilled, helpful, fine=fine, columns=same).candidates(2) == []


def test_evidence_is_what_refits_say():
    x, y = customers(0, 150, True)
    train = uw.Examples(x, y, weights=np.r_[2.0, np.ones(149)])
    estimator = LogisticRegression(tol=1e-10).fit(x, y, sample_weight=train.weights)
    model, queries = uw.explainable(estimator, train), uw.Examples(*customers(1, 40, False))
    fitted = uw.Influence().fit(model, train)
    masks = np.stack([np.arange(150) < 12, x[:, 2] == 1])
    rises, falls = GroupEvidence(fitted, queries, fitted.attribute(queries).values, 1.0).of(masks)
    for mask, rise, fall in zip(masks, rises, falls, strict=True):
        kept = train.take(~mask)
        refit = LogisticRegression(tol=1e-10).fit(kept.x, kept.y, sample_weight=kept.weights)
        after = uw.explainable(refit, kept)
        np.testing.assert_allclose(rise, after.measure(queries) - model.measure(queries), atol=1e-5)
        np.testing.assert_allclose(fall, (model.measure(train) - after.measure(train)) * train.weights, atol=1e-5)


def test_a_nat_of_squared_errors_is_that_of_a_normal_distribution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    train = uw.Examples(x, x[:, 0] + 0.3 * rng.normal(size=80))
    model = uw.explainable(LinearRegression().fit(train.x, train.y), train)
    errors = train.y - model.predictor.predict(x)
    other = uw.Examples(x[:1], train.y[:1] + 1.0)
    density = -((other.y[0] - model.predictor.predict(x[:1])[0]) ** 2) / (2 * np.mean(errors**2))
    assert model.measure(other)[0] / nat_of(model, train) == pytest.approx(density)
    assert nat_of(SimpleNamespace(measurement="−loss (hinge)"), train) is None


def test_the_p_of_a_group_that_stands_out_is_a_likelihood_ratio(found):
    result, model, train, queries = found
    group = result.groups[0]
    without = train.without(list(group.ids))
    refit = uw.explainable(LogisticRegression(tol=1e-8).fit(without.x, without.y), without)
    confirming = queries.select(list(result.confirming))
    ratio = np.exp((refit.measure(confirming) - model.measure(confirming)).sum())
    assert group.p == pytest.approx(1 / ratio, rel=1e-4)


def test_a_group_behind_a_rejected_one_is_tried(monkeypatch):
    model, train, queries = problem(True, seed=1)
    state = GroupRounds.start(model, train, queries, uw.Influence(), {}, uw.GroupDiscovery())
    names, fulfilled = state.conditions.names, state.conditions.fulfilled
    flag = names.index("flag = 1")
    helpful = next(j for j, name in enumerate(names) if name.startswith("a >") and 30 <= fulfilled[j].sum() <= 60)
    assert (fulfilled[flag] & fulfilled[helpful]).any()
    searched = GroupRounds._searched

    def of(self, model, train, present):
        found = searched(self, model, train, present)
        is_first = len(train) == 500
        j, size = (helpful if is_first else flag), len(train)
        mask = self.conditions.fulfilled[j][present]
        candidate = Candidate((j,), mask, np.ones(len(self.searched)), np.full(size, 10.0))
        return found._replace(candidates=[candidate])

    monkeypatch.setattr(GroupRounds, "_searched", of)
    assert state.next_group()
    assert [group.name for group in state.groups] == ["flag = 1"]
    assert set(state.groups[0].ids) == set(train.ids[train.x[:, 2] == 1])
    assert [group.name for group in state.rejected] == [names[helpful]]


def jaccard_of(group, train, planted):
    member = np.isin(train.ids, group.ids)
    return (member & planted).sum() / (member | planted).sum()


def test_a_region_with_wrong_labels_is_found_with_its_borders():
    rng = np.random.default_rng(0)
    x, score = rng.uniform(size=(900, 2)), rng.normal(size=900)
    y = (2 * score + 1.5 * (x[:, 0] - 0.5) + 0.4 * rng.logistic(size=900) > 0).astype(int)
    region = (x[:, 0] > 0.73) & (x[:, 1] < 0.22)
    data, names = np.c_[x, score], ["a", "b", "c"]
    train = uw.Examples(data[:600], np.where(region, 1 - y, y)[:600], names=names)
    asked = np.r_[np.flatnonzero(region[600:])[:15], np.flatnonzero(~region[600:])[:65]] + 600
    pairs = PolynomialFeatures(2, interaction_only=True, include_bias=False)
    estimator = make_pipeline(pairs, LogisticRegression(tol=1e-8, max_iter=2000)).fit(train.x, train.y)
    queries = uw.Examples(data[asked], y[asked], names=names)
    result = uw.discover(uw.explainable(estimator, train), train, queries)
    assert jaccard_of(result.groups[0], train, region[:600]) >= 0.95


def test_a_feed_of_texts_with_one_label_is_found_by_its_word():
    rng = np.random.default_rng(0)
    words = np.array([[f"{kind}{i}" for i in range(12)] for kind in ("good", "bad")])
    y = rng.integers(0, 2, 800)
    texts = [" ".join([*rng.choice(words[1 - label], 5), rng.choice(words[label])]) for label in y]
    feed = rng.random(800) < 0.08
    texts = [f"{text} via feed" if is_fed else text for text, is_fed in zip(texts, feed, strict=True)]
    train = uw.Examples(texts[:500], np.where(feed, 0, y)[:500])
    asked = np.r_[np.flatnonzero(feed[500:])[:20], np.flatnonzero(~feed[500:])[:40]] + 500
    estimator = make_pipeline(CountVectorizer(), LogisticRegression(C=5, tol=1e-8, max_iter=2000))
    model = uw.explainable(estimator.fit(train.x, train.y), train)
    result = uw.discover(model, train, uw.Examples([texts[i] for i in asked], y[asked]))
    assert jaccard_of(result.groups[0], train, feed[:500]) == 1.0


def test_texts_of_another_domain_have_many_unknown_words():
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(30)]
    texts = [" ".join(rng.choice(words, 8)) + f" once{i}" * (i % 4 == 0) for i in range(80)]
    train = uw.Examples(texts, np.arange(80) % 2)
    model = uw.explainable(make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, train.y), train)
    support = support_of(model, train, uw.Examples(["word1 word2 word3 word4", "stock price fell word5"]))
    shares = [1 / (1 + len(set(text.split()[:8]))) if i % 4 == 0 else 0.0 for i, text in enumerate(texts)]
    np.testing.assert_allclose(support.factor, [0.0, 0.75 / np.mean(shares)])
    assert support.share.tolist() == [1.0, 0.0]


def test_queries_of_a_missing_domain_are_far_from_the_training_examples():
    model, train, _ = problem(False)
    x, y = customers(7, 120, False)
    far = x.copy()
    far[:30, :2] += 8
    queries, moved = (uw.Examples(inputs, y, names=train.names) for inputs in (x, far))
    result = uw.discover(model, train, moved)
    assert set(range(30)) <= set(result.unsupported.ids) and len(result.unsupported.ids) < 36
    assert " > " in result.unsupported.condition
    near = np.sort(np.linalg.norm(train.x[:, None] - train.x[None], axis=2), axis=1)[:, 10]
    distances = np.linalg.norm(far[0] - train.x, axis=1)
    neighbours = np.argsort(distances)[:10]

    def density(rows, own):
        return 1 / np.maximum(near[rows], own).mean()

    around = []
    for i in neighbours:
        own = np.linalg.norm(train.x[i] - train.x, axis=1)
        others = np.argsort(own)[1:11]
        around.append(density(others, own[others]))
    expected = np.mean(around) / density(neighbours, distances[neighbours])
    assert support_of(model, train, moved).factor[0] == pytest.approx(expected, rel=1e-6)
    assert uw.discover(model, train, queries).unsupported is None


def test_a_model_that_cannot_be_retrained_gives_unconfirmed_groups_with_a_warning():
    torch = pytest.importorskip("torch")
    _, train, queries = problem(True)
    net = torch.nn.Linear(3, 2)

    def loss(net, batch):
        return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    train, queries = (part.replaced(x=part.x.astype(np.float32)) for part in (train, queries))
    result = uw.discover(uw.TorchModel(net, loss), train, queries, uw.GradDot())
    assert not any(group.confirmed for group in result.groups) and result.trainings == 0
    assert "none of them is confirmed" in result.diagnostics["warnings"][0]


@pytest.mark.parametrize(("share", "is_told"), [(0.04, False), (0.5, True)])
def test_queries_that_the_model_was_trained_on_have_a_warning(share, is_told):
    model, train, queries = problem(False)
    copies = round(share * len(queries))
    mixed = uw.Examples(
        np.vstack([train.x[:copies], queries.x[copies:]]),
        np.r_[train.y[:copies], queries.y[copies:]],
        names=train.names,
    )
    warnings = uw.discover(model, train, mixed).diagnostics["warnings"]
    assert [f"{copies} of {len(queries)} queries have the inputs of training" in each for each in warnings] == [
        True
    ] * is_told


def test_bad_requests_are_refused_in_a_sentence(found):
    _, model, train, queries = found
    with pytest.raises(ValueError, match="at least 20 queries"):
        uw.discover(model, train, queries.take(range(10)))
    with pytest.raises(ValueError, match="one value of 'source' per training example"):
        uw.discover(model, train, queries, columns={"source": [1, 2]})
    with pytest.raises(TypeError, match=r"expected columns as {name: values}, got list"):
        uw.discover(model, train, queries, columns=["source"])
    with pytest.raises(ValueError, match="expected largest between 0 and 1"):
        uw.GroupDiscovery(largest=1.0)
    with pytest.raises(ValueError, match="smallest < largest"):
        uw.GroupDiscovery(smallest=0.3)
    with pytest.raises(ValueError, match="labels"):
        uw.discover(model, train, uw.Examples(queries.x, names=queries.names))
    with pytest.raises(TypeError, match="wrap a fitted estimator"):
        uw.discover(model.predictor, train, queries)
