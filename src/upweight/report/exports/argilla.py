"""Records of Argilla: suspect labels as suggestions, and responses as decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from upweight.applications.patch import checksum
from upweight.applications.suspects import Suspects
from upweight.core.examples import Examples
from upweight.report.exports.choices import DROP_TEXT, Choices
from upweight.report.exports.decisions import Decided, id_of, read_json
from upweight.report.exports.export_folder import ExportFolder
from upweight.report.exports.items import Item, items_of
from upweight.report.exports.label_form import LabelForm, require_labels, require_same_train

TRAIN = "upweight_train"  # of the metadata of a record
WHAT = "records of Argilla, as dataset.records.to_json writes them"
README = """Argilla: make a data set with settings.py, after filling in the address and the key of your server; it also
loads records.json. The label that is suggested is chosen already. When the records have responses,
`dataset.records.to_json("labelled.json")` writes them; then `upweight import-labels --form argilla` or
`uw.ArgillaRecords().read("labelled.json", train)` makes a patch of the responses.
"""
SETTINGS = '''"""A data set of Argilla with the records of this folder. Fill in the address and key of your server."""

import argilla as rg

client = rg.Argilla(api_url="http://localhost:6900", api_key="…")
settings = rg.Settings(
    fields=[rg.{field}(name={name!r}), rg.TextField(name="given")],
    questions=[rg.LabelQuestion(name={question!r}, labels={labels!r})],
    allow_extra_metadata=True,
)
dataset = rg.Dataset(name="labels-to-review", settings=settings, client=client)
dataset.create()
dataset.records.from_json("records.json")
'''


@final
@dataclass(frozen=True, kw_only=True)
class ArgillaRecords(LabelForm):
    """Records for Argilla: `records.json`, with the suggested label as a suggestion, and `settings.py`.

    Texts and the values of rows are text fields, pictures are inside of an image field as PNG. `read` takes what
    `dataset.records.to_json` writes; records without a submitted response have no decision.

    Args:
        question: the name of the question.
    """

    question: str = "label"

    def _write(self, export: ExportFolder, suspects: Suspects, choices: Choices) -> None:
        require_labels(choices, "records of Argilla")
        items, mark = items_of(suspects, choices), checksum(suspects.train)
        export.add_json("records.json", [self._record(item, mark) for item in items])
        is_picture = items[0].kind == "image"
        facts = {"field": "ImageField" if is_picture else "TextField", "name": _field(items[0])}
        labels = [*choices.texts, DROP_TEXT]
        export.add("settings.py", SETTINGS.format(**facts, question=self.question, labels=labels))
        export.add("README.txt", README)

    def _record(self, item: Item, mark: str) -> dict[str, Any]:
        suggestion: dict[str, Any] = {"value": item.suggested, "agent": "upweight", "score": item.probability}
        return {
            "id": item.key,
            "fields": {_field(item): item.data_uri if item.png else item.text, "given": item.given},
            "metadata": {"suspicion": item.suspicion, TRAIN: mark},
            "suggestions": {self.question: suggestion},
            "responses": {},
            "vectors": {},
        }

    def _read(self, content: bytes, name: str, train: Examples, choices: Choices) -> list[Decided]:
        decided = []
        for record in read_json(content, name, WHAT):
            if "id" not in record or not isinstance(record.get("responses"), dict):
                raise ValueError(f"{name} has a record without an id or responses; expected {WHAT}")
            require_same_train((record.get("metadata") or {}).get(TRAIN), train, name)
            identifier = id_of(record["id"], name)
            for response in record["responses"].get(self.question) or []:
                if response.get("status", "submitted") == "submitted" and response.get("value") is not None:
                    decided.append(Decided(identifier, str(response["value"])))
        return decided


def _field(item: Item) -> str:
    return "image" if item.kind == "image" else "text"
