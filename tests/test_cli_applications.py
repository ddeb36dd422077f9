"""The commands of mislabeled, patch, slices, perturb and what-if."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import upweight as uw
from support.command_line import words
from upweight.cli import app
from upweight.cli.inputs import Source
from upweight.cli.mislabeled import _target_line
from upweight.cli.table_options import TableOptions
from upweight.core.progress import no_progress

TASK = """
import numpy as np
import upweight
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.normal(size=(140, 3))
y = (x[:, 0] + 0.3 * rng.normal(size=140) > 0).astype(int)
y[:6] = 1 - y[:6]
names = {"names": ["size", "noise", "other"], "labels": {0: "no", 1: "yes"}}
train = upweight.Examples(x[:100], y[:100], ids=[f"t{i}" for i in range(100)], **names)
queries = upweight.Examples(x[100:], y[100:], ids=[f"q{i}" for i in range(40)], **names)
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPWEIGHT_LOG_LEVEL", raising=False)
    (tmp_path / "task.py").write_text(TASK)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def answer_of(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_suspicion_to_a_better_model(task):
    answer = answer_of("mislabeled", "task.py", "--budget", "8", "-o", "review.html")
    assert (task / "review.html").exists() and len(answer["suspects"]) == 8
    wrong = [row for row in answer["suspects"] if row["id"] in {f"t{i}" for i in range(6)}]
    assert len(wrong) >= 4 and answer["suspects"][0]["harm"] is not None
    from upweight.applications.task import read_task

    _, train, _ = read_task(task / "task.py")
    uw.Patch.of(train, {row["id"]: row["suggested"] for row in wrong}).save("patch.json")
    done = answer_of("patch", "task.py", "patch.json")
    assert done["relabelled"] == len(wrong) and done["after"]["measured"] > done["before"]["measured"]
    assert "before: accuracy" in run("patch", "task.py", "patch.json").output


def test_the_printed_command_writes_the_cleaned_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = np.random.default_rng(0).normal(size=90)
    kinds = np.where(size > 0, "large", "small").tolist()
    lines = [f"row {i};{number:.3f};{kind}" for i, (number, kind) in enumerate(zip(size, kinds, strict=True))]
    Path("my rows.csv").write_text("\n".join(["name;size;kind", *lines, ""]))
    reading = ("--target", "kind", "--id", "name", "--sep", ";", "--seed", "2")
    output = run("mislabeled", "my rows.csv", *reading, "--budget", "4").output
    program, *command = shlex.split(next(line for line in output.splitlines() if " patch " in line).partition(": ")[2])

    options = TableOptions(target="kind", identifier="name", sep=";")
    train = Source(Path("my rows.csv"), options).read(no_progress, seed=2).train
    dropped = train.ids[0]
    uw.Patch.of(train, {dropped: "drop"}).save("patch.json")
    assert program == "upweight" and run(*command).exit_code == 0
    assert Path("cleaned_my rows.csv").read_text().splitlines() == [
        "name;size;kind",
        *(line for line in lines if not line.startswith(f"{dropped};")),
    ]


def test_suspicious_regression_targets_are_said_in_words_and_in_json(task):
    text = TASK.replace(
        "y = (x[:, 0] + 0.3 * rng.normal(size=140) > 0).astype(int)", "y = x[:, 0] + 0.3 * rng.normal(size=140)"
    )
    text = text.replace("y[:6] = 1 - y[:6]", "y[:6] += 9").replace(', "labels": {0: "no", 1: "yes"}', "")
    text = text.replace("LogisticRegression(tol=1e-8)", "Ridge()").replace("import LogisticRegression", "import Ridge")
    (task / "task.py").write_text(text)
    answer = answer_of("mislabeled", "task.py", "--budget", "6", "-o", "targets.html")
    assert answer["regression"] and {row["id"] for row in answer["suspects"]} == {f"t{i}" for i in range(6)}
    assert (task / "targets.html").exists() and answer["suspects"][0]["residual"] > 6
    output = run("mislabeled", "task.py", "--budget", "6").output
    assert "standard deviations of the noise apart" in output and "6 of 100 targets" in output


def test_large_targets_are_printed_in_full():
    line = _target_line({"id": 3, "label": 145682310.0, "suggested": -123456.7, "residual": 9.0, "noise": 1.5})
    assert line.startswith("3: target 145682310, predicted −123457; 6.0 standard")


def test_a_patch_that_does_not_fit_is_one_message(task):
    empty = {"kind": "upweight patch", "version": 1, "train": {"checksum": "0", "examples": 3}}
    (task / "patch.json").write_text(json.dumps({**empty, "decisions": [{"id": "nobody", "old": 0, "drop": True}]}))
    result = run("patch", "task.py", "patch.json")
    assert result.exit_code == 1 and "Error: 1 of the 1 ids in the patch" in result.output


def test_budget_zero_is_one_message():
    result = run("mislabeled", "task.py", "--budget", "0")
    assert result.exit_code == 1 and "expected a budget above 0" in result.output


def test_slices(task):
    answer = answer_of("slices", "task.py", "--by", "size", "--by", "noise", "--removals", "2", "-o", "s.html")
    assert (task / "s.html").exists() and answer["effects"][0]["slice"] == "mistakes"
    assert sum(row["actual"] is not None for row in answer["effects"]) == 2
    assert "label, or a column of the training set in task.py" in words(run("slices", "task.py").output)
    result = run("slices", "task.py", "--by", "age")
    assert result.exit_code == 1 and "no column 'age'" in result.output


def test_audit(task):
    text = TASK.replace("y[:6] = 1 - y[:6]", "x[100] = x[7]")
    (task / "task.py").write_text(text)
    audited = answer_of("audit", "task.py", "--by", "other", "-o", "a.html")
    assert audited["flagged"] == ["q0"] and audited["groups"] == ["other"] and len(audited["predictions"]) == 40
    assert audited["predictions"][0]["nearest"] == {"id": "t7", "equal": True, "distance": 0.0}
    assert (task / "a.html").exists()
    assert "q0 (predicted" in run("audit", "task.py").output
    assert len(answer_of("audit", "task.py", "--query", "q3", "--method", "gradcos")["predictions"]) == 1
    assert "no column 'age'" in run("audit", "task.py", "--by", "age").output


def test_inputs(task):
    answer = answer_of("inputs", "task.py", "--query", "q1", "--k", "2", "-o", "i.html")
    assert (task / "i.html").exists() and len(answer["examples"][0]["train"]) == 2
    assert answer["examples"][0]["parts"][0]["name"] in ("size", "noise", "other")
    output = run("inputs", "task.py", "--of", "yes").output
    assert "in common" in output and "size " in output
    assert "expected erasure, saliency" in run("inputs", "task.py", "--by", "shap").output.replace("\n", " ")
    result = run("inputs", "task.py", "--by", "saliency")
    assert result.exit_code == 1 and "uw.Erasure() works for any model" in result.output


def test_the_report_has_what_decides_queries_and_training_examples(task):
    options = ("--query", "q1", "--removals", "0", "--inputs", "erasure", "--json", "-o", "r.html")
    answer = json.loads(run("explain", "task.py", *options).stdout)
    beside = answer["queries"][0]["inputs"]
    assert len(beside["train"]) == 4 and beside["parts"][0]["name"] in ("size", "noise", "other")
    page = (task / "r.html").read_text(encoding="utf-8")
    assert page.count('class="besides row" data-query="0"') == 1 and page.count("in common</p>") == 4
    assert "expected erasure, saliency" in words(run("explain", "task.py", "--inputs", "shap").output)
    assert 'id="inputs"' not in page_without_inputs(task)


def page_without_inputs(task):
    run("explain", "task.py", "--query", "q1", "--removals", "0", "-o", "without.html")
    return (task / "without.html").read_text(encoding="utf-8")


def test_fgsm(task):
    result = run("fgsm", "task.py", "--radius", "0.1")
    assert result.exit_code == 1 and "Traceback" not in result.output
    pytest.importorskip("captum", reason="captum is not installed: pip install 'upweight[captum]'")
    (task / "net.py").write_text(TASK + NET)
    answer = answer_of("fgsm", "net.py", "--query", "q1", "--query", "q3", "--radius", "3", "-o", "f.html")
    assert [query["id"] for query in answer["queries"]] == ["q1", "q3"] and answer["flipped"] and answer["radius"] == 3
    assert (task / "f.html").exists()
    assert "of 40 predictions flipped" in run("fgsm", "net.py", "--radius", "0.05", "--towards", "yes").output
    assert "expected one of no, yes, got 7" in words(run("fgsm", "net.py", "--radius", "1", "--towards", "7").output)
    assert "expected a radius above 0, got 0" in run("fgsm", "net.py", "--radius", "0").output
    assert "expected low ≤ high" in run("fgsm", "net.py", "--radius", "1", "--low", "2", "--high", "1").output


NET = """
import torch
net = torch.nn.Linear(3, 2)
torch.nn.init.constant_(net.weight, 0.0)
net.weight.data[1, 0] = 2.0
train, queries = (e.replaced(x=e.x.astype("float32")) for e in (train, queries))
model = upweight.TorchModel(net, lambda net, b: torch.nn.functional.cross_entropy(net(b.x), b.y, reduction="none"))
"""


def test_retrieve(task):
    answer = answer_of("retrieve", "task.py", "--query", "q1", "--k", "2", "--candidates", "5")
    assert len(answer["queries"][0]["proponents"]) <= 2 and (task / "retrieved.html").exists()


def test_neurons(task):
    answer = answer_of("neurons", "task.py", "--neuron", "1", "--neuron", "2", "--k", "3")
    assert [row["neuron"] for row in answer["neurons"]] == [1, 2] and (task / "neurons.html").exists()
    assert "Neuron 0 (" in run("neurons", "task.py", "--neurons", "3").output


def test_tree(task):
    answer = answer_of("tree", "task.py", "--leaves", "4", "--samples", "500", "-o", "t.html")
    assert (task / "t.html").exists() and answer["fidelity"]["queries"] > answer["constant"]["queries"]
    assert "size ≤ " in run("tree", "task.py", "--leaves", "2").output


def test_prototypes(task):
    chosen = answer_of("prototypes", "task.py", "--k", "4", "-o", "sets.html")
    assert len(chosen["prototypes"]) == len(chosen["criticisms"]) == 4 and (task / "sets.html").exists()
    of_queries = answer_of("prototypes", "task.py", "--k", "3", "--query", "q1", "--query", "q2")
    assert of_queries["stands_for"] == "2 queries" and of_queries["kernel"] == "FisherKernel"
    assert "no: prototypes" in run("prototypes", "task.py").output


def test_poisoned(task):
    answer = answer_of("poisoned", "task.py", "--query", "q3", "--k", "2", "--method", "gradcos", "-o", "poison.html")
    assert (task / "poison.html").exists() and len(answer["queries"]) == 40
    (tried,) = [row for row in answer["queries"] if row["after"] is not None]
    assert tried["id"] == "q3" and answer["k"] == 2 and answer["deep_knn"]["k"] > 1
    output = run("poisoned", "task.py", "--targets", "0").output
    assert "of 40 queries flagged" in output and "DeepKNN(" in output


def test_poisoned_compares_queries_with_those_that_are_known_to_be_clean(task):
    (task / "clean.txt").write_text("\n".join(f"q{i}" for i in range(30)) + "\n")
    of_file = ["task.py", "--clean", "clean.txt", "--level", "0.04", "--targets", "0", "-o", "poison.html"]
    answer = answer_of("poisoned", *of_file)
    space: dict = {}
    exec(TASK, space)
    train, queries = space["train"], space["queries"]
    model = uw.explainable(space["model"], train)
    fit = uw.FIT(level=0.04, clean=queries.take(range(30)))
    search = uw.poisoned(model, train, queries.take(range(30, 40)), fit=fit, targets=0)
    assert [(row["id"], row["p"]) for row in answer["queries"]] == [(s.id, s.p) for s in search.suspects]
    assert answer["flagged_by_chance"] == pytest.approx(0.4)
    unclean = run("poisoned", "task.py", "--targets", "0").output
    assert "(--clean on the command line)" in words(unclean)


def test_poisoned_refuses_clean_queries_that_it_cannot_use(task):
    for name, text in {"empty": "\n", "other": "q1\nnobody\n", "all": "\n".join(f"q{i}" for i in range(40))}.items():
        (task / f"{name}.txt").write_text(text)
    for name, message in {
        "empty": "empty.txt lists no query",
        "other": "no query has the id 'nobody'",
        "all": "all queries are known to be clean",
    }.items():
        result = run("poisoned", "task.py", "--clean", f"{name}.txt")
        assert result.exit_code == 2 and message in words(result.output)
    (task / "same.txt").write_text("q1")
    both = run("poisoned", "task.py", "--clean", "same.txt", "--query", "q1")
    assert both.exit_code == 2 and "'q1' is named by --query too" in words(both.output)


def test_local_models_growing_spheres_and_global_explanations(task):
    of_q3 = ["task.py", "--query", "q3", "--samples", "200"]
    local = answer_of("local-model", *of_q3, "--influential", "20", "-o", "l.html")
    assert local["query"] == "q3" and set(local["coefficients"]) == {"random", "influential"}
    assert len(local["examples"]) == 20 and (task / "l.html").exists()
    other = answer_of("local-model", *of_q3, "--influential", "0", "--label", "yes")
    assert other["label"] == "yes" and list(other["coefficients"]) == ["random"]
    assert "On random neighbours" in run("local-model", "task.py", "--influential", "0", "--samples", "50").output
    nearest = answer_of("growing-spheres", *of_q3, "--k", "2", "-o", "s.html")
    assert nearest["predicted"] != nearest["enemy_predicted"] and len(nearest["training"]) == 2
    assert nearest["changes"][0]["name"] == "size" and (task / "s.html").exists()
    options = ["--k", "2", "--candidates", "5", "--samples", "100"]
    whole = answer_of("global-explanation", "task.py", *options, "-o", "g.html")
    assert len(whole["candidates"]) == 5 and 1 <= len(whole["picked"]) <= 2 and (task / "g.html").exists()
    trained = answer_of("global-explanation", "task.py", *options, "--of", "influential")
    assert all(identifier.startswith("t") for identifier in trained["candidates"])
    for command in ("local-model", "growing-spheres"):
        assert "no training label is 'maybe'" in " ".join(run(command, "task.py", "--label", "maybe").output.split())
        assert "no query has the id 'q99'" in " ".join(run(command, "task.py", "--query", "q99").output.split())


def test_perturb(task):
    answer = answer_of("perturb", "task.py", "--query", "q3", "--k", "2", "-o", "p.html")
    assert (task / "p.html").exists() and len(answer["features"]) == 2
    assert answer["features"][0]["of"][0]["name"] in ("size", "noise", "other")


def test_an_attack_is_a_perturbation_that_is_done(task):
    answer = answer_of(
        "perturb", "task.py", "--attack", "2", "--grey", "0.5", "--query", "q3", "--query", "q5", "-o", "a.html"
    )
    assert len(answer["moved"]) == 2 and 0 < answer["farthest"] <= 0.5 + 1e-9
    assert all(row["after"] < row["before"] for row in answer["queries"][:1]) and answer["steps"] >= 1
    page = (task / "a.html").read_text(encoding="utf-8")
    assert answer["moved"][0] in page and "largest move" in page and "predictions flipped" in page
    assert "grey levels" in run("perturb", "task.py", "--attack", "1", "--grey", "0.5").output
    result = run("perturb", "task.py", "--attack", "1", "--grey", "0")
    assert result.exit_code == 1 and "expected grey, radius and step above 0" in result.output


def test_what_if_says_that_a_query_is_no_training_example(task):
    for change in (["--remove", "q3"], ["--relabel", "q3=yes"], ["--reweight", "q3=2"]):
        result = run("what-if", "task.py", *change)
        assert result.exit_code == 2 and "'q3' is a query" in words(result.output)
    assert "expected a number as factor" in words(run("what-if", "task.py", "--reweight", "t1=nan").output)


def test_what_if(task):
    answer = answer_of(
        "what-if", "task.py", "--remove", "t7", "--relabel", "t1=yes", "--reweight", "t9=3", "--query", "q3"
    )
    assert answer["queries"] == ["q3"] and answer["predicted"][0] == pytest.approx(answer["actual"][0], rel=1e-3)
    assert (task / "what-if.html").exists()
    for wrong, match in (
        (["--remove", "t999"], "no training example"),
        (["--relabel", "t1"], "expected ID=VALUE"),
        (["--reweight", "t1=x"], "expected a number"),
        ([], "say what to change"),
    ):
        result = run("what-if", "task.py", *wrong)
        assert result.exit_code == 2 and match in " ".join(result.output.replace("│", "").split())


def test_discover(task):
    answer = answer_of("discover", "task.py", "--most", "1", "-o", "discover.html")
    assert (task / "discover.html").exists() and len(answer["groups"]) <= 1
    assert set(answer["searched"]).isdisjoint(answer["confirming"])
    printed = words(run("discover", "task.py", "--most", "1", "--method", "graddot").output)
    assert "queries" in printed and "Page:" in printed
    assert "smallest < largest" in words(run("discover", "task.py", "--smallest", "0.5").output)


def test_reweight(task):
    answer = answer_of("reweight", "task.py", "--steps", "3", "--save", "weights.csv", "-o", "reweight.html")
    assert len(answer["weights"]) == 100 and answer["gains"][0]["weights"] == "uniform"
    lines = (task / "weights.csv").read_text().splitlines()
    assert lines[0] == "id,weight" and len(lines) == 101 and lines[1].startswith("t0,")
    printed = words(run("reweight", "task.py", "--steps", "2", "--by", "label", "--slopes", "retraining").output)
    assert "label = yes: weight" in printed and "Gain beside all weights 1" in printed
    assert "expected slopes to be one of" in words(run("reweight", "task.py", "--slopes", "guess").output)
    assert "--by" in words(run("reweight", "task.py", "--by", "nothing").output)


def test_forget(task):
    (task / "ids.txt").write_text("t1\n\nt2\n", encoding="utf-8")
    options = ["--ids", "ids.txt", "--certificate", "c.json", "--save", "model.joblib", "-o", "forget.html"]
    answer = answer_of("forget", "task.py", *options)
    assert answer["ids"] == ["t1", "t2"] and answer["deletion"] and (task / "forget.html").exists()
    assert json.loads((task / "c.json").read_text(encoding="utf-8"))["digests"] == answer["digests"]
    assert (task / "model.joblib").stat().st_size > 100
    printed = words(run("forget", "task.py", "--example", "t3", "--refit").output)
    assert "does not depend on 1 of" in printed and "trained again without them" in printed
    assert run("forget", "task.py").exit_code == 2
    assert "no training example has the id 'q9'" in words(run("forget", "task.py", "--example", "q9").output)


def test_flip_set(task):
    flip = answer_of("flip-set", "task.py", "--query", "q26", "--most", "40", "-o", "flip.html")
    assert (
        (task / "flip.html").exists() and flip["size"] == len(flip["removed"]) > 0 and flip["after"] != flip["before"]
    )
    printed = run("flip-set", "task.py", "--query", "q26", "--most", "40", "--noun", "rows").output
    assert "the prediction for query q26 would be" in " ".join(printed.split()) and "Removed: t" in printed
    few = answer_of("flip-set", "task.py", "--query", "q1", "--candidate", "t1", "--no-proof")
    assert few["size"] is None and few["candidates"] == 1 and few["trainings"] == 0
    assert "expected a measurement that ranks" in words(run("flip-set", "task.py").output)
    both = run("flip-set", "task.py", "--same", "size", "--candidate", "t1")
    assert both.exit_code == 2 and "not both" in words(both.output)
