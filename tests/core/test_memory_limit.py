"""A limit of memory: fewer examples at a time, queries in parts, and the same scores."""

from __future__ import annotations

import numpy as np
import pytest

import upweight as uw
from upweight.core.memory import numbers_within, queries_within

torch = pytest.importorskip("torch")

from support.network_families import cnn, cross_entropy, digits, mlp  # noqa: E402
from upweight.gradients.inspection import inspect  # noqa: E402

X, Y = digits()
TRAIN, QUERIES = uw.Examples(X[:40], Y[:40]), uw.Examples(X[100:107], Y[100:107])
CASES = [
    (mlp, uw.GradDot()),
    (mlp, uw.Influence(curvature=uw.EKFAC())),
    (cnn, uw.RelatIF(curvature=uw.KFAC())),
]


def model(make):
    torch.manual_seed(0)
    return uw.TorchModel(make().double(), cross_entropy)


def test_a_share_of_the_limit_is_a_number_of_numbers():
    assert numbers_within(100, 0.5) == 100 and queries_within(8.0, 0.5) is None
    with uw.memory_limit(160):
        assert numbers_within(100, 0.5) == 20 and queries_within(8.0, 0.5) == 10
        with uw.memory_limit(1):
            assert numbers_within(100, 0.5) == queries_within(8.0, 0.5) == 1
        assert numbers_within(5, 0.5) == 5
    assert numbers_within(100, 0.5) == 100
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match="expected bytes of at least 1"), uw.memory_limit(bad):
            pass


@pytest.mark.parametrize(("make", "recipe"), CASES, ids=lambda part: getattr(part, "__name__", str(part)))
def test_scores_are_the_same_within_a_limit_and_fewer_examples_are_taken_at_a_time(make, recipe):
    whole = recipe.fit(model(make), TRAIN)
    expected, top, itself = whole.attribute(QUERIES), whole.top(QUERIES, 3), whole.self_influence().values
    limited = model(make)
    inspection, size = inspect(limited.network, "loss", TRAIN), limited.network.size
    with uw.memory_limit(4 * 8 * size * 3):  # gradients and solutions of three queries take a quarter
        assert limited.max_queries == 3
        assert inspection.batch_size == max(1, 8 * size * 3 // 16 // inspection.floats) < len(TRAIN)
        fitted = recipe.fit(limited, TRAIN)
        scores, strongest, own = fitted.attribute(QUERIES), fitted.top(QUERIES, 3), fitted.self_influence().values
    for values, others in ((scores.values, expected.values), (strongest.values, top.values), (own, itself)):
        np.testing.assert_allclose(values, others, atol=1e-6 * np.abs(others).max(), rtol=0)
    assert scores.unit == expected.unit and scores.query_ids.tolist() == expected.query_ids.tolist()
    assert limited.max_queries is None
