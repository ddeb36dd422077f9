import json
from pathlib import Path

import pytest

from support.command_line import run, words, written
from test_cli import TASK


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPWEIGHT_LOG_LEVEL", raising=False)


@pytest.fixture
def task():
    return written(Path("my_task.py"), TASK)


def test_help_names_both():
    assert all(name in run("--help").stdout for name in ("verify", "evaluate"))


def test_verify_prints_agreement_intervals_and_the_page(task):
    printed = words(run("verify", task, "--removals", "12", "--out", "page.html").stdout)
    assert "Influence (EFFECT) compared with 13 trainings" in printed and "without one example 1.000" in printed
    assert "Noise ceiling 1.000" in printed and "lie inside their 90% intervals" in printed and "page.html" in printed
    assert Path("page.html").stat().st_size > 10_000


def test_verify_as_json_is_one_object_and_nothing_else(task):
    answer = json.loads(run("verify", task, "--removals", "8", "--seeds", "2", "--json", "--query", "q1").stdout)
    assert answer["trainings"] == 18 and answer["queries"] == ["q1"] and len(answer["removals"]) == 8
    assert answer["single"]["slope"] == pytest.approx(1, abs=0.02) and answer["ceiling"]["value"] == 1
    assert answer["report"] is None and answer["coverage"]["level"] == 0.9


def test_ranks_are_verified_in_order_alone(task):
    printed = words(run("verify", task, "--method", "chance", "--removals", "8").stdout)
    assert "FittedChance" not in printed and "without one example –" in printed and "intervals" not in printed
    answer = json.loads(run("verify", task, "--method", "chance", "--removals", "8", "--json").stdout)
    assert answer["coverage"] is None and "These scores are random" in answer["warnings"][0]


def test_verify_goes_on_from_its_folder(task):
    first = json.loads(run("verify", task, "--removals", "6", "--folder", "kept", "--json").stdout)
    files = {p: p.stat().st_mtime_ns for p in Path("kept").iterdir()}
    assert len(files) == 8  # everything, once more with another seed, and six removals
    assert json.loads(run("verify", task, "--removals", "6", "--folder", "kept", "--json").stdout) == first
    assert {p: p.stat().st_mtime_ns for p in Path("kept").iterdir()} == files
    run("verify", task, "--removals", "7", "--folder", "kept", "--quiet")
    assert all(p.stat().st_mtime_ns == when for p, when in files.items())


def test_evaluate_is_a_table_of_methods_and_baselines(task):
    printed = run(
        "evaluate", task, "--method", "influence", "--method", "leave_one_out", "--subsets", "8", "--out", "e.html"
    )
    lines = [line.split()[0] for line in printed.stdout.splitlines() if line.split()]
    assert {"influence", "leave_one_out", "similar", "chance"} <= set(lines)
    assert max(map(len, printed.stdout.splitlines()[:8])) <= 80 and Path("e.html").exists()
    assert "Retraining on subsets" in printed.stderr


def test_methods_receive_the_share_of_the_subsets():
    from upweight import Influence, Metagradient
    from upweight.cli.inputs import recipe_for

    assert recipe_for("metagradient", 0, keep=0.5) == Metagradient(keep=0.5)
    assert recipe_for("influence", 0, keep=0.5) == Influence()


def test_evaluate_as_json_with_planted_labels(task):
    written(Path("planted.txt"), "t1\nt5\n\nt9\n")
    arguments = ("--planted", "planted.txt", "--query", "q3", "--query", "q1")
    answer = json.loads(run("evaluate", task, "--subsets", "6", "--share", "0.8", *arguments, "--json").stdout)
    assert answer["truth"]["removals"] == 6 and answer["truth"]["queries"] == 2
    rows = {row["name"]: row for row in answer["methods"]}
    assert rows["influence"]["lds"]["mean"] > 0.8 and rows["chance"]["slope"] is None
    assert all(row["found"]["planted"] == 3 for row in rows.values()) and "loss" in rows


def test_evaluate_trains_without_the_strongest_and_on_them_alone(task):
    arguments = ("--subsets", "5", "--query", "q1", "--query", "q2", "--criteria", "--out", "e.html")
    answer = json.loads(run("evaluate", task, *arguments, "--json").stdout)
    methods = answer["criteria"]["methods"]
    assert methods["influence"]["necessity"]["area"] > methods["random"]["necessity"]["area"]
    assert "Necessary and sufficient examples" in Path("e.html").read_text(encoding="utf-8")
    assert "Necessity and sufficiency of the strongest" in run("evaluate", task, *arguments).stdout


def test_evaluate_goes_on_from_its_folder(task):
    answers = [
        json.loads(run("evaluate", task, "--subsets", "6", "--folder", "kept", "--json").stdout) for _ in range(2)
    ]
    assert len(list(Path("kept").iterdir())) == 8
    assert answers[0]["methods"][0]["lds"] == answers[1]["methods"][0]["lds"]


def test_invalid_options_are_refused_before_the_work(task):
    written(Path("planted.txt"), "nobody\n")
    assert "no training example has the id 'nobody'" in words(
        run("evaluate", task, "--planted", "planted.txt", code=2).stderr
    )
    assert "expected a share between 0 and 1" in words(run("evaluate", task, "--share", "1.0", code=2).stderr)
    assert "no method is called 'x'" in words(run("evaluate", task, "--method", "x", code=2).stderr)
    assert "no query has the id 'x'" in words(run("verify", task, "--query", "x", code=2).stderr)
    for command in ("verify", "evaluate"):
        assert "there is no folder" in words(run(command, task, "--out", "missing/page.html", code=2).stderr)
    run("evaluate", task, "--subsets", "4", code=2)


def test_subsets_without_a_class_are_left_out_with_a_warning():
    path = written(Path("rare.py"), TASK.replace("model =", "train.y[:] = 0\ntrain.y[0] = 1\ntrain.y[7] = 1\nmodel ="))
    answer = json.loads(run("evaluate", path, "--subsets", "20", "--json").stdout)
    assert 0 < len(answer["truth"]["refused"]) == 20 - answer["truth"]["removals"]
    assert any("none of class 1 is left" in w for w in answer["warnings"])


def test_verify_shows_how_few_examples_hold_predictions_up(task):
    arguments = (
        "verify",
        task,
        "--removals",
        "8",
        "--query",
        "q1",
        "--query",
        "q2",
        "--brittleness",
        "--folder",
        "kept",
    )
    completed = run(*arguments, "--out", "page.html")
    assert "trained anew" not in completed.stderr
    printed = words(completed.stdout)
    assert "how few removed examples flip a prediction" in printed and "predictions flipped when at most" in printed
    page = Path("page.html").read_text(encoding="utf-8")
    assert "the retrained model predicts something else" in page
    flips = json.loads(run(*arguments, "--json").stdout)["brittleness"]["flips"]
    assert [flip["query"] for flip in flips] == ["q1", "q2"] and all(flip["tried"] > 0 for flip in flips)


def test_evaluate_shows_removal_curves(task):
    arguments = (
        "evaluate",
        task,
        "--subsets",
        "6",
        "--query",
        "q1",
        "--query",
        "q2",
        "--removal-curve",
        "--folder",
        "k",
    )
    printed = run("evaluate", task, "--subsets", "6", "--removal-curve", "--folder", "all")
    assert "trained anew" not in printed.stderr
    printed = run(*arguments, "--out", "page.html")
    assert "influence: mean effect of removing the strongest, 2 queries" in words(printed.stdout)
    assert (
        "Removing the strongest examples and retraining" in printed.stderr
        and max(map(len, printed.stdout.splitlines()[:12])) <= 80
    )
    assert "Removal curves" in Path("page.html").read_text(encoding="utf-8")
    curve = json.loads(run(*arguments, "--json").stdout)["removal_curves"]["influence"]
    assert curve["opponents"][-1] < curve["random"][-1] < curve["proponents"][-1]


def test_older_names_of_options_go_on_working_and_say_so(task: Path) -> None:
    ran = run("verify", task, "--removals", "4", "--report", "older.html", "--json")
    assert json.loads(ran.stdout)["page"].endswith("older.html") and Path("older.html").exists()
    assert "--report is now called --out" in words(ran.stderr)
    ran = run("explain", task, "--verify", "2", "--json")
    assert json.loads(ran.stdout)["check"] is not None and "--verify is now called --removals" in words(ran.stderr)
