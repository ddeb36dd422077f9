"""What the command line must not lose: files that it reads, and what stands on the terminal and in JSON."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import typer
from typer.testing import CliRunner

import upweight as uw
from support.command_line import run, words, written
from upweight.cli import app
from upweight.cli.inputs import Source
from upweight.cli.table_options import TableOptions
from upweight.cli.what_if import _pair
from upweight.core.progress import no_progress

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


PRINTS = """
import atexit, ctypes, subprocess, sys
print("from Python")
subprocess.run([sys.executable, "-c", "print('from a child')"])
ctypes.CDLL(None).puts(b"from C")
atexit.register(print, "at the end")
print("without a line break", end="")
"""


@pytest.mark.skipif(os.name == "nt", reason="no C library of that name")
def test_json_is_one_document_whatever_a_task_prints(task):
    written(task, TASK + PRINTS)
    command = [sys.executable, "-m", "upweight", "perturb", task.name, "--query", "q1", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["page"].endswith("perturb.html"), done.stderr
    assert done.stdout.count("\n") == 1
    for text in ("from Python", "from a child", "from C", "at the end", "without a line break"):
        assert text in done.stderr


def test_json_stands_alone_for_a_caller_in_the_same_process(task):
    written(task, TASK + 'print("hello")\n')
    result = run("perturb", task, "--query", "q1", "--json")
    assert json.loads(result.stdout) and "hello" in result.stderr
    assert "hello" in run("perturb", task, "--query", "q1").stdout  # stdout is as before


ESCAPES = ("\x1b]0;owned\x07", "\x1b[31m", "\x9b31m", "\r", "\u202e", "\x08")


@pytest.mark.parametrize(
    "verb",
    [
        ("explain", "--removals", "4"),
        ("mislabeled",),
        ("perturb",),
        ("verify", "--removals", "6", "--brittleness"),
        ("slices", "--by", "label", "--removals", "0"),
        ("what-if", "--query", "nobody", "--remove", "x"),
    ],
    ids=lambda verb: verb[0],
)
def test_escape_codes_of_the_data_are_shown_and_not_obeyed(verb, task):
    text = TASK.replace('f"t{i}"', 'f"t{i}" + EVIL').replace('f"q{i}"', 'f"q{i}" + EVIL')
    more = ', labels={0: "no" + EVIL, 1: "yes"}, names=["a" + EVIL, "b", "[red]"])\n'
    evil = "".join(ESCAPES)
    name = written(task.parent / f"evil{evil}.py", f"EVIL = {evil!r}\n" + text.replace("])\n", "]" + more))
    result = CliRunner().invoke(app, [verb[0], str(name), *verb[1:]])
    output = result.stdout + result.stderr
    assert not set("\x1b\x07\x9b\r\u202e\x08") & set(output), output
    assert r"\x1b" in output


def test_markup_in_data_is_text(task):
    written(task, TASK.replace('f"q{i}"', 'f"[red]q{i}[/]"'))
    assert "[red]q1[/]" in run("explain", task, "--removals", "0", "--query", "[red]q1[/]").stdout


LABELS_WITH_EQUALS = TASK.replace("y[:40], ids=", 'np.where(y[:40] > 0, ">50K", "<=50K"), ids=').replace(
    "y[40:], ids=", 'np.where(y[40:] > 0, ">50K", "<=50K"), ids='
)


@pytest.mark.parametrize("given", ["<=50K", ">50K"])
def test_a_label_may_hold_an_equals_sign(given, task):
    written(task, LABELS_WITH_EQUALS)
    results = [run_json("what-if", task, "--query", "q1", "--relabel", f"t{i}={given}") for i in range(4)]
    assert any(isinstance(result, dict) for result in results)
    assert all(isinstance(result, dict) or "already" in result for result in results), results


def run_json(*arguments):
    """The document, or the message of an error."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    return json.loads(result.stdout) if result.exit_code == 0 else words(result.stderr)


@pytest.mark.parametrize(
    ("ids", "text", "expected"),
    [
        (["a=b", "c"], "a=b=<=50K", ("a=b", "<=50K")),
        (["a", "a=b"], "a=b=<=50K", ("a=b", "<=50K")),
        (["a", "a=<"], "a=<=50K", ("a", "<=50K")),
        (["a"], "a=unheard=of", ("a", "unheard=of")),
        (["", "a"], "=<=50K", ("", "<=50K")),
        (["a", "a=b"], "a=b=c", "can mean 'b=c' for 'a' or 'c' for 'a=b'"),
        (["a"], "b=<=50K", "no training example has the id 'b'"),
        (["a"], "a", "expected ID=VALUE"),
    ],
)
def test_an_equals_sign_is_read_by_the_ids_that_exist(ids, text, expected):
    split = partial(_pair, {i: i for i in ids}, text, "--relabel", {"<=50K", ">50K"}.__contains__)
    if isinstance(expected, tuple):
        assert split() == expected
    else:
        with pytest.raises(typer.BadParameter, match=expected):
            split()


def test_a_query_that_is_a_training_example_is_named(task):
    refused = run("explain", task, "--query", "t3", code=2)
    assert "'t3' is a training example and not one of the queries" in words(refused.stderr)


def test_what_becomes_of_a_training_row_that_is_a_query_is_said(task):
    rows = "".join(f"{i * 7 % 13},{i * 5 % 11},{'yes' if i * 7 % 13 > 6 else 'no'}\n" for i in range(40))
    table = written(task.parent / "data.csv", "a,b,label\n" + rows + "1,2,alone\n")
    said = "are left out of training: the model has not seen them"
    for verb, option in (("explain", "--removals"), ("perturb", "--k")):
        result = run(verb, table, "--target", "label", "--query", "4", "--query", "5", option, 1)
        assert f"The rows of --query (4, 5) {said}" in words(result.stdout)
    refused = run("explain", table, "--target", "label", "--query", "41", code=2)
    assert "row '41' has to stay in the training set" in words(refused.stderr)


def test_a_patch_writes_the_cleaned_table_in_the_form_it_came(task):
    rows = [f"{i};{i * 7 % 13},5;{'<=50K' if i * 7 % 13 > 6 else '>50K'}" for i in range(60)]
    table = task.parent / "data.csv"
    table.write_bytes("\r\n".join(["id;größe;label", *rows, ""]).encode("cp1252"))
    options = ("--target", "label", "--id", "id")
    run("mislabeled", table, *options, "--budget", "4")
    train = Source(table, TableOptions(target="label", identifier="id")).read(no_progress).train
    first, second = train.ids[:2].tolist()
    other = {"<=50K": ">50K", ">50K": "<=50K"}[train.label(first)]
    uw.Patch.of(train, {first: other, second: "drop"}).save("patch.json")
    document = run_json("patch", table, "patch.json", *options, "--out", "cleaned.csv")
    assert document["table"].endswith("cleaned.csv") and (document["relabelled"], document["dropped"]) == (1, 1)
    rows[first] = rows[first].rpartition(";")[0] + f";{other}"
    del rows[second]
    expected = "\r\n".join(["id;größe;label", *rows, ""]).encode("cp1252")
    assert (task.parent / "cleaned.csv").read_bytes() == expected
    for name in (table, "patch.json", "cleaned.parquet", "cleaned"):
        refused = run("patch", table, "patch.json", *options, "--out", name, code=2)
        assert "is an input" in words(refused.stderr) or "in the form in which it came" in words(refused.stderr)
    assert "is not a table" in words(run("patch", task, "patch.json", "--out", "c.csv", code=2).stderr)
