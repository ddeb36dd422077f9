"""upweight store and explain --store, on a task file."""

from __future__ import annotations

import json
import sys

import pytest

from support.command_line import run, words, written

pytest.importorskip("torch")

TASK = """
import torch
from torch import nn
from torch.nn import functional as F
from sklearn.datasets import load_digits
import upweight as uw

x, y = load_digits(n_class=3, return_X_y=True)
x = (x / 16).astype("float32")
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 10), nn.GELU(), nn.Linear(10, 3))

def loss(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")

train = uw.Examples(x[:80], y[:80])
queries = uw.Examples(x[80:84], y[80:84], ids=["a", "b", "c", "d"])
model = uw.TorchModel(net, loss)
"""


@pytest.fixture(autouse=True)
def new_modules(monkeypatch):
    """Task files are modules of new names."""
    for name in ("task", "task_task"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_store_is_planned_built_checked_and_asked(tmp_path):
    task, folder = written(tmp_path / "task.py", TASK), tmp_path / "store"
    planned = run("store", "build", task, "-o", folder, "--plan").stdout
    assert "80 rows of 54 bytes" in planned and not folder.exists()
    assert f"Store: {folder}" in run("store", "build", task, "-o", folder).stdout
    assert "is whole" in run("store", "check", folder).stdout
    explained = run("explain", task, "--store", folder, "--query", "b", "--json", "-o", tmp_path / "r.html").stdout
    assert json.loads(explained)["queries"][0]["id"] == "b"
    page = tmp_path / "r.html"
    run("explain", task, "--store", folder, "--query", "b", "--method", "graddot", "-o", page)
    assert "GradDot" in page.read_text(encoding="utf-8")
    (folder / "rows" / "00000.safetensors").write_bytes(b"cut")
    damaged = json.loads(run("store", "check", folder, "--json", code=1).stdout)
    assert "rows/00000.safetensors" in damaged["problems"][0]


def test_settings_and_folders_that_do_not_fit_are_usage_errors(tmp_path):
    task = written(tmp_path / "task.py", TASK)
    refused = run("store", "build", task, "-o", tmp_path / "s", "--encoding", "low-rank", "--directions", "3", code=2)
    assert "LowRank has only the settings --precision, --rank" in words(refused.stderr)
    assert "is not a store: it has no header.json" in words(run("store", "check", tmp_path, code=2).stderr)
    refused = run("explain", task, "--store", tmp_path, code=2)
    assert "build it first: upweight store build" in words(refused.stderr)


def test_retrieve_answers_from_a_store_with_a_page_and_an_audit(tmp_path, monkeypatch):
    task, folder, page = written(tmp_path / "task.py", TASK), tmp_path / "store", tmp_path / "r.html"
    run("store", "build", task, "-o", folder)
    monkeypatch.delitem(sys.modules, "task")  # as in a process of its own
    command = ["retrieve", task, "--store", folder, "--k", "3", "--candidates", "8", "-o", page]
    answer = json.loads(run(*command, "--query", "b", "--audit-queries", "1", "--audit-rows", "20", "--json").stdout)
    assert [query["query"] for query in answer["queries"]] == ["b"] and len(answer["queries"][0]["proponents"]) <= 3
    assert answer["certificate"]["audited"] == 1 and answer["rows_above"]["b"] >= 0
    html = page.read_text(encoding="utf-8")
    assert " by Influence" in html and "Query b" in html and "drawn at random" in html
    monkeypatch.delitem(sys.modules, "task")
    printed = words(run(*command, "--query", "a").stdout)
    assert "Nothing was audited" in printed and f"Page: {page}" in printed


def test_retrieve_answers_as_many_queries_as_are_audited(tmp_path, monkeypatch):
    task, folder, page = written(tmp_path / "task.py", TASK), tmp_path / "store", tmp_path / "r.html"
    run("store", "build", task, "-o", folder)
    command = ["retrieve", task, "--store", folder, "-k", "2", "--candidates", "8", "-o", page, "--audit-queries"]
    monkeypatch.delitem(sys.modules, "task")
    answer = json.loads(run(*command, "3", "--queries", "3", "--json").stdout)
    assert len(answer["queries"]) == 3 and answer["certificate"]["audited"] == 3
    monkeypatch.delitem(sys.modules, "task")
    refused = words(run(*command, "5", "--queries", "all", code=1).stderr)
    assert "at most 4 audited queries, as many as there are, got 5; ask more queries" in refused
    assert "pass only one of" in words(run(*command, "1", "--queries", "2", "--query", "a", code=2).stderr)


def test_a_finished_store_is_not_said_to_take_time(tmp_path, monkeypatch):
    task, folder = written(tmp_path / "task.py", TASK), tmp_path / "store"
    assert "to build, for one process" in run("store", "build", task, "-o", folder).stdout
    monkeypatch.delitem(sys.modules, "task")
    assert "nothing is left to build" in run("store", "build", task, "-o", folder).stdout


def test_retrieve_of_a_table_chooses_candidates_by_features(tmp_path):
    rows = "\n".join(f"{i % 7},{(i * 5) % 11},{'yes' if i % 7 > 3 else 'no'}" for i in range(60))
    table = written(tmp_path / "table.csv", f"a,b,bought\n{rows}\n")
    out = tmp_path / "r.html"
    printed = run("retrieve", table, "--target", "bought", "--candidates", "5", "--k", "2", "-o", out).stdout
    assert "RepSim" in printed and out.exists()
