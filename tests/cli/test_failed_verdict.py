"""A run whose scores do not predict retraining says so, in the same words, in the terminal, in JSON and on the page."""

import html
import json
import re

import pytest
from typer.testing import CliRunner

from upweight.cli import app

FAILS = "does not predict retraining here: do not act on single examples"
TASK = """
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

import upweight as uw

x, y = load_breast_cancer(return_X_y=True)
train = uw.Examples(x[:200], y[:200])
queries = uw.Examples(x[400:420], y[400:420], ids=range(400, 420))
model = uw.explainable(RandomForestClassifier(20, random_state=0).fit(train.x, train.y), train)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(terminal text, JSON, page) of a forest whose single effects are nearly all predicted as 0."""
    folder = tmp_path_factory.mktemp("forest")
    (folder / "task.py").write_text(TASK, encoding="utf-8")
    command = ["explain", str(folder / "task.py"), "--queries", "3", "--out", str(folder / "page.html")]
    text, found = CliRunner().invoke(app, command), CliRunner().invoke(app, [*command, "--json"])
    assert text.exit_code == 0 and found.exit_code == 0
    page = html.unescape((folder / "page.html").read_text(encoding="utf-8"))
    return " ".join(text.stdout.split()), json.loads(found.stdout), page


def test_verdict_and_warning_are_the_same_everywhere(run):
    text, content, page = run
    assert content["check"]["verdict"] == FAILS
    assert f"Verdict: {FAILS}." in text and f"Checked by 8 removals of single examples: {FAILS}" in page
    (warning,) = (each for each in content["warnings"] if "do not predict retraining here" in each)
    assert warning in text and warning in page


def test_nothing_says_that_the_order_means_something(run):
    text, content, page = run
    assert content["unit"] == "RANK"
    assert "neither order nor size is confirmed (RANK)" in text
    assert "RANK: retraining confirms neither order nor size" in page
    assert re.search(r'"refuted":\s*true', page)
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    for shown in (text, without_scripts):
        assert "sign and order" not in shown and "a sign and an order" not in shown and "Verified" not in shown


def test_no_slope_is_shown_and_json_has_none(run):
    text, content, _ = run
    assert content["check"]["slope"] is None and content["check"]["single"]["slope"] is None
    assert re.search(r"without one example –", text)
