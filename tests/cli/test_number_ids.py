import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from upweight.cli.number_ids import id_kind  # noqa: E402

N = 200
RNG = np.random.default_rng(0)
LONG = np.unique(RNG.integers(10**8, 10**9, 2 * N))[RNG.permutation(N)]  # nine digits each, all different


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("encounter_id", LONG, "rows"),
        ("PassengerId", np.arange(1, N + 1), "rows"),
        ("Unnamed: 0", np.sort(RNG.permutation(9 * N)[:N]), "rows"),
        ("no", RNG.permutation(9 * N)[:N], "rows"),
        ("encounter", 145_682_345 + 7 * np.arange(N), "rows"),  # evenly spaced
        ("patient", LONG, "rows"),  # all of nine digits
        ("visit", np.cumsum(RNG.integers(1, 40, N)), "rows"),  # rising from row to row
        ("case", RNG.permutation(N) + 17, "rows"),  # all numbers from 17 to N + 16
        ("patient_nbr", RNG.integers(10**7, 10**7 + 120, N), "repeated"),
        ("userId", RNG.integers(0, 100, N), "repeated"),
        ("admission_type_id", RNG.integers(1, 9, N), "codes"),
    ],
)
def test_whole_numbers_that_name_something_are_recognised(name, values, kind):
    assert id_kind(name, pd.Series(values), N) == kind


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_medications", RNG.integers(1, 60, N)),
        ("number_of_visits", RNG.integers(0, 9, N)),
        ("price", 1000 * RNG.permutation(900)[:N] + 100_000),  # six digits, all different, rounded
        ("population", np.exp(RNG.normal(9, 2, N)).astype(int)),
        ("year", np.arange(1800, 1800 + N)),
        ("t", np.arange(N)),
        ("paid", RNG.integers(10, 99, N)),
        ("humid", RNG.integers(10, 99, N)),
        ("weight", np.arange(N) / 1.0),  # written with decimals
        ("size", RNG.normal(size=N)),
        ("height", RNG.permutation(900)[:N]),
    ],
)
def test_whole_numbers_that_measure_something_are_none(name, values):
    assert id_kind(name, pd.Series(values), N) is None


def test_numbers_beside_missing_ones_are_recognised_by_their_name():
    ids = pd.Series(LONG).astype("Int64").mask(np.arange(N) % 9 == 0).dropna()
    assert id_kind("encounter_id", ids, N) == "rows" and id_kind("encounter_id", ids.astype(float), N) == "rows"
    assert id_kind("encounter", ids, N) is None
