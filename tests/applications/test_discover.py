"""Groups that nobody named: found in words, confirmed on other queries by retraining, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw
from upweight.applications.conditions import conditions_of
from upweight.applications.group_search import GroupSearch, t_values
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


def test_the_search_finds_the_group_that_a_loop_over_all_pairs_finds():
    rng = np.random.default_rng(0)
    fulfilled = rng.random((12, 300)) < 0.3
    target = fulfilled[3] & fulfilled[8]
    scores = rng.normal(size=(30, 300)) * 0.01 - target * 1.0
    conditions = uw_conditions(fulfilled)
    search = GroupSearch(conditions, scores, lambda groups: -scores @ groups.T, 5, 100, lambda group: True)
    best = search.candidates()[0]
    assert set(best.conditions) == {3, 8}
    pairs = [(a, b) for a in range(12) for b in range(a)]
    effects = {pair: -scores[:, fulfilled[pair[0]] & fulfilled[pair[1]]].sum(axis=1).mean() for pair in pairs}
    assert best.effect == pytest.approx(max(effects.values()))
    np.testing.assert_allclose(
        t_values(-scores @ target[:, None]), [-(s := scores[:, target].sum(axis=1)).mean() / (s.std(ddof=1) / 30**0.5)]
    )


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


def uw_conditions(fulfilled):
    from upweight.applications.conditions import Conditions

    names = tuple(f"c{i}" for i in range(len(fulfilled)))
    return Conditions(names, names, fulfilled)


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
