"""The label whose support scores show, for every query, and how much each training example supports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explain import Explanation
from upweight.core.attributor import Fitted
from upweight.core.examples import Examples
from upweight.core.scores import Scores

Array = NDArray[np.float64]
OF_THE_LABEL = ("−loss", "-loss", "margin of the label", "logit of the label")
OF_A_CLASS = "probability of "


def train_labels(explained: Explanation) -> NDArray[Any] | None:
    """The readable label of every training example, (n,); None if labels are not classes."""
    y, predictions = explained.train.y, explained.scores.predictions
    if y is None or y.ndim != 1 or predictions is None or not predictions.classes:
        return None
    labels = np.empty(len(y), dtype=object)
    labels[:] = [explained.train.labels.get(value, value) for value in y.tolist()]
    return labels


def supported(explained: Explanation) -> tuple[list[Any] | None, Array, list[str]]:
    """(the label whose support is audited, of every query; how much each training example supports it; warnings).

    It is the predicted label. Scores of a loss or a margin are about the query's label: for mistakes, they change
    their sign if there are two classes, and the predictions are attributed if there are more. Labels are None for
    regression and for measurements that are of no label.
    """
    scores, queries = explained.scores, explained.queries
    values = np.nan_to_num(scores.values)
    if train_labels(explained) is None or scores.predictions is None:
        return None, values, []
    measured: list[Any] | None = None  # the label that is measured
    if scores.measurement.startswith(OF_A_CLASS):
        name = scores.measurement.removeprefix(OF_A_CLASS)
        measured = [label for label, raw in _raw_labels(explained.train).items() if repr(raw) == name] * len(queries)
    elif queries.y is not None and scores.measurement.startswith(OF_THE_LABEL):
        measured = [queries.label(i) for i in queries.ids.tolist()]
    if not measured:
        text = f"Scores of {scores.measurement} are of no label: the labels of proponents are not audited."
        return None, values, [text]
    return _of_predicted(explained, list(scores.predictions.predicted), measured, values)


def _of_predicted(
    explained: Explanation, predicted: list[Any], measured: list[Any], values: Array
) -> tuple[list[Any], Array, list[str]]:
    """Labels, values and warnings, if the label that is measured is known."""
    classes = explained.scores.predictions.classes if explained.scores.predictions else ()
    others = np.flatnonzero([name != label for name, label in zip(predicted, measured, strict=True)])
    if len(classes) == 2 or not len(others):
        values[others] *= -1.0
        return predicted, values, []
    if explained.scores.measurement.startswith(OF_A_CLASS):
        return measured, values, []
    if explained.fitted is not None:
        values[others] = _attributed(explained, others, [predicted[i] for i in others.tolist()])
        return predicted, values, []
    values[others] *= -1.0
    text = (
        f"Proponents of {len(others)} mistakes are the opponents of their labels. That is exact for two classes, and "
        f"here there are {len(classes)}; pass what uw.explain returned for exact ones."
    )
    return predicted, values, [text]


def _attributed(explained: Explanation, queries: NDArray[np.intp], labels: Sequence[Any]) -> Array:
    """The scores of these queries if they had these labels, (queries, n)."""
    assert explained.fitted is not None
    raw = _raw_labels(explained.train)
    relabelled = explained.queries.take(queries).replaced(y=np.array([raw[label] for label in labels]))
    return np.nan_to_num(scores_of(explained.fitted, relabelled).values)


def scores_of(fitted: Fitted[Any, Any], queries: Examples) -> Scores:
    """Scores of further queries, for which the optimum need not predict what the model predicts."""
    values = np.empty((len(queries), len(fitted.train)))
    for where, block in fitted.answer(queries):
        values[:, where] = block
    predictions = fitted.original_model.predict(queries)
    return fitted.scores(values, queries.ids, fitted.train.ids, predictions=predictions)


def _raw_labels(train: Examples) -> dict[Any, Any]:
    """Readable label → label."""
    return {} if train.y is None else {train.labels.get(value, value): value for value in np.unique(train.y).tolist()}
