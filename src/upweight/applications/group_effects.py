"""Effects of whole groups of training examples on the queries: their summed scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import GroupColumn
from upweight.applications.overview import comparable_rows
from upweight.core.scores import Scores


@dataclass(frozen=True)
class GroupEffect:
    """The effect of one group, to first order: the sum of the scores of its members.

    Attributes:
        column, name: the column of groups, and the group.
        size: how many training examples it has.
        mean: the mean of its summed score over the queries. RANK scores are divided by the size of their query.
        strength: the mean absolute value of it.
        on_mistakes: its mean over the wrongly predicted queries; NaN if there are none.
        worst: for how many wrongly predicted queries this group of the column has the lowest summed score.
    """

    column: str
    name: str
    size: int
    mean: float
    strength: float
    on_mistakes: float
    worst: int


def group_effects(scores: Scores, columns: Sequence[GroupColumn], is_wrong: NDArray[np.bool_]) -> list[GroupEffect]:
    """The effect of every group of these columns, the strongest of each column first.

    Args:
        scores: one row per query.
        columns: their `train` has the group of every column of the scores.
        is_wrong: whether each query is predicted wrongly, (queries,).
    """
    sums = [np.empty((len(scores.query_ids), len(column.names))) for column in columns]
    for place, row in enumerate(comparable_rows(scores)):
        for column, of_column in zip(columns, sums, strict=True):
            has_group = column.train >= 0
            of_column[place] = np.bincount(column.train[has_group], row[has_group], minlength=len(column.names))
    effects = []
    for column, of_column in zip(columns, sums, strict=True):
        sizes = np.bincount(column.train[column.train >= 0], minlength=len(column.names))
        strength, wrong = np.abs(of_column).mean(axis=0), of_column[is_wrong]
        worst = np.bincount(wrong.argmin(axis=1), minlength=len(sizes)) if len(wrong) else np.zeros_like(sizes)
        effects += [
            GroupEffect(
                column.column,
                column.names[group].removeprefix("= "),
                int(sizes[group]),
                float(of_column[:, group].mean()),
                float(strength[group]),
                float(wrong[:, group].mean()) if len(wrong) else float("nan"),
                int(worst[group]),
            )
            for group in np.argsort(-np.nan_to_num(strength), kind="stable").tolist()
            if sizes[group]
        ]
    return effects
