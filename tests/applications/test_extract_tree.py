"""Extracted trees of models that are known, and the rows that are drawn for them."""

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge

import upweight as uw
from upweight.applications.row_sampler import RowSampler

RNG = np.random.default_rng(0)
N = 500
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, N),
        "job": RNG.choice(["cook", "nurse", "smith"], N),
        "w": RNG.normal(size=N),
        "noise": RNG.normal(size=N),
    }
)
TRAIN = uw.Examples(FRAME, RNG.integers(0, 2, N))


class Known(uw.Measurable):
    """A model that is a function of the inputs."""

    measurement = "f"

    def __init__(self, function, classes=(0, 1)):
        self.function, self._classes = function, classes

    def measure(self, queries):
        return np.zeros(len(queries))

    def predict(self, examples):
        return uw.Predictions(tuple(self.function(examples.x).tolist()), self._classes)


def rule(x):
    assert x.dtypes.tolist() == FRAME.dtypes.tolist()
    return ((x.age > 40) & (x.job != "cook") | (x.w > 1)).astype(int)


def test_a_model_that_is_a_tree_is_found_again():
    result = uw.extract_tree(Known(rule), TRAIN, TRAIN.take(range(100)), leaves=8)
    assert result.fidelity["train"] > 0.995 and result.fidelity["queries"] > 0.98
    tested = {node.column for node in result.nodes if node.children}
    assert tested == {"age", "job", "w"}
    thresholds = [node.threshold for node in result.nodes if node.column == "age"]
    assert 40 < min(thresholds, key=lambda t: abs(t - 40.5)) < 41  # between two whole numbers
    assert {node.category for node in result.nodes if node.column == "job"} == {"cook"}
    assert sum(result.nodes[leaf].reach for leaf in result.leaves) == pytest.approx(1)


def test_rules_leaves_and_predictions_say_the_same():
    result = uw.extract_tree(Known(rule), TRAIN, leaves=6)
    predicted, leaf_of = np.array(result.predict(TRAIN)), result.leaf_of(TRAIN)
    assert set(leaf_of) <= set(result.leaves) and len(result.rules()) == len(result.leaves) <= 6
    for conditions, label in result.rules():
        inside = np.ones(N, dtype=bool)
        for condition in conditions:
            column, operator, value = condition.split(" ")
            numbers = FRAME[column].to_numpy()
            compared = {
                "≤": lambda a, b: a <= float(b),
                ">": lambda a, b: a > float(b),
                "=": lambda a, b: a == b,
                "≠": lambda a, b: a != b,
            }[operator](numbers, value)
            inside &= compared
        assert (predicted[inside] == label).all()
    assert sorted(i for leaf in result.leaves for i in result.examples_of(leaf)) == TRAIN.ids.tolist()


def test_the_leaf_that_gains_most_is_split_first():
    """The first split of the tree has the largest Gini gain over all columns and thresholds of a large sample."""
    result = uw.extract_tree(Known(rule), TRAIN, leaves=2, samples=4000)
    sampler = RowSampler(TRAIN, 10, 0)
    x, encoded = sampler.sample(sampler.everywhere, 20_000, np.random.default_rng(1))
    y = rule(x).to_numpy()

    def impurity(part):
        return 2 * part.mean() * (1 - part.mean()) * len(part) if len(part) else 0.0

    gains = {}
    for j in range(encoded.shape[1]):
        for cut in np.unique(np.quantile(encoded[:, j], np.linspace(0.02, 0.98, 49))):
            left = encoded[:, j] <= cut
            gains[j] = max(gains.get(j, 0.0), impurity(y) - impurity(y[left]) - impurity(y[~left]))
    best = sampler.test(max(gains, key=gains.get), 0.0)[0]
    assert result.nodes[0].column == best


def test_numbers_are_extracted_too():
    steps = Known(lambda x: 2.0 * (x.w > 0.3) + 1.0 * (x.job == "smith"), classes=())
    result = uw.extract_tree(steps, TRAIN, leaves=4)
    assert result.fidelity["train"] > 0.98 and result.constant["train"] == 0
    assert sorted(round(result.nodes[leaf].predicted) for leaf in result.leaves) == [0, 1, 2, 3]


def test_a_forest_and_a_linear_model_are_predicted_far_better_than_by_their_most_frequent_prediction():
    x = RNG.normal(size=(300, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    train = uw.Examples(x, y, labels={0: "no", 1: "yes"})
    forest = RandomForestClassifier(30, max_features=None, random_state=0).fit(x, y)
    result = uw.extract_tree(uw.explainable(forest, train), train, leaves=10, samples=800)
    assert result.fidelity["train"] > 0.8 > result.constant["train"] and set(result.predict(train)) == {"no", "yes"}
    ridge = uw.Examples(x, x @ [1.0, 2, 0, 0])
    fitted = uw.explainable(Ridge().fit(ridge.x, ridge.y), ridge)
    assert uw.extract_tree(fitted, ridge, leaves=12).fidelity["train"] > 0.7


def test_drawn_rows_lie_in_their_box_and_as_often_as_its_mass_says():
    sampler = RowSampler(TRAIN, 5, 0)
    rng = np.random.default_rng(0)
    x, encoded = sampler.sample(sampler.everywhere, 20_000, rng)
    assert x.columns.tolist() == FRAME.columns.tolist() and set(x.job) == {"cook", "nurse", "smith"}
    assert x.age.between(FRAME.age.min(), FRAME.age.max()).all() and x.dtypes.tolist() == FRAME.dtypes.tolist()
    for column in ("age", "w"):
        assert x[column].mean() == pytest.approx(FRAME[column].mean(), abs=0.1 * FRAME[column].std())
        assert x[column].std() == pytest.approx(FRAME[column].std(), rel=0.1)
    left, right = sampler.everywhere.halves(1, 0.4)  # w
    assert sampler.mass(left) + sampler.mass(right) == pytest.approx(sampler.mass(sampler.everywhere))
    share = sampler.mass(right) / sampler.mass(sampler.everywhere)
    assert (encoded[:, 1] > 0.4).mean() == pytest.approx(share, abs=0.02)
    cook = sampler.sample(right.halves(3, 0.5)[1], 500, rng)[0]
    assert set(cook.job) == {"cook"} and (cook.w > 0.4).all()


def test_arrays_and_polars_frames_are_rows_too():
    array = uw.Examples(FRAME[["age", "w"]].to_numpy(), TRAIN.y)
    result = uw.extract_tree(Known(lambda x: (x[:, 1] > 0.5).astype(int)), array, leaves=2)
    assert result.nodes[0].column == "x1" and result.fidelity["train"] > 0.99
    polars = pytest.importorskip("polars")
    frame = uw.Examples(polars.DataFrame(FRAME.to_dict("list")), TRAIN.y)
    result = uw.extract_tree(Known(lambda x: (x["w"] > 0.5).to_numpy().astype(int)), frame, leaves=2)
    assert result.nodes[0].column == "w" and result.fidelity["train"] > 0.99


def test_a_tree_that_is_no_better_than_a_constant_is_marked():
    random = np.random.default_rng(0)
    result = uw.extract_tree(Known(lambda x: (random.random(len(x)) < 0.1).astype(int)), TRAIN, leaves=2)
    assert "no better than its most frequent prediction" in result.diagnostics["warnings"][0]
    assert uw.extract_tree(Known(rule), TRAIN, leaves=4).diagnostics["warnings"] == []


def test_a_model_that_always_predicts_the_same_is_one_leaf():
    result = uw.extract_tree(Known(lambda x: np.ones(len(x), dtype=int)), TRAIN)
    assert len(result.nodes) == 1 and result.rules() == [((), 1)] and result.fidelity["train"] == 1
    assert result.diagnostics["warnings"] == []
    number = uw.extract_tree(Known(lambda x: np.full(len(x), 2.5), classes=()), TRAIN)
    assert number.rules() == [((), 2.5)] and number.fidelity["train"] == 1


def test_what_is_no_table_is_refused():
    constant = Known(lambda x: np.zeros(len(x), dtype=int) if hasattr(x, "shape") else np.zeros(len(x)))
    for x in (["a text", "another"], np.zeros((2, 3, 3)), csr_array(np.eye(2))):
        with pytest.raises(TypeError, match="expected rows of a table"):
            uw.extract_tree(constant, uw.Examples(x, [0, 1]))
    gaps = FRAME.assign(w=np.where(FRAME.w > 1, np.nan, FRAME.w))
    with pytest.raises(ValueError, match="column 'w' has missing or infinite numbers"):
        uw.extract_tree(constant, uw.Examples(gaps, TRAIN.y))
    ids = FRAME.assign(job=[f"id {i}" for i in range(N)])
    with pytest.raises(ValueError, match="column 'job' has 500 different texts"):
        uw.extract_tree(constant, uw.Examples(ids, TRAIN.y))
    with pytest.raises(ValueError, match="expected the columns of the training set"):
        uw.extract_tree(constant, TRAIN, uw.Examples(FRAME[["w", "age", "job", "noise"]], TRAIN.y))
    with pytest.raises(ValueError, match="column 'w' has missing or infinite numbers"):
        uw.extract_tree(constant, TRAIN, uw.Examples(gaps, TRAIN.y))
    with pytest.raises(ValueError, match="expected leaves of at least 2"):
        uw.extract_tree(constant, TRAIN, leaves=1)
    with pytest.raises(ValueError, match="expected samples of at least 100"):
        uw.extract_tree(constant, TRAIN, samples=10)
    with pytest.raises(TypeError, match="wrap a fitted estimator"):
        uw.extract_tree(LogisticRegression(), TRAIN)
