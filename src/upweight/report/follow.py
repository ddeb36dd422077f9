"""The examples on the page over the checkpoints of the training, as data for its script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from upweight.core.examples import Id
from upweight.report.wording import number

if TYPE_CHECKING:
    from upweight.applications.follow import Course

SIGNIFICANT_DIGITS = 4  # a drawing shows no more


def course_data(
    course: Course, queries: Sequence[Id], shown: Sequence[Sequence[Id]], position_of: Mapping[Id, int]
) -> Any:
    """The steps, and for each query its measurement and the pushes of its training examples; None if not followed."""
    rows = {identifier: row for row, identifier in enumerate(course.query_ids.tolist())}
    columns = {identifier: column for column, identifier in enumerate(course.train_ids.tolist())}
    per_query: list[dict[str, Any] | None] = []
    for query, strongest in zip(queries, shown, strict=True):
        row = rows.get(query)
        followed = [] if row is None else [i for i in strongest if i in columns and _followed(course, row, columns[i])]
        if row is None or not followed:
            per_query.append(None)
            continue
        pushes = {str(position_of[i]): _rounded(course.contributions[:, row, columns[i]]) for i in followed}
        per_query.append({"measured": _rounded(course.of_queries[:, row]), "pushes": pushes})
    train = sorted({i for strongest in shown for i in strongest if i in columns}, key=position_of.__getitem__)
    return {
        "steps": course.steps.tolist(),
        "queries": per_query,
        "train": {str(position_of[i]): _rounded(course.of_train[:, columns[i]]) for i in train},
    }


def _followed(course: Course, row: int, column: int) -> bool:
    return not bool(np.isnan(course.contributions[:, row, column]).any())


def _rounded(values: Any) -> list[float | None]:
    return [number(float(f"{value:.{SIGNIFICANT_DIGITS}g}")) for value in values.tolist()]
