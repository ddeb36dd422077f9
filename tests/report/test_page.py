import base64
import dataclasses
import hashlib
import json
import os
import re
from html import unescape

import numpy as np
import pytest

from support.report_stand_ins import HOSTILE
from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.core.scores import Scores, Unit
from upweight.evaluate.removals import Removal
from upweight.evaluate.verification import Check
from upweight.report import write_report
from upweight.report.page_limits import PageLimits


def data_of(path):
    html = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_report_is_written_to_its_path(tmp_path, digits, check):
    path = write_report(str(tmp_path / "report.html"), *digits, check)
    assert path == tmp_path / "report.html"
    assert os.listdir(tmp_path) == ["report.html"]
    data = data_of(path)
    assert [q["wrong"] for q in data["queries"]] == [False, False, False, True]
    assert np.allclose(floats(data["queries"][2]["scores"]), digits[0].values[2])
    top = data["queries"][0]["top"]["proponents"]
    assert [place for place, *_ in top] == [a.id for a in digits[0].proponents("q0", 10)]
    assert top[0][2] == pytest.approx([top[0][1] - 0.25, top[0][1] + 0.25], abs=1e-5)


def test_bad_news_first(tmp_path, digits, check):
    scores = dataclasses.replace(digits[0], diagnostics={"warnings": ["negative curvature was met"]})
    html = write_report(tmp_path / "r.html", scores, *digits[1:], check).read_text(encoding="utf-8")
    order = [
        "negative curvature was met",
        "two refits did not converge",
        "Verified by ",
        'id="query-list"',
    ]
    assert [html.index(text) for text in order] == sorted(html.index(text) for text in order)


def test_a_page_without_verification_reports_it(tmp_path, digits):
    html = write_report(tmp_path / "r.html", *digits).read_text(encoding="utf-8")
    assert "Not verified" in html and "Verified by" not in html


def test_hostile_text_stays_text(tmp_path, hostile):
    path = write_report(tmp_path / "r.html", *hostile)
    html = path.read_text(encoding="utf-8")
    assert html.count("<script") == 2 and html.count("</script") == 2
    assert "<img" not in html and "<!--" not in html
    assert data_of(path)["queries"][0]["id"] == "q" + HOSTILE.replace("\ud800", "?")


def test_needs_no_network(tmp_path, digits, check):
    html = write_report(tmp_path / "r.html", *digits, check).read_text(encoding="utf-8")
    addresses = set(re.findall(r"""(?:https?:)?//[a-z0-9][\w.-]+""", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)))
    assert addresses <= {"http://www.w3.org"}  # the name of SVG's namespace, never fetched
    assert not re.search(r"""<link|@import|src=["']?(?!data:)[a-z/]|innerHTML|eval\(""", html)


def test_policy_allows_this_script_alone(tmp_path, digits):
    html = write_report(tmp_path / "r.html", *digits).read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = unescape(re.search(r'Content-Security-Policy" content="(.*?)"', html)[1])
    assert policy.startswith("default-src 'none'; img-src data:") and f"script-src 'sha256-{expected}'" in policy
    assert "unsafe" not in policy


def test_refuses_scores_of_other_examples(tmp_path, digits):
    scores, train, queries = digits
    with pytest.raises(ValueError, match=r"every train id.*in `train`.*got 30.*e\.g\. 30.*pass the same examples"):
        write_report(tmp_path / "r.html", scores, train.take(np.arange(30)), queries)
    with pytest.raises(ValueError, match=r"every query id.*in `queries`.*got 1.*'total'.*total\(\)"):
        write_report(tmp_path / "r.html", scores.total(), train, queries)
    assert os.listdir(tmp_path) == []


def test_the_old_page_survives_a_failure(tmp_path, digits, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_report(path, *digits)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["r.html"]


def test_the_page_reports_what_was_left_out(tmp_path, digits):
    data = data_of(write_report(tmp_path / "r.html", *digits, limits=PageLimits(queries=3, scores=100)))
    assert "The first 3 of 4 queries" in data["queriesLeftOut"]
    assert "10 highest and the 10 lowest scores of 60 training examples" in data["tableNotes"][0]
    scores, entry = digits[0], data["queries"][1]
    places = np.frombuffer(base64.b64decode(entry["places"]), "<u4")
    ids = np.arange(60) if isinstance(data["train"]["ids"], dict) else np.array(data["train"]["ids"], dtype=int)
    assert np.allclose(floats(entry["scores"]), scores.values[1, ids[places]])
    assert set(ids[places]) == set(np.argsort(scores.values[1])[np.r_[:10, -10:0]])


def test_the_overview_is_of_all_queries_also_of_those_not_on_the_page(tmp_path, digits):
    data = data_of(write_report(tmp_path / "r.html", *digits, limits=PageLimits(queries=2)))
    overview, scores = data["overview"], digits[0]
    assert (overview["count"], overview["mistakes"]) == (4, 1)
    assert [(group["name"], group["count"], group["queries"]) for group in overview["groups"]] == [("0 → 1", 1, [])]
    row = overview["rows"][overview["orders"]["strength"][0]]
    assert row["id"] == str(np.abs(scores.values).mean(axis=0).argmax())
    assert row["mean"] == pytest.approx(scores.values[:, int(row["id"])].mean(), rel=1e-5)


def test_nothing_is_left_out_of_small_sets(tmp_path, digits):
    data = data_of(write_report(tmp_path / "r.html", *digits))
    assert data["tableNotes"] == [] and "queriesLeftOut" not in data


def test_fifteen_hundred_digits_stay_small(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 17, (1500, 8, 8)).astype(float)
    train, queries = Examples(pictures, np.arange(1500) % 10), Examples(pictures[:10], np.arange(10))
    scores = Scores(random.normal(size=(10, 1500)), queries.ids, train.ids, Unit.EFFECT)
    assert write_report(tmp_path / "r.html", scores, train, queries).stat().st_size < 1_000_000


def test_amounts_are_not_called_wrong(tmp_path, table):
    data = data_of(write_report(tmp_path / "r.html", *table))
    query = data["queries"][0]
    assert (query["label"], query["predicted"], query["wrong"], data["classes"]) == ("2", "1.75", False, False)
    assert data["words"] | {"quantity": "margin", "unit": "logits", "loss": False, "effect": False} == data["words"]


def test_readable_labels_meet_raw_predictions(tmp_path):
    train = Examples(np.eye(2), [0.0, 1.0], labels={0: "ham", 1: "spam"})
    predictions = Predictions((np.int64(0), 0), (0, 1))
    scores = Scores(np.eye(2), train.ids, train.ids, Unit.EFFECT, predictions=predictions)
    data = data_of(write_report(tmp_path / "r.html", scores, train, train))
    assert [(q["label"], q["predicted"], q["wrong"]) for q in data["queries"]] == [
        ("ham", "ham", False),
        ("spam", "ham", True),
    ]


def test_many_classes_show_the_likeliest_and_the_true_one(tmp_path, digits):
    scores, train, queries = digits
    chances = np.tile(np.linspace(0, 1, 20) / 10, (4, 1))
    scores = dataclasses.replace(scores, predictions=Predictions((19,) * 4, tuple(range(20)), chances))
    entry = data_of(write_report(tmp_path / "r.html", scores, train, queries))["queries"][1]
    assert [name for name, _ in entry["probabilities"]] == ["19", "18", "17", "16", "15", "1"] and entry[
        "classes"
    ] == 20


def test_a_verification_of_other_scores_gives_a_warning_and_no_intervals(tmp_path, digits, check):
    other = dataclasses.replace(digits[0], values=2 * digits[0].values)
    path = write_report(tmp_path / "r.html", other, *digits[1:], check)
    assert "made with other scores than those on this page" in path.read_text(encoding="utf-8")
    assert data_of(path)["queries"][0]["top"]["proponents"][0][2] is None


def test_real_verification_fits_the_page(tmp_path, digits, check):
    removals = tuple(Removal(str(i), "one", (i,)) for i in range(6))
    real = Check(check.predicted[:, :6], check.actual[:, :6], check.query_ids, removals, digits[0], {"trainings": 7})
    data = data_of(write_report(tmp_path / "r.html", *digits, real))
    assert data["check"]["removals"][0]["name"] == "training example 0" and data["check"]["agreement"]["group"] == []
    low, high = data["queries"][0]["top"]["proponents"][0][2]
    assert low < data["queries"][0]["top"]["proponents"][0][1] < high
    groups = tuple(Removal(f"g{i}", "group", (i, i + 1)) for i in range(6))
    real = dataclasses.replace(real, removals=groups)
    assert data_of(write_report(tmp_path / "r.html", *digits, real))["queries"][0]["top"]["opponents"][0][2] is None


def test_a_loss_that_stands_for_a_prediction_is_not_called_one(tmp_path, table):
    scores, train, queries = table
    predictions = Predictions(tuple(scores.measured.tolist()))
    scores = dataclasses.replace(scores, measurement="−loss", predictions=predictions)
    assert data_of(write_report(tmp_path / "r.html", scores, train, queries))["queries"][0]["predicted"] is None
