"""Which training groups caused a slice: effects against real refits, and slices that do not exist."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.network_families import cross_entropy, mlp
from upweight.applications.groups import groups_of


@cache
def hospital():
    """Few children, three of four of them readmitted in training: adults teach the model, children fail by them."""
    rng = np.random.default_rng(0)
    child = np.zeros(600, dtype=bool)
    child[:4] = child[400:430] = True
    stay = rng.normal(size=600)
    y = (stay + rng.normal(size=600) > 0).astype(int)
    y[:4], y[400:430] = [1, 1, 1, 0], 0
    site = np.where(rng.random(600) < 0.5, "north", "south")
    frame = pd.DataFrame({"stay": stay, "child": child.astype(float), "noise": rng.normal(size=600)})
    train = uw.Examples(frame.iloc[:400], y[:400], labels={0: "home", 1: "readmitted"})
    queries = uw.Examples(frame.iloc[400:], y[400:], labels={0: "home", 1: "readmitted"})
    model = uw.explainable(LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(train.x, train.y), train)
    return model, train, queries, site[:400]


def test_the_children_are_to_blame_for_the_children():
    model, train, queries, site = hospital()
    children = queries.x["child"].to_numpy() == 1
    ages = np.where(train.x["child"] == 1, "child", "adult")
    slices = uw.slices(model, train, queries, uw.Slicing({"age": ages, "site": site}, {"children": children}))
    assert slices.worst("children", k=1)[0][0] == "age = child"
    row = slices.groups.names.index("age = child")
    alone = LogisticRegression(C=10, tol=1e-10, max_iter=10_000).fit(train.x[4:], train.y[4:])
    children_queries = queries.take(children)
    truth = (
        model.predictor.predict_log_proba(children_queries.x)[:, 0] - alone.predict_log_proba(children_queries.x)[:, 0]
    )
    np.testing.assert_allclose(slices.actual[row, 0], truth.mean(), rtol=1e-3)
    np.testing.assert_allclose(slices.effects[row, 0], truth.mean(), rtol=1e-3)
    expected = int((model.predictor.predict(children_queries.x) != alone.predict(children_queries.x)).sum())
    assert slices.flips[row, 0] == expected > 0
    assert (slices.low <= slices.effects).all() and (slices.effects <= slices.high).all()
    assert json.loads(json.dumps(slices.as_dict(), allow_nan=False))["effects"][0]["group"] == "age = child"


def test_columns_by_name_and_mistakes_by_default():
    model, train, queries, _ = hospital()
    slices = uw.slices(model, train, queries, ["child", "stay", "label"], removals=3)
    assert "a whole class" in slices.diagnostics["warnings"][-1] and ": 2." in slices.diagnostics["warnings"][-1]
    assert list(slices.slices) == ["mistakes"]
    wrong = [i for i, p in zip(queries.ids, model.predict(queries).predicted, strict=True) if p != queries.label(i)]
    assert sorted(slices.slices["mistakes"]) == sorted(wrong)
    assert {"child = 1", "child = 0"} <= set(slices.groups.names)
    assert sum(name.startswith("stay") for name in slices.groups.names) == 5
    assert sum(len(m) for n, m in zip(slices.groups.names, slices.groups.members, strict=True) if "stay" in n) == 400
    assert np.isfinite(slices.actual).sum() == 3
    retrained = np.isfinite(slices.actual)
    np.testing.assert_allclose(slices.effects[retrained], slices.actual[retrained], rtol=1e-3)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Categorical(["a", "b", None] * 100 + ["a"] * 100), {"= a": 200, "= b": 100, "= missing": 100}),
        (pd.array([1, 2, None, 2] * 100, dtype="Int64"), {"= 1": 100, "= 2": 200, "= missing": 100}),
        (np.array(["a", None, "b", "a"] * 100, dtype=object), {"= a": 200, "= b": 100, "= missing": 100}),
        (np.array([0.5, np.nan, 1.0, 0.5] * 100), {"= 0.5": 200, "= 1": 100, "= missing": 100}),
    ],
    ids=["categories", "nullable numbers", "objects", "floats"],
)
def test_what_is_missing_is_a_group_of_that_name(column, expected):
    _, train, _, _ = hospital()
    groups = groups_of(train, {"sort": column}, 1, classes=True)
    assert {n: len(m) for n, m in zip(groups.names, groups.members, strict=True)} == {
        f"sort {name}": size for name, size in expected.items()
    }
    amounts = groups_of(train, {"amount": pd.array([None, *range(399)], dtype="Int64")}, 1, classes=True)
    assert len(amounts.names) == 6 and len(amounts.members[-1]) == 1  # fifths, and the one that is missing


def test_intervals_widen_for_few_queries():
    model, train, queries, _ = hospital()
    few, many = queries.ids[50:55], queries.ids[50:150]
    slices = uw.slices(model, train, queries, uw.Slicing("child", {"few": few, "many": many}), removals=0)
    assert ((slices.high - slices.low)[:, 0] > (slices.high - slices.low)[:, 1]).all()
    assert np.isnan(slices.actual).all() and (slices.flips == -1).all()


def test_first_order_groups_are_sums_of_scores():
    model, train, queries, _ = hospital()
    recipe = uw.Chance()
    slices = uw.slices(model, train, queries, uw.Slicing("child", {"some": queries.ids[:5]}), recipe=recipe, removals=0)
    sums = (
        recipe.fit(model, train)
        .attribute(queries.take(range(5)))
        .group(train.x["child"].to_numpy())
        .values.mean(axis=0)
    )
    np.testing.assert_allclose(slices.effects[:, 0], sums)


def test_effects_on_a_network_that_cannot_be_retrained_are_sums_of_scores():
    rng = np.random.default_rng(0)
    train, queries = (
        uw.Examples(rng.random((40, 64)), np.arange(40) % 3),
        uw.Examples(rng.random((9, 64)), np.arange(9) % 3),
    )
    torch.manual_seed(0)
    model = uw.TorchModel(mlp().double(), cross_entropy, objective=uw.Objective("mean", l2=0.1))
    slices = uw.slices(model, train, queries, uw.Slicing({"half": np.arange(40) < 20}, {"all": queries.ids}))
    assert slices.effects.shape == (2, 1)
    assert "Nothing was verified: this TorchModel does not say how" in slices.diagnostics["warnings"][-1]
    sums = uw.Influence().fit(model, train).attribute(queries).values[:, :20].sum(axis=1).mean()
    np.testing.assert_allclose(slices.effects[slices.groups.names.index("half = True"), 0], sums, rtol=1e-6)


def test_slices_and_groups_that_do_not_exist_are_refused():
    model, train, queries, _ = hospital()
    with pytest.raises(ValueError, match="slice 'old' matches none of the 200 queries"):
        uw.slices(model, train, queries, uw.Slicing("child", {"old": np.zeros(200, dtype=bool)}))
    with pytest.raises(ValueError, match="slice 'none' matches none"):
        uw.slices(model, train, queries, uw.Slicing("child", {"none": []}))
    with pytest.raises(ValueError, match="one entry per query"):
        uw.slices(model, train, queries, uw.Slicing("child", np.ones(3, dtype=bool)))
    with pytest.raises(KeyError, match="no example has the id -5"):
        uw.slices(model, train, queries, uw.Slicing("child", [-5]))
    with pytest.raises(KeyError, match="no column 'age'; the columns are"):
        uw.slices(model, train, queries, "age")
    with pytest.raises(ValueError, match="one value of 'age' per training example"):
        uw.slices(model, train, queries, {"age": [1, 2]})
    with pytest.raises(ValueError, match="makes a group of at least 2"):
        uw.slices(model, train, queries, {"same": np.ones(400)})
    right = queries.take(
        [p == queries.label(i) for i, p in zip(queries.ids, model.predict(queries).predicted, strict=True)]
    )
    with pytest.raises(ValueError, match="every query right"):
        uw.slices(model, train, right, "child")
    with pytest.raises(ValueError, match="removals ≥ 0"):
        uw.slices(model, train, queries, "child", removals=-1)
    slices = uw.slices(model, train, queries, uw.Slicing("child", smallest=5), removals=0)
    assert "fewer than 5" in slices.diagnostics["warnings"][-1]
    with pytest.raises(ValueError, match="expected smallest ≥ 1, got 0"):
        uw.Slicing("child", smallest=0)
