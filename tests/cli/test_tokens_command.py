"""`upweight tokens`: token scores of a language model in a task file, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from upweight.cli import app

TASK = """
from support.token_nets import language_model, sequences

model, train, queries = language_model(), sequences(6), sequences(2, start=6)
"""


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["tokens", "task.py", *arguments])


def test_tokens_are_printed_and_written_to_a_page(task):
    output = run("--query", "6", "--k", "2", "--span", "3", "5", "--method", "graddot").output
    assert "by target token" in output and "6:" in output and (task / "tokens.html").exists()
    result = run("--query", "7", "--by", "position", "--k", "2", "--json", "-o", "positions.html")
    answer = json.loads(result.stdout)
    assert answer["kind"] == "position" and len(answer["queries"][0]["train"]) == 2
    assert answer["method"]["method"] == "Influence" and (task / "positions.html").exists()


def test_what_cannot_be_split_is_refused_in_a_sentence(task):
    assert "expected target or position" in run("--by", "word").output.replace("\n", " ")
    result = run("--query", "6", "--method", "gradcos")
    assert result.exit_code == 1 and "divides gradients by their norms" in result.output.replace("\n", " ")
