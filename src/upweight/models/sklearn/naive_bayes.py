"""The settings of scikit-learn's naive Bayes models, and which closed form recomputes each."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from upweight.core.model_reader import UnsupportedSettingsError
from upweight.linear.losses.class_scores import LogScoreLoss
from upweight.models.sklearn.class_priors import ClassPriors
from upweight.models.sklearn.closed_form_spec import FormSpec
from upweight.models.sklearn.count_naive_bayes import BernoulliForm, CategoricalForm, ComplementForm, MultinomialForm
from upweight.models.sklearn.gaussian_naive_bayes import GaussianForm

LEAST_ALPHA = 1e-10  # scikit-learn raises smaller alphas to it, unless force_alpha is set


def gaussian(estimator: Any) -> FormSpec:
    """GaussianNB."""
    priors = ClassPriors.of(len(estimator.classes_), estimator.priors)
    form = partial(GaussianForm, priors=priors, smoothing=float(estimator.var_smoothing))
    return FormSpec(LogScoreLoss(estimator.classes_), form)


def multinomial(estimator: Any) -> FormSpec:
    """MultinomialNB."""
    return _counts(estimator, MultinomialForm)


def complement(estimator: Any) -> FormSpec:
    """ComplementNB."""
    return _counts(estimator, ComplementForm, norm=bool(estimator.norm))


def bernoulli(estimator: Any) -> FormSpec:
    """BernoulliNB."""
    return _counts(estimator, BernoulliForm, threshold=estimator.binarize)


def categorical(estimator: Any) -> FormSpec:
    """CategoricalNB."""
    if np.ndim(estimator.alpha) != 0:
        raise UnsupportedSettingsError(
            f"expected CategoricalNB with one alpha, got {np.size(estimator.alpha)}; pass one number"
        )
    least = 0 if estimator.min_categories is None else estimator.min_categories
    columns = np.broadcast_to(np.asarray(least, dtype=np.intp), (estimator.n_features_in_,))
    return _counts(estimator, CategoricalForm, is_sparse=False, least=columns)


def _counts(estimator: Any, form: type, *, is_sparse: bool = True, **settings: Any) -> FormSpec:
    priors = ClassPriors.of(len(estimator.classes_), estimator.class_prior, not estimator.fit_prior)
    alpha = np.asarray(estimator.alpha, dtype=np.float64)
    if not getattr(estimator, "force_alpha", False):
        alpha = np.maximum(alpha, LEAST_ALPHA)
    made = partial(form, priors=priors, alpha=alpha if alpha.ndim else float(alpha), **settings)
    return FormSpec(LogScoreLoss(estimator.classes_), made, is_sparse=is_sparse)
