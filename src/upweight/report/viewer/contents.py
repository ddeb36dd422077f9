"""The contents of a viewer in memory: the scores, the examples, and what all its parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from upweight.core.examples import Examples, require_examples
from upweight.core.scores import Scores
from upweight.report.page import require_ids
from upweight.report.page_limits import PageLimits
from upweight.report.payload import STRONGEST_SHOWN, has_classes, label_codes, query_entry
from upweight.report.previews import Album
from upweight.report.verification import intervals, judged, same_scores
from upweight.report.viewer.once import Once
from upweight.report.viewer.parameters import whole_number
from upweight.report.viewer.ranked import Ranked
from upweight.report.viewer.search import Searchable
from upweight.report.viewer.whole_set import WholeSet
from upweight.report.wording import number

if TYPE_CHECKING:
    from upweight.evaluate.verify import Check

MAX_CHECKED = 2_000_000  # scores up to which single scores have intervals from the verification


class Contents:
    """The scores and examples of a viewer; see there for the arguments and errors.

    A query is named by its place in the scores, and a training example by its place there.
    """

    def __init__(
        self,
        scores: Scores,
        train: Examples,
        queries: Examples,
        check: Check | None,
        against: Scores | None,
        by: Sequence[str],
    ) -> None:
        for name, given in (("train", train), ("queries", queries)):
            require_examples(given, name)
        if against is not None and not isinstance(against, Scores):
            raise TypeError(f"expected `against` to be Scores of another method, got {type(against).__name__}")
        require_ids("query", scores.query_ids, queries, "queries")
        require_ids("train", scores.train_ids, train, "train")
        if not scores.values.size:
            raise ValueError("expected scores of at least one query and one training example, got none")
        queries = queries.select(scores.query_ids)
        scores.require_queries(queries)
        scores.require_train(train)
        self.scores, self.train, self.queries = judged(check, scores), train, queries
        self.check = check
        self.has_intervals = scores.half_widths is not None or (
            check is not None and scores.values.size <= MAX_CHECKED and same_scores(check, scores)
        )
        self.methods = [Ranked(other, scores) for other in (self.scores, against) if other is not None]
        self.classes = has_classes(scores, train)
        self.entries = [query_entry(self.scores, queries, q) for q in range(len(queries))]
        self.ids = scores.train_ids.tolist()
        self.names, self.codes = label_codes(train, self.ids)
        self.order_of: dict[str, Any] = {}
        self.album = Album(train, queries, PageLimits())
        is_wrong = np.array([entry["wrong"] for entry in self.entries])
        self.whole = WholeSet(self.methods, train, queries, by, is_wrong, self.classes)
        self.in_train = Once(lambda: Searchable(train.select(scores.train_ids)))
        self.in_queries = Once(lambda: Searchable(queries))

    def top(self, method: Ranked, q: int) -> dict[str, list[list[Any]]]:
        """The strongest of one method as (place, score, rank by the other method)."""
        others = [other for other in self.methods if other is not method]
        ranks = others[0].ranks(q) if others else None
        row = method.row(q)
        return {
            side: [
                [place, number(row[place]), None if ranks is None else int(ranks[place])]
                for place in method.strongest(q, STRONGEST_SHOWN, sign)
            ]
            for side, sign in (("proponents", 1), ("opponents", -1))
        }

    def intervals(self, q: int, places: list[int]) -> dict[int, list[float | None]]:
        """The intervals of these training examples for one query, as far as there are some."""
        if not self.has_intervals:
            return {}
        strongest: list[list[Any]] = [[] for _ in range(q)] + [[self.ids[place] for place in places]]
        ranges, _ = intervals(self.check, self.scores, strongest)
        return {place: ranges[q, self.ids[place]] for place in places if (q, self.ids[place]) in ranges}

    def brief(self, q: int) -> dict[str, Any]:
        """The entry of one query in a list."""
        return {"at": q, **{name: self.entries[q][name] for name in ("id", "label", "predicted", "wrong")}}

    def brief_example(self, place: int, album: Album) -> dict[str, Any]:
        """Id, label and preview of one training example."""
        return {**self.named(place), "preview": album.add("train", self.ids[place])}

    def named(self, place: int) -> dict[str, Any]:
        """Id and label of one training example."""
        return {"id": str(self.ids[place]), "label": self.names[self.codes[place]]}

    def list_entries(self, places: list[int], album: Album) -> dict[int, dict[str, Any]]:
        """Training examples as entries of a list: each with a small picture, or with one line of text."""
        lines = album.excerpts([self.ids[place] for place in places])
        if lines is None:
            return {place: self.brief_example(place, album) for place in places}
        return {place: {**self.named(place), "line": line} for place, line in zip(places, lines, strict=True)}

    def query_id(self, q: int) -> Any:
        """The id of a query."""
        return self.scores.query_ids[q].item()

    def place(self, parameters: Mapping[str, str], name: str, count: int) -> int:
        """The place of this name, below `count`. Raises LookupError for one that does not exist."""
        place = whole_number(parameters, name)
        if place >= count:
            raise LookupError(f"there are {count:,} of them, and no number {place}")
        return place


def previews(album: Album) -> dict[str, Any]:
    """The entries of an album, for the script of the page."""
    table = album.table()
    return {"previews": album.entries, "table": table}
