import json

import pytest
from typer.testing import CliRunner

from upweight.cli import app
from upweight.demo import MISTAKES, REMOVALS, digits

FIRST = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "report.html"
    result = CliRunner().invoke(app, ["demo", "--json", "--out", str(path)])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), path


def test_retraining_agrees_with_the_scores(answer):
    check = answer[0]["check"]
    assert check["trainings"] == REMOVALS + 1
    assert check["single"]["slope"] == pytest.approx(1.0, abs=0.02)
    assert check["single"]["pearson"] > 0.999
    assert check["groups"]["slope"] == pytest.approx(1.0, abs=0.2)
    assert check["groups"]["pearson"] > 0.99


def test_it_explains_confident_mistakes_surest_first(answer):
    queries = answer[0]["queries"]
    assert len(queries) == MISTAKES
    assert all(q["label"] != q["predicted"] for q in queries)
    sure = [q["probability"] for q in queries]
    assert sure == sorted(sure, reverse=True) and sure[0] > 0.8


def test_there_is_no_bad_news(answer):
    assert answer[0]["warnings"] == []


def test_the_report_is_a_page_with_pictures(answer):
    page = answer[1].read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert len(page) > 50_000 and "data:image/" in page


def test_its_data_are_the_same_every_time_and_nothing_is_in_both_sets():
    images = digits()
    assert (len(images.train), len(images.held_out)) == (1297, 500)
    assert not set(images.train.ids.tolist()) & set(images.held_out.ids.tolist())
    assert images.train.ids[:4].tolist() == FIRST
    assert images.train.preview(FIRST[0]).kind == "image"
