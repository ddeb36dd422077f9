"""A retrained ensemble whose trees were not read measures and predicts as one whose trees were."""

import numpy as np
import pytest

import upweight as uw
from support.tree_families import BOOSTERS, FORESTS


@pytest.mark.parametrize("family", [*BOOSTERS, *FORESTS], ids=lambda family: family.name)
def test_outputs_are_those_of_the_retrained_model(family):
    train, queries = family.examples()
    train = train.replaced(labels={label: f"class {label}" for label in np.unique(train.y)[:3].tolist()})
    model = uw.explainable(family.fitted(train), train)
    weights = np.ones(len(train))
    weights[::4] = 0.0
    weights[1::4] = 2.0
    exact, outputs = (retrain(train, weights, 3) for retrain in (model.retrain, model.retrain_roughly))
    assert type(outputs) is not type(exact) and outputs.measurement == exact.measurement
    for examples in (train, queries):
        np.testing.assert_allclose(outputs.measure(examples), exact.measure(examples), rtol=1e-4, atol=1e-5)
        expected, found = exact.predict(examples), outputs.predict(examples)
        assert found.classes == expected.classes
        if expected.classes:
            assert found.predicted == expected.predicted
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        else:
            np.testing.assert_allclose(found.predicted, expected.predicted, rtol=1e-4)
    with pytest.raises(ValueError, match="weight"):
        model.retrain_roughly(train, np.zeros(len(train)))
