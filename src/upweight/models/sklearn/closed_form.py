"""Estimators of scikit-learn whose training has a closed form, so that removals are exact without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from upweight.core.examples import Examples
from upweight.core.labels import require_labels
from upweight.core.measurement import Measurement
from upweight.core.model_reader import UnsupportedSettingsError
from upweight.core.parameter_measurement import ParameterMeasurement
from upweight.core.weights import sample_weights
from upweight.models.fitted_estimators import require_fitted
from upweight.models.pipeline import last_step, steps_before
from upweight.models.sklearn import naive_bayes
from upweight.models.sklearn.closed_form_model import ClosedFormModel, require_same_outputs
from upweight.models.sklearn.closed_form_spec import FormSpec, MakeForm
from upweight.models.sklearn.dummies import dummy_classifier, dummy_regressor
from upweight.models.sklearn.gaussian_process import gaussian_process
from upweight.models.sklearn.isotonic import isotonic
from upweight.models.sklearn.linear_discriminant import linear_discriminant
from upweight.models.sklearn.nearest_centroid import nearest_centroid
from upweight.models.sklearn.neighbours import nearest_neighbours
from upweight.models.sklearn.online_learners import online_learner
from upweight.models.sklearn.outputs_by_weights import whole_weights
from upweight.models.sklearn.preprocessing import PreprocessingSteps
from upweight.models.sklearn.quadratic_discriminant import quadratic_discriminant
from upweight.models.sklearn.radius_neighbours import radius_neighbours

SpecReader = Callable[[Any], FormSpec | Sequence[FormSpec]]  # fitted estimator → spec, or variants by its version
SPEC_READERS: dict[str, SpecReader] = {
    "GaussianNB": naive_bayes.gaussian,
    "MultinomialNB": naive_bayes.multinomial,
    "ComplementNB": naive_bayes.complement,
    "BernoulliNB": naive_bayes.bernoulli,
    "CategoricalNB": naive_bayes.categorical,
    "LinearDiscriminantAnalysis": linear_discriminant,
    "QuadraticDiscriminantAnalysis": quadratic_discriminant,
    "KNeighborsClassifier": nearest_neighbours,
    "KNeighborsRegressor": nearest_neighbours,
    "RadiusNeighborsClassifier": radius_neighbours,
    "RadiusNeighborsRegressor": radius_neighbours,
    "NearestCentroid": nearest_centroid,
    "GaussianProcessRegressor": gaussian_process,
    "Perceptron": online_learner,
    "PassiveAggressiveClassifier": online_learner,
    "PassiveAggressiveRegressor": online_learner,
    "SGDClassifier": online_learner,
    "SGDRegressor": online_learner,
    "IsotonicRegression": isotonic,
    "DummyClassifier": dummy_classifier,
    "DummyRegressor": dummy_regressor,
}


def reads(estimator: Any) -> bool:
    """Whether the estimator, or the last step of a pipeline, is one of these."""
    return type(last_step(estimator)).__name__ in SPEC_READERS


def read(estimator: Any, train: Examples, measure: Measurement) -> ClosedFormModel:
    """The fitted estimator as a ClosedFormModel."""
    final, name = last_step(estimator), type(last_step(estimator)).__name__
    require_fitted(final, name)
    require_labels(train)
    if isinstance(measure, ParameterMeasurement):
        raise TypeError(
            f"a {name} has no coefficients; measure the loss, the margin or a function of the outputs of this one"
        )
    _require_classes(final, train)
    inputs, specs = _inputs(estimator, final), SPEC_READERS[name](final)
    failure: ValueError | None = None
    for spec in specs if isinstance(specs, Sequence) else [specs]:
        try:
            return _model(estimator, inputs, spec, train, measure)
        except ValueError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _model(
    estimator: Any, inputs: PreprocessingSteps, spec: FormSpec, train: Examples, measure: Measurement
) -> ClosedFormModel:
    """The model of this spec. Raises ValueError if it does not give the outputs of the estimator."""
    final, make = last_step(estimator), MakeForm(spec)
    name = type(final).__name__
    if not spec.takes_weights:
        whole_weights(name, sample_weights(train))
    form = make(inputs(train.x), train)
    model = ClosedFormModel(
        name=name,
        predictor=estimator,
        final=final,
        inputs=inputs,
        loss=spec.loss,
        measurement_of=measure,
        make=make,
        form=form,
        reread=partial(read, measure=measure),
        takes_weights=spec.takes_weights,
        keeps_rows=spec.keeps_rows,
        fixed_settings=spec.fixed_settings,
        notes=spec.notes,
    )
    require_same_outputs(model, form)
    return model


def _require_classes(final: Any, train: Examples) -> None:
    """Raise ValueError if the classes of a classifier are not those of one label per example, or only one."""
    classes = getattr(final, "classes_", None)
    if classes is None:
        return
    name = type(final).__name__
    if train.y is None or train.y.ndim != 1 or isinstance(classes, list):
        raise UnsupportedSettingsError(
            f"expected {name} with one label per example, got several; fit one {name} per label"
        )
    if len(classes) < 2:
        raise ValueError(
            f"expected {name} with two classes or more, got {len(classes)}: with one class every prediction is that "
            "class, whatever is removed"
        )


def _inputs(estimator: Any, final: Any) -> PreprocessingSteps:
    """The steps before the last one, and the columns that the last one was fitted on."""
    steps = steps_before(estimator)
    names = None if steps else getattr(final, "feature_names_in_", None)
    columns = getattr(final, "n_features_in_", None)
    return PreprocessingSteps(steps, columns, None if names is None else tuple(map(str, names)))
