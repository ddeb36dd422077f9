"""Methods for trees, each compared with a direct implementation of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor

import upweight as uw
from support.tree_families import BOOSTERS, FORESTS
from upweight.methods.registry import first_choice
from upweight.trees.ensemble import ensemble_of

ONE = BOOSTERS[:1] + [p for p in BOOSTERS if p.name == "histograms"]


@pytest.fixture(params=ONE, ids=lambda p: p.name)
def case(request):
    train, queries = request.param.examples()
    return request.param.model(train), train, queries


def test_boostin_is_the_sum_over_shared_leaves(case):
    model, train, queries = case
    grown, ensemble = model.grown(train), model.trees()
    train_leaves, query_leaves = model.leaves(train), model.leaves(queries)
    expected = np.zeros((len(queries), len(train)))
    _, below = grown.leaf_totals
    margins = np.tile(ensemble.base, (len(queries), 1))
    for step in grown.steps():
        slopes = model.measure_slopes(queries, margins)
        for t in step.trees:
            k = int(ensemble.outputs[t])
            for i, leaf in enumerate(train_leaves[:, t]):
                theta = ensemble.values[leaf, 0] / grown.rule.learning_rate
                derivative = step.gradient[k, i] + theta * step.hessian[k, i]
                share = -grown.rule.learning_rate * derivative / (below[leaf, 0] + grown.rule.l2[leaf])
                expected[:, i] += slopes[:, k] * share * (query_leaves[:, t] == leaf)
        for t in step.trees:
            margins[:, ensemble.outputs[t]] += ensemble.values[query_leaves[:, t], 0]
    np.testing.assert_allclose(uw.BoostIn().fit(model, train).attribute(queries).values, expected, atol=1e-10)


def test_trex_is_at_its_optimum_and_its_parts_sum_to_its_margin(case):
    model, train, queries = case
    fitted = uw.TREX(l2=0.05).fit(model, train)
    train_leaves, query_leaves = model.leaves(train), model.leaves(queries)

    def kernel(a, b):
        shared = a[:, None] == b[None]
        return (shared * fitted.scale[a][:, None] ** 2).sum(axis=2)

    grown = model.grown(train)
    outputs = kernel(train_leaves, train_leaves) @ fitted.alpha
    gradient = grown.loss.derivatives(np.ascontiguousarray(outputs.T), grown.targets)[0].T
    np.testing.assert_allclose(fitted.alpha, -gradient / 0.05, atol=1e-4)
    slopes = model.measure_slopes(queries, model.margins(queries))
    expected = kernel(query_leaves, train_leaves) * (slopes @ fitted.alpha.T)
    np.testing.assert_allclose(fitted.attribute(queries).values, expected, atol=1e-9)
    assert fitted.attribute(queries).diagnostics["faithful"] > 0.9


def test_similarity_counts_shared_leaves_with_the_labels_sign(case):
    model, train, queries = case
    train_leaves, query_leaves = model.leaves(train), model.leaves(queries)
    scores = uw.TreeSim(kernel="leaves").fit(model, train).attribute(queries).values
    shared = (query_leaves[:, None] == train_leaves[None]).mean(axis=2)
    np.testing.assert_allclose(np.abs(scores), shared, atol=1e-12)
    if len(np.unique(train.y)) == 2:
        same = queries.y[:, None] == train.y[None]
        assert ((scores > 0) == (same & (shared > 0))).all()


def test_a_group_of_one_is_the_single_removal(case):
    model, train, queries = case
    fitted = uw.LeafRefit().fit(model, train)
    groups = {f"g{i}": [i] for i in train.ids[:3].tolist()} | {"many": train.ids[:20].tolist()}
    removed = fitted.remove(groups, queries)
    np.testing.assert_allclose(removed.values[:, :3], fitted.attribute(queries).values[:, :3], atol=1e-12)
    assert removed.train_ids.tolist()[-1] == "many" and removed.unit == uw.Unit.EFFECT
    with pytest.raises(ValueError, match="expected group 'all' to be some of the 60"):
        fitted.remove({"all": train.ids.tolist()}, queries)


def test_two_processes_give_the_same_effects(case):
    model, train, queries = case
    sequential, parallel = (uw.LeafRefit(processes=p).fit(model, train).attribute(queries).values for p in (1, 2))
    np.testing.assert_allclose(parallel, sequential, atol=1e-12)


def test_bags_order_removals_better_than_one_structure():
    x, y = load_breast_cancer(return_X_y=True)
    whole = uw.Examples(x, y)
    order = np.random.default_rng(1).permutation(len(y))
    train, queries = whole.take(order[:300]), whole.take(order[300:330])
    lightgbm = pytest.importorskip("lightgbm")
    booster = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=6, n_jobs=1, verbose=-1).fit(train.x, train.y)
    model = uw.explainable(booster, train)
    rng = np.random.default_rng(0)
    masks = (rng.random((40, 300)) < 0.5).astype(float)
    truth = np.stack([model.retrain(train, weights).measure(queries) for weights in masks], axis=1)
    from upweight.evaluate.agreement import rank_correlations

    correlations = [
        rank_correlations(
            uw.LeafInfluence(bags=bags).fit(model, train).attribute(queries).values @ masks.T, truth
        ).mean()
        for bags in (0, 40)
    ]
    assert correlations[1] > correlations[0] + 0.05
    assert correlations[1] > 0.4


def test_leaf_weights_are_leaf_means_without_the_example():
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x[:40], x[:40, 3] / 100
    train, queries = uw.Examples(x, y), uw.Examples(x[:9] * 1.01, y[:9] + 0.1)
    forest = RandomForestRegressor(12, min_samples_leaf=2, random_state=0).fit(x, y)
    model = uw.explainable(forest, train)
    scores = uw.ForestWeights().fit(model, train).attribute(queries)
    train_leaves, query_leaves = forest.apply(x), forest.apply(queries.x)
    draws = np.stack([np.bincount(rows, minlength=40) for rows in forest.estimators_samples_])
    for i in (0, 7, 23):
        for q in range(9):
            votes = []
            for t in range(12):
                left = draws[t] * (train_leaves[:, t] == query_leaves[q, t]) * (np.arange(40) != i)
                votes.append((left @ y) / left.sum() if left.sum() else np.nan)
            if np.isnan(votes).sum() > 1:
                continue  # two trees without a vote: computed to first order
            before, after = forest.predict(queries.x[[q]])[0], np.nanmean(votes)
            expected = 0.5 * ((after - queries.y[q]) ** 2 - (before - queries.y[q]) ** 2)
            assert scores.values[q, i] == pytest.approx(expected, abs=1e-12)


def test_out_of_bag_averages_the_trees_that_never_drew_it():
    train, queries = FORESTS[0].examples()
    forest = RandomForestClassifier(25, random_state=0).fit(train.x, train.y)
    model = uw.explainable(forest, train)
    scores = uw.ForestWeights(removal="trees").fit(model, train).attribute(queries)
    votes = np.stack([tree.predict_proba(queries.x) for tree in forest.estimators_])
    free = np.array([5 not in rows for rows in forest.estimators_samples_])
    place = np.searchsorted(forest.classes_, queries.y)
    truth = np.eye(3)[place]
    loss = [0.5 * ((v.mean(axis=0) - truth) ** 2).sum(axis=1) for v in (votes, votes[free])]
    np.testing.assert_allclose(scores.values[:, 5], loss[1] - loss[0], atol=1e-12)


def test_forests_and_boosters_are_sent_to_their_own_methods():
    train, _ = FORESTS[0].examples()
    forest = FORESTS[0].model(train)
    for method in (uw.LeafRefit(), uw.LeafInfluence(), uw.BoostIn()):
        with pytest.raises(TypeError, match="ForestWeights"):
            method.fit(forest, train)
    others, _ = BOOSTERS[0].examples()
    booster = BOOSTERS[0].model(others)
    with pytest.raises(TypeError, match="LeafRefit or BoostIn"):
        uw.ForestWeights().fit(booster, others)
    with pytest.raises(TypeError, match="Influence needs a model that is Differentiable"):
        uw.Influence().fit(booster, others)
    assert isinstance(first_choice(booster, others), uw.LeafRefit)
    assert isinstance(first_choice(forest, train), uw.ForestWeights)
    linear = uw.explainable(LogisticRegression(tol=1e-8, max_iter=1000).fit(train.x, train.y), train)
    assert isinstance(first_choice(linear, train), uw.Influence)


def test_a_single_tree_is_explained_by_refits_since_its_splits_decide():
    x, y = np.random.default_rng(3).normal(size=(40, 3)), np.arange(40) % 2
    train, queries = uw.Examples(x, y), uw.Examples(x[:4] + 0.1, y[:4], ids=list("abcd"))
    model = uw.explainable(DecisionTreeRegressor(max_depth=3, random_state=0).fit(x, y.astype(float)), train)
    scores = uw.explain(model, train, queries, removals=0).scores
    without = train.take(np.arange(40) != 5)
    refit = uw.explainable(DecisionTreeRegressor(max_depth=3, random_state=0).fit(without.x, without.y), without)
    np.testing.assert_allclose(scores.values[:, 5], model.measure(queries) - refit.measure(queries))


def test_a_leaf_that_the_model_does_not_have_is_refused():
    ensemble = ensemble_of([np.zeros(2), np.zeros(3)], np.array([0, 1]), np.array([0, 0]), np.zeros(1))
    with pytest.raises(ValueError, match="a leaf that it does not have"):
        ensemble.global_leaves(np.array([[2, 0]]))
    with pytest.raises(ValueError, match="one leaf for each of 2 trees"):
        ensemble.global_leaves(np.array([[0, 0, 0]]))


@pytest.mark.parametrize("wrong", [{"update": "none"}, {"update": 0}, {"bags": -1}])
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        uw.LeafInfluence(**wrong)
