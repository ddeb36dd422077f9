"""Tasks of Label Studio: suspect labels as predictions, and annotations as decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final
from xml.sax.saxutils import quoteattr

from upweight.applications.patch import checksum
from upweight.applications.suspects import Suspects
from upweight.core.examples import Examples
from upweight.report.exports.choices import DROP_TEXT, Choices
from upweight.report.exports.decisions import Decided, id_of, read_json
from upweight.report.exports.export_folder import ExportFolder
from upweight.report.exports.items import Item, items_of
from upweight.report.exports.label_form import LabelForm, require_labels, require_same_train

ID, TRAIN = "upweight_id", "upweight_train"  # of the data of a task
OBJECTS = {"text": ("Text", "$text"), "image": ("Image", "$image"), "row": ("Table", "$row")}
WHAT = "an export of Label Studio as JSON or JSON-MIN"
README = """Label Studio: make a project, paste config.xml as its labelling interface (Settings, Labeling Interface,
Code), and import tasks.json. The label that is suggested is chosen already. Export the project as JSON; then
`upweight import-labels` or `uw.LabelStudioTasks().read(file, train)` makes a patch of the annotations.
"""


@final
@dataclass(frozen=True, kw_only=True)
class LabelStudioTasks(LabelForm):
    """Tasks for Label Studio: `tasks.json`, with the suggested label as a prediction, and `config.xml`.

    Texts are texts, pictures are inside of the tasks as PNG, rows are tables of names and values. `read` takes an
    export as JSON or as JSON-MIN; skipped tasks, and tasks without annotations, have no decision.

    Args:
        question: the name of the question, which the annotations of an export have.
    """

    question: str = "label"

    def _write(self, export: ExportFolder, suspects: Suspects, choices: Choices) -> None:
        require_labels(choices, "tasks of Label Studio")
        items, mark = items_of(suspects, choices), checksum(suspects.train)
        export.add_json("tasks.json", [self._task(item, mark) for item in items])
        export.add("config.xml", self._config(items, choices))
        export.add("README.txt", README)

    def _task(self, item: Item, mark: str) -> dict[str, Any]:
        shown = {"text": item.text, "image": item.data_uri if item.png else "", "row": item.row}[item.kind]
        result = {
            "id": "suggested",
            "from_name": self.question,
            "to_name": "example",
            "type": "choices",
            "value": {"choices": [item.suggested]},
        }
        prediction: dict[str, Any] = {"model_version": "upweight", "result": [result]}
        if item.probability is not None:
            prediction["score"] = item.probability
        data = {item.kind: shown, "id": item.name, "given": item.given, ID: item.key, TRAIN: mark}
        return {"data": data, "predictions": [prediction]}

    def _config(self, items: list[Item], choices: Choices) -> str:
        kinds = {item.kind for item in items}
        if len(kinds) > 1:
            raise ValueError(f"expected examples of one kind, got {sorted(kinds)}; export them in two parts")
        tag, value = OBJECTS[kinds.pop()]
        options = "".join(f"    <Choice value={quoteattr(text)}/>\n" for text in [*choices.texts, DROP_TEXT])
        return (
            f'<View>\n  <{tag} name="example" value="{value}"/>\n  <Header value="Label given: $given"/>\n'
            f'  <Choices name={quoteattr(self.question)} toName="example" choice="single" showInLine="true">\n'
            f"{options}  </Choices>\n</View>\n"
        )

    def _read(self, content: bytes, name: str, train: Examples, choices: Choices) -> list[Decided]:
        decided = []
        for task in read_json(content, name, WHAT):
            data = task.get("data", task)
            if not isinstance(data, dict) or ID not in data:
                raise ValueError(f"{name} has a task without {ID!r}; expected {WHAT} of tasks that upweight exported")
            require_same_train(data.get(TRAIN), train, name)
            identifier = id_of(data[ID], name)
            texts = self._annotated(task) if "data" in task else _texts(task.get(self.question), name)
            decided += [Decided(identifier, text) for text in texts]
        return decided

    def _annotated(self, task: dict[str, Any]) -> list[str]:
        """The choices of all annotations of a task that were not skipped."""
        texts = []
        for annotation in task.get("annotations") or []:
            if annotation.get("was_cancelled"):
                continue
            for result in annotation.get("result") or []:
                if result.get("from_name") == self.question and result.get("type") == "choices":
                    texts += result["value"]["choices"]
        return [str(text) for text in texts]


def _texts(value: Any, name: str) -> list[str]:
    """The choice of a flat task: a text, several in {"choices": […]}, or none."""
    if value is None or value == "":
        return []
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return [str(text) for text in value["choices"]]
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected the chosen label as a text, got {value!r:.60}")
    return [value]
