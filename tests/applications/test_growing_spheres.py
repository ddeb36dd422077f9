"""Growing spheres against brute force: distances to planes and boxes, all combinations of categories, undoing."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import upweight as uw
from upweight.applications.growing_spheres import _Search
from upweight.applications.interpretable.columns import Columns
from upweight.applications.interpretable.mixed_space import MixedSpace


def plane(dimensions: int = 2) -> tuple[Any, uw.Examples, uw.Examples]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, dimensions)) * np.arange(1, dimensions + 1)
    y = np.where(x @ np.ones(dimensions) + 0.3 * rng.normal(size=300) > 0, "up", "down")
    train, queries = uw.Examples(x[:250], y[:250]), uw.Examples(x[250:], y[250:])
    return uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train), train, queries


class Rule(uw.Measurable):
    """A classifier by a function of the inputs that returns truth values."""

    measurement = "anything"

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def measure(self, queries: uw.Examples) -> Any:
        return np.asarray(self.rule(queries.x), dtype=float)

    def predict(self, examples: uw.Examples) -> uw.Predictions:
        return uw.Predictions(tuple("yes" if value else "no" for value in self.rule(examples.x)), ("no", "yes"))


@pytest.mark.parametrize("place", range(5))
def test_the_enemy_of_a_linear_model_is_as_near_as_the_plane(place: int) -> None:
    model, train, queries = plane()
    query = queries.take([place])
    fitted = LogisticRegression(tol=1e-8).fit(train.x, train.y)
    slope = fitted.coef_[0] * train.x.std(axis=0)
    exact = float(abs(fitted.decision_function(query.x)[0]) / np.linalg.norm(slope))
    result = uw.growing_spheres(model, query, train)
    assert exact <= result.distance_before <= 1.12 * exact
    assert result.distance <= result.distance_before and result.enemy_predicted != result.predicted
    assert model.predict(result.enemy).predicted == (result.enemy_predicted,)
    moved = np.linalg.norm((result.enemy.x[0] - query.x[0]) / train.x.std(axis=0))
    assert result.distance == pytest.approx(moved)


def test_a_query_close_to_the_boundary_has_a_smaller_first_ball() -> None:
    model, train, _ = plane()
    estimator = LogisticRegression(tol=1e-8).fit(train.x, train.y)
    slope = estimator.coef_[0]
    on_plane = -estimator.intercept_[0] * slope / (slope @ slope)
    query = uw.Examples((on_plane + 1e-5 * slope)[None])
    exact = 1e-5 * slope @ slope / np.linalg.norm(slope * train.x.std(axis=0))
    result = uw.growing_spheres(model, query, train)
    assert exact <= result.distance_before <= 1.12 * exact


def test_the_enemy_of_a_box_is_the_nearest_of_a_fine_grid() -> None:
    rng = np.random.default_rng(1)
    train = uw.Examples(rng.uniform(-3, 3, size=(200, 2)))
    model = Rule(lambda x: (x[:, 0] > 1) & (np.abs(x[:, 1] - 1) < 0.7))
    query = uw.Examples(np.array([[-0.5, -1.0]]))
    grid = np.stack(np.meshgrid(*[np.linspace(-3, 3, 801)] * 2), axis=-1).reshape(-1, 2)
    inside = grid[model.rule(grid)]
    exact = np.sqrt((((inside - query.x[0]) / train.x.std(axis=0)) ** 2).sum(axis=1)).min()
    result = uw.growing_spheres(model, query, train, spheres=uw.Spheres(samples=5000))
    assert 0.99 * exact <= result.distance <= 1.1 * exact


def test_changes_are_undone_one_by_one_the_smallest_first_where_the_row_remains_an_enemy() -> None:
    model, train, queries = plane(6)
    rng, scale = np.random.default_rng(0), train.x.std(axis=0)
    for place in range(4):
        query = queries.take([place])
        own = model.predict(query).predicted[0]
        search = _Search(model, query, train, None, uw.Spheres())
        near = search.nearest(uw.Spheres(), np.random.default_rng(0))
        far = query.x + 2 * scale * rng.normal(size=(40, 6))
        enemies = far[[predicted != own for predicted in model.predict(uw.Examples(far)).predicted]]
        for enemy in (near, *enemies[:5]):
            expected = enemy.copy()
            for j in sorted(range(6), key=lambda j: abs(enemy[j] - query.x[0, j]) / scale[j]):
                trial = expected.copy()
                trial[j] = query.x[0, j]
                if model.predict(uw.Examples(trial[None])).predicted[0] != own:
                    expected = trial
            np.testing.assert_allclose(search.sparsified(enemy), expected)
        result = uw.growing_spheres(model, query, train)
        np.testing.assert_allclose(result.enemy.x[0], search.sparsified(near))
        assert result.changed_before == 6 and len(result.changes) == np.count_nonzero(result.enemy.x != query.x)
        assert [c.size for c in result.changes] == sorted((c.size for c in result.changes), reverse=True)


def test_of_categories_as_few_are_changed_as_of_all_combinations() -> None:
    rng = np.random.default_rng(0)
    names = ["cap", "gill", "ring", "odour"]
    frame = pd.DataFrame(rng.choice(list("abc"), size=(300, 4)), columns=names)

    def rule(x: Any) -> Any:
        return ((x["cap"] == "a") & (x["gill"] == "b")) | ((x["ring"] == "c") & (x["odour"] == "c") & (x["cap"] == "b"))

    train, model = uw.Examples(frame), Rule(rule)
    combinations = pd.DataFrame(list(itertools.product("abc", repeat=4)), columns=names)
    for position in range(12):
        query = train.take([position])
        own = bool(rule(query.x).iloc[0])
        others = combinations[rule(combinations) != own]
        fewest = (others != query.x.iloc[0]).sum(axis=1).min()
        result = uw.growing_spheres(model, query, train)
        assert len(result.changes) == fewest and result.distance == pytest.approx(np.sqrt(fewest))
        assert all(change.after in "abc" and change.size == 1 for change in result.changes)


def mixed(form: Any = lambda frame: frame) -> tuple[Any, uw.Examples, uw.Examples]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 300),
            "pay": rng.lognormal(10, 0.4, 300),
            "job": pd.Categorical(rng.choice(["nurse", "cook", "clerk"], 300)),
            "owner": rng.random(300) < 0.4,
        }
    )
    y = (frame["age"] / 20 + frame["pay"] / 10_000 + 2 * (frame["job"] == "cook") > 6).astype(int).to_numpy()
    columns = make_column_transformer((OneHotEncoder(), ["job", "owner"]), (StandardScaler(), ["age", "pay"]))
    estimator = make_pipeline(columns, LogisticRegression(max_iter=2000, tol=1e-8))
    train, queries = uw.Examples(form(frame[:280]), y[:280]), uw.Examples(form(frame[280:]), y[280:])
    return uw.explainable(estimator.fit(train.x, train.y), train), train, queries


def test_an_enemy_is_a_row_of_the_user_s_own_frame() -> None:
    model, train, queries = mixed()
    for place in (1, 5):
        result = uw.growing_spheres(model, queries.take([place]), train, spheres=uw.Spheres(samples=100))
        enemy = result.enemy.x
        assert enemy.dtypes.to_dict() == train.x.dtypes.to_dict() and list(enemy.columns) == list(train.x.columns)
        assert train.x["age"].min() <= enemy["age"].iloc[0] <= train.x["age"].max()
        changed = [name for name in enemy if enemy[name].iloc[0] != queries.x[name].iloc[place]]
        assert sorted(change.name for change in result.changes) == sorted(changed)
        for change in result.changes:
            assert (change.before, change.after) == (queries.x[change.name].iloc[place], enemy[change.name].iloc[0])
        assert model.predict(result.enemy).predicted[0] == result.enemy_predicted != result.predicted


def test_values_of_changes_are_plain_whatever_the_columns_hold() -> None:
    frame = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=4).repeat(3), "size": np.arange(12) / 3})
    train = uw.Examples(frame)
    result = uw.growing_spheres(Rule(lambda x: x["day"] > "2020-01-02"), train.take([0]), train)
    (change,) = result.changes
    assert change.name == "day" and change.before == "2020-01-01 00:00:00" and change.after > "2020-01-02"
    assert result.enemy.x["day"].dtype == frame["day"].dtype and json.dumps(result.as_dict())


def test_polars_and_pandas_have_the_same_enemy() -> None:
    results = []
    for form in (lambda frame: frame, polars.from_pandas):
        model, train, queries = mixed(form)
        results.append(uw.growing_spheres(model, queries.take([2]), train, spheres=uw.Spheres(samples=100)).changes)
    assert results[0] == results[1]


def test_training_enemies_are_the_nearest_that_the_model_predicts_otherwise() -> None:
    model, train, queries = mixed()
    query = queries.take([1])
    result = uw.growing_spheres(model, query, train, k=4, spheres=uw.Spheres(samples=100))
    own = model.predict(query).predicted[0]
    predicted, row = model.predict(train).predicted, query.x.iloc[0]
    distances = np.sqrt(
        sum(((train.x[c] - row[c]) / train.x[c].std(ddof=0)) ** 2 for c in ("age", "pay"))
        + sum((train.x[c] != row[c]).astype(float) for c in ("job", "owner"))
    )
    nearest = sorted((i for i in range(280) if predicted[i] != own), key=lambda i: distances[i])[:4]
    assert [enemy.id for enemy in result.training] == nearest
    np.testing.assert_allclose([enemy.distance for enemy in result.training], distances[nearest])


def test_rows_of_a_ring_are_within_it_and_fill_it_evenly() -> None:
    rng = np.random.default_rng(0)
    numbers = uw.Examples(rng.uniform(-100, 100, size=(500, 3)))
    space = MixedSpace(Columns(numbers, uw.Examples(np.zeros((1, 3)))), np.arange(500))
    distances = space.distances(space.ring(0.5, 0.8, 20_000, rng))
    assert distances.min() >= 0.5 - 1e-9 and distances.max() <= 0.8 + 1e-9
    assert np.mean(distances < 0.7) == pytest.approx((0.7**3 - 0.5**3) / (0.8**3 - 0.5**3), abs=0.02)
    many = MixedSpace(Columns(uw.Examples(rng.normal(size=(50, 400))), uw.Examples(np.zeros((1, 400)))), np.arange(50))
    assert many.distances(many.ring(0.0, 0.1, 100, rng)).min() > 0.09
    _, train, queries = mixed()
    both = MixedSpace(Columns(train, queries.take([0])), np.arange(280))
    codes = both.ring(1.2, 1.5, 3000, rng)
    categories = (codes != both.query)[:, 2:].sum(axis=1)
    assert set(categories) == {0, 1, 2} and both.distances(codes).max() <= 1.55


def test_an_example_of_weight_0_gives_neither_range_nor_category_nor_enemy() -> None:
    frame = pd.DataFrame({"size": [1.0, 2, 3, 4, 50], "kind": ["a", "b", "a", "c", "z"]})
    train = uw.Examples(frame, weights=[1, 1, 1, 1, 0])
    model = Rule(lambda x: (x["size"] > 3.4) | (x["kind"] == "z"))
    result = uw.growing_spheres(model, train.take([0]), train)
    assert result.enemy.x["size"].iloc[0] <= 4 and [enemy.id for enemy in result.training] == [3]


def test_a_label_to_reach_and_what_has_no_enemy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = np.digitize(x[:, 0], [-0.5, 0.5])
    train = uw.Examples(x, y, labels={0: "low", 1: "middle", 2: "high"})
    model = uw.explainable(LogisticRegression(C=100, tol=1e-8).fit(x, y), train)
    query = uw.Examples(np.array([[-1.5, 0.0]]), [0], labels=train.labels)
    assert uw.growing_spheres(model, query, train).enemy_predicted == "middle"
    high = uw.growing_spheres(model, query, train, label="high")
    assert high.enemy_predicted == "high" and high.training[0].predicted == "high"
    assert high.as_dict() == uw.growing_spheres(model, query, train, label=2).as_dict()
    assert high.changes[0].name == "x0"
    with pytest.raises(ValueError, match="found no row of another label"):
        uw.growing_spheres(Rule(lambda x: x[:, 0] > 1e9), query, train, spheres=uw.Spheres(samples=20))


def test_pictures_of_numbers_keep_their_shape_and_a_nearer_training_example_is_named() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5, 8))
    train, model = uw.Examples(x), Rule(lambda x: x.reshape(len(x), -1).sum(axis=1) > 4)
    query = uw.Examples(x[:1] - x[:1].mean())
    result = uw.growing_spheres(model, query, train, spheres=uw.Spheres(samples=50))
    assert result.enemy.x.shape == (1, 5, 8) and model.predict(result.enemy).predicted == ("yes",)
    near = query.x + 0.01 * np.eye(5, 8)
    slab = Rule(lambda x: model.rule(x) | (np.abs(x - near).reshape(len(x), -1).max(axis=1) < 1e-9))
    (warning,) = uw.growing_spheres(slab, query, uw.Examples(np.concatenate([x, near]))).diagnostics["warnings"]
    assert warning.startswith("Training example 60 is a nearer enemy") and not result.diagnostics["warnings"]


def test_bad_input_is_refused_in_one_sentence() -> None:
    model, train, queries = mixed()
    query, x = queries.take([0]), np.random.default_rng(0).normal(size=(30, 2))
    target = x[:, 0] + np.arange(30) % 3
    numbers = uw.explainable(LinearRegression().fit(x, target), uw.Examples(x, target))
    texts, infinite = uw.Examples(["a text", "another"]), uw.Examples(np.array([[1, np.inf], [2, 3], [1, 4]]))
    words, rule = Rule(lambda x: np.array([len(t) > 6 for t in x])), Rule(lambda x: x[:, 0] > 1)
    one = infinite.take([1])
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "expected one query, got 20", lambda: uw.growing_spheres(model, queries, train)),
        (ValueError, "got texts", lambda: uw.growing_spheres(words, texts.take([0]), texts)),
        (ValueError, "infinite ones in column 'x1'", lambda: uw.growing_spheres(rule, infinite.take([1]), infinite)),
        (ValueError, "has no enemies", lambda: uw.growing_spheres(numbers, uw.Examples(x[:1]), uw.Examples(x))),
        (ValueError, "expected one of the other labels", lambda: uw.growing_spheres(model, query, train, label=7)),
        (ValueError, "k of at least 1", lambda: uw.growing_spheres(model, query, train, k=0)),
        (ValueError, "a radius above 0", lambda: uw.Spheres(radius=0.0)),
        (ValueError, "samples of at least 1", lambda: uw.Spheres(samples=0)),
        (ValueError, "columns of the training", lambda: uw.growing_spheres(rule, one, uw.Examples(x[:, :1]))),
        (TypeError, "Measurable", lambda: uw.growing_spheres("model", query, train)),
    ]
    for error, words_of, call in cases:
        with pytest.raises(error, match=words_of) as raised:
            call()
        assert "\n" not in str(raised.value)
