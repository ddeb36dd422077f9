import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import upweight
from support.command_line import run, words, written
from upweight.cli.methods import describe
from upweight.core.attributor import Attributor
from upweight.methods.registry import methods

pd = pytest.importorskip("pandas")

TASK = """
import numpy as np
import upweight
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3))
y = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
train = upweight.Examples(x[:40], y[:40], ids=[f"t{i}" for i in range(40)], labels={0: "no", 1: "yes"})
queries = upweight.Examples(x[40:], y[40:], ids=[f"q{i}" for i in range(20)], labels={0: "no", 1: "yes"})
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPWEIGHT_LOG_LEVEL", raising=False)
    return tmp_path


@pytest.fixture
def task(in_tmp):
    return written(in_tmp / "my_task.py", TASK)


@pytest.fixture
def table(in_tmp):
    """60 rows with a number that matters, a category, holes, a free text, a constant and an identifier."""
    rng = np.random.default_rng(1)
    size = rng.normal(size=60)
    kind = np.where(size + 0.5 * rng.normal(size=60) > 0, "large", "small").astype(object)
    frame = pd.DataFrame(
        {
            "name": [f"row-{i}" for i in range(60)],
            "size": np.where(np.arange(60) == 5, np.nan, size),
            "colour": rng.choice(np.array(["red", "blue", None], dtype=object), 60),
            "note": [f"a long remark number {i} on something {k}" for i, k in enumerate(kind)],
            "always": 1,
            "kind": np.where(np.arange(60) == 9, None, kind),
            "price": 3 * size + rng.normal(size=60),
        }
    )
    frame.to_csv("table.csv", index=False)
    return frame


def test_the_module_imports_nothing_heavy():
    heavy = "{'numpy', 'scipy', 'sklearn', 'pandas', 'PIL', 'jinja2'}"
    code = f"import sys, upweight.cli; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_m_upweight_is_the_console_script():
    done = subprocess.run([sys.executable, "-m", "upweight", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"upweight {upweight.__version__}")


def test_help_names_every_command():
    printed = run("--help").stdout
    assert all(name in printed for name in ("demo", "explain", "methods", "--version"))


def test_a_task_file_is_explained_verified_and_reported(task):
    printed = run("explain", task, "--removals", "4").stdout
    assert "labelled" in printed and "Are the scores right?" in printed
    assert Path("report.html").resolve().as_uri() in printed
    assert Path("report.html").stat().st_size > 10_000


def test_json_is_the_documented_schema_and_nothing_else(task):
    answer = json.loads(run("explain", task, "--removals", "4", "--json", "--k", "2", "--out", "r.html").stdout)
    keys = {
        "method",
        "measurement",
        "unit",
        "train",
        "queries",
        "overview",
        "check",
        "warnings",
        "seconds",
        "page",
        "report",
    }
    assert answer.keys() == keys
    assert answer["unit"] == "EFFECT" and answer["train"] == 40 and answer["warnings"] == []
    assert Path(answer["report"]) == Path("r.html").resolve()
    query = answer["queries"][0]
    assert query["predicted"] != query["label"] and {query["label"], query["predicted"]} == {"yes", "no"}
    assert len(query["proponents"]) == len(query["opponents"]) == 2
    assert query["proponents"][0].keys() == {"id", "label", "score"}
    assert query["proponents"][0]["score"] > 0 > query["opponents"][0]["score"]
    assert answer["check"]["trainings"] == 5
    assert answer["check"]["single"]["slope"] == pytest.approx(1.0, abs=0.02)
    assert answer["check"]["groups"]["count"] == 2 * len(answer["queries"])


def test_asked_queries_come_in_the_order_asked(task):
    printed = run("explain", task, "--query", "q3", "--query", "q1", "--removals", "0", "--json").stdout
    answer = json.loads(printed)
    assert [q["id"] for q in answer["queries"]] == ["q3", "q1"]
    assert answer["check"] is None


def test_all_queries_are_explained_mistakes_first_with_an_overview(task):
    answer = json.loads(run("explain", task, "--queries", "all", "--removals", "0", "--json").stdout)
    wrong = [query["label"] != query["predicted"] for query in answer["queries"]]
    assert len(wrong) > 8 and wrong == sorted(wrong, reverse=True)
    overview = answer["overview"]
    assert overview["queries"] == len(wrong)
    assert sum(len(group["queries"]) for group in overview["mistakes"]) == sum(wrong)
    three = run("explain", task, "--queries", "3", "--removals", "0")
    assert "Over all queries (mean scores of 3 queries)" in three.stdout
    assert f"#{overview['strongest'][0]['id']}" in run("explain", task, "--queries", "all", "--removals", "0").stdout


@pytest.mark.parametrize("queries", ["0", "-1", "some", "1.5"])
def test_a_number_of_queries_is_a_number_or_all(task, queries):
    assert "expected a number of queries or all" in words(run("explain", task, "--queries", queries, code=2).stderr)
    assert "only one of --query" in words(run("explain", task, "--queries", "2", "--query", "q1", code=2).stderr)


def test_an_unknown_query_id_is_a_usage_error_that_shows_ids(task):
    printed = words(run("explain", task, "--query", "nobody", code=2).stderr)
    assert "no query has the id 'nobody'" in printed and "q0, q1" in printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ndef f(:\n", "broken.py, line 2"),
        ("x = 1\ny = [][3]\n", "broken.py, line 2, failed with IndexError"),
        ("import sys\nsys.exit('no')\n", "failed with SystemExit: no"),
        (TASK.replace("queries =", "other ="), "it has no queries"),
        ("model = train = queries = 3\n", "expected train in broken.py to be upweight.Examples(x, y), got int"),
        (TASK + "\nmodel = object()\n", "Supported"),
    ],
)
def test_a_broken_task_file_gives_a_one_line_error(in_tmp, text, expected):
    result = run("explain", written(in_tmp / "broken.py", text), code=1)
    assert expected in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


def test_the_traceback_is_there_on_demand(in_tmp, monkeypatch):
    monkeypatch.setenv("UPWEIGHT_LOG_LEVEL", "DEBUG")
    assert "Traceback" in run("explain", written(in_tmp / "broken.py", "1 / 0"), code=1).stderr


def test_a_task_may_bring_a_model_that_is_explainable_already(in_tmp):
    path = written(in_tmp / "ready.py", TASK + "\nmodel = upweight.explainable(model, train, upweight.Margin())\n")
    answer = json.loads(run("explain", path, "--removals", "0", "--json").stdout)
    assert answer["measurement"] == "margin of the label"
    assert "already has a measurement" in words(run("explain", path, "--measure", "loss", code=2).stderr)


def test_measurements_are_parsed_by_name(task):
    answer = json.loads(run("explain", task, "--measure", "probability:yes", "--removals", "2", "--json").stdout)
    assert answer["measurement"] == "probability of 1"
    assert "no training label is" in words(run("explain", task, "--measure", "probability:9", code=2).stderr)
    assert "expected loss, margin or" in words(run("explain", task, "--measure", "guilt", code=2).stderr)


@pytest.mark.parametrize("method", ["source", "tracin", "gas"])
def test_methods_of_checkpoints_say_so_of_a_model_without(task, method):
    assert "needs a model that is Checkpointed" in words(run("explain", task, "--method", method, code=1).stderr)


@pytest.mark.parametrize("method", ["influence", "leave_one_out", "relatif", "graddot", "gradcos", "chance"])
def test_every_method_has_its_name_on_the_command_line(task, method):
    answer = json.loads(run("explain", task, "--method", method, "--removals", "0", "--json").stdout)
    assert answer["method"]["method"] == methods()[method].__name__


def test_a_csv_of_classes_gets_a_default_model(table):
    answer = json.loads(run("explain", "table.csv", "--target", "kind", "--removals", "2", "--json").stdout)
    assert answer["measurement"] == "−loss (nats)"
    assert answer["train"] == 47  # four fifths of the 59 rows with a kind
    notes = " ".join(answer["warnings"])
    assert "kind is missing: 1" in notes and "Column name was left out" in notes and "always" in notes
    assert answer["check"]["single"]["slope"] == pytest.approx(1.0, abs=0.02)


def test_a_csv_of_amounts_gets_a_regression(table):
    answer = json.loads(run("explain", "table.csv", "--target", "price", "--removals", "2", "--json").stdout)
    assert answer["measurement"].startswith("−loss") and "nats" not in answer["measurement"]
    off = [abs(q["predicted"] - q["label"]) for q in answer["queries"]]
    assert off == sorted(off, reverse=True)
    assert answer["queries"][0]["probability"] is None


def test_a_parquet_file_with_an_id_column_explains_the_row_asked_for(table):
    pytest.importorskip("pyarrow")
    table.to_parquet("table.parquet")
    printed = run("explain", "table.parquet", "--target", "kind", "--id", "name", "--query", "row-17", "--json").stdout
    assert [q["id"] for q in json.loads(printed)["queries"]] == ["row-17"]


def test_tables_and_tasks_are_not_mixed_up(table, task):
    assert "say which column to predict" in words(run("explain", "table.csv", code=2).stderr)
    assert "has no column 'colour2'" in words(run("explain", "table.csv", "--target", "colour2", code=2).stderr)
    assert "--target is for tables" in words(run("explain", task, "--target", "kind", code=2).stderr)
    run("explain", written(Path("notes.txt"), "hello"), code=2)
    run("explain", "nowhere.csv", "--target", "kind", code=2)


def test_a_file_that_is_no_table_is_a_failure(in_tmp):
    written(in_tmp / "empty.csv", "")
    assert "expected empty.csv to be a table" in run("explain", "empty.csv", "--target", "y", code=1).stderr


def test_without_pandas_the_extra_is_named(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "upweight[tables]" in run("explain", "table.csv", "--target", "kind", code=1).stderr


def test_a_report_that_has_no_folder_is_refused_before_the_work(task):
    result = run("explain", task, "--out", "missing/report.html", code=2)
    assert "there is no folder" in words(result.stderr) and "✓" not in result.stderr


def test_quiet_prints_nothing(task):
    result = run("explain", task, "--removals", "0", "-q")
    assert (result.stdout, result.stderr) == ("", "")
    assert Path("report.html").exists()


def test_an_unknown_log_level_is_a_usage_error(monkeypatch):
    monkeypatch.setenv("UPWEIGHT_LOG_LEVEL", "LOUD")
    assert "expected DEBUG" in words(run("methods", code=2).stderr)


def test_an_unknown_method_is_a_usage_error(task):
    assert "no method is called 'inflence'" in words(run("explain", task, "--method", "inflence", code=2).stderr)


def test_methods_lists_what_there_is():
    rows = json.loads(run("methods", "--json").stdout)
    assert [r["name"] for r in rows] == list(methods())
    assert all(r["summary"] and r["unit"] in ("EFFECT", "RANK") for r in rows)
    needs = {row["name"]: row["needs"] for row in rows}
    assert needs["metagradient"] == ["Differentiable", "Parametric", "Replayable"]
    table = run("methods").stdout
    assert "leave_one_out" in table and "Needs: Differentiable, " in table
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(("doc", "shown"), [("What it does.\n\nAnd more.", "What it does."), (None, "")])
def test_a_method_without_a_summary_is_listed_by_its_docstring(doc, shown):
    bare = dataclass(frozen=True, kw_only=True)(type("Bare", (Attributor,), {"__doc__": doc}))
    assert describe("bare", bare)["summary"] == shown
