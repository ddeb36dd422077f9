"""Suspect labels make the round trip through the files of labelling tools: texts, pictures and tables."""

from __future__ import annotations

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.command_line import run, words, written
from support.report_stand_ins import HOSTILE
from upweight.report.exports.choices import DROP_TEXT, KEEP_TEXT

NAMES = {0: "ham", 1: 'spam "&<é>', 2: "=news"}


def noisy(kind):
    """Sixty examples of three classes, of which five have a wrong label; ids are texts, or numbers."""
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 2)) + 4 * np.eye(3)[y][:, :2]
    y[:5] = (y[:5] + 1) % 3
    shown = {
        "text": [f"mail {i} {HOSTILE}" for i in range(60)],
        "image": rng.integers(0, 255, (60, 8, 8, 3)).astype(np.uint8),
        "row": pd.DataFrame({"given": x[:, 0].round(3), "=b": x[:, 1].round(3), "town": ["Ulm", None] * 30}),
    }[kind]
    ids = [f"m{i}" for i in range(60)] if kind == "text" else np.arange(60)[::-1]
    return uw.Examples(x, y, ids=ids, labels=NAMES, shown=shown)


@pytest.fixture(scope="module", params=["text", "image", "row"])
def suspects(request):
    train = noisy(request.param)
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(train.x, train.y), train)
    return uw.mislabeled(model, train, budget=6)


@pytest.fixture
def expected(suspects):
    """The decisions that `decide` makes: relabel the first two as suggested, drop the third, keep the fourth."""
    ids = suspects.ids.tolist()
    decided = {ids[0]: suspects.suggested[0], ids[1]: suspects.suggested[1], ids[2]: "drop"}
    return uw.Patch.of(suspects.train, decided)


def choices_of(suspects):
    train = suspects.train
    given = [NAMES[train.y[place].item()] for place in train.positions(suspects.ids[:4])]
    return [NAMES[suspects.suggested[0]], NAMES[suspects.suggested[1]], DROP_TEXT, given[3]]


def label_studio_export(folder, suspects):
    """Two annotators of the first task agree; the last two tasks are skipped and not done."""
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    for number, task in enumerate(tasks):
        task |= {"id": number + 1, "annotations": [], "predictions": []}
    for task, choice in zip(tasks, choices_of(suspects), strict=False):
        result = {"from_name": "label", "to_name": "example", "type": "choices", "value": {"choices": [choice]}}
        task["annotations"] = [{"id": 1, "was_cancelled": False, "result": [result]}]
    tasks[0]["annotations"] *= 2
    tasks[4]["annotations"] = [{"id": 9, "was_cancelled": True, "result": tasks[0]["annotations"][0]["result"]}]
    return tasks


def test_label_studio_and_back(suspects, expected, tmp_path):
    folder = uw.LabelStudioTasks().write(tmp_path / "tasks", suspects)
    config = (folder / "config.xml").read_text(encoding="utf-8")
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    require_valid_tasks(config, tasks)
    offered = [choice.get("value") for choice in ElementTree.fromstring(config).iter("Choice")]
    assert offered == [*NAMES.values(), DROP_TEXT]
    full = written(tmp_path / "full.json", json.dumps(label_studio_export(folder, suspects)))
    assert uw.LabelStudioTasks().read(full, suspects.train) == expected
    flat = [{**task["data"], "id": 4, "label": text} for task, text in zip(tasks, choices_of(suspects), strict=False)]
    assert uw.LabelStudioTasks().read(written(tmp_path / "flat.json", json.dumps(flat)), suspects.train) == expected


def require_valid_tasks(config, tasks):
    """By the validator of the SDK if it is installed, else by the schema of tasks."""
    try:
        from label_studio_sdk.label_interface import LabelInterface
    except ImportError:
        import jsonschema

        region = {
            "type": "object",
            "required": ["from_name", "to_name", "type", "value"],
            "properties": {"type": {"const": "choices"}, "value": {"required": ["choices"]}},
        }
        predictions = {"items": {"required": ["result"], "properties": {"result": {"type": "array", "items": region}}}}
        task = {
            "type": "object",
            "required": ["data"],
            "properties": {"data": {"type": "object"}, "predictions": predictions},
        }
        jsonschema.validate(tasks, {"type": "array", "items": task})
        return
    interface = LabelInterface(config)
    interface.validate()
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        assert [interface.validate_prediction(p, return_errors=True) for p in task["predictions"]] == [[]]


def test_argilla_and_back(suspects, expected, tmp_path):
    folder = uw.ArgillaRecords().write(tmp_path / "records", suspects)
    compile((folder / "settings.py").read_text(encoding="utf-8"), "settings.py", "exec")
    records = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    for record in records:
        assert set(record) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
        assert all(isinstance(value, str) for value in record["fields"].values())
    records = through_argilla(records, choices_of(suspects))
    path = written(tmp_path / "labelled.json", json.dumps(records))
    assert uw.ArgillaRecords().read(path, suspects.train) == expected


def through_argilla(records, choices):
    """The records with responses, by Argilla's own classes if they are installed; the last one is a draft."""
    for record, choice in zip(records, choices, strict=False):
        record["responses"] = {"label": [{"value": choice, "user_id": "00000000-0000-0000-0000-000000000001"}]}
    try:
        from argilla.records import Record
    except ImportError:
        pass
    else:
        records = [Record.from_dict(record).to_dict() for record in records]
    records[5]["responses"] = {"label": [{"value": choices[0], "user_id": "1", "status": "draft"}]}
    return records


def test_a_plain_table_and_back(suspects, expected, tmp_path):
    folder = uw.LabelTable().write(tmp_path / "table", suspects)
    rows = list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert [row["decision"] for row in rows] == [""] * 6
    assert not any(cell.startswith("=") for row in rows for cell in (*row, *row.values()))
    if "picture" in rows[0]:
        assert [(folder / row["picture"]).read_bytes()[:4] for row in rows] == [b"\x89PNG"] * 6
    for row, choice in zip(rows, [*choices_of(suspects)[:3], KEEP_TEXT], strict=False):
        row["decision"] = choice
    out = io.StringIO()
    writer = csv.DictWriter(out, ["decision", "id"], delimiter=";", extrasaction="ignore")  # as a German spreadsheet
    writer.writeheader()
    writer.writerows(rows[::-1])
    assert {
        d.id: d for d in uw.LabelTable().read(written(tmp_path / "t.csv", out.getvalue()), suspects.train).decisions
    } == {d.id: d for d in expected.decisions}
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    table, train = written(tmp_path / "all.csv", out.getvalue()), suspects.train
    assert len(uw.LabelTable().read(table, train).decisions) == len(expected.decisions)
    labels, codes = np.unique(train.y, return_inverse=True)
    with pytest.raises(ValueError, match=r"exported from another training set: example .* had the label .*, and has"):
        uw.LabelTable().read(table, train.replaced(y=labels[(codes + 1) % len(labels)]))


def test_targets_of_a_regression_go_through_a_table(tmp_path):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2))
    y = x @ [1.0, -2.0] + 0.1 * rng.normal(size=50)
    y[7] *= -9
    train = uw.Examples(x, y)
    suspects = uw.mislabeled(uw.explainable(Ridge().fit(x, y), train), train, budget=2)
    with pytest.raises(ValueError, match=r"tasks of Label Studio are for labels of classes.*uw\.LabelTable"):
        uw.LabelStudioTasks().write(tmp_path / "tasks", suspects)
    assert list(tmp_path.iterdir()) == []
    folder = uw.LabelTable().write(tmp_path / "table", suspects)
    lines = (folder / "labels.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[1].startswith("7,") and float(lines[1].split(",")[1].removeprefix("'")) == y[7]
    table = written(tmp_path / "t.csv", "id,decision\n7,-1.25\n")
    assert uw.LabelTable().read(table, train).decisions == (uw.Patch.of(train, {7: -1.25}).decisions)


def test_cleanlab_and_back(suspects, tmp_path):
    train = suspects.train
    frame = uw.CleanlabIssues().frame(suspects)
    assert frame.index.tolist() == train.ids.tolist() and frame["given_label"].tolist() == train.y.tolist()
    assert frame.index[frame["is_label_issue"]].tolist() == [i for i in train.ids.tolist() if i in suspects.ids]
    lowest = frame["label_quality"].sort_values(kind="stable").index[:6]
    assert sorted(lowest) == sorted(suspects.ids.tolist())
    decided = dict(zip(suspects.ids.tolist(), suspects.suggested, strict=True))
    expected = uw.Patch.of(train, {i: decided[i] for i in frame.index[frame["is_label_issue"]]})
    assert uw.CleanlabIssues().patch(frame, train) == expected
    folder = uw.CleanlabIssues().write(tmp_path / "issues", suspects)
    assert uw.CleanlabIssues().read(folder / "issues.csv", train) == expected
    back = uw.CleanlabIssues().suspects(frame, train)
    assert back.ids.tolist() == suspects.ids.tolist() and back.suggested == suspects.suggested
    assert uw.write_page(tmp_path / "review.html", back).exists()


def test_what_cleanlab_itself_finds_is_read(suspects):
    cleanlab = pytest.importorskip("cleanlab")
    train, inputs = suspects.train, uw.CleanlabIssues().inputs(suspects)
    issues = cleanlab.classification.CleanLearning().find_label_issues(**inputs)  # rows are numbered from 0
    patch = uw.CleanlabIssues().patch(issues, train)
    rows = np.flatnonzero(issues["is_label_issue"])
    assert {d.id: d.new for d in patch.decisions} == {
        train.ids[row].item(): int(issues["predicted_label"][row])
        for row in rows
        if issues["predicted_label"][row] != train.y[row]
    }
    assert len({train.ids[row].item() for row in range(5)} & {d.id for d in patch.decisions}) >= 3


def test_a_frame_that_can_be_read_in_two_ways_is_refused():
    pd = pytest.importorskip("pandas")
    train = uw.Examples(np.eye(4), [1, 2, 1, 2], ids=[3, 2, 1, 0])
    columns = {
        "is_label_issue": [True, False, False, False],
        "given_label": [1, 2, 1, 2],
        "predicted_label": [2, 2, 1, 2],
    }
    by_place = pd.DataFrame(columns)
    assert [d.id for d in uw.CleanlabIssues().patch(by_place, train).decisions] == [3]
    by_id = by_place.set_axis([3, 2, 1, 0])
    assert [d.id for d in uw.CleanlabIssues().patch(by_id, train).decisions] == [3]
    alike = uw.Examples(np.eye(4), [1, 2, 2, 1], ids=[3, 2, 1, 0])
    with pytest.raises(ValueError, match="more than one way"):
        uw.CleanlabIssues().patch(by_place.assign(given_label=[1, 2, 2, 1]), alike)
    with pytest.raises(ValueError, match="does not fit the training set"):
        uw.CleanlabIssues().patch(by_place.assign(given_label=[2, 2, 2, 2]), train)
    codes = by_place.assign(given_label=[0, 1, 0, 1], predicted_label=[1, 1, 0, 1])
    assert uw.CleanlabIssues().patch(codes, train).decisions[0].new == 2
    with pytest.raises(ValueError, match="no column 'predicted_label'"):
        uw.CleanlabIssues().patch(by_place.drop(columns="predicted_label"), train)
    with pytest.raises(ValueError, match="True or False as is_label_issue"):
        uw.CleanlabIssues().patch(by_place.assign(is_label_issue="maybe"), train)


FORMS = [uw.LabelStudioTasks(), uw.ArgillaRecords(), uw.CleanlabIssues(), uw.LabelTable()]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_a_folder_that_exists_is_left_as_it_is(form, suspects, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("mine", "file"):
        (tmp_path / "mine" / "file").write_text("precious")
        target = tmp_path / "mine" if name == "mine" else tmp_path / "mine" / "file"
        with pytest.raises(FileExistsError, match="would be lost; name a new folder"):
            form.write(target, suspects)
    with pytest.raises(FileNotFoundError, match="no folder around it"):
        form.write(tmp_path / "none" / "folder", suspects)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


def test_decisions_that_cannot_be_carried_out_are_refused_whole(suspects, tmp_path):
    folder = uw.LabelStudioTasks().write(tmp_path / "tasks", suspects)
    good, train = label_studio_export(folder, suspects), suspects.train

    def refused(change, match, train=train):
        tasks = json.loads(json.dumps(good))
        change(tasks)
        path = written(tmp_path / "changed.json", json.dumps(tasks))
        with pytest.raises(ValueError, match=match):
            uw.LabelStudioTasks().read(path, train)

    def annotate(task, choice):
        task["annotations"][0]["result"][0]["value"]["choices"] = [choice]

    refused(lambda tasks: tasks[1]["data"].update(upweight_id='"nobody"'), "the id 'nobody'.*Nothing was changed")
    refused(lambda tasks: tasks[1]["data"].update(upweight_id="m1"), "as the export wrote it")
    refused(lambda tasks: annotate(tasks[1], "eggs"), "no label is 'eggs'.*Nothing was changed")
    refused(lambda tasks: tasks[0]["annotations"].append(tasks[2]["annotations"][0]), "different decisions for the id")
    refused(lambda tasks: [task.update(annotations=[]) for task in tasks], "no decision yet")
    refused(lambda tasks: tasks[0]["data"].pop("upweight_id"), "a task without 'upweight_id'")
    refused(lambda tasks: None, "exported from another training set", train=train.without(train.ids[-1:]))
    with pytest.raises(ValueError, match="is not JSON"):
        uw.ArgillaRecords().read(written(tmp_path / "no.json", "<html>"), train)
    with pytest.raises(ValueError, match="a record without an id or responses"):
        uw.ArgillaRecords().read(written(tmp_path / "no.json", "[{}]"), train)
    with pytest.raises(ValueError, match="no column 'decision'"):
        uw.LabelTable().read(written(tmp_path / "no.csv", "id,label\n1,2\n"), train)


@pytest.mark.parametrize("form", [uw.LabelStudioTasks(), uw.ArgillaRecords()], ids=lambda form: type(form).__name__)
@pytest.mark.parametrize("suspects", ["row"], indirect=True)
def test_entries_of_another_type_are_refused_in_a_sentence(form, suspects, tmp_path):
    path = tmp_path / "export.json"
    entry = {"id": '"1"', "data": {"upweight_id": "1"}, "annotations": [], "responses": {"label": []}}
    wrong = [3, "x", [[]], [{"result": 3}], [{"result": [{"from_name": "label", "type": "choices"}]}], {"label": [3]}]
    contents = [json.dumps([{**entry, "annotations": value, "responses": value}]) for value in wrong]
    for content in (*contents, "[" * 100_000):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"export\.json"):
            form.read(path, suspects.train)


def test_classes_of_one_name_cannot_be_distinguished(suspects, tmp_path):
    from dataclasses import replace

    alike = replace(suspects, train=suspects.train.replaced(labels={0: "ham", 1: "ham", 2: "news"}))
    with pytest.raises(ValueError, match="labels with different names"):
        uw.ArgillaRecords().write(tmp_path / "records", alike)


TASK = """
import numpy as np, upweight as uw
from sklearn.linear_model import LogisticRegression
y = np.arange(60) % 2
x = np.random.default_rng(0).normal(size=(60, 2)) + 4 * np.eye(2)[y]
train, queries = uw.Examples(x, np.where(np.arange(60) < 3, 1 - y, y)), uw.Examples(x, y)
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""


def test_the_commands_go_there_and_back(tmp_path):
    task, folder = written(tmp_path / "task.py", TASK), tmp_path / "out"
    assert "3 examples to review" in run("export-labels", task, "--form", "table", "--budget", 3, "-o", folder).stdout
    assert "name a new folder" in words(run("export-labels", task, "-o", folder, code=2).stderr)
    lines = (folder / "labels.csv").read_text(encoding="utf-8-sig").splitlines()
    filled = [lines[0], *(",".join([*(cells := line.split(","))[:4], cells[2], *cells[5:]]) for line in lines[1:])]
    table = written(tmp_path / "filled.csv", "\n".join(filled))
    ran = run("import-labels", task, table, "--form", "table", "-o", tmp_path / "patch.json")
    assert "3 relabelled, 0 dropped" in ran.stdout
    again = run("import-labels", task, table, "--form", "table", "-o", tmp_path / "patch.json", code=2)
    assert "decisions in it would be lost" in words(again.stderr)
    assert {d.id for d in uw.Patch.load(tmp_path / "patch.json").decisions} == {0, 1, 2}
    assert "3 relabelled" in run("patch", task, tmp_path / "patch.json").stdout
    wrong = written(tmp_path / "wrong.csv", "id,decision\n99,1\n")
    assert "the id '99'" in words(run("import-labels", task, wrong, "--form", "table", code=1).stderr)


def test_negative_numbers_of_a_table_are_numbers_to_other_programs(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    train = uw.Examples(x, (x[:, 0] > 0).astype(int), names=["a", "b"])
    suspects = uw.mislabeled(uw.explainable(LogisticRegression().fit(x, train.y), train), train, budget=12)
    folder = uw.LabelTable().write(tmp_path / "labels", suspects)
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        written = [[float(row[name]) for name in "ab"] for row in csv.DictReader(file)]
    np.testing.assert_allclose(written, x[train.positions(suspects.ids)], rtol=1e-5)
