"""The report of scores: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upweight.core.examples import Examples
from upweight.core.scores import Scores
from upweight.report.document import rendered, written
from upweight.report.inputs_page import inputs_section
from upweight.report.page_limits import PageLimits
from upweight.report.payload import payload
from upweight.report.verification import LEVEL, headline, judged, same_scores, trust
from upweight.report.wording import UNCONFIRMED, Wording, count, settings, wording

if TYPE_CHECKING:
    from upweight.applications.explain import Explanation
    from upweight.applications.follow import Course
    from upweight.evaluate.verify import Check

SCRIPTS = (
    "elements.js",
    "rows.js",
    "sentences.js",
    "local_train.js",
    "query.js",
    "plot.js",
    "course.js",
    "table.js",
    "local_rows.js",
    "overview.js",
    "print.js",
    "navigator.js",
    "controls.js",
    "page.js",
)


def write_report(
    path: str | Path,
    scores: Scores,
    train: Examples,
    queries: Examples,
    check: Check | None = None,
    course: Course | None = None,
    limits: PageLimits | None = None,
) -> Path:
    """Write one self-contained HTML page that shows, for every query, what caused its prediction.

    Rows of a table are shown with the columns that matter first, and with the values that differ from those of the
    query; all other columns unfold. Printing the page gives all queries.

    The file contains its data, pictures, style and script, and works from `file://` without a network. Everything
    from the data set is shown as text, never as HTML. If the data are too large for one page, the page shows a part
    and reports what was left out.

    Args:
        path: where to write; an existing file is replaced in one step or not at all.
        scores: the scores of a fitted method. Sentences in `scores.diagnostics["model"]` stand in the head of the page.
        train, queries: the examples behind the two axes of the scores.
        check: the verification of these scores by retraining, if there was one.
        course: the examples over the training, from `follow`, if checkpoints were recorded.
        limits: how much of the data the page holds; by default enough for 200 queries and some megabytes.

    Returns:
        The path written to.

    Raises:
        ValueError: scores of examples that are not in `train` or `queries`.
    """
    require_ids("query", scores.query_ids, queries, "queries")
    require_ids("train", scores.train_ids, train, "train")
    scores.require_train(train)
    if len(scores.query_ids) == 0:
        raise ValueError("expected scores of at least one query, got none; attribute some queries first")
    scores = judged(check, scores)
    return written(Path(path), _render(scores, payload(scores, train, queries, check, course, limits), check))


def explanation_page(explained: Explanation, description: Sequence[str] = ()) -> str:
    """The report of an explanation, with its verification, its support audit and its input attributions."""
    scores = judged(explained.check, explained.scores)
    if description:
        sentences = [*description, *scores.diagnostics.get("model", ())]
        scores = replace(scores, diagnostics={**scores.diagnostics, "model": sentences})
    data = payload(scores, explained.train, explained.queries, explained.check)
    on_page = {i: q for q, (i, _) in enumerate(zip(scores.query_ids.tolist(), data["queries"], strict=False))}
    inputs = None if explained.inputs is None else inputs_section(explained.inputs, on_page)
    if explained.audit is None:
        return _render(scores, data, explained.check, inputs=inputs)
    for identifier, q in on_page.items():
        data["queries"][q]["support"] = explained.audit.of(identifier).summary()
    return _render(scores, data, explained.check, explained.audit.diagnostics["warnings"], inputs)


def require_ids(axis: str, ids: Any, examples: Examples, name: str) -> None:
    """Raise ValueError if the scores have ids that these examples do not have."""
    known = set(examples.ids.tolist())
    missing = [i for i in ids.tolist() if i not in known]
    if missing:
        raise ValueError(
            f"expected every {axis} id of the scores to be in `{name}` (ids like {examples.ids[:3].tolist()}), "
            f"got {len(missing)} that are not, e.g. {missing[0]!r}; pass the same examples the scores were made with, "
            "and scores of single examples (not a sum of group(), total() or self_influence())"
        )


def _render(
    scores: Scores,
    data: dict[str, Any],
    check: Check | None,
    audit_warnings: Sequence[str] = (),
    inputs: dict[str, Any] | None = None,
) -> str:
    warnings = [{"source": "support audit", "text": text} for text in audit_warnings]
    model = scores.diagnostics.get("model", ())
    facts = {**page_facts(scores, check, warnings), "inputs": inputs}
    return rendered("page.html.j2", ("inputs.css",) if inputs else (), SCRIPTS, data, model, **facts)


def page_facts(scores: Scores, check: Check | None, warnings: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    """Values for the template of the report about all queries: words, method, warnings, verification and settings."""
    words = wording(scores)
    return {
        "words": words,
        "unit": _unit_sentence(words),
        "method": method_name(scores),
        "size": f"{count(len(scores.query_ids), 'query')} × {count(len(scores.train_ids), 'training example')}",
        "warnings": [*_warnings(scores, check), *warnings],
        "trust": trust(check, scores),
        "headline": headline(check, scores),
        "level": f"{LEVEL:.0%}",
        "recipe": list(settings(scores.recipe, skip=("method",))),
        "diagnostics": list(settings(scores.diagnostics, skip=("warnings", "model"))),
        "inputs": None,
        "checked": [] if check is None else list(settings(check.diagnostics, skip=("warnings",))),
    }


def method_name(scores: Scores) -> str:
    """The name of the method behind the scores."""
    return str(scores.recipe.get("method", "unnamed method"))


def _unit_sentence(words: Wording) -> str:
    if words.calibrated:
        return f"EFFECT: the size of scores is in {words.unit or 'the unit of the measurement'}"
    return f"RANK: {UNCONFIRMED if words.refuted else 'scores give sign and order, not size'}"


def _warnings(scores: Scores, check: Check | None) -> list[dict[str, str]]:
    warnings = [{"source": "method", "text": str(text)} for text in scores.diagnostics.get("warnings", ())]
    if check is not None:
        warnings += [{"source": "verification", "text": str(text)} for text in check.diagnostics.get("warnings", ())]
        if not same_scores(check, scores):
            text = "The verification was made with other scores than those on this page, and says nothing about these."
            warnings.append({"source": "verification", "text": text})
    return warnings
