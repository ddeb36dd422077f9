import numpy as np
import pytest

import upweight as uw
from upweight.core.capability_checks import require
from upweight.core.model import Differentiable, Measurable, Predictions, Retrainable


class Constant(Measurable):
    measurement = "1"

    def measure(self, queries):
        return np.ones(len(queries))

    def predict(self, examples):
        return Predictions((1,) * len(examples))


def test_a_model_with_the_needed_capability_is_accepted():
    require(Constant(), [Measurable], "Chance")


def test_the_error_names_the_missing_capabilities_and_what_to_do():
    message = (
        "Influence needs a model that is Differentiable and Retrainable, got Constant; "
        "this model does not have these capabilities; `upweight methods` lists other methods"
    )
    with pytest.raises(TypeError, match=message):
        require(Constant(), [Measurable, Differentiable, Retrainable], "Influence")
    with pytest.raises(
        TypeError, match=r"that is Measurable, got dict; wrap .* upweight\.explainable\(estimator, train\)"
    ):
        require({}, [Measurable], "verify")


@pytest.mark.parametrize("capability", [Measurable, Differentiable, Retrainable])
def test_a_model_without_the_methods_of_its_capability_cannot_be_made(capability):
    class Half(capability):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Half()


def test_an_objective_is_a_value():
    assert uw.Objective("mean", l2=0.1) == uw.Objective("mean", 0.1)
    with pytest.raises(AttributeError):
        uw.Objective("sum").l2 = 1.0


def test_the_package_offers_what_it_lists_and_nothing_else():
    assert set(uw.__all__) <= set(dir(uw))
    with pytest.raises(AttributeError, match="no attribute 'Influenza'"):
        uw.Influenza  # noqa: B018
