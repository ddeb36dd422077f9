"""A plain table of suspect labels, with a column for the decision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from upweight.applications.suspects import Suspects
from upweight.core.examples import Examples, Id
from upweight.report.exports.choices import DROP_TEXT, KEEP_TEXT, Choices
from upweight.report.exports.decisions import Decided
from upweight.report.exports.export_folder import ExportFolder
from upweight.report.exports.items import items_of
from upweight.report.exports.label_form import LabelForm

COLUMNS = ["id", "given", "suggested", "probability", "decision"]
README = f"""A table to fill in: write into the column `decision` the label of each example, {DROP_TEXT} or
{KEEP_TEXT}; leave it empty to decide nothing. Save it as CSV with its columns and ids; then `upweight import-labels` or
`uw.LabelTable().read("labels.csv", train)` makes a patch of the decisions. Columns and rows may be moved and removed.
"""


@final
@dataclass(frozen=True, kw_only=True)
class LabelTable(LabelForm):
    """A CSV table to fill in, for spreadsheets and scripts: `labels.csv`, with pictures as PNG files beside it.

    Its columns are `id`, `given`, `suggested`, `probability`, an empty `decision`, and the contents. It also takes
    regression targets. A cell that a spreadsheet would take for a formula has an apostrophe in front.
    """

    def _write(self, export: ExportFolder, suspects: Suspects, choices: Choices) -> None:
        items = items_of(suspects, choices)
        names = list(dict.fromkeys(name for item in items for name in item.row))
        contents = {"row": names, "text": ["text"], "image": ["picture"]}[items[0].kind]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow([*COLUMNS, *(_cell(f"content {name}" if name in COLUMNS else name) for name in contents)])
        for number, item in enumerate(items):
            picture = f"pictures/{number:05}.png"
            if item.png:
                export.add(picture, item.png)
            cells = {"row": [item.row.get(name, "") for name in names], "text": [item.text], "image": [picture]}
            probability = "" if item.probability is None else f"{item.probability:.6g}"
            facts = [_cell(item.name), _cell(item.given), _cell(item.suggested), probability, ""]
            writer.writerow([*facts, *(_cell(cell) for cell in cells[items[0].kind])])
        export.add("labels.csv", "\ufeff" + out.getvalue())  # a spreadsheet takes it for UTF-8 by the mark
        export.add("README.txt", README)

    def _read(self, content: bytes, name: str, train: Examples, choices: Choices) -> list[Decided]:
        try:
            text = content.decode("utf-8-sig")
            separator = csv.Sniffer().sniff(text.splitlines()[0], ",;\t").delimiter if text.strip() else ","
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{name} is not a table of text in UTF-8 ({error})") from None
        missing = [column for column in ("id", "decision") if rows and column not in rows[0]]
        if missing or not rows:
            raise ValueError(f"{name} has no column {(missing or ['id'])[0]!r}; expected the table that was exported")
        ids = _by_text(train)
        decided = []
        for row in rows:
            decision = (row["decision"] or "").strip()
            if decision:
                identifier = ids.get(row["id"], row["id"])
                if row["id"] in ids:
                    _require_given(row, identifier, name, train, choices)
                decided.append(Decided(identifier, _written(decision, choices)))
        return decided


def _require_given(row: Mapping[str, str | None], identifier: Id, name: str, train: Examples, choices: Choices) -> None:
    """Raise ValueError if the example had another label of the training set when the table was written."""
    if choices.is_regression or train.y is None:
        return
    given = _written((row.get("given") or "").strip(), choices)
    now = choices.text(train.y[train.positions([identifier])[0]].item())
    if given in choices.texts and given != now:
        raise ValueError(
            f"{name} was exported from another training set: example {identifier!r} had the label {given!r}, and has "
            f"{now!r} here. Read it with the training set that it was exported from; the patch can then be rebased "
            "(patch.rebased(train)). Nothing was changed"
        )


def _written(decision: str, choices: Choices) -> str:
    """The decision without the apostrophe that a spreadsheet was given."""
    bare = decision.removeprefix("'")
    return bare if decision != bare and _cell(bare) == decision else decision


def _by_text(train: Examples) -> dict[str, Id]:
    """The id that is written in each way. Raises ValueError if two ids have one text."""
    ids = {_cell(str(identifier)): identifier for identifier in train.ids.tolist()}
    if len(ids) < len(train):
        raise ValueError("two ids of the training set have the same text in a table; give the examples other ids")
    return {**{str(identifier): identifier for identifier in train.ids.tolist()}, **ids}


def _cell(text: str) -> str:
    """The text, marked as text if a spreadsheet would take it for a formula."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        json.loads(text)  # a number
    except ValueError:
        return "'" + text
    return text
