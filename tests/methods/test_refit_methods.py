"""Methods that explain any estimator by refitting it: what they estimate, their intervals, budgets and refusals."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

import upweight as uw
from support.trained_estimators import NUMBERS, TWO
from upweight.core.refittable import Trial
from upweight.methods import registry
from upweight.methods.parts.random_refits import RandomRefits

X, Y = NUMBERS[0][:40], NUMBERS[1][:40]
TRAIN, QUERIES = uw.Examples(X, Y, ids=[f"e{i}" for i in range(40)]), uw.Examples(NUMBERS[0][60:66], NUMBERS[1][60:66])
RIDGE = uw.refittable(Ridge(5.0).fit(X, Y), TRAIN)


def bagging(seed=0, members=5):
    estimator = BaggingRegressor(n_estimators=members, random_state=seed)
    return uw.refittable(estimator.fit(X, Y), TRAIN)


def test_leaving_out_each_example_of_a_deterministic_estimator_is_exact():
    scores = uw.ShortlistLeaveOneOut().fit(RIDGE, TRAIN).attribute(QUERIES)
    exact = uw.LeaveOneOut().fit(RIDGE, TRAIN).attribute(QUERIES)
    np.testing.assert_allclose(scores.values, exact.values, atol=1e-12)
    assert not scores.half_widths.any()
    assert scores.diagnostics["trainings"] == 41


def test_a_random_estimator_has_the_mean_over_its_seeds_and_an_interval():
    model, weights = bagging(), np.arange(40) != 3
    scores = uw.ShortlistLeaveOneOut(seeds=3).fit(model, TRAIN).attribute(QUERIES)
    differences = [
        model.retrain(TRAIN, np.ones(40), s).measure(QUERIES)
        - model.retrain(TRAIN, weights.astype(float), s).measure(QUERIES)
        for s in range(3)
    ]
    np.testing.assert_allclose(scores.values[:, 3], np.mean(differences, axis=0))
    least = 2.92 * np.std(differences, axis=0, ddof=1) / np.sqrt(3)  # t with 2 degrees of freedom
    assert (scores.half_widths[:, 3] >= 0.999 * least).all()
    low, high = scores.interval(QUERIES.ids[0].item(), "e3")
    assert low < scores.values[0, 3] < high


def test_one_seed_of_a_random_estimator_has_no_interval_and_says_so():
    scores = uw.ShortlistLeaveOneOut(seeds=1).fit(bagging(), TRAIN).attribute(QUERIES)
    assert scores.half_widths is None
    assert any("have no interval" in w for w in scores.diagnostics["warnings"])


@pytest.mark.parametrize("by", ["neighbours", "loss", "both"])
def test_a_budget_leaves_out_a_shortlist_and_the_others_have_no_number(by):
    fitted = uw.ShortlistLeaveOneOut(refits=11, by=by).fit(RIDGE, TRAIN)
    scores = fitted.attribute(QUERIES)
    scored = np.isfinite(scores.values).all(axis=0)
    assert scored.sum() == 10
    assert set(scores.diagnostics["undefined"]) == set(TRAIN.ids[~scored])
    assert np.isnan(scores.half_widths[:, ~scored]).all()
    full = uw.ShortlistLeaveOneOut().fit(RIDGE, TRAIN).attribute(QUERIES).values
    np.testing.assert_allclose(scores.values[:, scored], full[:, scored], atol=1e-12)
    assert len(fitted.top(QUERIES, k=2).proponents(QUERIES.ids[0].item())) <= 2
    assert np.isfinite(fitted.self_influence().values).sum() == 10


def test_a_shortlist_by_loss_has_the_examples_with_the_largest_loss():
    scores = uw.ShortlistLeaveOneOut(refits=6, by="loss").fit(RIDGE, TRAIN).attribute(QUERIES)
    largest = set(TRAIN.ids[np.argsort(RIDGE.measure(TRAIN))[:5]])
    assert set(TRAIN.ids[np.isfinite(scores.values[0])]) == largest


def test_scores_with_intervals_are_saved_and_loaded(tmp_path):
    scores = uw.ShortlistLeaveOneOut(refits=12, seeds=2).fit(bagging(), TRAIN).attribute(QUERIES)
    scores.save(tmp_path / "scores.npz")
    loaded = uw.Scores.load(tmp_path / "scores.npz")
    np.testing.assert_array_equal(loaded.half_widths, scores.half_widths)
    assert scores.group(["all"] * 40).half_widths is None


def first_choice(monkeypatch, seconds, is_random=False):
    monkeypatch.setattr(type(RIDGE), "trial", lambda self, train: Trial(seconds, is_random))
    return registry.first_choice(RIDGE, TRAIN)


def test_the_default_method_follows_from_the_time_of_the_first_refit(monkeypatch):
    assert first_choice(monkeypatch, 0.01) == uw.ShortlistLeaveOneOut(seeds=1)
    assert first_choice(monkeypatch, 1.0) == uw.ShortlistLeaveOneOut(refits=20, seeds=1)
    assert first_choice(monkeypatch, 0.01, is_random=True) == uw.ShortlistLeaveOneOut(seeds=4)
    with pytest.raises(ValueError, match=r"one refit of this model takes 3,600.0 s.*about 2,460 minutes.*refits=8"):
        first_choice(monkeypatch, 3600.0)


def test_a_budget_for_less_than_one_example_is_refused():
    with pytest.raises(ValueError, match="expected refits ≥ 8, twice the number of seeds, got 7"):
        uw.ShortlistLeaveOneOut(refits=7, seeds=4).fit(bagging(), TRAIN)


def additive(weights):
    """Measurements that are a sum over examples, (refits, 1)."""
    return weights @ np.arange(weights.shape[1], dtype=float)[:, None]


@pytest.mark.parametrize("refits", [60, 12])
def test_coefficients_of_a_sum_over_examples_are_its_terms(refits):
    weights = (np.random.default_rng(0).random((refits, 6)) < 0.5).astype(float)
    trained = RandomRefits([], weights, np.arange(6), 0)
    effects, half_widths = trained.effects(additive(weights))
    if trained.is_joint:
        np.testing.assert_allclose(effects[0], np.arange(6), atol=1e-9)
        assert half_widths.max() < 1e-6
    else:
        assert (np.abs(effects[0] - np.arange(6)) <= 3 * half_widths[0]).all()


def test_datamodels_estimate_the_mean_effect_on_random_subsets_whatever_the_order_of_examples():
    recipe = uw.Datamodels(refits=100, share=0.7)
    scores = recipe.fit(RIDGE, TRAIN).attribute(QUERIES)
    trained = recipe.fit(RIDGE, TRAIN).trained
    assert abs(trained.weights.mean() - 0.7) < 0.03
    order = np.arange(40)[::-1]
    shuffled = TRAIN.take(order)
    other = recipe.fit(uw.refittable(Ridge(5.0).fit(shuffled.x, shuffled.y), shuffled), shuffled).attribute(QUERIES)
    np.testing.assert_allclose(other.values[:, order], scores.values, atol=1e-9)


def test_subsets_without_a_class_are_drawn_anew_and_counted():
    y = (np.arange(40) < 3).astype(int)
    train = uw.Examples(X, y)
    model = uw.refittable(KNeighborsClassifier(3).fit(X, y), train)
    fitted = uw.Datamodels(refits=40, share=0.4).fit(model, train)
    assert fitted.trained.redrawn > 0
    assert any("drawn anew" in w for w in fitted.diagnostics["warnings"])
    assert np.isfinite(fitted.attribute(train.take([0, 5])).values).all()


def test_weight_covariance_estimates_the_derivative_in_the_weights():
    scores = uw.WeightCovariance(refits=200, spread=0.05).fit(RIDGE, TRAIN).attribute(QUERIES)
    step = 1e-4
    ones = np.ones(40)
    for i in (0, 7):
        up, down = (RIDGE.retrain(TRAIN, ones + s * step * (np.arange(40) == i)).measure(QUERIES) for s in (1, -1))
        np.testing.assert_allclose(
            scores.values[:, i], (up - down) / (2 * step), atol=0.05 * np.abs(scores.values).max()
        )


def test_weight_covariance_of_an_estimator_without_sample_weights_names_datamodels():
    x, y = TWO[0][:40], TWO[1][:40]
    train = uw.Examples(x, y)
    model = uw.refittable(KNeighborsClassifier().fit(x, y), train)
    with pytest.raises(TypeError, match=r"KNeighborsClassifier does not; use uw.Datamodels\(\)"):
        uw.WeightCovariance().fit(model, train)


def shapley(model, train, queries):
    """Shapley values over all orders of a few examples."""
    n = len(train)
    values = np.zeros((len(queries), n))

    def measured(members):
        weights = np.isin(np.arange(n), members).astype(float)
        if not members:
            return model.measure_uninformed(train, weights, queries)
        return model.retrain(train, weights).measure(queries)

    known = {}
    orders = list(permutations(range(n)))
    for order in orders:
        for size, player in enumerate(order):
            sets = tuple(sorted(order[:size])), tuple(sorted(order[: size + 1]))
            before, after = (known.setdefault(s, None if s in known else measured(s)) for s in sets)
            values[:, player] += (after - before) / len(orders)
    return values


def test_data_shapley_of_five_examples_is_the_mean_over_all_orders_within_its_intervals():
    train = TRAIN.take(range(5))
    model = uw.refittable(Ridge(5.0).fit(train.x, train.y), train)
    scores = uw.DataShapley(refits=300, tolerance=0.0).fit(model, train).attribute(QUERIES)
    exact = shapley(model, train, QUERIES)
    assert np.mean(np.abs(scores.values - exact) <= 1.5 * scores.half_widths) >= 0.9
    gain = model.measure(QUERIES) - model.measure_uninformed(train, np.zeros(5), QUERIES)
    np.testing.assert_allclose(scores.values.sum(axis=1), gain, atol=1e-9)


def test_data_shapley_stops_when_its_intervals_are_narrow_enough_and_says_if_the_budget_ended_first():
    train = TRAIN.take(range(10))
    model = uw.refittable(Ridge(5.0).fit(train.x, train.y), train)
    wide = uw.DataShapley(refits=400, tolerance=10.0).fit(model, train)
    assert len(wide.orders) == 4
    ended = uw.DataShapley(refits=50, tolerance=0.0).fit(model, train)
    assert len(ended.orders) == 5
    assert any("budget ended before" in w for w in ended.diagnostics["warnings"])
    assert not any("budget ended before" in w for w in wide.diagnostics["warnings"])


def test_data_shapley_predicts_shares_of_classes_where_a_model_cannot_be_trained():
    x, y = TWO[0][:12], TWO[1][:12]
    train = uw.Examples(x, y)
    model = uw.refittable(KNeighborsClassifier(1).fit(x, y), train)
    scores = uw.DataShapley().fit(model, train).attribute(train)
    uninformed = model.measure_uninformed(train, np.zeros(12), train)
    np.testing.assert_allclose(uninformed, -0.25)  # half the Brier score of equal shares
    np.testing.assert_allclose(scores.values.sum(axis=1), model.measure(train) - uninformed, atol=1e-9)


def test_data_oob_judges_each_example_by_members_that_did_not_draw_it():
    x, y = TWO[0][:40], TWO[1][:40]
    train = uw.Examples(x, y)
    estimator = BaggingClassifier(n_estimators=30, random_state=0).fit(x, y)
    fitted = uw.DataOOB().fit(uw.refittable(estimator, train), train)
    bags = np.stack([np.bincount(rows, minlength=40) for rows in estimator.estimators_samples_])
    right = np.stack([m.predict_proba(x)[np.arange(40), y] for m in estimator.estimators_])
    expected = [-((1 - right[bags[:, i] == 0, i]) ** 2).mean() for i in range(40)]
    self_influence = fitted.self_influence()
    np.testing.assert_allclose(self_influence.values[0], expected)
    assert np.isfinite(self_influence.half_widths).all()
    scores = fitted.attribute(train.take([0]))
    inside = bags[:, 3] > 0
    brier = -((1 - right[:, 0]) ** 2)
    np.testing.assert_allclose(scores.values[0, 3], brier[inside].mean() - brier[~inside].mean())


def test_data_oob_compares_two_means_however_many_members_there_are_and_no_interval_is_without_width():
    x, y = TWO[0][:30], TWO[1][:30]
    train = uw.Examples(x, y)
    estimator = BaggingClassifier(n_estimators=80, random_state=0).fit(x, y)
    model = uw.refittable(estimator, train)
    scores = uw.DataOOB().fit(model, train).attribute(train)
    inside, measured = model.bags(train) > 0, model.measure_members(train)
    expected = measured[inside[:, 4]].mean(axis=0) - measured[~inside[:, 4]].mean(axis=0)
    np.testing.assert_allclose(scores.values[:, 4], expected, atol=1e-12)
    assert (scores.half_widths > 0).all()


def test_data_oob_needs_an_ensemble_with_bags():
    with pytest.raises(TypeError, match="this Ridge is not an ensemble that records which examples"):
        uw.DataOOB().fit(RIDGE, TRAIN)


def test_an_explanation_by_refits_has_intervals_in_its_json():
    explanation = uw.explain(bagging(), TRAIN, QUERIES, uw.ShortlistLeaveOneOut(seeds=2), removals=0)
    first = explanation.as_dict(2)["queries"][0]["proponents"][0]
    assert first["interval"][0] < first["score"] < first["interval"][1]


def test_parts_of_the_training_set_on_which_neighbours_can_be_fitted_but_cannot_predict_are_refused_parts():
    x, y = TWO[0][:12], TWO[1][:12]
    train = uw.Examples(x, y)
    model = uw.refittable(KNeighborsClassifier(5).fit(x, y), train)
    with pytest.raises(ValueError, match="cannot predict these inputs"):
        model.retrain(train, (np.arange(12) < 4).astype(float))
    fitted = uw.DataShapley().fit(model, train)
    assert all(models[3] is None for models in fitted.models)
    assert np.isfinite(fitted.attribute(train).values).all()


def test_no_probability_without_an_example_is_computed_from_a_squared_loss_that_is_0():
    x, y = TWO[0][:40], TWO[1][:40]
    train = uw.Examples(x, y)
    model = uw.refittable(KNeighborsClassifier(3).fit(x, y), train)
    certain = train.take(np.flatnonzero(model.measure(train) == 0)[:1])
    explanation = uw.explain(model, train, certain, uw.ShortlistLeaveOneOut(refits=4), removals=0)
    assert explanation.probability(0)[1] == 1.0
    assert explanation.without(0, 0.02) is None


def test_a_shortlist_by_leaves_has_the_examples_that_share_most_leaves_with_a_query():
    from sklearn.ensemble import AdaBoostRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = x[:, 0] + 0.1 * rng.normal(size=40)
    train, query = uw.Examples(x, y), uw.Examples(x[:1] + 0.01, y[:1])
    estimator = AdaBoostRegressor(n_estimators=5, random_state=0).fit(x, y)
    model = uw.refittable(estimator, train)
    fitted = uw.ShortlistLeaveOneOut(refits=9, seeds=1, by="leaves").fit(model, train)
    scored = np.flatnonzero(np.isfinite(fitted.attribute(query).values[0]))
    shared = np.mean([tree.apply(x) == tree.apply(query.x) for tree in estimator.estimators_], axis=0)
    assert len(scored) == 8
    assert shared[scored].min() >= np.sort(shared)[-8]
    plain = uw.refittable(Ridge().fit(x, y), train)
    with pytest.raises(ValueError, match="trees inside"):
        uw.ShortlistLeaveOneOut(refits=9, by="leaves").fit(plain, train).attribute(query)
