"""The page of an evaluation: what it says, that nothing in it runs, and that it fits a telephone."""

import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.report_stand_ins import HOSTILE
from upweight.evaluate.agreement import agreement
from upweight.evaluate.brittleness import Brittleness, Flip
from upweight.evaluate.compare import Comparison, Entry
from upweight.evaluate.label_errors import Detection
from upweight.evaluate.lds import LDS
from upweight.evaluate.noise_ceiling import Ceiling
from upweight.evaluate.removal_curve import RemovalCurve
from upweight.evaluate.removals import Removal
from upweight.evaluate.truth import Truth
from upweight.evaluate.verification import Check
from upweight.report.svg_plots import Axis, Dot, against_cost

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def made(seeds=1, word="", m=4, removals=24):
    """(truth, scores): effects that follow the scores with some noise; every third removal is a single example."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((m, 40))
    queries, train = np.array([f"q{i}{word}" for i in range(m)]), np.array([f"t{i}{word}" for i in range(40)])
    drawn = []
    for i in range(removals):
        size = 1 if i % 3 == 0 else 8
        ids = tuple(train[rng.choice(40, size, replace=False)].tolist())
        drawn.append(Removal(f"r{i}{word}", "one" if size == 1 else "group", ids))
    facts = {"measurement": f"−loss (nats{word})", "model": "", "queries": "", "seed_noise": 0.0, "refused": {}}
    truth = Truth(
        np.zeros((seeds, m)), np.zeros((seeds, m, removals)), tuple(drawn), tuple(range(seeds)), queries, train, facts
    )
    scores = uw.Scores(values, queries, train, uw.Unit.EFFECT, f"−loss (nats{word})", {"method": f"Influence{word}"})
    after = -truth.predicted(scores) + 0.3 * rng.standard_normal((seeds, m, removals))
    return replace(truth, after=after), scores


def check_of(**more):
    truth, scores = made(**more)
    news = {"trainings": 25, "warnings": [f"mind this {more.get('word', '')}"]}
    return Check(truth.predicted(scores), truth.actual, truth.query_ids, truth.removals, scores, news, truth)


def comparison_of(word=""):
    truth, scores = made(word=word)
    ceiling = Ceiling(0.9, np.full(4, 0.9), 0.81, 1, "known here")
    dots = [
        ("influence" + word, "method", 0.8, 0.5),
        ("leave_one_out", "method", 0.82, 60.0),
        ("chance", "baseline", 0.0, 0.002),
    ]
    entries = [
        Entry(
            name, kind, uw.Unit.EFFECT if kind == "method" else uw.Unit.RANK, scores,
            LDS(mean, mean - 0.1, mean + 0.1, 0.95, np.full(4, mean), truth.query_ids, ceiling, 24, 0.8),
            agreement(truth.predicted(scores), truth.actual), Detection(0.9, (0.1,), (0.5,), 4, 40), cost,
        )
        for name, kind, mean, cost in dots
    ]  # fmt: skip
    return Comparison((*entries, Entry("trak", "method", why=f"needs a net {word}")), truth)


def curves_of(word=""):
    rng = np.random.default_rng(1)
    effects = {"proponents": rng.random((3, 4)).cumsum(axis=1), "opponents": -rng.random((3, 4)).cumsum(axis=1)}
    effects["random"] = 0.1 * rng.standard_normal((3, 4))
    effects["proponents"][:, 3] = np.nan
    spread = np.full((3, 4), 0.2)
    return {f"influence{word}": RemovalCurve((1, 2, 5, 10), effects, spread, np.arange(3), (f"refused {word}",))}


def flips_of(word=""):
    many = tuple(f"t{i}{word}" for i in range(12))
    found = Flip(f"q1{word}", "yes" + word, "no" + word, many, 12), Flip("q2", "no", None, (), 7, f"stuck{word}")
    return Brittleness(found, 20, 31)


def text_of(tmp_path, result, **more):
    return uw.write_evaluation(tmp_path / "page.html", result, **more).read_text(encoding="utf-8")


def test_removals_of_the_strongest_and_flips_have_their_sections(tmp_path):
    html = text_of(tmp_path, comparison_of(), curves=curves_of(), flips=flips_of())
    assert html.count('<polyline class="curve') == 3 and "3 queries; the numbers are for 10 removed examples" in html
    assert html.count('class="point proponents"') == 3 and html.count('class="point opponents"') == 4
    assert "t0, t1, t2, t3, t4, t5, t6, t7 and 4 more" in html and "not flipped (stuck)" in html and "&gt; 7" in html
    assert "1 of 2 predictions flipped when at most 20 examples were removed" in html and "31 trainings" in html
    assert "refused" in html[: html.index("Methods and baselines")]
    plain = text_of(tmp_path, comparison_of())
    assert "Removal curves" not in plain and "flip a prediction" not in plain


def test_a_check_becomes_a_page_with_bad_news_first(tmp_path):
    html = text_of(tmp_path, check_of())
    order = ["mind this", "single examples", "Without single examples", "Without groups"]
    assert [html.index(text) for text in order] == sorted(html.index(text) for text in order)
    assert os.listdir(tmp_path) == ["page.html"]
    assert html.count("<svg") == 2 and html.count('class="likely"') == 4 * 24
    assert html.count('class="point one') == 4 * 8 and html.count('class="point group') == 4 * 16
    assert re.search(r"query q0, without r\d+: predicted [+−][\d.]+, actual [+−][\d.]+, expected between", html)


def test_points_outside_their_interval_are_marked(tmp_path):
    check = check_of()
    actual = check.actual.copy()
    actual[1, 4] += 100.0
    html = text_of(tmp_path, replace(check, actual=actual))
    told = f"query q1, without r4: predicted {check.predicted[1, 4]:+.3g}".replace("-", "−")
    mark = next(m for m in re.findall(r"<path class=\"(.*?)\".*?<title>(.*?)</title>", html) if m[1].startswith(told))
    assert "outside" in mark[0]


def test_ranks_have_no_intervals_and_no_common_scale(tmp_path):
    check = check_of()
    html = text_of(tmp_path, replace(check, scores=replace(check.scores, unit=uw.Unit.RANK)))
    assert 'class="likely"' not in html and 'class="ideal"' not in html and "RANK, no unit" in html


def test_a_comparison_becomes_a_table_and_plots(tmp_path):
    html = text_of(tmp_path, comparison_of())
    rows = re.findall(r"<tr class=\"(\w+)\".*?</tr>", html, re.DOTALL)
    assert rows == ["method", "method", "baseline", "method"]
    assert "0.700 to 0.900" in html and "89%" in html and "trak was not run: needs a net" in html
    assert html.count("<svg") == 3 and "noise ceiling" in html  # cost, and a plot for each method that was run
    assert "AUC" in html and "50% in the first 10%" in html


def test_nothing_of_the_data_is_html_and_nothing_runs(tmp_path):
    for result in (check_of(word=HOSTILE), comparison_of(HOSTILE)):
        html = text_of(tmp_path, result, curves=curves_of(HOSTILE), flips=flips_of(HOSTILE))
        assert "<script" not in html and "<img" not in html and "onerror='" not in html
        assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html
        assert not re.search(r"(src|href)=[\"']?https?:", html)


def test_too_many_points_are_thinned_with_a_note(tmp_path):
    html = text_of(tmp_path, check_of(m=60, removals=30))
    assert "600 of 1,200 pairs are drawn" in html or "of 1,200 pairs are drawn" in html


def test_axes_have_round_ticks():
    np.testing.assert_allclose(Axis(-0.13, 0.42, 0, 1).ticks(5), [0.0, 0.2, 0.4], atol=1e-12)
    assert Axis(0.01, 100, 0, 1, True).ticks(9) == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert Axis(0.01, 100, 0, 10, True)(1.0) == pytest.approx(5.0)


def test_labels_on_the_cost_plot_do_not_cover_each_other():
    dots = [Dot(f"method_{i}", 1.0, 0.5 + 0.001 * i, 0.4, 0.6, "method") for i in range(5)]
    drawn = str(against_cost(dots, None, "plot"))
    places = sorted(float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', drawn))
    assert len(places) == 5 and np.diff(places).min() >= 13


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen(tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api")
    more = {"curves": curves_of(), "flips": flips_of()}
    results = check_of(), comparison_of()
    pages = [uw.write_evaluation(tmp_path / f"{i}.html", result, **more) for i, result in enumerate(results)]
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments, env={**os.environ})
        page = browser.new_page(viewport={"width": width, "height": 900})
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        for path in pages:
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            letters = "[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().height)"
            assert min(page.evaluate(letters)) >= 9
            table = page.locator("table.ranking")
            if table.count():
                assert table.evaluate("(t) => t.scrollWidth - t.parentElement.clientWidth") <= 0
        assert said == [] and all(url.startswith("file:") for url in asked)
        browser.close()
