import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from upweight.cli.table_targets import read_target  # noqa: E402

N = 80
RNG = np.random.default_rng(5)


def series(values, dtype=None):
    return pd.Series(values, dtype=dtype)


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        (RNG.choice(["a", "b"], N), "classes", "U"),
        (RNG.integers(0, 3, N), "classes", "i"),
        (RNG.integers(0, 2, N).astype(bool), "classes", "b"),
        (RNG.integers(0, 2, N).astype(float), "classes", "i"),
        (np.arange(N), "number", "f"),
        (np.arange(12), "number", "f"),  # as many values as rows
        (RNG.normal(size=N), "number", "f"),
    ],
)
def test_the_values_decide_what_is_predicted(values, kind, dtype):
    target = read_target("label", series(values))
    assert target.kind == kind and target.y.dtype.kind == dtype
    assert ("a number" if kind == "number" else "classes") in target.description


def test_the_user_decides_how_whole_numbers_are_read():
    ratings, grades = series(RNG.integers(1, 6, N)), series(RNG.integers(0, 30, N))
    assert read_target("rating", ratings).kind == "classes"
    assert "--target-is number" in read_target("rating", ratings).description
    assert read_target("rating", ratings, "number").y.dtype.kind == "f"
    assert read_target("grade", grades).kind == "number" and read_target("grade", grades, "classes").y.dtype.kind == "i"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([f"{i} Long Street" for i in range(N)], "80 different values in the 80 rows of column y, for example 0 Long"),
        ([f"{i},{i}" for i in range(N)], "--decimal"),
        (pd.date_range("2020-01-01", periods=N), "got dates in column y, for example 2020-01-01;"),
        (["2020-01-31", "2020-02-01"] * 40, "got dates in column y, for example 2020-01-31"),
        (["same"] * N, "got only same in all 80 rows"),
        ([1.0] * N, "got only 1 in all 80 rows"),
        ([0.5] * N, "got 0.5 in all 80 rows"),
        (np.where(np.arange(N) == 7, np.inf, np.arange(N) / 3), "infinite ones in 1 rows, for example 7"),
        (["a", "b"] * 2, "at least 10 rows with a y, got 4"),
    ],
)
def test_a_target_that_no_model_can_predict_is_refused_in_one_sentence(values, message):
    with pytest.raises(ValueError, match="expected") as refusal:
        read_target("y", series(values))
    assert message in str(refusal.value)
    assert "np." not in str(refusal.value) and "\n" not in str(refusal.value)


def test_numbers_are_not_made_of_texts():
    with pytest.raises(ValueError, match="got texts, for example red"):
        read_target("y", series(["red", "blue"] * 20), "number")
