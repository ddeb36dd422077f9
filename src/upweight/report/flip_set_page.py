"""The page of flip_set: what a reader would see without a few training examples, and which ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

from upweight.applications.flip_set_result import FlipSet
from upweight.core.examples import Examples, Id
from upweight.report.effect_tables import MAX_ROWS, EffectRow, application_page, effect_table, signed
from upweight.report.wording import cell_text, count, label_text, significant

MAX_CELLS = 6  # columns of a row that are shown
MAX_CHARACTERS = 160  # of a text
QUESTION = "Without which training examples would you see something else?"
DEFINITION = (
    "The highest value decides what is seen. “By scores” adds up what each removed example contributes; “by "
    "retraining” is a model that was trained without them."
)


def flip_set_page(result: FlipSet, description: Sequence[str] = ()) -> str:
    """One table of the compared values, before and after, and one of the removed examples."""
    sections = [_values(result)]
    if result.removed:
        sections.append(_removed(result))
    size = f"{count(len(result.removed), 'example')} removed" if result.removed else "no flip found"
    smallest = ["no smaller set flips it: all were retrained"] if result.is_smallest else []
    return application_page(
        result.sentence.removesuffix(".") if result.removed else QUESTION,
        [
            size,
            count(len(result.candidates), "candidate"),
            result.measurement,
            f"{count(result.trainings, 'model')} trained" if result.trainings else "not retrained",
            *smallest,
        ],
        DEFINITION if result.removed else f"{result.sentence} {DEFINITION}",
        sections,
        result.diagnostics["warnings"],
        ["Another choice of examples may need fewer, unless it is said that all smaller sets were retrained."],
        description,
    )


def _values(result: FlipSet) -> dict[str, object]:
    """All compared values."""
    rows = []
    for place, name in list(enumerate(result.names))[:MAX_ROWS]:
        before, predicted = float(result.values[place]), float(result.predicted[place])
        actual = math.nan if result.retrained is None else float(result.retrained[place])
        cells = [significant(before, 4), *(("–", "–") if not result.removed else _pair(predicted, actual))]
        change = (predicted - before) if result.removed else 0.0
        rows.append(EffectRow(_title(result, place, name), cells, change, None, actual - before))
    columns = ["with all", "by scores", "by retraining"]
    return effect_table("What is compared", "value", columns, "change by scores, by retraining", rows)


def _pair(predicted: float, actual: float) -> tuple[str, str]:
    return significant(predicted, 4), "–" if math.isnan(actual) else significant(actual, 4)


def _title(result: FlipSet, place: int, name: object) -> str:
    mark = " (first with all)" if name == result.before else " (first without them)" if name == result.after else ""
    shown = result.queries.shown
    is_text = shown is not None and len(result.names) == len(result.queries) and isinstance(shown[place], str)
    return f"{shown[place] if is_text and shown is not None else label_text(name)}{mark}"


def _removed(result: FlipSet) -> dict[str, object]:
    rows = [
        EffectRow(
            str(identifier), [signed(float(share))], float(share), None, math.nan, _excerpt(result.train, identifier)
        )
        for identifier, share in zip(result.removed[:MAX_ROWS], result.shares, strict=False)
    ]
    title = result.noun[:1].upper() + result.noun[1:] + " to remove"
    return effect_table(
        title, "id", ["share"], "share of the lead", rows, "How much of the lead each of them holds, by its score."
    )


def _excerpt(train: Examples, identifier: Id) -> str:
    """The example in one line."""
    preview, label = train.preview(identifier), label_text(train.label(identifier))
    parts = [] if label is None else [f"label {label}"]
    if preview.kind == "text":
        parts.append(str(preview.value)[:MAX_CHARACTERS])
    elif preview.kind == "row":
        parts += [f"{name} {cell_text(value)}" for name, value in preview.value[:MAX_CELLS]]
    return ", ".join(parts)
