import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.logistic_fit import logistic_fit, retraining_effect
from upweight.evaluate.removals import columns_of, named_removals, predicted_effects


def verified(removals, seed=0, **more):
    model, train, queries, _, scores = logistic_fit()
    return uw.verify(model, train, queries, scores, removals, seed=seed, retraining=uw.Retraining(processes=1, **more))


def test_every_column_is_a_removal_with_its_actual_effect():
    model, train, queries, _, scores = logistic_fit()
    removals = {"one": ["t4"], "three": ["t1", "t50", "t99"]}
    check = verified(removals)
    assert [(r.name, r.kind, r.ids) for r in check.removals] == [
        ("one", "one", ("t4",)),
        ("three", "group", ("t1", "t50", "t99")),
    ]
    for column, ids in enumerate(removals.values()):
        np.testing.assert_allclose(check.actual[:, column], retraining_effect(model, train, queries, ids), atol=1e-8)
        predicted = scores.values[:, train.positions(ids)].sum(axis=1)
        np.testing.assert_allclose(check.predicted[:, column], predicted, atol=1e-12)
    assert check.diagnostics["trainings"] == 3 and check.diagnostics["warnings"] == []
    assert check.query_ids.tolist() == queries.ids.tolist()


def test_a_number_of_removals_is_half_the_strongest_and_half_random_groups():
    _, train, _, _, scores = logistic_fit()
    check = verified(12)
    ones, groups = ([r for r in check.removals if r.kind == k] for k in ("one", "group"))
    assert len(ones) == len(groups) == 6
    first = np.abs(scores.values).argmax(axis=1)
    assert {r.ids[0] for r in ones} <= set(
        train.ids[np.argsort(-np.abs(scores.values), axis=1)[:, :6]].ravel().tolist()
    )
    assert ones[0].ids[0] == train.ids[first[0]]
    assert sorted({len(r.ids) for r in groups}) == [2, 6, 12]
    assert all(len(set(r.ids)) == len(r.ids) for r in groups)
    assert check.slope == pytest.approx(1.0, abs=0.02) and check.pearson > 0.999
    assert check.of("one").count == 6 * 12 and check.of("one").slope == pytest.approx(1.0, abs=1e-3)


def test_the_seed_chooses_the_groups():
    names = [[r.ids for r in verified(6, seed=s).removals] for s in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_two_processes_give_the_same_effects_as_one():
    model, train, queries, _, scores = logistic_fit()
    sequential, parallel = (
        uw.verify(model, train, queries, scores, 4, retraining=uw.Retraining(processes=p)) for p in (1, 2)
    )
    np.testing.assert_allclose(parallel.actual, sequential.actual, atol=1e-12)


def test_progress_counts_the_removals():
    reports = []
    verified(4, progress=lambda *progress: reports.append(progress))
    assert [d for _, d, _ in reports] == list(range(1, len(reports) + 1)) and reports[-1] == (
        "retrain",
        len(reports),
        len(reports),
    )
    assert len(reports) >= 4


def test_scores_of_groups_are_compared_with_removals_of_the_groups():
    model, train, queries, fitted, _ = logistic_fit()
    groups = {"left": [f"t{i}" for i in range(30)], "pair": ["t60", "t61"]}
    scores = fitted.remove(groups, queries, steps=20)
    check = uw.verify(model, train, queries, scores, groups, retraining=uw.Retraining(processes=1))
    np.testing.assert_array_equal(check.predicted, scores.values)
    assert check.slope == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ValueError, match=r"the columns of the scores are not train ids; pass removals={name: ids}"):
        uw.verify(model, train, queries, scores, 4, retraining=uw.Retraining(processes=1))
    with pytest.raises(ValueError, match="expected a score for every removed example, got none for 't7'"):
        uw.verify(model, train, queries, scores, {"other": ["t7", "t8"]}, retraining=uw.Retraining(processes=1))


def test_a_name_that_is_also_an_id_stands_for_the_ids_it_was_given():
    _, train, _, _, scores = logistic_fit()
    check = verified({"t3": ["t5", "t6"]})
    np.testing.assert_allclose(check.predicted[:, 0], scores.values[:, train.positions(["t5", "t6"])].sum(axis=1))


def test_an_example_named_twice_is_removed_once():
    twice, once = verified({"g": ["t3", "t3", "t8"]}), verified({"g": ["t3", "t8"]})
    np.testing.assert_allclose(twice.predicted, once.predicted)
    np.testing.assert_allclose(twice.interval(["t3", "t3", "t8"]), once.interval(["t3", "t8"]))


def test_unknown_ids_and_other_queries_are_refused():
    model, train, queries, _, scores = logistic_fit()
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        verified({"g": ["nobody"]})
    for ids in ({}, {"g": []}):
        with pytest.raises(ValueError, match="expected at least one"):
            verified(ids)
    with pytest.raises(ValueError, match="expected at least one removal, got 0"):
        verified(0)
    with pytest.raises(ValueError, match=r"expected scores of exactly these queries, in this order; call attribute"):
        uw.verify(model, train, queries.take(np.arange(12)[::-1]), scores, 4, retraining=uw.Retraining(processes=1))
    with pytest.raises(TypeError, match="verify needs a model that is Retrainable"):
        uw.verify(object(), train, queries, scores, 4)
    with pytest.raises(ValueError, match="not all zero"):
        verified({"g": train.ids.tolist()})


@pytest.mark.filterwarnings("ignore:lbfgs failed")
def test_a_model_off_its_optimum_has_a_warning():
    _, train, queries, _, _ = logistic_fit()
    early = uw.explainable(LogisticRegression(max_iter=2).fit(train.x, train.y), train, at="optimum")
    scores = uw.Influence().fit(early, train).attribute(queries)
    check = uw.verify(early, train, queries, scores, 6, retraining=uw.Retraining(processes=1))
    assert check.diagnostics["drift"] > 0 and check.diagnostics["gradient_norm"] > 1e-3
    assert "not at its optimum" in check.diagnostics["warnings"][0]
    assert "Lower tol or raise max_iter" in check.diagnostics["warnings"][0]
    assert check.slope == pytest.approx(1.0, abs=0.05)


def fresh(train, size, count, seed):
    rng = np.random.default_rng(seed)
    return [train.ids[rng.choice(len(train), size, replace=False)].tolist() for _ in range(count)]


@pytest.mark.parametrize("level", [0.5, pytest.param(0.9, marks=pytest.mark.slow)])
def test_intervals_cover_fresh_groups_about_as_often_as_they_say(level):
    model, train, queries, _, _ = logistic_fit()
    plain = uw.Influence(correction=None).fit(model, train).attribute(queries)  # whose errors are not small
    groups = {str(i): ids for i, ids in enumerate(fresh(train, 8, 60, seed=1))}
    check = uw.verify(model, train, queries, plain, groups, retraining=uw.Retraining(processes=1))
    inside = []
    for ids in fresh(train, 8, 60, seed=2):
        low, high = check.interval(ids, level)
        actual = retraining_effect(model, train, queries, ids)
        inside.append((low <= actual) & (actual <= high))
        assert (low < high).all()
    assert np.mean(inside) == pytest.approx(level, abs=0.07)


def test_a_higher_level_is_a_wider_interval_around_the_same_middle():
    check = verified(12)
    narrow, wide = check.interval(["t1", "t2"], 0.5), check.interval(["t1", "t2"], 0.95)
    assert (wide[1] - wide[0] >= narrow[1] - narrow[0]).all()
    np.testing.assert_allclose(sum(wide), sum(narrow), atol=1e-12)
    _, train, _, _, scores = logistic_fit()
    np.testing.assert_allclose(sum(wide) / 2, scores.values[:, train.positions(["t1", "t2"])].sum(axis=1), atol=1e-12)


def test_intervals_need_removals_of_their_kind():
    check = verified({"pair": ["t1", "t2"]})
    check.interval(["t5", "t6", "t7"])
    with pytest.raises(ValueError, match="no removal of kind 'one' was verified"):
        check.interval(["t1"])
    for level in (0.0, 1.0):
        with pytest.raises(ValueError, match="expected a level between 0 and 1"):
            check.interval(["t1", "t2"], level)
    with pytest.raises(ValueError, match="got none for 'nobody'"):
        check.interval(["t1", "nobody"])


def test_columns_are_found_by_name_or_by_ids():
    scores = uw.Scores(np.array([[1.0, 2.0, 4.0]]), ["q"], ["a", "b", "young"], uw.Unit.EFFECT)
    assert [columns.tolist() for columns in columns_of(scores, [("b", "a"), ("b",)])] == [[1, 0], [1]]
    assert predicted_effects(scores, named_removals({"young": ["x", "y"]})).tolist() == [[4.0]]
    with pytest.raises(ValueError, match="got none for 'x'"):
        columns_of(scores, [("a", "x")])


def test_a_check_shows_its_agreement_in_one_line():
    check = verified(4)
    assert "4 removals" in repr(check) and "slope 1.0" in repr(check)
    assert "single examples" in check._repr_html_() and "groups" in check._repr_html_()
