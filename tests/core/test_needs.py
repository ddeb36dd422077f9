"""The capabilities that a method needs are checked before its fit."""

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from support.overlap_method import Line, Overlap, problem
from upweight.core.model import Embeddable


@dataclass(frozen=True, kw_only=True)
class Featured(Overlap):
    """A method that only declares what it needs; its `fit` looks at nothing."""

    needs = (Embeddable,)

    def fit(self, model, train):
        return super().fit(model, train)


@pytest.mark.parametrize(
    ("method", "model", "message"),
    [
        (Featured(), Line(1.0, 1.0), "Featured needs a model that is Embeddable, got Line; this model does not"),
        (Featured(), LogisticRegression(), "got LogisticRegression; wrap a fitted estimator with upweight.explainable"),
        (Overlap(), LogisticRegression(), "Overlap needs a model that is Measurable, got LogisticRegression"),
    ],
)
def test_a_model_that_lacks_what_a_method_declares_is_refused_before_its_fit(method, model, message):
    _, train, _ = problem()
    with pytest.raises(TypeError, match=message):
        method.fit(model, train)
    with pytest.raises(TypeError, match=message):
        method.fit(train=train, model=model)


def test_arrays_in_place_of_examples_are_refused_before_the_fit(tmp_path):
    model, train, _ = problem()
    Overlap().fit(model, train).save(tmp_path / "fit")
    arrays, message = train.x, r"expected the examples as upweight.Examples\(x, y\), got ndarray"
    for ask in (Overlap().fit, lambda *given: Overlap().load(tmp_path / "fit", *given)):
        with pytest.raises(TypeError, match=message):
            ask(model, arrays)
        with pytest.raises(TypeError, match="Overlap needs a model that is Measurable, got LogisticRegression"):
            ask(LogisticRegression(), train)
    with pytest.raises(ValueError, match="not all zero, got 8 of weight 0"):
        Overlap().fit(model, train.replaced(weights=np.eye(9)[8]).take(np.arange(8)))
