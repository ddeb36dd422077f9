"""The page: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upweight.core.examples import Examples
from upweight.core.scores import Scores, Unit
from upweight.report.payload import payload
from upweight.report.verification import LEVEL, refits, same_scores, trust
from upweight.report.words import count, settings, wording

if TYPE_CHECKING:
    from upweight.applications.course import Course
    from upweight.evaluate.verify import Check

SCRIPTS = ("draw.js", "query.js", "plot.js", "course.js", "table.js", "page.js")


def write_report(
    path: str | Path,
    scores: Scores,
    train: Examples,
    queries: Examples,
    check: Check | None = None,
    course: Course | None = None,
) -> Path:
    """Write one self-contained HTML page that shows, for every query, what caused its prediction.

    The file holds its data, pictures, style and script, and works from `file://` without a network. Whatever comes
    from the data set is shown as text. Sets too large for one page are cut to a budget, and the page says what is
    not on it.

    Args:
        path: where to write; an existing file is replaced in one step or not at all.
        scores: what a fitted method answered.
        train, queries: the examples behind the two axes of the scores.
        check: the verification of these scores by real retraining, if there was one.
        course: the examples shown over the training, from `follow`, if checkpoints of it were recorded.

    Returns:
        The path written to.

    Raises:
        ValueError: scores of examples that are not in `train` or `queries`.
    """
    _require_ids("query", scores.query_ids, queries, "queries")
    _require_ids("train", scores.train_ids, train, "train")
    if len(scores.query_ids) == 0:
        raise ValueError("expected scores of at least one query, got none; attribute some queries first")
    return write_text(Path(path), _render(scores, train, queries, check, course))


def _require_ids(axis: str, ids: Any, examples: Examples, name: str) -> None:
    known = set(examples.ids.tolist())
    missing = [i for i in ids.tolist() if i not in known]
    if missing:
        raise ValueError(
            f"expected every {axis} id of the scores to be in `{name}` (ids like {examples.ids[:3].tolist()}), "
            f"got {len(missing)} that are not, e.g. {missing[0]!r}; pass the same examples the scores were made with, "
            "and scores of single examples (not a sum of group(), total() or self_influence())"
        )


def _render(
    scores: Scores, train: Examples, queries: Examples, check: Check | None, course: Course | None = None
) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style, script = read_text("page.css"), "\n".join(read_text(name) for name in SCRIPTS)
    words = wording(scores)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(read_text("page.html.j2")).render(
        # Style and script are this package's own text; everything else goes through autoescape.
        style=Markup(style),
        script=Markup(script),
        data=Markup(_safe_json(payload(scores, train, queries, check, course))),
        policy=_policy(style, script),
        words=words,
        unit=_unit_sentence(scores.unit, words.unit),
        method=str(scores.recipe.get("method", "unnamed method")),
        size=f"{count(len(scores.query_ids), 'query')} × {count(len(scores.train_ids), 'training example')}",
        warnings=_warnings(scores, check),
        trust=trust(check, scores),
        refits=None if check is None else count(refits(check), "refit"),
        level=f"{LEVEL:.0%}",
        recipe=list(settings(scores.recipe, skip=("method",))),
        diagnostics=list(settings(scores.diagnostics, skip=("warnings",))),
        checked=[] if check is None else list(settings(check.diagnostics, skip=("warnings",))),
    )


def _unit_sentence(unit: Unit, name: str) -> str:
    if unit == Unit.EFFECT:
        return f"EFFECT: scores are sizes, in {name or 'the unit of the measurement'}"
    return "RANK: scores give sign and order, not size"


def _warnings(scores: Scores, check: Check | None) -> list[dict[str, str]]:
    found = [{"source": "method", "text": str(text)} for text in scores.diagnostics.get("warnings", ())]
    if check is not None:
        found += [{"source": "verification", "text": str(text)} for text in check.diagnostics.get("warnings", ())]
        if not same_scores(check, scores):
            text = "The verification was made with other scores than the ones on this page and says nothing of these."
            found.append({"source": "verification", "text": text})
    return found


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever the data says."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"the page's data holds a {type(value).__name__}, which is no JSON")


def _policy(style: str, script: str) -> str:
    """A content security policy under which nothing runs but this package's own script, and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def read_text(name: str) -> str:
    """A style, script or template of this package."""
    # Universal newlines: the browser hashes what it parsed, and it parses CRLF as LF.
    return files("upweight.report").joinpath(name).read_text(encoding="utf-8")


def write_text(path: Path, text: str) -> Path:
    """Write to a neighbour, flush to disk, rename: a reader finds the old page or the whole new one."""
    partial = path.with_name(path.name + ".tmp")
    try:
        with open(partial, "wb") as file:
            # A text may hold half a surrogate pair, which has no UTF-8 form; it becomes a question mark.
            file.write(text.encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
