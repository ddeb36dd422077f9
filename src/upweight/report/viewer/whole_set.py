"""The viewer's statements about all queries together, computed once, on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.applications.audit_results import GroupColumn
from upweight.applications.group_columns import group_columns
from upweight.applications.group_effects import group_effects
from upweight.applications.overview import overview
from upweight.core.examples import Examples, Id
from upweight.core.scores import Scores
from upweight.report.overview_section import summary_data
from upweight.report.payload import label_codes
from upweight.report.previews import Album
from upweight.report.viewer.once import Once
from upweight.report.viewer.ranked import Ranked, shared
from upweight.report.wording import number

GROUPS_SHOWN = 20  # of one column
QUERIES_LISTED = 20  # of one kind of mistakes
COMPARED = 200  # queries over which two methods are compared


class WholeSet:
    """The overview of all queries, the effects of groups, and the agreement of two methods.

    Args:
        methods: the scores, and those of a second method if there are some.
        train, queries: the examples behind them.
        by: columns of the training set whose groups are summed; labels are, if they are classes.
        is_wrong: whether each query is predicted wrongly, (queries,).
    """

    def __init__(
        self,
        methods: Sequence[Ranked],
        train: Examples,
        queries: Examples,
        by: Sequence[str],
        is_wrong: NDArray[np.bool_],
        classes: bool,
    ) -> None:
        self._methods, self._queries = methods, queries
        scores = methods[0].scores
        columns = _columns(scores, train, queries, by, classes)
        self._overview = Once(lambda: overview(scores, queries))
        self._groups = Once(lambda: group_effects(scores, columns, is_wrong))
        self._agreement = Once(lambda: _agreement(methods))

    def data(self, places: dict[Id, int], album: Album) -> dict[str, Any]:
        """Values for the script of the page, computed on first use. `places` maps a query to its place."""
        summary = summary_data(self._overview.result(), places, album)
        for group in summary["groups"]:
            group["queries"] = group["queries"][:QUERIES_LISTED]
        names = {q: str(self._queries.ids[q]) for group in summary["groups"] for q in group["queries"]}
        columns: dict[str, list[dict[str, Any]]] = {}
        for effect in self._groups.result():
            columns.setdefault(effect.column, []).append(
                {
                    "name": effect.name,
                    "size": effect.size,
                    "mean": number(effect.mean),
                    "strength": number(effect.strength),
                    "onMistakes": number(effect.on_mistakes),
                    "worst": effect.worst,
                }
            )
        return {
            "overview": summary,
            "names": names,
            "groups": [
                {"column": column, "rows": rows[:GROUPS_SHOWN], "total": len(rows)} for column, rows in columns.items()
            ],
            "agreement": self._agreement.result(),
        }


def _columns(scores: Scores, train: Examples, queries: Examples, by: Sequence[str], classes: bool) -> list[GroupColumn]:
    """The groups of the columns of the scores."""
    order = train.positions(scores.train_ids)
    grouped = group_columns(train, queries, list(by), {}) if by else []
    columns = [GroupColumn(c.column, c.names, c.train[order], c.queries) for c in grouped]
    if classes and train.y is not None:
        names, codes = label_codes(train, scores.train_ids.tolist())
        nothing = np.empty(0, dtype=np.intp)
        columns.insert(0, GroupColumn("label", tuple(str(name) for name in names), codes, nothing))
    return columns


def _agreement(methods: Sequence[Ranked]) -> dict[str, Any] | None:
    """How many of the ten strongest training examples two methods share, on average over the queries."""
    if len(methods) < 2:
        return None
    m = len(methods[0].scores.query_ids)
    chosen = np.unique(np.linspace(0, m - 1, min(m, COMPARED)).astype(int)).tolist()
    proponents, opponents = np.mean([shared(methods[0], methods[1], q) for q in chosen], axis=0).tolist()
    return {"queries": len(chosen), "proponents": proponents, "opponents": opponents}
