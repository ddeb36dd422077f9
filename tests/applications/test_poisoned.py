"""Targets of attacks are found with their poisons, removal changes their labels, and clean data are left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

import upweight as uw
from upweight.applications.influence_tails import flagged_by_chance, tail_probabilities

TRAIN, QUERIES = 500, 300
MARK = 2.0  # brightness of the trigger
RECIPE = uw.GradCos()


def digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))[: TRAIN + QUERIES]
    return x[order] / 16, y[order]


def fitted(x: np.ndarray, y: np.ndarray, **parts: Any) -> tuple[Any, uw.Examples]:
    train = uw.Examples(x, y, **parts)
    return uw.explainable(LogisticRegression(max_iter=1000, tol=1e-6).fit(x, y, train.weights), train), train


def backdoored(seed: int = 0) -> tuple[Any, uw.Examples, uw.Examples, np.ndarray, np.ndarray]:
    """Ten fours with a trigger are labelled 9, and three queries have it: (model, train, queries, poisons, targets)."""
    x, y = digits(seed)
    poisons = np.flatnonzero(y[:TRAIN] == 4)[:10]
    targets = np.flatnonzero(y[TRAIN:] == 4)[:3]
    for rows in (poisons, TRAIN + targets):
        x[rows, :8:7] = MARK
    labels = y[:TRAIN].copy()
    labels[poisons] = 9
    model, train = fitted(x[:TRAIN], labels)
    queries = uw.Examples(x[TRAIN:], y[TRAIN:], ids=[f"q{i}" for i in range(QUERIES)])
    return model, train, queries, poisons, targets


@pytest.fixture(scope="module")
def searched() -> tuple[uw.Poisoned, np.ndarray, list[str]]:
    model, train, queries, poisons, targets = backdoored()
    predicted = np.array(model.predict(queries).predicted)[targets]
    assert (predicted == 9).all()
    return uw.poisoned(model, train, queries, RECIPE), poisons, [f"q{i}" for i in targets]


def test_targets_are_the_heaviest_queries_and_their_attackers_are_the_poisons(searched: Any) -> None:
    result, poisons, targets = searched
    assert {suspect.id for suspect in result.suspects[:10]} >= set(targets)
    assert set(targets) <= set(result.flagged) and len(result.flagged) <= 0.06 * QUERIES
    for target in targets:
        strongest = [attribution.id for attribution in result.of(target).attackers[:8]]
        assert len(set(strongest) & set(poisons.tolist())) >= 7
        assert result.of(target).attackers[0].score == result.of(target).z.max()


def test_removal_gives_a_target_its_label_back_and_keeps_the_accuracy(searched: Any) -> None:
    result, poisons, targets = searched
    confirmed = [target for target in targets if target in result.targets]
    assert confirmed
    for target in confirmed:
        suspect = result.of(target)
        assert suspect.mitigation.label != 9 and suspect.mitigation.control == suspect.predicted == 9
        assert suspect.sentence.endswith("still 9 without as many random ones.")
    for suspect in result.suspects:
        if suspect.mitigation is not None:
            others = len(result.removed) - len(suspect.removed)
            assert suspect.mitigation.others == others
            assert (f"and {others:,} that were removed for others" in suspect.sentence) == (
                others > 0 and bool(suspect.removed) and suspect.mitigation.changed
            )
            after = result.model.predict(result.queries.select([suspect.id]))
            assert suspect.mitigation.label == after.predicted[0]
            assert suspect.mitigation.probability == pytest.approx(after.probabilities.max())
    assert len(set(result.removed) & set(poisons.tolist())) >= 0.7 * len(result.removed)
    before, after = result.accuracy
    assert after >= before - 0.02
    weights = np.ones(TRAIN)
    weights[result.train.positions(list(result.removed))] = 0
    again = uw.retrain(backdoored()[0], result.train, weights)
    np.testing.assert_allclose(again.measure(result.queries), result.model.measure(result.queries))


def test_clean_queries_are_flagged_about_as_often_as_the_level_says() -> None:
    shares = []
    for seed in range(4):
        x, y = digits(seed)
        model, train = fitted(x[:TRAIN], y[:TRAIN])
        result = uw.poisoned(model, train, uw.Examples(x[TRAIN:], y[TRAIN:]), RECIPE, targets=0)
        shares.append(len(result.flagged) / QUERIES)
        assert result.model is None and result.removed == () and result.accuracy == (None, None)
    assert np.mean(shares) <= 0.03


def test_with_clean_queries_a_share_of_at_most_the_level_is_flagged() -> None:
    rng = np.random.default_rng(0)
    for level in (0.01, 0.1):
        flagged = [np.mean(tail_probabilities(rng.random(400), rng.random(299)) <= level) for _ in range(200)]
        assert np.mean(flagged) == pytest.approx(level, rel=0.15)
    clean = rng.random(999)
    assert tail_probabilities(np.array([1e9]), clean)[0] == pytest.approx(1 / 1000)


@pytest.mark.parametrize("tail", ["exponential", "longer", "shorter"])
def test_the_expected_number_of_flags_follows_the_tail_of_clean_queries(tail: str) -> None:
    rng, level, expected, flags = np.random.default_rng(0), 0.01, [], []
    for _ in range(200):
        logs = rng.exponential(size=600)
        upper = logs > np.log(10)  # the upper tenth has another scale
        logs[upper] += {"exponential": 0.0, "longer": 1.0, "shorter": -0.5}[tail] * (logs[upper] - np.log(10))
        heaviness = np.expm1(logs)
        flags.append((tail_probabilities(heaviness, None) <= level).sum())
        expected.append(flagged_by_chance(heaviness, level, None))
    assert np.mean(expected) == pytest.approx(np.mean(flags), rel=0.15, abs=0.3)
    assert {"longer": np.mean(flags) > 15, "shorter": np.mean(flags) < 2}.get(tail, True)
    assert flagged_by_chance(heaviness[:50], level, None) is None and flagged_by_chance(heaviness, 0.2, None) is None
    assert flagged_by_chance(heaviness, level, heaviness) == pytest.approx(6.0)


def test_the_expected_number_of_flags_is_told() -> None:
    x, y = digits(0)
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    result = uw.poisoned(model, train, uw.Examples(x[TRAIN:], y[TRAIN:]), RECIPE, targets=0)
    assert result.by_chance == pytest.approx(len(result.flagged), abs=6)
    assert "If all 300 queries were clean, about" in result.diagnostics["notes"][0]
    assert "by chance" in repr(result) and result.as_dict()["flagged_by_chance"] == result.by_chance


def test_scores_are_about_the_predicted_label_whatever_the_labels_of_queries() -> None:
    model, train, queries, _, targets = backdoored()
    labelled = uw.poisoned(model, train, queries, RECIPE, targets=0)
    without = uw.poisoned(model, train, queries.replaced(y=None), RECIPE, targets=[f"q{targets[0]}"])
    assert [s.id for s in labelled.suspects] == [s.id for s in without.suspects]
    assert without.accuracy == (None, None) and without.of(f"q{targets[0]}").label is None
    assert without.of(f"q{targets[0]}").mitigation.label != 9


def test_an_example_of_weight_two_is_two_copies_and_of_weight_zero_none() -> None:
    x, y = digits(0)
    weights = np.random.default_rng(0).integers(0, 3, TRAIN)
    copies = np.repeat(np.arange(TRAIN), weights)
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    heavy = []
    for rows, parts in ((np.arange(TRAIN), {"weights": weights}), (copies, {})):
        model, train = fitted(x[rows], y[rows], **parts)
        result = uw.poisoned(model, train, queries, RECIPE, targets=0)
        heavy.append({suspect.id: suspect.heaviness for suspect in result.suspects})
    assert [heavy[0][i] for i in range(QUERIES)] == pytest.approx([heavy[1][i] for i in range(QUERIES)], rel=1e-3)


def test_a_query_in_the_training_set_is_not_attacked_by_itself() -> None:
    x, y = digits(0)
    x[TRAIN] = x[7]
    x[TRAIN + 1] = x[8] = x[9]
    y[TRAIN] = y[7]
    y[TRAIN + 1] = y[8] = y[9]
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    result = uw.poisoned(model, train, queries, RECIPE, targets=0)
    assert any("2 of 300 queries are in the training set ([0, 1])" in w for w in result.diagnostics["warnings"])
    named = uw.poisoned(model, train, queries, RECIPE, targets=[0, 1])
    assert named.of(0).z[7] == named.of(1).z[8] == named.of(1).z[9] == -np.inf


def test_copies_of_a_query_that_are_labelled_otherwise_are_what_attacks_it() -> None:
    x, y = digits(0)
    copies = np.flatnonzero(y[:TRAIN] == y[TRAIN])[:6]
    x[copies], y[copies] = x[TRAIN], (y[TRAIN] + 1) % 10
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    assert np.array(model.predict(queries).predicted)[0] == y[copies[0]]
    suspect = uw.poisoned(model, train, queries, RECIPE, targets=[0]).of(0)
    assert suspect.is_target and {attribution.id for attribution in suspect.attackers[:6]} == set(copies.tolist())
    unlabelled = uw.poisoned(model, train, queries.replaced(y=None), RECIPE, targets=[0]).of(0)
    assert (unlabelled.z[copies] == -np.inf).all()


def test_an_honest_query_that_is_predicted_right_is_no_target() -> None:
    x, y = digits(0)
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    right = np.flatnonzero(np.array(model.predict(queries).predicted) == queries.y)[:2].tolist()
    result = uw.poisoned(model, train, queries, RECIPE, targets=right)
    assert result.targets == [] and all(result.of(i).is_target is False for i in right)


def test_models_that_cannot_be_retrained_are_searched_and_say_so() -> None:
    torch = pytest.importorskip("torch")
    x, y = digits(0)
    net = torch.nn.Linear(64, 10).double()
    with torch.no_grad():
        net.weight.copy_(torch.as_tensor(LogisticRegression(max_iter=1000, tol=1e-2).fit(x[:TRAIN], y[:TRAIN]).coef_))
    loss = lambda net, batch: torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")  # noqa: E731
    model, train = uw.TorchModel(net, loss), uw.Examples(x[:TRAIN], y[:TRAIN])
    result = uw.poisoned(model, train, uw.Examples(x[TRAIN:]), RECIPE)
    assert any("cannot be retrained" in note for note in result.diagnostics["notes"])
    assert all(suspect.mitigation is None for suspect in result.suspects)


def test_nothing_is_removed_if_training_does_not_give_the_prediction() -> None:
    torch = pytest.importorskip("torch")
    x, y = digits(0)

    def net(sign: float) -> Any:
        linear = torch.nn.Linear(64, 10).double()
        with torch.no_grad():
            linear.weight.copy_(
                sign * torch.as_tensor(LogisticRegression(max_iter=1000, tol=1e-2).fit(x[:300], y[:300]).coef_)
            )
        return linear

    loss = lambda net, batch: torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")  # noqa: E731
    model = uw.TorchModel(net(1.0), loss, training=lambda weights, seed: net(-1.0))
    result = uw.poisoned(model, uw.Examples(x[:TRAIN], y[:TRAIN]), uw.Examples(x[TRAIN:]), RECIPE, targets=[3])
    assert result.removed == () and result.targets == []
    assert "does not predict for [3] what the model predicts" in result.diagnostics["warnings"][-1]


def test_a_net_with_one_output_is_searched_by_its_two_labels() -> None:
    torch = pytest.importorskip("torch")
    x, y = digits(0)
    y = (y % 2).astype(np.float32)
    net = torch.nn.Linear(64, 1).double()
    loss = lambda net, batch: torch.nn.functional.binary_cross_entropy_with_logits(  # noqa: E731
        net(batch.x)[:, 0], batch.y.double(), reduction="none"
    )
    model, train = uw.TorchModel(net, loss), uw.Examples(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    result = uw.poisoned(model, train, queries, RECIPE, targets=0)
    positive = np.asarray(model.predict(queries).predicted) > 0
    assert [result.of(i).predicted for i in range(QUERIES)] == positive.astype(float).tolist()


def test_deep_knn_flags_examples_whose_neighbours_have_another_label() -> None:
    model, train, *_ = backdoored()
    x, y = np.asarray(train.x), train.y
    for k in (5, 20):
        flagged = []
        for i in range(TRAIN):
            order = np.argsort(((x - x[i]) ** 2).sum(axis=1), kind="stable")
            votes = np.bincount(y[order[order != i][:k]], minlength=10)
            if votes[y[i]] < votes.max():
                flagged.append(i)
        result = uw.deep_knn(model, train, k=k)
        assert result.flagged.tolist() == flagged and result.weights.sum() == TRAIN - len(flagged)
    assert uw.deep_knn(model, train).k == min(50, int(np.bincount(y).min()))


def test_deep_knn_warns_of_classes_that_are_outvoted() -> None:
    x, y = digits(0)
    y = np.where(np.arange(len(y)) < 4, 17, y)
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    assert "flagged as a whole: 17; pass a smaller k" in uw.deep_knn(model, train, k=20).diagnostics["warnings"][0]
    assert uw.deep_knn(model, train).diagnostics["warnings"] == []
    with pytest.raises(ValueError, match="expected fewer neighbours than the 500 training examples, got k 500"):
        uw.deep_knn(model, train, k=500)


def test_what_cannot_be_searched_is_refused_or_marked_in_a_sentence() -> None:
    x, y = digits(0)
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[TRAIN:], y[TRAIN:])
    few = uw.poisoned(model, train, queries.take(range(5)), RECIPE)
    assert few.flagged == [] and "there are 5 queries, and 40 are needed" in few.diagnostics["warnings"][0]
    some = uw.poisoned(model, train, queries, RECIPE, fit=uw.FIT(clean=queries.take(range(20))), targets=0)
    assert some.flagged == [] and "with 20 clean queries; pass at least 99" in some.diagnostics["warnings"][0]
    with pytest.raises(KeyError, match="no example has the id 'nobody'"):
        uw.poisoned(model, train, queries, RECIPE, targets=["nobody"])
    with pytest.raises(ValueError, match="expected k of at least 1"):
        uw.FIT(k=0)
    with pytest.raises(ValueError, match="expected a level between 0 and 1, got 2"):
        uw.FIT(level=2)
    with pytest.raises(ValueError, match="expected a level between 0 and 1, got 'low'"):
        uw.FIT(level="low")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got 'q3'; pass targets=\['q3'\]"):
        uw.poisoned(model, train, queries, RECIPE, targets="q3")
    large = uw.poisoned(model, train, queries, RECIPE, fit=uw.FIT(k=400), targets=0).diagnostics
    assert ["have fewer than 400 training examples" in warning for warning in large["warnings"]] == [True]
    assert not any("would be flagged" in note for note in large["notes"])
    with pytest.raises(ValueError, match="expected targets of at least 0"):
        uw.poisoned(model, train, queries, RECIPE, targets=-1)
    with pytest.raises(TypeError, match="GAS needs a model that is Checkpointed"):
        uw.poisoned(model, train, queries, uw.GAS())
    with pytest.raises(ValueError, match="at least two classes among the training labels, got only 3"):
        uw.poisoned(model, train.replaced(y=np.full(TRAIN, 3)), queries)
    with pytest.raises(ValueError, match="needs the labels of the training set"):
        uw.poisoned(model, train.replaced(y=None), queries)
    measured = uw.explainable(LogisticRegression(max_iter=1000, tol=1e-6).fit(train.x, train.y), train, measure=np.max)
    with pytest.raises(ValueError, match="measures −loss or the margin of a label"):
        uw.poisoned(measured, train, queries)
    target = x[:TRAIN] @ np.ones(64)
    numbers = uw.Examples(x[:TRAIN], target)
    with pytest.raises(ValueError, match="regression has no label"):
        uw.poisoned(uw.explainable(Ridge().fit(x[:TRAIN], target), numbers), numbers, queries)


def test_labels_with_few_training_examples_are_not_flagged_but_named() -> None:
    x, y = digits(0)
    y = np.where((np.arange(len(y)) < TRAIN) & (y == 1) & (np.cumsum(y == 1) > 5), 2, y)
    model, train = fitted(x[:TRAIN], y[:TRAIN])
    queries = uw.Examples(x[:TRAIN] + 1e-9, y[:TRAIN], ids=[f"q{i}" for i in range(TRAIN)])
    result = uw.poisoned(model, train, queries, RECIPE, targets=0)
    assert any("predicted as [1] cannot be flagged" in warning for warning in result.diagnostics["warnings"])
    assert all(suspect.heaviness == 0 for suspect in result.suspects if suspect.predicted == 1)
