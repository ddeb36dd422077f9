"""The course of training, for the page: the examples shown at every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from upweight.core.examples import Id
from upweight.report.wording import number

if TYPE_CHECKING:
    from upweight.applications.follow import Course

DIGITS = 4  # significant ones; a drawing shows no more


def course_data(course: Course, queries: Sequence[Id], shown: Sequence[Sequence[Id]], places: Mapping[Id, int]) -> Any:
    """Steps, and by query its measurement and the pushes of the training examples shown; None where not followed."""
    rows = {identifier: row for row, identifier in enumerate(course.query_ids.tolist())}
    columns = {identifier: column for column, identifier in enumerate(course.train_ids.tolist())}
    asked: list[dict[str, Any] | None] = []
    for query, some in zip(queries, shown, strict=True):
        row = rows.get(query)
        known = [] if row is None else [i for i in some if i in columns and _followed(course, row, columns[i])]
        if row is None or not known:
            asked.append(None)
            continue
        pushes = {str(places[i]): _rounded(course.pushes[:, row, columns[i]]) for i in known}
        asked.append({"measured": _rounded(course.of_queries[:, row]), "pushes": pushes})
    met = sorted({i for some in shown for i in some if i in columns}, key=places.__getitem__)
    return {
        "steps": course.steps.tolist(),
        "queries": asked,
        "train": {str(places[i]): _rounded(course.of_train[:, columns[i]]) for i in met},
    }


def _followed(course: Course, row: int, column: int) -> bool:
    return not bool(np.isnan(course.pushes[:, row, column]).any())


def _rounded(values: Any) -> list[float | None]:
    return [number(float(f"{value:.{DIGITS}g}")) for value in values.tolist()]
