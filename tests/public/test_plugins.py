"""Packages installed beside bring methods and model families; those that cannot be used are named and left out."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import upweight as uw
from support.installed_distributions import install, python

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "stability.md").read_text(encoding="utf-8")
LIKENESS = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
PROJECT = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])["project"]

TASK = """
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB
import upweight as uw

class Bayes(GaussianNB):  # only the plugin reads it
    pass

x, y = load_iris(return_X_y=True)
train, queries = uw.Examples(x[::2], y[::2]), uw.Examples(x[1::2], y[1::2], ids=range(75))
model = Bayes().fit(train.x, train.y)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "task.py").write_text(TASK, encoding="utf-8")
    return tmp_path


def test_the_package_of_the_documentation_brings_a_method_and_a_model_family(folder):
    install(folder, "upweight_likeness", PROJECT["entry-points"], LIKENESS)
    ran = python(
        folder,
        "-W",
        "error::UserWarning",
        "-c",
        f"""{TASK}
import json
ours, three = uw.explainable(model, train), queries.take(range(3))
explained = uw.explain(ours, train, three, uw.methods()["likeness"](), removals=4)
without = train.take(range(1, len(train)))
refit = GaussianNB().fit(without.x, without.y).predict_log_proba(three.x)[range(3), three.y]
retrained = uw.retrain(ours, train, [0.0] + [1.0] * (len(train) - 1)).measure(three)
print(json.dumps({{
    "methods": list(uw.methods()),
    "values": explained.scores.values.tolist(),
    "warnings": explained.scores.diagnostics["warnings"],
    "removals": len(explained.check.removals),
    "refit": refit.tolist(),
    "retrained": retrained.tolist(),
}}))
""",
    )
    assert ran.returncode == 0, ran.stderr
    gave = json.loads(ran.stdout)
    assert gave["methods"] == [*uw.methods(), "likeness"]
    assert gave["warnings"] == ["Likeness uses only the examples, not the model."]
    assert gave["removals"] == 4
    np.testing.assert_allclose(gave["retrained"], gave["refit"], rtol=1e-9)
    namespace = {}
    exec(TASK, namespace)
    train, queries = namespace["train"], namespace["queries"]
    signs = np.where(queries.y[:3, None] == train.y, 1, -1)
    expected = signs * np.exp([[-((q - x) ** 2).sum() / 2 for x in train.x] for q in queries.x[:3]])
    np.testing.assert_allclose(gave["values"], expected)


def test_the_command_line_has_them_too(folder):
    install(folder, "upweight_likeness", PROJECT["entry-points"], LIKENESS)
    listed = python(folder, "-m", "upweight", "methods", "--json")
    (row,) = (row for row in json.loads(listed.stdout) if row["name"] == "likeness")
    assert row["unit"] == "RANK" and row["cost"] == "one distance per query and training example"
    ran = python(
        folder,
        "-m",
        "upweight",
        "explain",
        "task.py",
        "--method",
        "likeness",
        "--query",
        "0",
        "--removals",
        "2",
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["queries"]) == 1


NOT_USABLE = '''
import upweight as uw
from upweight.methods.chance import Chance as Influence
from upweight.methods.chance import Chance as Twice

not_a_method = Influence()


class HalfAMethod(uw.Attributor):
    """Lacks all that makes a method."""


class Reader:
    """Cannot say what it reads."""

    def reads(self, estimator):
        raise RuntimeError("no idea")

    def read(self, estimator, train, measure):
        raise AssertionError("never called")


reader = Reader()
'''


@pytest.fixture
def troubled(folder):
    """Two packages of which only `twice` of the first can be used."""
    install(
        folder,
        "aaa_first",
        {
            "upweight.methods": {
                "twice": "aaa_first:Twice",
                "influence": "aaa_first:Influence",
                "absent": "aaa_first:Absent",
                "instance": "aaa_first:not_a_method",
                "half": "aaa_first:HalfAMethod",
            },
            "upweight.models": {"clueless": "aaa_first:reader", "sklearn": "aaa_first:reader", "chance": "aaa_first"},
        },
        NOT_USABLE,
    )
    install(
        folder,
        "zzz_second",
        {"upweight.methods": {"twice": "zzz_second:Twice"}},
        "raise ImportError('no such library')",
    )
    return folder


def test_what_cannot_be_used_is_named_and_left_out(troubled):
    ran = python(
        troubled,
        "-c",
        f"""{TASK}
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    names = list(uw.methods())
    uw.methods()
    twice = uw.methods()["twice"].__module__
    own = uw.methods()["influence"] is uw.Influence
    refitted = type(uw.explainable(model, train)).__name__
    from sklearn.linear_model import Ridge
    read = type(uw.explainable(Ridge().fit(train.x, train.y), train)).__name__
print(json.dumps([names, twice, own, refitted, read, [[w.category.__name__, str(w.message)] for w in caught]]))
""",
    )
    assert ran.returncode == 0, ran.stderr
    names, twice, own_methods, refitted, read, warned = json.loads(ran.stdout)
    assert names == [*uw.methods(), "twice"] and own_methods
    assert twice == "upweight.methods.chance"  # the first package's, which took a method of ours under its name
    assert refitted == "RefitModel" and read == "LinearModel"
    assert {category for category, _ in warned} == {"UserWarning"}
    expected = {
        ("absent", "aaa-first"): "AttributeError: module 'aaa_first' has no attribute 'Absent'",
        ("half", "aaa-first"): "expected a subclass of upweight.Attributor that implements all its abstract methods",
        ("influence", "aaa-first"): "upweight has one of this name itself",
        ("instance", "aaa-first"): "expected a subclass of upweight.Attributor",
        ("twice", "zzz-second"): "the package aaa-first has one of this name",
        ("chance", "aaa-first"): "expected a module or object with the functions `reads` and `read`",
        ("sklearn", "aaa-first"): "upweight has one of this name itself",
        ("clueless", "aaa-first"): "reads(Bayes) raised RuntimeError: no idea",
    }
    messages = [message for _, message in warned]
    assert len(messages) == len(expected), "each once, however often methods() is called"
    for (name, package), reason in expected.items():
        (message,) = (m for m in messages if f"{name!r} of the package {package} is left out: {reason}" in m)
        assert re.search(rf"Its entry point is {name} = aaa_first\S* in the group upweight\.|zzz_second:Twice", message)


def test_a_package_that_cannot_be_imported_stops_no_command(folder):
    install(folder, "broken", {"upweight.methods": {"broken": "broken:Method"}}, "import a_library_that_is_not_there")
    ran = python(folder, "-m", "upweight", "methods", "--json")
    assert ran.returncode == 0, ran.stderr
    assert [row["name"] for row in json.loads(ran.stdout)] == list(uw.methods())
    assert "'broken' of the package broken is left out: ModuleNotFoundError: No module named" in ran.stderr


def test_an_option_that_a_family_does_not_take_is_refused(folder):
    install(folder, "upweight_likeness", PROJECT["entry-points"], LIKENESS)
    ran = python(
        folder,
        "-c",
        f"""{TASK}
for option in ({{"smoothing": 0.1}}, {{"objective": "mean"}}):
    try:
        uw.explainable(model, train, **option)
    except TypeError as error:
        print(error)
""",
    )
    first, second = ran.stdout.splitlines()
    assert "smoothing= is for support vector machines, got a Bayes" in first
    assert "objective= is for models with an l2 on their parameters, got a Bayes" in second
