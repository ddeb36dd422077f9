"""Local models against their definitions, written out: neighbours, weights, selection, ridge regression, fidelity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

import upweight as uw


def random_neighbourhood(seed: int, d: int = 9) -> uw.Neighbourhood:
    rng = np.random.default_rng(seed)
    rows = (rng.random((300, d)) < 0.6).astype(float)
    rows[0] = 1.0
    rows[:, 1] = rows[:, 0]  # a feature that repeats another, and one that never varies
    rows[:, 2] = 1.0
    outputs = rows @ rng.normal(size=d) + rows[:, 3] * rows[:, 4] + 0.1 * rng.normal(size=300)
    return uw.Neighbourhood(rows, outputs, rng.random(300), tuple(f"f{j}" for j in range(d)))


def weighted_ridge(
    rows: np.ndarray, outputs: np.ndarray, weights: np.ndarray, alpha: float
) -> tuple[Any, float, float]:
    """Coefficients, intercept and weighted R², from the normal equations."""
    mean, middle = np.average(rows, axis=0, weights=weights), np.average(outputs, weights=weights)
    x, y = rows - mean, outputs - middle
    left = x.T @ (weights[:, None] * x) + alpha * np.eye(rows.shape[1])
    coefficients = np.linalg.lstsq(left, x.T @ (weights * y), rcond=None)[0]
    r2 = 1 - weights @ (y - x @ coefficients) ** 2 / (weights @ y**2)
    return coefficients, middle - mean @ coefficients, r2


@pytest.mark.parametrize("seed", range(3))
def test_forward_selection_takes_the_feature_that_raises_r2_most_in_every_step(seed: int) -> None:
    given = random_neighbourhood(seed)
    surrogate = uw.fit_surrogate(given, 5)
    chosen: list[int] = []
    for _ in range(5):
        free = [j for j in range(9) if j not in chosen]
        r2 = {j: weighted_ridge(given.rows[:, [*chosen, j]], given.outputs, given.weights, 0.0)[2] for j in free}
        chosen.append(max(free, key=lambda j: (round(r2[j], 12), -j)))
    assert sorted(surrogate.features.tolist()) == sorted(chosen)
    chosen = surrogate.features.tolist()
    coefficients, intercept, r2 = weighted_ridge(given.rows[:, chosen], given.outputs, given.weights, 1.0)
    np.testing.assert_allclose(surrogate.coefficients, coefficients, atol=1e-12)
    assert surrogate.intercept == pytest.approx(intercept) and surrogate.r2 == pytest.approx(r2)
    assert np.all(np.diff(np.abs(surrogate.coefficients)) <= 0)
    np.testing.assert_allclose(surrogate.predict(given.rows), intercept + given.rows[:, chosen] @ coefficients)


def test_more_than_six_features_are_those_with_the_largest_product_of_coefficient_and_value() -> None:
    given = random_neighbourhood(5)
    given.rows[0, 4:6] = 0.0
    surrogate = uw.fit_surrogate(given, 7)
    coefficients, _, _ = weighted_ridge(given.rows, given.outputs, given.weights, 0.01)
    order = np.argsort(-np.abs(coefficients * given.rows[0]), kind="stable")[:7]
    assert sorted(surrogate.features.tolist()) == sorted(order.tolist())
    assert len(uw.fit_surrogate(given, 3, "all").features) == 9
    assert list(uw.fit_surrogate(given, 1, "largest").effects) == [f"f{order[0]}"]


def test_coefficients_are_those_of_lime_on_the_neighbours_that_lime_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    lime_base = pytest.importorskip("lime.lime_base")
    from lime.lime_tabular import LimeTabularExplainer

    x, y = load_diabetes(return_X_y=True)
    classifier = LogisticRegression().fit(10 * x, y > 150)
    captured = []
    explain = lime_base.LimeBase.explain_instance_with_data

    def capture(self: Any, data: Any, labels: Any, distances: Any, label: int, number: int, **more: Any) -> Any:
        result = explain(self, data, labels, distances, label, number, **more)
        captured.append((data, labels[:, label], self.kernel_fn(distances), number, result))
        return result

    monkeypatch.setattr(lime_base.LimeBase, "explain_instance_with_data", capture)
    for quarters in (True, False):
        explainer = LimeTabularExplainer(10 * x, discretize_continuous=quarters, random_state=0)
        for number in (4, 8):
            explainer.explain_instance(10 * x[7], classifier.predict_proba, num_features=number, num_samples=500)
    assert len(captured) == 4
    for data, outputs, weights, number, (intercept, coefficients, r2, _) in captured:
        surrogate = uw.fit_surrogate(uw.Neighbourhood(data, outputs, weights, tuple(map(str, range(10)))), number)
        ours = dict(zip(surrogate.features.tolist(), surrogate.coefficients.tolist(), strict=True))
        assert ours == pytest.approx(dict(coefficients), abs=1e-8)
        assert (surrogate.intercept, surrogate.r2) == pytest.approx((intercept, r2), abs=1e-8)


def people(rows: int = 400) -> tuple[Any, uw.Examples, uw.Examples]:
    """A frame with numbers, categories, texts, truth values and missing numbers, and a model of it."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows),
            "pay": np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(10, 0.5, rows)),
            "job": pd.Categorical(rng.choice(["nurse", "cook", "clerk"], rows)),
            "town": rng.choice(["Ulm", "Bonn"], rows),
            "owner": rng.random(rows) < 0.3,
        }
    )
    y = ((frame["age"] > 40) ^ (frame["job"] == "cook") ^ (rng.random(rows) < 0.1)).astype(int).to_numpy()
    labels = {0: "no", 1: "yes"}
    train, queries = (
        uw.Examples(part.reset_index(drop=True), y[part.index], labels=labels)
        for part in (frame.iloc[: rows - 20], frame.iloc[rows - 20 :])
    )
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["job", "town", "owner"]), ("passthrough", ["age"])
    )
    estimator = make_pipeline(columns, LogisticRegression(max_iter=3000, tol=1e-8)).fit(train.x, train.y)
    return uw.explainable(estimator, train), train, queries


@pytest.fixture(scope="module")
def census() -> tuple[Any, uw.Examples, uw.Examples]:
    return people()


QUICK = uw.Neighbours(samples=400, influential=40)


def test_random_neighbours_have_the_training_sets_values_and_lime_s_weights(census: Any) -> None:
    model, train, queries = census
    seen = []
    query = queries.take([3])
    result = uw.local_model(spied(model, seen), query, train, neighbours=uw.Neighbours(samples=400, influential=0))
    drawn = next(x for x in seen if len(x) == 400)
    assert drawn.dtypes.to_dict() == train.x.dtypes.to_dict()
    pd.testing.assert_frame_equal(drawn.iloc[:1].reset_index(drop=True), query.x.reset_index(drop=True))
    for name in train.x:
        assert set(drawn[name].dropna()) <= {*train.x[name].dropna(), query.x[name].iloc[0]}
    near = result.neighbourhoods["random"]
    row = query.x.iloc[0]
    edges = np.nanpercentile(train.x["age"], [25, 50, 75])
    same_age = np.searchsorted(edges, drawn["age"]) == np.searchsorted(edges, row["age"])
    np.testing.assert_array_equal(near.rows[:, 0], same_age)
    np.testing.assert_array_equal(near.rows[:, 2], drawn["job"] == row["job"])
    np.testing.assert_array_equal(near.rows[:, 4], drawn["owner"] == row["owner"])
    distances = np.sqrt((1 - near.rows).sum(axis=1))
    np.testing.assert_allclose(near.weights, np.sqrt(np.exp(-(distances**2) / (0.75 * np.sqrt(5)) ** 2)))
    yes = list(model.predict(query).classes).index(result.label)
    np.testing.assert_allclose(near.outputs, model.predict(uw.Examples(drawn)).probabilities[:, yes])
    assert result.label == model.predict(query).predicted[0] and result.output == f"probability of {result.label}"
    assert result.value == near.outputs[0] and result.influential is None and result.examples == ()
    assert {f.neighbours for f in result.fidelity} == {"random", "training"}
    assert near.names[2] == f"job = {row['job']}" and "age" in near.names[0]


def spied(model: Any, seen: list[Any]) -> Any:
    """The model, which keeps the inputs that it is asked about."""

    class Spied(uw.Measurable):
        measurement = model.measurement

        def measure(self, queries: uw.Examples) -> Any:
            return model.measure(queries)

        def predict(self, examples: uw.Examples) -> uw.Predictions:
            seen.append(examples.x)
            return model.predict(examples)

    return Spied()


def test_influential_neighbours_are_made_of_and_weighted_by_the_examples_with_the_largest_scores(census: Any) -> None:
    model, train, queries = census
    query = queries.take([5])
    fitted = uw.Influence().fit(model, train)
    result = uw.local_model(model, query, train, fitted, neighbours=QUICK)
    label = {"no": 0, "yes": 1}[result.label]
    scores = fitted.attribute(query.replaced(y=[label])).values[0]
    order = np.argsort(-np.abs(scores), kind="stable")[:40]
    assert [a.id for a in result.examples] == order.tolist()
    assert [a.score for a in result.examples] == scores[order].tolist()
    near = result.neighbourhoods["influential"]
    used = order[np.arange(40) % 4 != 3]  # every fourth is held out
    assert len(near.rows) == 1 + 400 + len(used)
    whole = train.take(used)
    outputs = model.predict(whole).probabilities[:, list(model.predict(query).classes).index(result.label)]
    np.testing.assert_allclose(near.outputs[-len(used) :], outputs)
    same_job = (whole.x["job"] == query.x["job"].iloc[0]).to_numpy()
    np.testing.assert_array_equal(near.rows[-len(used) :, 2], same_job)
    kernel = np.exp(-((1 - near.rows).sum(axis=1)) / (2 * (0.75 * np.sqrt(5)) ** 2))
    factors = near.weights / kernel
    np.testing.assert_allclose(factors[-len(used) :], 1 + np.abs(scores[used]) / np.abs(scores).max())
    assert factors[0] == pytest.approx(2) and factors.min() >= 1 and factors.max() <= 2 + 1e-12
    assert result.diagnostics["method"] == "Influence"
    assert {(f.surrogate, f.neighbours) for f in result.fidelity} == {
        (surrogate, test) for surrogate in ("random", "influential") for test in ("random", "influential", "training")
    }


def test_fidelity_is_weighted_and_of_neighbours_that_were_held_out(census: Any) -> None:
    model, train, queries = census
    result = uw.local_model(model, queries.take([5]), train, neighbours=QUICK)
    own = result.fidelity_of("random", "random")
    assert own.count == 80 and own.r2 != pytest.approx(result.random.r2)
    nearest = result.fidelity_of("random", "training")
    used = {a.id for a in result.examples}
    others = train.without(list(used))
    assert nearest.count == len(others)
    rows = result.features.of_training(train.positions(others.ids)).rows
    label = list(model.predict(others).classes).index(result.label)
    outputs, weights = model.predict(others).probabilities[:, label], result.features.weights(rows)
    wrong = outputs - result.random.predict(rows)
    assert nearest.error == pytest.approx(np.average(np.abs(wrong), weights=weights))
    middle = np.average(outputs, weights=weights)
    assert nearest.r2 == pytest.approx(1 - weights @ wrong**2 / (weights @ (outputs - middle) ** 2))
    with pytest.raises(KeyError, match="there is random on random"):
        result.fidelity_of("random", "nothing")


def test_the_same_table_gives_the_same_model_in_pandas_polars_and_numpy(census: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=200)
    y += x @ [1.0, -2.0, 0.0, 0.5]
    results = []
    for form in (
        np.asarray,
        lambda a: pd.DataFrame(a, columns=list("abcd")),
        lambda a: polars.DataFrame(a, list("abcd")),
    ):
        train, query = uw.Examples(form(x[:190]), y[:190]), uw.Examples(form(x[190:191]), y[190:191])
        estimator = LinearRegression().fit(form(x[:190]), y[:190])
        result = uw.local_model(uw.explainable(estimator, train), query, train, neighbours=QUICK)
        results.append([surrogate.coefficients for surrogate in result.surrogates.values()])
    np.testing.assert_allclose(results[1], results[0])
    np.testing.assert_allclose(results[2], results[0])


def test_without_quarters_the_surrogate_of_a_linear_model_has_its_coefficients() -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    train = uw.Examples(x[:400], y[:400], names=list("abcdefghij"))
    estimator = LinearRegression().fit(train.x, train.y)
    model, query = uw.explainable(estimator, train), uw.Examples(x[400:401], y[400:401], names=list("abcdefghij"))
    plain = uw.Neighbours(quarters=False, influential=0)
    result = uw.local_model(model, query, train, neighbours=plain)
    ours = {name: value for name, value in result.random.effects.items() if " = " not in name}
    scaled = dict(zip("abcdefghij", estimator.coef_ * train.x.std(axis=0), strict=True))
    assert len(ours) == 9 and ours == pytest.approx({name: scaled[name] for name in ours}, rel=0.01)
    assert result.fidelity_of("random", "random").r2 > 0.999 and not result.diagnostics["warnings"]
    assert result.output == "prediction" and result.label is None


def test_a_seed_repeats_everything_and_another_does_not(census: Any) -> None:
    model, train, queries = census
    first, second, other = (
        uw.local_model(model, queries.take([2]), train, neighbours=uw.Neighbours(samples=200, seed=seed))
        for seed in (0, 0, 1)
    )
    assert first.as_dict() == second.as_dict()
    assert first.random.effects != other.random.effects


def test_an_example_of_weight_0_is_absent_from_both_neighbourhoods() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
    x[:20] += 100
    weights = np.where(np.arange(60) < 20, 0.0, 1.0)
    train = uw.Examples(x, y, weights=weights)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(x, y, sample_weight=weights), train)
    seen: list[Any] = []
    query, few = uw.Examples(x[30:31], y[30:31]), uw.Neighbours(samples=50)
    scored = uw.local_model(model, query, train, neighbours=few)
    uw.local_model(spied(model, seen), query, train, uw.KNNShapley(), neighbours=uw.Neighbours(influential=0))
    assert len(scored.examples) == 40 and all(a.id >= 20 for a in scored.examples)
    assert len(seen) == 4 and max(np.max(x) for x in seen) < 50


def test_without_probabilities_the_measurement_of_the_predicted_label_is_explained() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = np.where(x[:, 0] + 0.3 * rng.normal(size=80) > 0, "up", "down")
    train = uw.Examples(x[:70], y[:70])
    model = uw.explainable(LinearSVC(loss="squared_hinge", tol=1e-8).fit(x[:70], y[:70]), train, uw.Margin())
    result = uw.local_model(model, uw.Examples(x[70:71]), train, neighbours=uw.Neighbours(samples=200))
    assert result.output == f"margin of the label of label {result.label}" and result.value > 0
    assert result.random.effects["x0 > 0.6" if "x0 > 0.6" in result.random.effects else result.random.names[0]]


def test_outputs_that_never_change_are_named_and_poor_surrogates_warn(census: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.normal(size=300)
    train, query = uw.Examples(x, y), uw.Examples(x[:1], y[:1])
    model = uw.explainable(LinearRegression().fit(x, y), train)
    constant, product = (wrapped(model, f) for f in (lambda x: np.ones(len(x)), lambda x: np.sin(40 * x[:, 0])))
    (warning,) = uw.local_model(constant, query, train, neighbours=uw.Neighbours(influential=0)).diagnostics["warnings"]
    assert "is the same for all random neighbours" in warning
    (warning,) = uw.local_model(product, query, train, neighbours=uw.Neighbours(influential=0)).diagnostics["warnings"]
    assert "of the variation of held-out ones" in warning
    assert (
        uw.local_model(constant, query, train, neighbours=uw.Neighbours(influential=0)).as_dict()["fidelity"][0]["r2"]
        is None
    )


def wrapped(model: Any, function: Any) -> Any:
    class Wrapped(uw.Measurable):
        measurement = "anything"

        def measure(self, queries: uw.Examples) -> Any:
            return function(queries.x)

        def predict(self, examples: uw.Examples) -> uw.Predictions:
            return uw.Predictions(tuple(function(examples.x).tolist()))

    return Wrapped()


def test_bad_input_is_refused_in_one_sentence(census: Any) -> None:
    model, train, queries = census
    query = queries.take([0])
    strange = query.x.copy()
    strange["job"] = "pilot"
    narrow = query.replaced(x=query.x[["age", "job"]])
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "expected one query, got 20", lambda: uw.local_model(model, queries, train)),
        (ValueError, "expected one of the labels", lambda: uw.local_model(model, query, train, label="maybe")),
        (ValueError, "expected the training set", lambda: uw.local_model(model, query)),
        (ValueError, "features of at least 1", lambda: uw.local_model(model, query, train, features=0)),
        (ValueError, "samples of at least 10", lambda: uw.Neighbours(samples=3)),
        (ValueError, "a width above 0", lambda: uw.Neighbours(width=-1.0)),
        (ValueError, "seed of at least 0", lambda: uw.Neighbours(seed=-1)),
        (TypeError, "expected a list of columns", lambda: uw.Neighbours(categorical="age")),
        (KeyError, "no column 'size'", lambda: local(model, query, train, categorical=["size"])),
        (ValueError, "at least 8 influential", lambda: local(model, query, train, influential=3)),
        (ValueError, "a category of column 'job', got 'pilot'", lambda: local(model, query.replaced(x=strange), train)),
        (ValueError, "columns", lambda: local(model, narrow, train)),
        (TypeError, "Measurable", lambda: uw.local_model("model", query, train)),
        (TypeError, "upweight.Examples", lambda: uw.local_model(model, query.x, train)),
        (
            ValueError,
            "not finite|NaN",
            lambda: uw.Neighbourhood(np.full((2, 1), np.nan), np.ones(2), np.ones(2), ("a",)),
        ),
        (ValueError, "got shapes", lambda: uw.Neighbourhood(np.ones((2, 2)), np.ones(2), np.ones(2), ("a",))),
        (ValueError, "not all zero", lambda: uw.Neighbourhood(np.ones((2, 1)), np.ones(2), np.zeros(2), ("a",))),
        (ValueError, "expected selection=", lambda: uw.fit_surrogate(random_neighbourhood(0), selection="lasso")),
    ]
    for error, words, call in cases:
        with pytest.raises(error, match=words) as raised:
            call()
        assert "\n" not in str(raised.value), raised.value
    other = people(60)
    with pytest.raises(ValueError, match="fitted on this model"):
        uw.local_model(model, query, train, uw.Influence().fit(other[0], other[1]))


def test_a_query_that_the_model_cannot_take_is_refused_in_one_sentence() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = (x[:, 0] + rng.normal(size=40) > 0).astype(int)
    train, frame = uw.Examples(x, y), uw.Examples(pd.DataFrame(x, columns=list("abc")), y)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(x, y), train)
    cases = {
        r"cannot take this query \(Input X contains NaN\)": uw.Examples(np.array([[np.nan, 0.0, 0.0]])),
        r"got shapes \(40, 3\) and \(1, 2\)": uw.Examples(x[:1, :2]),
        "like the training set, an array, got texts": uw.Examples(["a text"]),
        "like the training set, an array, got a data frame": frame.take([0]),
        "infinite ones in column 'x1'": uw.Examples(np.array([[0.0, np.inf, 0.0]])),
    }
    for words, query in cases.items():
        with pytest.raises(ValueError, match=words) as raised:
            local(model, query, train)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="columns of the training set"):
        local(model, frame.take([0]).replaced(x=frame.x[["c", "a", "b"]][:1]), frame)


def test_without_what_scores_need_there_is_no_second_surrogate_and_a_warning_says_so() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    train = uw.Examples(x, x[:, 0] + np.arange(40) % 3)
    model = uw.explainable(LinearRegression().fit(train.x, train.y), train)
    unlabelled = local(model, uw.Examples(x[:1]), train, samples=50)
    assert unlabelled.influential is None and "needs the label" in unlabelled.diagnostics["warnings"][0]
    assert local(model, train.take([0]), train, samples=50).influential is not None
    plain = local(wrapped(model, lambda x: x[:, 0]), train.take([0]), train, samples=50)
    assert plain.influential is None and "without many trainings" in plain.diagnostics["warnings"][0]


def local(model: Any, query: uw.Examples, train: uw.Examples, **settings: Any) -> Any:
    return uw.local_model(model, query, train, neighbours=uw.Neighbours(**settings))
