"""Reads any fitted estimator that has the interface of scikit-learn as a model that is explained by refitting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor

from upweight.core.examples import Examples
from upweight.core.input_kinds import is_sparse
from upweight.core.labels import require_labels
from upweight.core.measurement import Loss, Measurement
from upweight.core.parameter_measurement import ParameterMeasurement
from upweight.models.estimator_outputs import Outputs, outputs_of
from upweight.models.fitted_estimators import require_fitted
from upweight.models.pipeline import last_step, steps_before
from upweight.models.refit.model import RefitModel
from upweight.models.refit.sample_weights import weight_keyword


def reads(estimator: Any) -> bool:
    """Whether this is a classifier or a regressor with the interface of scikit-learn."""
    has_interface = all(callable(getattr(estimator, name, None)) for name in ("fit", "predict", "get_params"))
    return has_interface and not isinstance(estimator, type) and _kind(estimator) is not None


def _kind(estimator: Any) -> str | None:
    """ "classifier", "regressor", or None for anything else."""
    try:
        if is_classifier(estimator):
            return "classifier"
        return "regressor" if is_regressor(estimator) else None
    except Exception:  # an estimator of another library may have other tags
        return None


def read(estimator: Any, train: Examples, measure: Measurement, *, reason: str = "") -> RefitModel:
    """The fitted estimator as a model of which only `fit` and predictions are used.

    `reason`: why it is not explained in another way, for its notes.

    Raises:
        ValueError: it cannot be cloned, is not fitted, cannot predict the training examples, does not know their
            labels, or takes no sample weights and the training set has some.
    """
    name = type(last_step(estimator)).__name__
    labels = require_labels(train)
    _require_cloneable(estimator, name)
    require_fitted(estimator, name)
    _require_features(estimator, name)
    has_classes = _kind(estimator) == "classifier"
    _require_labels(train, name, has_classes)
    if train.weights is not None and weight_keyword(estimator) is None:
        raise ValueError(
            f"fit of this {name} takes no sample weights, so it cannot have used those of the training set; pass "
            "Examples without weights"
        )
    try:
        outputs = outputs_of(estimator, train.x, labels, has_classes)
        training_outputs = outputs.of(estimator, train.x)
    except Exception as error:  # an estimator may raise anything
        raise ValueError(
            f"this {name} cannot predict the training examples ({type(error).__name__}: {error}); pass the inputs in "
            "the form in which they went into fit()"
        ) from error
    outputs.family.encode(labels)  # raises for labels that it was never trained on
    if isinstance(measure, ParameterMeasurement) and not hasattr(estimator, "coefficients"):
        raise TypeError(f"refits of a {name} have no coefficients; measure the loss or a function of the outputs")
    if isinstance(measure, Loss) and getattr(estimator, "has_no_loss", False):
        raise ValueError(
            f"{name} predicts no target of a single example, so there is no loss; measure uw.Coefficient(…), "
            "uw.PValue(…) or a function of the outputs"
        )
    model = RefitModel(
        name, estimator, outputs, measure, training_outputs, False, _notes(estimator, name, outputs, reason)
    )
    names = None if train.names is None else tuple(map(str, train.names))
    return _with_features(replace(model, column_names=names), train)


def _require_cloneable(estimator: Any, name: str) -> None:
    try:
        clone(estimator)
    except Exception as error:  # a constructor may raise anything
        raise ValueError(
            f"expected an estimator that sklearn.base.clone can copy, since it is explained by refitting; this {name} "
            f"cannot be cloned ({error}). Its constructor has to store its arguments unchanged"
        ) from error


def _require_features(estimator: Any, name: str) -> None:
    """Raise ValueError if inputs are a matrix between all examples, whose columns would have to go with its rows."""
    from sklearn.utils import get_tags

    try:
        is_pairwise = get_tags(estimator).input_tags.pairwise
    except Exception:  # an estimator of another library may have other tags
        return
    if is_pairwise:
        raise ValueError(
            f"this {name} takes a precomputed matrix between all examples, so an example cannot be removed by leaving "
            "out its row; fit it on features, with a named kernel or distance"
        )


def _require_labels(train: Examples, name: str, has_classes: bool) -> None:
    """Raise ValueError if targets are of a kind that such an estimator is not trained on."""
    y = np.asarray(train.y)
    if not has_classes and y.dtype.kind not in "fiub":
        raise ValueError(f"expected numbers as targets of {name}, which is a regressor, got labels such as {y[0]!r}")
    if has_classes and y.dtype.kind == "f" and not (y == np.round(y)).all():
        raise ValueError(
            f"expected class labels for {name}, which is a classifier, got numbers such as {y[y != np.round(y)][0]:g}"
        )


def _with_features(model: RefitModel, train: Examples) -> RefitModel:
    """The model, with `is_numeric` if the inputs of its last step are finite numbers."""
    try:
        features = model.embed(train)
    except (ValueError, TypeError):
        return model
    values = features.data if is_sparse(features) else features
    return replace(model, is_numeric=bool(np.isfinite(values).all()))


def _notes(estimator: Any, name: str, outputs: Outputs, reason: str) -> tuple[str, ...]:
    """A sentence about what is refitted."""
    whole = f"the whole pipeline of {len(estimator.steps)} steps" if steps_before(estimator) is not None else name
    inside = estimator.get_params(deep=False)
    parts = [
        key for key in ("estimator", "estimators", "regressor", "transformer", "final_estimator") if inside.get(key)
    ]
    with_parts = " with everything inside it" if parts else ""
    because = f" ({reason})" if reason else ""
    notes = [f"This {name} is explained from outside{because}: refits are of {whole}{with_parts}."]
    settings = estimator.get_params(deep=True)
    frozen = [key for key, part in settings.items() if type(part).__name__ == "FrozenEstimator"]
    if frozen or settings.get("cv") == "prefit":
        notes.append(f"What is frozen inside it ({', '.join(frozen) or 'the estimator'}) is held fixed, not refitted.")
    balanced = [key for key, value in settings.items() if key.endswith("class_weight") and str(value).startswith("bal")]
    if balanced:
        notes.append(f"{balanced[0]}={settings[balanced[0]]!r}: every refit balances the classes of its rows anew.")
    if outputs.kind == "predicted labels":
        notes.append(
            f"This {name} has neither probabilities nor decision values: only removals that change a predicted label "
            "have a score other than 0."
        )
    return tuple(notes)
