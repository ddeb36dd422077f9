"""Applications, report and command line on a booster, as on everything else."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import upweight as uw
from upweight.applications.explain import explain
from upweight.cli import app

pd = pytest.importorskip("pandas")
lightgbm = pytest.importorskip("lightgbm")

TASK = """
import lightgbm, numpy as np, pandas as pd
import upweight

rng = np.random.default_rng(0)
x = pd.DataFrame(rng.normal(size=(90, 3)), columns=["age", "hours", "wage"])
x["job"] = pd.Categorical(rng.choice(["cook", "clerk", "smith"], 90))
y = np.where(x["age"] + (x["job"] == "cook") > 0.3, "rich", "poor")
train, queries = upweight.Examples(x[:70], y[:70]), upweight.Examples(x[70:], y[70:])
model = lightgbm.LGBMClassifier(n_estimators=10, min_child_samples=5, n_jobs=1, verbose=-1).fit(train.x, train.y)
"""


@pytest.fixture
def task():
    names: dict = {}
    exec(TASK, names)
    return names["model"], names["train"], names["queries"]


def test_a_prediction_is_explained_and_verified_with_rows_to_look_at(task, tmp_path):
    booster, train, queries = task
    model = uw.explainable(booster, train)
    explanation = explain(model, train, queries.take([0, 1]), uw.LeafRefit(), removals=4)
    assert len(explanation.check.removals) == 4 and np.isfinite(explanation.check.actual).all()
    assert any("Splits are held" in warning for warning in explanation.warnings)
    uw.write_report(tmp_path / "report.html", explanation.scores, train, explanation.queries, explanation.check)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "clerk" in page and "LeafRefit" in page and "Splits are held" in page


@pytest.mark.parametrize(("method", "expected"), [(None, "LeafRefit"), ("boostin", "BoostIn"), ("trex", "TREX")])
def test_the_command_line_takes_a_task_with_a_booster(tmp_path, monkeypatch, method, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs_task.py").write_text(TASK)
    chosen = [] if method is None else ["--method", method]
    ran = CliRunner().invoke(app, ["explain", "jobs_task.py", "--removals", "2", "--json", *chosen])
    assert ran.exit_code == 0, ran.output
    output = json.loads(ran.stdout)
    assert output["method"]["method"] == expected and output["queries"][0]["opponents"]


def test_no_torch_is_needed(tmp_path):
    code = TASK + "import sys\nupweight.explainable(model, train)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
