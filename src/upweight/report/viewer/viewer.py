"""`Viewer`: a report that is too large for one file, answered part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upweight.core.examples import Examples
from upweight.core.scores import Scores
from upweight.report.document import rendered
from upweight.report.page import method_name, page_facts
from upweight.report.payload import words_data
from upweight.report.verification import check_data
from upweight.report.viewer.contents import Contents
from upweight.report.viewer.query_parts import list_queries, one_example, one_query, whole_set
from upweight.report.viewer.row_parts import rows_as_csv, rows_of
from upweight.report.viewer.server import ViewerServer
from upweight.report.viewer.widget import viewer_widget

if TYPE_CHECKING:
    from upweight.evaluate.verify import Check

MAX_LABELS = 60  # that can be chosen from a list
PARTS: dict[str, Callable[[Contents, Mapping[str, str]], dict[str, Any]]] = {
    "queries": list_queries,
    "query": one_query,
    "rows": rows_of,
    "example": one_example,
    "whole": whole_set,
    "csv": rows_as_csv,
}
SCRIPTS = (
    "elements.js",
    "rows.js",
    "sentences.js",
    "viewer/remote_train.js",
    "query.js",
    "plot.js",
    "table.js",
    "overview.js",
    "navigator.js",
    "controls.js",
    "viewer/remote_rows.js",
    "viewer/whole_set.js",
    "viewer/compare.js",
    "viewer/viewer.js",
)


class Viewer:
    """The report of any number of scores, page by page: `serve` shows it in a browser, `answer` has its parts.

    It has what the report has, and: a search over all queries and all training examples, training examples and groups
    over all queries, a query beside any training example, and two methods side by side.

    Args:
        scores: of a fitted method; they may stay in their file (`Scores.load(path, mapped=True)`).
        train, queries: the examples behind them. Queries without scores are left out.
        check: the verification of these scores, if there was one.
        against: the scores of another method for the same queries and training examples.
        by: names of columns of the training set whose groups are summed over all queries.

    Raises:
        ValueError: scores of other examples, or queries that have changed since they were scored.
        KeyError: an unknown column.
    """

    def __init__(
        self,
        scores: Scores,
        train: Examples,
        queries: Examples,
        *,
        check: Check | None = None,
        against: Scores | None = None,
        by: Sequence[str] = (),
    ) -> None:
        self._contents = Contents(scores, train, queries, check, against, by)

    def serve(self, port: int = 0) -> ViewerServer:
        """Start a server on 127.0.0.1 in the background; its `url` is the page. Port 0 takes a free one.

        Only this machine reaches it, and only with the secret in the address. It answers reading requests alone.

        Raises OSError if the port is in use.
        """
        return ViewerServer(self, port)

    def widget(self, height: int = 900) -> Any:
        """The viewer as a widget of a notebook (extra `notebook`), this many pixels high; Python answers its questions.

        Raises ModuleNotFoundError, with what to install, without anywidget.
        """
        return viewer_widget(self, self.page("message"), height)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """What a notebook shows of a viewer: its widget; a line that says how, without anywidget."""
        try:
            return self.widget()._repr_mimebundle_(**options)
        except ModuleNotFoundError as error:
            return {"text/plain": f"{self!r}: {error}"}

    def page(self, transport: str = "fetch") -> str:
        """The page, which asks for everything else: its server (`fetch`), or the page around it (`message`)."""
        contents = self._contents
        facts = page_facts(contents.scores, contents.check)
        names = contents.names if len(contents.names) <= MAX_LABELS else []
        check = None
        if contents.check is not None:
            check = check_data(contents.check, contents.scores.query_ids.tolist())
        verified = set() if check is None else set(check["queries"])
        data = {
            "words": words_data(contents.scores),
            "otherWords": words_data(contents.methods[1].scores) if len(contents.methods) > 1 else None,
            "methods": [method_name(method.scores) for method in contents.methods],
            "classes": contents.classes,
            "queries": {q: {"id": entry["id"]} for q, entry in enumerate(contents.entries) if q in verified},
            "count": len(contents.entries),
            "wrong": sum(entry["wrong"] for entry in contents.entries),
            "train": {"total": len(contents.ids), "names": names},
            "transport": transport,
            "tableNotes": [],
            "notes": contents.album.without_entries().remarks(),
            "previews": [],
            "examples": {},
            "table": {"columns": [], "total": 0},
            "check": check,
        }
        source = "'self'" if transport == "fetch" else ""
        model = contents.scores.diagnostics.get("model", ())
        return rendered("viewer/viewer.html.j2", ("viewer/viewer.css",), SCRIPTS, data, model, source, **facts)

    def answer(self, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
        """One part of the page as plain values.

        Args:
            path: a name in `PARTS`.
            parameters: as they stand in an address.

        Raises:
            LookupError: another path, or a query or training example that does not exist.
            ValueError: a parameter that is not what was expected.
        """
        if path not in PARTS:
            raise LookupError(f"there is no {path!r}; expected one of {', '.join(PARTS)}")
        return PARTS[path](self._contents, parameters)

    def __repr__(self) -> str:
        return f"Viewer({self._contents.scores!r})"
