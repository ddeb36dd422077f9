"""The experiment on two moons, with one seed and few points."""

import pytest
from experiments.reweighting import moons


@pytest.fixture(scope="module")
def numbers():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SEEDS": 1, "UNLABELLED": 80, "TEST": 200, "COMPONENTS": 20}.items():
            patch.setattr(moons, name, value)
        return moons.outcome(None)


def test_every_weighting_has_an_accuracy_on_points_that_none_saw(numbers):
    (row,) = numbers["rows"]
    for name in ("supervised", "validation too", "learned", "one weight"):
        assert 0.5 <= row[name] <= 1.0
    assert 0.0 <= row["wrong"] <= 0.5


def test_the_table_compares_learned_weights_with_weight_1(numbers):
    better = {"rows": [{**numbers["rows"][0], "learned": 0.95, "uniform": 0.9}]}
    worse = {"rows": [{**numbers["rows"][0], "learned": 0.85, "uniform": 0.9}]}
    assert moons.result(better).rows[0].met and not moons.result(worse).rows[0].met
