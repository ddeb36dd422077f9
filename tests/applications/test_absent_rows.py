"""Uses of scores on training sets with rows of weight 0: as if those were not there."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import upweight as uw
from upweight.applications.groups import groups_of

N = 90
WEIGHTS = np.where(np.arange(N) % 9 < 2, 0.0, 1.0)  # the first two rows, and others
THERE = np.flatnonzero(WEIGHTS)


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N + 20, 3))
    y = (x[:, 0] + 0.7 * rng.normal(size=N + 20) > 0).astype(int)
    return x, y, np.where(rng.random(N) < 0.4, "north", "south")


def linear() -> tuple[Any, uw.Examples, Any, uw.Examples, uw.Examples]:
    """(model, weighted set, model, set without rows of weight 0, queries), ids alike."""
    x, y, _ = data()
    estimator = LogisticRegression(tol=1e-10, max_iter=5000).fit(x[:N], y[:N], WEIGHTS)
    train = uw.Examples(x[:N], y[:N], names=list("abc"), weights=WEIGHTS)
    some = uw.Examples(x[THERE], y[THERE], ids=THERE, names=list("abc"))
    queries = uw.Examples(x[N:], y[N:], ids=np.arange(N, N + 20), names=list("abc"))
    return uw.explainable(estimator, train), train, uw.explainable(estimator, some), some, queries


def test_suspects_are_those_of_the_set_without_absent_rows() -> None:
    model, train, other, some, queries = linear()
    ours, theirs = (uw.mislabeled(m, t, budget=0.2, evaluation=queries) for m, t in ((model, train), (other, some)))
    assert ours.ids.tolist() == theirs.ids.tolist() and len(ours.ids) == round(0.2 * len(THERE))
    np.testing.assert_allclose(ours.score[THERE], theirs.score, rtol=1e-6)
    np.testing.assert_allclose(ours.harm, theirs.harm, rtol=1e-6)
    assert ours.suggested == theirs.suggested and ours.notes == theirs.notes
    assert (ours.score[WEIGHTS == 0] == ours.score.min()).all()
    assert (ours.self_influence[WEIGHTS == 0] == 0).all()
    assert ours.as_dict()["suspects"]


def test_a_model_without_gradients_has_suspects_too() -> None:
    x, y, _ = data()
    train = uw.Examples(x[:N], y[:N], weights=WEIGHTS)
    estimator = GradientBoostingClassifier(n_estimators=5, max_depth=2, random_state=0)
    model = uw.explainable(estimator.fit(x[:N], y[:N], sample_weight=WEIGHTS), train)
    suspects = uw.mislabeled(model, train, budget=10)
    assert len(suspects.ids) == 10 and (WEIGHTS[suspects.ids] > 0).all() and np.isfinite(suspects.score).all()


def test_slices_have_no_absent_rows_in_their_groups() -> None:
    model, train, other, some, queries = linear()
    _, _, site = data()
    failing = {"some": queries.ids[:7]}
    ours = uw.slices(model, train, queries, {"site": site}, failing, refits=2)
    theirs = uw.slices(other, some, queries, {"site": site[THERE]}, failing, refits=2)
    assert ours.groups.names == theirs.groups.names
    assert [len(m) for m in ours.groups.members] == [len(m) for m in theirs.groups.members]
    np.testing.assert_allclose(ours.effects, theirs.effects, rtol=1e-6)
    np.testing.assert_allclose(ours.actual, theirs.actual, rtol=1e-6)
    numbers = groups_of(train, ["a"], 2, classes=True)
    assert sum(map(len, numbers.members)) == len(THERE)


def test_what_if_sees_no_absent_row() -> None:
    model, train, other, some, queries = linear()
    place = int(THERE[5])
    changes = {"one": uw.Change(remove=[place]), "other label": uw.Change(relabel={place: 1 - int(train.y[place])})}
    ours, theirs = (uw.what_if(m, t, queries, changes) for m, t in ((model, train), (other, some)))
    np.testing.assert_allclose(ours.predicted, theirs.predicted, rtol=1e-6, atol=1e-9)
    nothing = {"gone": uw.Change(remove=[0]), "label": uw.Change(relabel={0: 1 - int(train.y[0])})}
    assert np.abs(uw.what_if(model, train, queries, nothing, calibrate=0).predicted).max() < 1e-9
    with pytest.raises(ValueError, match=f"removing all {len(THERE)} training examples"):
        uw.what_if(model, train, queries, uw.Change(remove=THERE.tolist()))


@pytest.mark.parametrize("weights", [WEIGHTS, np.where(np.arange(N) == 4, 5.0, 1.0)], ids=["absent", "copies"])
def test_features_of_weighted_rows_move_predictions_by_their_weight(weights: np.ndarray) -> None:
    x, y, _ = data()
    rows = np.repeat(np.arange(N), weights.astype(int))
    estimator = LogisticRegression(tol=1e-10, max_iter=5000).fit(x[:N], y[:N], weights)
    sets = uw.Examples(x[:N], y[:N], weights=weights), uw.Examples(x[rows], y[rows])
    queries = uw.Examples(x[N:], y[N:], ids=np.arange(N, N + 20))
    ours, theirs = (uw.perturb(uw.explainable(estimator, t), t, queries, examples=t.ids) for t in sets)
    added = np.stack([theirs.gradients[:, rows == i].sum(axis=1) for i in range(N)], axis=1)
    np.testing.assert_allclose(ours.gradients, added, atol=1e-9 * np.abs(added).max())


def test_a_network_is_followed_with_absent_rows() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    loss = lambda net, b: F.cross_entropy(net(b.x), b.y, reduction="none")  # noqa: E731
    model = uw.TorchModel(net, loss, objective=uw.Objective("mean", l2=0.05))
    x, y, site = data()
    train, queries = uw.Examples(x[:N], y[:N], weights=WEIGHTS), uw.Examples(x[N:], y[N:], ids=np.arange(N, N + 20))
    some = uw.Examples(x[THERE], y[THERE], ids=THERE)
    ours, theirs = (uw.perturb(model, t, queries, k=3) for t in (train, some))
    assert ours.example_ids.tolist() == theirs.example_ids.tolist()
    np.testing.assert_allclose(ours.gradients, theirs.gradients, rtol=1e-6)
    pairs = ((train, site), (some, site[THERE]))
    with_rows, without = (uw.slices(model, t, queries, {"site": s}, queries.ids[:5], refits=0) for t, s in pairs)
    np.testing.assert_allclose(with_rows.effects, without.effects, rtol=1e-6)
