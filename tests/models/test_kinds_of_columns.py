import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import upweight as uw

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pytest.importorskip("pyarrow")

X = np.random.default_rng(0).normal(size=(40, 4))
Y = X[:, 0] + np.arange(40) % 7
NAMES = list("abcd")
KINDS = ["Float64", "double[pyarrow]", "Int64", "int64[pyarrow]", "boolean", "bool[pyarrow]", "bool", "object"]
FAMILIES = {
    "linear": (Ridge(), uw.Influence()),
    "pipeline": (make_pipeline(StandardScaler(), Ridge()), uw.Influence()),
    "forest": (RandomForestRegressor(4, random_state=0), uw.ForestWeights()),
}


def frame_of(kind):
    """(frame, the same numbers as float64)."""
    if "oo" in kind:
        return pd.DataFrame(X > 0, columns=NAMES).astype(kind), (X > 0).astype(float)
    values = (9 * X).round() if kind.lower().startswith("int") else X
    return pd.DataFrame(values, columns=NAMES).astype(kind), values


def scores(family, x):
    estimator, method = FAMILIES[family]
    train = uw.Examples(x, Y)
    return method.fit(uw.explainable(estimator.fit(x, Y), train), train).attribute(train.take([0, 1])).values


@pytest.mark.sweep(3)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_every_kind_that_scikit_learn_takes_give_the_scores_of_their_numbers(family, kind):
    frame, numbers = frame_of(kind)
    np.testing.assert_allclose(scores(family, frame), scores(family, numbers), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_of_mixed_kinds_give_the_scores_of_their_numbers(family, library):
    columns = {"a": X[:, 0], "b": X[:, 1] > 0, "c": (9 * X[:, 2]).round().astype(int), "d": X[:, 3].astype("f4")}
    frame = pl.DataFrame(columns)
    if library == "pandas":
        frame = pd.DataFrame(columns).astype({"b": "boolean", "c": "Int64"})
    numbers = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns.values()])
    np.testing.assert_allclose(scores(family, frame), scores(family, numbers), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["Float64", "double[pyarrow]"])
def test_a_missing_value_is_refused_as_nan_is(kind):
    frame, _ = frame_of(kind)
    train = uw.Examples(frame, Y)
    model = uw.explainable(Ridge().fit(frame, Y), train)
    queries = uw.Examples(frame.mask(frame.index.to_series() == 3, axis=0))
    with pytest.raises(ValueError, match="NaN"):
        model.predict(queries)


@pytest.mark.parametrize("kind", ["Int64", "Float64", "boolean", "double[pyarrow]", "string[pyarrow]", "category"])
def test_labels_of_every_kind_are_held_as_plain_values(kind):
    values = {"boolean": [True, False], "string[pyarrow]": ["a", "b"], "category": ["a", "b"]}.get(kind, [1, 2])
    assert uw.Examples(np.eye(2), pd.Series(values, dtype=kind)).y.tolist() == values
