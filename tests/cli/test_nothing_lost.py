"""What the command line must not lose: files that it reads, and what stands on the terminal and in JSON."""

import os

import pytest
from typer.testing import CliRunner

from upweight.cli import app

TASK = """
import numpy as np
import upweight
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3))
y = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
train = upweight.Examples(x[:40], y[:40], ids=[f"t{i}" for i in range(40)])
queries = upweight.Examples(x[40:], y[40:], ids=[f"q{i}" for i in range(20)])
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return written(tmp_path / "my_task.py", TASK)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def words(text):
    """Without the frame and the line breaks that the parser puts around an error."""
    return " ".join(text.replace("│", " ").split())


VERBS = {
    "explain": (),
    "mislabeled": (),
    "perturb": (),
    "verify": (),
    "evaluate": (),
    "slices": ("--by", "label"),
    "what-if": ("--remove", "t1"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_command_writes_onto_its_input(verb, task):
    os.link(task, "hard.html")
    os.symlink(task, "soft.html")
    for name in (task.name, f"./{task.name}", task, "hard.html", "soft.html"):
        refused = run(verb, task, *VERBS[verb], "--out", name, code=2)
        assert "would be lost" in words(refused.stderr)
    assert task.read_text(encoding="utf-8") == TASK


def test_listed_ids_are_an_input_too(task):
    listed = written(task.parent / "wrong.html", "t1\n")
    refused = run("evaluate", task, "--planted", listed, "--out", listed, code=2)
    assert "is an input" in words(refused.stderr) and listed.read_text() == "t1\n"
