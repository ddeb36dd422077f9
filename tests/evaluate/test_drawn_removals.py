"""Random removals are drawn among the examples of weight above 0."""

import numpy as np
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.evaluate.baselines import held_out_loss
from upweight.evaluate.removals import default_removals, random_groups, singles, subsets

N = 60
WEIGHTS = np.where(np.arange(N) < 12, 0.0, 1.0)
WEIGHTED = np.flatnonzero(WEIGHTS)


def setting():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3))
    y = (x[:, 0] + 0.7 * rng.normal(size=N) > 0).astype(int)
    estimator = LogisticRegression(tol=1e-10, max_iter=5000).fit(x, y, WEIGHTS)
    train, some = uw.Examples(x, y, weights=WEIGHTS), uw.Examples(x[WEIGHTED], y[WEIGHTED], ids=WEIGHTED)
    queries = uw.Examples(x[:5] + 0.1, y[:5], ids=np.arange(100, 105))
    return [(uw.explainable(estimator, t), t) for t in (train, some)], queries


def test_every_draw_is_that_of_the_set_without_absent_rows():
    ((model, train), (other, some)), queries = setting()
    scores, theirs = (uw.Influence().fit(m, t).attribute(queries) for m, t in ((model, train), (other, some)))
    assert singles(train) == singles(some)
    assert subsets(train, 5) == subsets(some, 5)
    assert random_groups(train, 6, 0) == random_groups(some, 6, 0)
    assert default_removals(scores, train, 8, 0) == default_removals(theirs, some, 8, 0)


def test_verification_and_curves_are_those_of_the_set_without_absent_rows():
    ((model, train), (other, some)), queries = setting()
    statistics = []
    for m, t in ((model, train), (other, some)):
        scores = uw.Influence().fit(m, t).attribute(queries)
        check = uw.verify(m, t, queries, scores, 6, processes=1)
        curve = uw.removal_curve(m, t, queries, scores, (0.1, 0.3), draws=2, processes=1)
        brittle = uw.brittleness(m, t, queries, scores, processes=1)
        statistics.append(
            (check.actual, curve.effects["random"], curve.effects["proponents"], curve.sizes, brittle.most)
        )
        assert check.slope > 0.9 and not check.diagnostics["warnings"]
    for ours, theirs in zip(*statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_held_out_losses_have_folds_of_examples_of_weight_above_zero():
    ((model, train), (other, some)), _ = setting()
    ours, theirs = held_out_loss(model, train), held_out_loss(other, some)
    np.testing.assert_allclose(ours[WEIGHTED], theirs, atol=1e-7)
    np.testing.assert_allclose(ours[WEIGHTS == 0], -model.measure(train.take(WEIGHTS == 0)))


def test_planted_errors_are_drawn_among_examples_of_weight_above_zero():
    ((_, train), (_, some)), _ = setting()
    wrong, planted = uw.plant(train, 0.2)
    assert (WEIGHTS[planted] > 0).all() and uw.plant(some, 0.2)[1] == planted
    suspicion = np.random.default_rng(0).normal(size=N)
    ours, theirs = uw.detection_rates(suspicion, wrong, planted), uw.detection_rates(suspicion[WEIGHTED], some, planted)
    assert (ours.auc, ours.recall) == (theirs.auc, theirs.recall)
