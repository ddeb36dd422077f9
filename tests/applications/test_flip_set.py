"""Flip sets against brute force: classes, ranked queries, numbers, the sign and the significance of a coefficient."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

import upweight as uw
from support.additive_game import StackedGame, game
from support.logistic_fit import logistic_fit
from support.network_families import cross_entropy, digits, mlp
from upweight.applications.flip_set_result import _told_apart

ONE = uw.Retraining(processes=1)


def predicted_value(outputs, labels):
    return outputs if outputs.ndim == 1 else outputs[:, 0]


def clouds(n=12, seed=3):
    """Two overlapping clouds and four queries: small enough to try every removal."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 2)) + 0.8 * y[:, None]
    train = uw.Examples(x, y, ids=[f"t{i}" for i in range(n)], labels={0: "no", 1: "yes"})
    queries = uw.Examples([[0.1, 0.4], [1.0, 0.9], [0.4, 0.1], [0.3, 0.9]], ids=["a", "b", "c", "d"])
    return uw.explainable(LogisticRegression(tol=1e-12).fit(x, y), train), train, queries


def items(seed, n=18):
    """Ratings of three users with a column per taste; the queries are four items for user 1."""
    rng = np.random.default_rng(seed)
    users = np.arange(n) % 3
    x = np.c_[users, rng.standard_normal((n, 3)) * (users == 1)[:, None], rng.standard_normal((n, 2))]
    train = uw.Examples(x, x[:, 1:] @ rng.standard_normal(5) + rng.standard_normal(n), names=["user", *"abcde"])
    queries = uw.Examples(
        np.c_[np.ones(4), rng.standard_normal((4, 3)), np.zeros((4, 2))], ids=list("pqrs"), names=train.names,
        shown=["Alien", "Brazil", "Casablanca", "Duel"],
    )  # fmt: skip
    model = uw.explainable(Ridge(alpha=0.5).fit(train.x, train.y), train, predicted_value)
    return model, train, queries


def smallest(n, flips, largest):
    """The size of the smallest set that flips, by trying all of them; None if there is none up to `largest`."""
    for size in range(1, largest + 1):
        for some in combinations(range(n), size):
            if flips(list(some)):
                return size
    return None


def without(train, positions):
    left = np.delete(np.arange(len(train)), positions)
    return train.x[left], train.y[left]


@pytest.mark.parametrize("query", ["a", "b", "c", "d"])
def test_the_set_that_flips_a_class_is_the_smallest_of_all(query):
    model, train, queries = clouds()
    one = queries.select([query])
    result = uw.flip_set(model, train, one, retraining=ONE)
    before = model.predict(one).predicted[0]

    def flips(some):
        weights = np.ones(len(train))
        weights[some] = 0
        return model.retrain(train, weights).predict(one).predicted[0] != before

    assert result.size == smallest(len(train), flips, 4) and result.is_smallest
    assert flips(train.positions(result.removed)) and (result.before, result.after) in {("no", "yes"), ("yes", "no")}
    noun = "this training example" if result.size == 1 else f"these {result.size} training examples"
    assert (
        result.sentence
        == f"Without {noun} the prediction for query {query} would be {result.after} in place of {result.before}."
    )


def test_classes_flip_without_more_examples_than_brittleness_needs():
    model, train, queries, _, _ = logistic_fit()
    model = uw.explainable(LogisticRegression(tol=1e-12).fit(train.x, train.y), train)
    scores = uw.Influence().fit(model, train).attribute(queries)
    brittle = uw.brittleness(model, train, queries, scores, most=24, retraining=ONE)
    sizes = []
    for flip in brittle.flips[:5]:
        found = uw.flip_set(model, train, queries.select([flip.query]), search=uw.SetSearch(most=24), retraining=ONE)
        sizes.append((found.size, flip.size))
    assert any(size is not None for _, size in sizes)
    assert all(size is None or found <= size for found, size in sizes)


@pytest.mark.parametrize("seed", range(4))
def test_the_set_that_changes_a_recommendation_is_the_smallest_among_the_ratings_of_the_user(seed):
    model, train, queries = items(seed)
    result = uw.flip_set(model, train, queries, candidates="user", search=uw.SetSearch(noun="ratings"), retraining=ONE)
    mine = np.flatnonzero(train.x[:, 0] == 1)
    values = model.measure(queries)
    first = int(values.argmax())

    def flips(some):
        return Ridge(alpha=0.5).fit(*without(train, mine[some])).predict(queries.x).argmax() != first

    assert set(result.removed) <= set(train.ids[mine].tolist())
    size = smallest(len(mine), flips, 5)
    assert result.size == size and result.is_smallest == (size is not None)
    if size is not None:
        after = Ridge(alpha=0.5).fit(*without(train, train.positions(result.removed))).predict(queries.x)
        np.testing.assert_allclose(result.retrained, after, atol=1e-6)
        titles = dict(zip(queries.ids.tolist(), queries.shown, strict=True))
        noun = "this rating" if size == 1 else f"these {size} ratings"
        assert result.sentence == (
            f"Without {noun} you would see {titles[result.after]} in place of {titles[result.before]}."
        )


def test_without_proof_the_set_is_that_of_accent():
    model, train, queries = items(1)
    scores = uw.Influence().fit(model, train).attribute(queries)
    mine, values = np.flatnonzero(train.x[:, 0] == 1), model.measure(queries)
    first, best = int(values.argmax()), None
    for rival in set(range(4)) - {first}:
        effects = scores.values[first, mine] - scores.values[rival, mine]
        order = np.argsort(-effects)
        gaps = values[first] - values[rival] - np.cumsum(effects[order][effects[order] > 0])
        if (gaps < 0).any():
            size = int(np.argmax(gaps < 0)) + 1
            entry = (size, gaps[size - 1], train.ids[mine[order[:size]]].tolist(), queries.ids[rival])
            best = entry if best is None or entry[:2] < best[:2] else best
    result = uw.flip_set(model, train, queries, candidates="user", search=uw.SetSearch(proof=False))
    assert best is not None and (list(result.removed), result.after) == best[2:]
    assert result.retrained is None and result.trainings == 0
    assert result.sentence.startswith("By the sum of scores, without ")
    assert any("was not retrained" in warning for warning in result.diagnostics["warnings"])


def test_without_proof_a_search_that_finds_no_set_does_not_speak_of_one():
    model, train, queries = clouds()
    result = uw.flip_set(model, train, queries.select(["b"]), search=uw.SetSearch(most=1, proof=False))
    assert result.size is None and result.trainings == 0
    assert result.sentence.startswith("By the sum of scores, with up to 1 of 12 training examples removed")
    assert [w for w in result.diagnostics["warnings"] if "retrained" in w] == [
        "Nothing was retrained: no set flips it by the sum of scores."
    ]


def regression(seed, kind="normal", n=14):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    y = x @ [0.4, 1] + rng.standard_normal(n)
    y = y if kind == "normal" else (y > 0).astype(int)
    train = uw.Examples(x, y, names=["dose", "age"])
    estimator = LinearRegression() if kind == "normal" else LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    return uw.explainable(estimator.fit(x, y), train, uw.Coefficient("dose")), train


def wald(x, y, level=0.05):
    """(coefficient of the first column, whether it is significant) by the formulas of a textbook."""
    design = np.c_[x, np.ones(len(x))]
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    freedom = len(y) - design.shape[1]
    variance = np.sum((y - design @ solution) ** 2) / freedom * np.linalg.inv(design.T @ design)[0, 0]
    return solution[0], abs(solution[0]) / np.sqrt(variance) > t.isf(level / 2, freedom)


@pytest.mark.parametrize("seed", range(5))
def test_the_set_that_flips_the_sign_of_a_coefficient_is_the_smallest_of_all(seed):
    model, train = regression(seed)
    result = uw.flip_set(model, train, search=uw.SetSearch(most=4), retraining=ONE)
    sign = np.sign(wald(train.x, train.y)[0])
    assert result.size == smallest(len(train), lambda some: np.sign(wald(*without(train, some))[0]) != sign, 4)
    if result.size is not None:
        coefficient = wald(*without(train, train.positions(result.removed)))[0]
        assert result.retrained[0] == pytest.approx(coefficient, abs=1e-8) and np.sign(coefficient) == -sign
        assert f"the coefficient of dose would be {coefficient:.4g}, {result.after} 0" in result.sentence


@pytest.mark.parametrize("seed", range(5))
def test_the_set_that_flips_the_significance_of_a_coefficient_is_the_smallest_of_all(seed):
    model, train = regression(seed)
    search = uw.SetSearch(most=3)
    result = uw.flip_set(model, train, against=uw.Significance(0.05), search=search, retraining=ONE)
    was = wald(train.x, train.y)[1]
    assert result.before == ("significant" if was else "not significant")
    assert result.size == smallest(len(train), lambda some: wald(*without(train, some))[1] != was, 3)
    assert result.is_smallest == (result.size is not None)


def test_significance_of_a_logistic_coefficient_is_walds_test():
    model, train = regression(2, "logistic", n=40)
    result = uw.flip_set(model, train, against=uw.Significance(0.1), search=uw.SetSearch(proof=False, most=30))
    p = model.predictor.predict_proba(train.x)[:, 1]
    design = np.c_[train.x, np.ones(len(train))]
    z = model.predictor.coef_[0, 0] / np.sqrt(np.linalg.inv(design.T * (p * (1 - p)) @ design)[0, 0])
    np.testing.assert_allclose(result.values, [abs(z), norm.isf(0.05)], rtol=1e-5)


def test_one_by_one_and_put_back_the_greedy_set_is_hardly_larger_than_the_smallest():
    model, train = regression(3)
    greedy = uw.flip_set(model, train, search=uw.SetSearch(most=5, exhaustive=0), retraining=ONE)
    proved = uw.flip_set(model, train, search=uw.SetSearch(most=5, exhaustive=10_000), retraining=ONE)
    assert proved.is_smallest and not greedy.is_smallest
    assert proved.size <= greedy.size <= proved.size + 1 and greedy.trainings < 40 < proved.trainings


def test_in_an_additive_game_the_greedy_set_is_exact_for_any_number_and_any_seed():
    model, train, queries, _ = game(queries=3, players=40, seed=5)
    for stack in (1, 16):
        for place in range(3):
            played = StackedGame(model.worth, stack_size=stack)
            worth = np.sort(model.worth[place])[::-1]
            total, against = worth.sum(), worth.sum() - 4.0
            result = uw.flip_set(
                played, train, queries.take([place]), against=against, candidates=train.ids.tolist(),
                search=uw.SetSearch(method=uw.LeaveOneOut()), retraining=uw.Retraining(processes=1, seeds=2),
            )  # fmt: skip
            assert result.size == int(np.argmax(total - np.cumsum(worth) < against)) + 1
            assert (result.before, result.after) == ("above", "below")


def test_with_poor_scores_examples_that_the_flip_does_not_need_are_put_back():
    model, train, queries, _ = game(queries=1, players=30, seed=2)
    worth = model.worth[0]
    search = uw.SetSearch(method=uw.Chance(seed=1), most=29)
    result = uw.flip_set(model, train, queries, against=worth.sum() - 1.5, search=search, retraining=ONE)
    removed = worth[train.positions(result.removed)]
    assert removed.sum() > 1.5
    assert all(removed.sum() - one <= 1.5 for one in removed)


def test_values_are_means_over_the_seeds():
    model, train, queries, _ = game(queries=1, players=20, seed=3, noise=0.5)
    search, total = uw.SetSearch(method=uw.LeaveOneOut()), model.worth[0].sum()
    three = uw.Retraining(processes=1, seeds=3)
    result = uw.flip_set(model, train, queries, against=total - 3, search=search, retraining=three)
    weights = np.ones(20)
    weights[train.positions(result.removed)] = 0
    measured = [model.retrain(train, weights, seed).measure(queries)[0] for seed in range(3)]
    assert len(set(measured)) == 3 and result.retrained[0] == pytest.approx(np.mean(measured))


def test_if_nothing_flips_it_the_result_says_how_far_the_nearest_removal_gets():
    model, train, queries, _ = game(queries=1, players=12, seed=1)
    model.worth[:] = np.linspace(1, 2, 12)
    search = uw.SetSearch(method=uw.LeaveOneOut(), most=4)
    result = uw.flip_set(model, train, queries, against=1.0, search=search, retraining=ONE)
    strongest = np.linspace(1, 2, 12)[-4:].sum()
    assert result.size is None and result.after is None and result.removed == () and result.tried == 4
    assert result.nearest == (4, pytest.approx(18 - 1 - strongest))
    assert "stays above 1" in result.sentence and "the lead is 9.545 in place of 17" in result.sentence
    opposite = replace(model, worth=-model.worth)
    far = uw.flip_set(opposite, train, queries, against=-100.0, search=search, retraining=ONE)
    assert far.nearest is None and "none of them holds the lead" in far.sentence


def test_a_net_is_retrained_for_every_flip():
    x, y = digits()
    train, query = uw.Examples(x[:40], y[:40]), uw.Examples(x[40:41], y[40:41])
    model = uw.TorchModel.trained(
        lambda seed: mlp(), cross_entropy, train, training=uw.Training(lr=0.1, epochs=3, batch_size=20)
    )
    result = uw.flip_set(model, train, query, search=uw.SetSearch(method=uw.GradDot(), most=20), retraining=ONE)
    assert result.size is not None

    def prediction(removed):
        weights = np.ones(len(train))
        weights[train.positions(removed)] = 0
        return model.retrain(train, weights).predict(query).predicted[0]

    assert prediction(list(result.removed)) == result.after != model.predict(query).predicted[0] == result.before
    for identifier in result.removed if len(result.removed) > 1 else ():
        others = [i for i in result.removed if i != identifier]
        assert prediction(others) == result.before  # every example is needed


def test_training_examples_among_the_queries_are_named():
    model, train, _ = clouds()
    query = uw.Examples(train.x[4:5], ids=["q"])
    result = uw.flip_set(model, train, query, retraining=ONE)
    assert any("inputs of a query may be removed too ('t4')" in text for text in result.diagnostics["warnings"])
    others = uw.flip_set(model, train, query, candidates=[f"t{i}" for i in range(12) if i != 4], retraining=ONE)
    assert others.diagnostics["warnings"] == [] and "t4" not in others.removed


def test_bad_questions_are_refused_in_a_sentence():
    model, train, queries = items(0)
    classes, clouds_train, clouds_queries = clouds()
    coefficient, of_coefficient = regression(0)
    with pytest.raises(ValueError, match="expected candidates that can be removed, got none"):
        uw.flip_set(model, train, queries, candidates=[])
    new_user = queries.replaced(x=np.where(np.arange(6) == 0, 9.0, queries.x))
    with pytest.raises(
        ValueError, match=r"no training example has the queries' user = 9\.0, so nothing can be removed"
    ):
        uw.flip_set(model, train, new_user, candidates="user")
    with pytest.raises(ValueError, match=r"expected ids, or the name of a column among .*, got candidates='film'"):
        uw.flip_set(model, train, queries, candidates="film")
    with pytest.raises(ValueError, match=r"got candidates='usr'; did you mean 'user'\?"):
        uw.flip_set(model, train, queries, candidates="usr")
    two_users = queries.replaced(x=np.c_[[1, 1, 2, 2], queries.x[:, 1:]])
    with pytest.raises(ValueError, match="expected queries with one value of 'user'"):
        uw.flip_set(model, train, two_users, candidates="user")
    with pytest.raises(ValueError, match="expected a model that predicts classes, or several queries"):
        uw.flip_set(model, train, queries.take([0]))
    with pytest.raises(ValueError, match="expected a measurement that ranks the 4 queries"):
        uw.flip_set(classes, clouds_train, clouds_queries.replaced(y=[0, 1, 1, 0]))
    with pytest.raises(ValueError, match="expected one query whose measurement is compared with 3"):
        uw.flip_set(model, train, queries, against=3.0)
    for number in (np.nan, np.inf, "0", True):
        with pytest.raises(ValueError, match=r"expected a finite number or uw\.Significance as against"):
            uw.flip_set(model, train, queries.take([0]), against=number)
    squared = uw.explainable(Ridge().fit(of_coefficient.x, of_coefficient.y), of_coefficient)
    with pytest.raises(ValueError, match=r"half squared error\) can reach, which is never above 0, got 50; to compare"):
        uw.flip_set(squared, of_coefficient, of_coefficient.take([0]), against=50)
    predicted = uw.explainable(squared.predictor, of_coefficient, lambda outputs, labels: outputs[:, 0])
    assert (
        uw.flip_set(predicted, of_coefficient, of_coefficient.take([0]), against=50, retraining=ONE).before == "below"
    )
    with pytest.raises(ValueError, match=r"expected ids, or examples whose columns have names, got candidates='user'"):
        uw.flip_set(model, train.replaced(names=None), queries, candidates="user")
    with pytest.raises(TypeError, match="expected queries, or a model that measures a coefficient"):
        uw.flip_set(model, train)
    with pytest.raises(TypeError, match="expected a linear model that measures a coefficient"):
        uw.flip_set(model, train, against=uw.Significance())
    with pytest.raises(ValueError, match="expected no queries"):
        uw.flip_set(coefficient, of_coefficient, queries, against=uw.Significance())
    probability = uw.explainable(classes.predictor, clouds_train, uw.Probability(of=1))
    with pytest.raises(ValueError, match="expected a measurement that is highest for the predicted class"):
        uw.flip_set(probability, clouds_train, clouds_queries.take([1]))
    penalised = uw.explainable(Ridge().fit(of_coefficient.x, of_coefficient.y), of_coefficient, uw.Coefficient("dose"))
    with pytest.raises(ValueError, match="expected a Ridge without a penalty"):
        uw.flip_set(penalised, of_coefficient, against=uw.Significance())
    for wrong, message in (({"most": 0}, "most ≥ 1"), ({"exhaustive": -1}, "exhaustive ≥ 0")):
        with pytest.raises(ValueError, match=message):
            uw.SetSearch(**wrong)
    with pytest.raises(ValueError, match="expected most between 1 and 17"):
        uw.flip_set(model, train, queries, search=uw.SetSearch(most=40))
    with pytest.raises(ValueError, match="expected a level between 0 and 1"):
        uw.Significance(5)


def test_leads_that_differ_are_told_apart():
    assert _told_apart(1.68312, 1.68314) == ("1.68312", "1.68314") and _told_apart(1.5, 2.25) == ("1.5", "2.25")
    assert _told_apart(2.0, 2.0) == ("2", "2")


def test_two_processes_give_the_same_set_and_the_result_is_plain_for_json():
    import json

    model, train, queries = items(1)
    one, two = (uw.flip_set(model, train, queries, retraining=uw.Retraining(processes=p)) for p in (1, 2))
    assert one.as_dict() == two.as_dict() == json.loads(json.dumps(one.as_dict()))
    assert "FlipSet(" in repr(one)
