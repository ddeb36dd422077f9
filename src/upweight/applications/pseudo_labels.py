"""Unlabelled examples with the labels that a model predicts, below the training set."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.applications.predicted_labels import predicted_labels
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of, is_sparse
from upweight.core.model import Measurable


def joined_with_unlabelled(model: Measurable, train: Examples, unlabelled: Examples) -> tuple[Examples, list[str]]:
    """(the training set with the unlabelled examples below it, notes); those without labels get predicted ones.

    Raises ValueError for inputs of another kind, and for models that predict numbers.
    """
    kinds = _kind(train.x), _kind(unlabelled.x)
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"expected unlabelled examples of the kind of the training set ({kinds[0]}), got {kinds[1]}; convert "
            "both to one kind"
        )
    _require_same_labels(train, unlabelled)
    notes = []
    if unlabelled.y is None:
        if not model.predict(train.take([0])).classes and len(np.unique(np.asarray(train.y))) > 2:
            raise ValueError(
                "expected a classifier, whose predictions are labels for the unlabelled examples, got a "
                f"{type(model).__name__} that predicts numbers; pass unlabelled examples with labels of your own"
            )
        labels, probabilities = predicted_labels(model, train, unlabelled)
        unlabelled = unlabelled.replaced(y=labels[:, None] if train.is_column else labels)
        sure = "" if probabilities is None else f", with a mean probability of {float(probabilities.mean()):.2f}"
        notes.append(f"{len(unlabelled):,} unlabelled examples have the labels that the model predicts{sure}.")
    if set(unlabelled.ids.tolist()) & set(train.ids.tolist()) or unlabelled.ids.dtype.kind != train.ids.dtype.kind:
        unlabelled = unlabelled.replaced(ids=_new_ids(train, len(unlabelled)))
        notes.append(f"Ids of unlabelled examples were taken: they have new ones, from {unlabelled.ids[0]} on.")
    return train.joined(unlabelled), notes


def _require_same_labels(train: Examples, unlabelled: Examples) -> None:
    """Raise ValueError if one side has labels in words, and the other in numbers."""
    if train.y is None or unlabelled.y is None or not len(unlabelled):
        return
    if (unlabelled.y.dtype.kind in "OU") != (train.y.dtype.kind in "OU"):
        expected, label = train.y[:1].tolist()[0], unlabelled.y[:1].tolist()[0]
        raise ValueError(
            f"expected labels of unlabelled examples like those of the training set ({expected!r}), got {label!r}; "
            "pass labels of the same kind, or none, and the model predicts them"
        )


def _new_ids(train: Examples, count: int) -> list[Any]:
    if train.ids.dtype.kind in "iu":
        first = int(train.ids.max()) + 1
        return list(range(first, first + count))
    prefix = "unlabelled "
    while any(str(i).startswith(prefix) for i in train.ids.tolist()):
        prefix = f"_{prefix}"
    return [f"{prefix}{number}" for number in range(count)]


def _kind(x: Any) -> str:
    """Inputs in words."""
    names = columns_of(x)
    if names is not None:
        return f"a table of the columns {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    if is_sparse(x):
        return f"a sparse matrix of {x.shape[1]} columns"
    if isinstance(x, list | tuple):
        return "texts" if all(isinstance(value, str) for value in x) else f"a list of {type(x[0]).__name__}"
    if isinstance(x, np.ndarray):
        kind = "numbers" if x.dtype.kind in "iufb" else "objects"
        return f"{kind} of shape {x.shape[1:]} per example"
    return type(x).__name__
