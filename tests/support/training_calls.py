"""Calls of every function that trains, with as few trainings as possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import numpy as np

import upweight as uw
from support.logistic_fit import logistic_fit
from upweight.evaluate.baselines import held_out_loss
from upweight.retraining.retraining import ONE_BY_ONE

T = TypeVar("T")


def change() -> uw.Change:
    """A change that removes two examples."""
    return uw.Change(remove=["t3", "t8"])


def slicing(**more: Any) -> uw.Slicing:
    """Four parts of the training set, and the first five queries as the failing ones."""
    _, train, queries, *_ = logistic_fit()
    return uw.Slicing({"part": np.arange(len(train)) % 4}, **{"failing": {"some": queries.ids[:5]}, **more})


@cache
def truth() -> uw.Truth:
    """The truth of ten random subsets."""
    model, train, queries, *_ = logistic_fit()
    return uw.retrain_truth(model, train, queries, uw.subsets(train, 10), retraining=ONE_BY_ONE)


def present(value: T | None) -> T:
    """A part of a result that the call has asked for."""
    assert value is not None
    return value


def retrained_parameters(models: Any) -> Any:
    """The parameters of every model that `uw.retrain` trained, (trainings, parameters)."""
    return models.parameters


def call(name: str, **keywords: Any) -> Any:
    """The result of the function with this name, as one array."""
    model, train, queries, _, scores = logistic_fit()
    few, chance, rows = queries.take([0, 1]), {"chance": uw.Chance()}, 1 - np.eye(len(train))[:4]
    of = (model, train, queries)
    two = replace(scores, values=scores.values[:2], query_ids=few.ids, measured=None, predictions=None)
    calls: dict[str, Callable[[], Any]] = {
        "verify": lambda: uw.verify(model, train, queries, scores, 3, **keywords).actual,
        "explain": lambda: present(uw.explain(model, train, queries, **keywords).check).predicted,
        "retrain_truth": lambda: uw.retrain_truth(model, train, queries, uw.subsets(train, 3), **keywords).after,
        "retrain": lambda: retrained_parameters(uw.retrain(model, train, rows, **keywords)),
        "brittleness": lambda: [f.tried for f in uw.brittleness(model, train, few, two, most=4, **keywords).flips],
        "removal_curve": lambda: uw.removal_curve(model, train, few, two, (0.1,), **keywords).spread,
        "slices": lambda: uw.slices(model, train, queries, keywords.pop("by", slicing()), **keywords).actual,
        "what_if": lambda: uw.what_if(model, train, queries, change(), **keywords).high,
        "mislabeled": lambda: present(uw.mislabeled(model, train, folds=3, **keywords).held_out).loss,
        "held_out_loss": lambda: held_out_loss(model, train, 4, **keywords),
        "compare": lambda: np.array(
            [present(e.detection).auc for e in uw.compare(chance, *of, truth(), planted=["t1"], **keywords).entries]
        ),
    }
    return calls[name]()
