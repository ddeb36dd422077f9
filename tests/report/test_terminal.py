import io
import threading

import numpy as np
import pytest
from rich.console import Console
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from upweight import Chance, Examples, Influence, Margin, explainable
from upweight.applications.audit import audit
from upweight.applications.explain import explain
from upweight.report.progress_display import ProgressDisplay
from upweight.report.terminal import _percents, summary

RNG = np.random.default_rng(2)
IMAGES = RNG.random((60, 8, 8))
Y = (IMAGES[:, 2, 2] + 0.3 * RNG.normal(size=60) > 0.5).astype(int)


def explained(measure=None, method=None, removals=2, shown=True):
    x = IMAGES.reshape(60, -1)
    train, queries = (
        Examples(x[part], Y[part], shown=IMAGES[part] if shown else None) for part in (slice(0, 45), slice(45, 60))
    )
    model = explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y), train, measure)
    return explain(model, train, queries, method or Influence(), removals=removals)


def printed(explanation, colours=None, width=80):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours is not None, color_system=colours, _environ={}
    )
    console.print(summary(explanation, [0], console))
    return console.file.getvalue()


def test_pictures_where_there_are_colours_words_where_there_are_none():
    explanation = explained()
    assert "▀" in printed(explanation, "truecolor")
    plain = printed(explanation)
    assert "▀" not in plain and "\x1b" not in plain and "labelled" in plain


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("shown", [True, False])
def test_no_line_is_wider_than_the_console(width, shown):
    assert max(map(len, printed(explained(shown=shown), width=width).splitlines())) <= width


def test_the_summary_states_that_removing_a_proponent_raises_the_loss():
    text = " ".join(printed(explained()).split())
    best = max(explained().scores.row(0), key=abs)
    assert f"nats {'higher' if best > 0 else 'lower'}" in text and "instead of" in text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (0.5, 0.8, ("50", "80")),
        (0.0030, 0.0026, ("0.30", "0.26")),
        (0.9991, 0.9992, ("99.91", "99.92")),
        (0.2, 0.2, ("20", "20")),
        (1e-5, 0.5, ("<0.1", "50")),
        (1e-7, 2e-7, ("<0.001", "<0.001")),
    ],
)
def test_two_different_probabilities_are_printed_differently(before, after, text):
    assert _percents(before, after) == text


def test_other_measurements_raise_and_lower():
    text = " ".join(printed(explained(Margin())).split())
    assert "that raised it" in text and "margin of the label" in text and "instead of" not in text


def test_ranks_have_no_size_and_bad_news_is_printed():
    text = printed(explained(method=Chance(), removals=0))
    assert "RANK" in text and "! These scores are random" in text and "Are the scores right" not in text


def test_stages_are_plain_lines_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), width=80)
    with ProgressDisplay(console, {"cook": "Cooking"}) as progress:
        progress("cook", 0, 1)
        progress("cook", 1, 2)
        progress("cook", 2, 2)
        progress("report", 0, 1)
        progress("report", 1, 1)
    first, second = console.file.getvalue().rstrip("\n").splitlines()
    assert first.startswith("  ✓ Cooking") and first.endswith(" s")
    assert second.startswith("  ✓ Writing the report")


def test_the_time_left_of_a_stage_that_continues_does_not_count_what_was_there():
    now = [0.0]
    console = Console(file=io.StringIO(), width=80)
    with ProgressDisplay(console, {"cook": "Cooking"}, clock=lambda: now[0]) as progress:
        for done in (90, 91, 92):
            progress("cook", done, 100)
            now[0] += 20.0
    assert console.file.getvalue().splitlines()[0] == "  … Cooking: 91 of 100, about 3 min left"


def test_a_long_stage_says_elsewhere_than_on_a_terminal_how_much_time_is_left_in_few_lines():
    now = [0.0]
    console = Console(file=io.StringIO(), width=80)
    with ProgressDisplay(console, {"cook": "Cooking"}, clock=lambda: now[0]) as progress:
        for done in range(1001):
            now[0] = float(done)
            progress("cook", done, 1000)
    lines = console.file.getvalue().rstrip("\n").splitlines()
    assert lines[0] == "  … Cooking: 10 of 1000, about 16 min left"
    assert 5 < len(lines) < 20 and "1000.0 s" in lines[-1]


def test_a_short_stage_has_one_line():
    console = Console(file=io.StringIO(), width=80)
    with ProgressDisplay(console, {"cook": "Cooking"}, clock=lambda: 0.0) as progress:
        for done in range(1001):
            progress("cook", done, 1000)
    assert len(console.file.getvalue().rstrip("\n").splitlines()) == 1


@pytest.mark.parametrize("total", [1, 30])
def test_a_long_stage_that_counts_nothing_says_how_long_it_has_run_and_stops_when_it_ends(total):
    now = [0.0]
    console = Console(file=io.StringIO(), width=80)
    display = ProgressDisplay(console, {"cook": "Cooking"}, clock=lambda: now[0])
    display("cook", 0, total)
    for second in range(200):
        now[0] = float(second)
        display.show_elapsed()
    display("cook", total, total)
    now[0] = 1000.0
    display.show_elapsed()
    lines = console.file.getvalue().rstrip("\n").splitlines()
    assert lines[:2] == ["  … Cooking: 10 s so far", "  … Cooking: 15 s so far"]
    assert 5 < len(lines) < 12 and lines[-1].startswith("  ✓ Cooking")


def test_a_silent_stage_is_watched_while_it_runs():
    shown = threading.Event()
    with ProgressDisplay(Console(file=io.StringIO(), width=80), {}) as display:
        display.show_elapsed = shown.set
        display("train", 0, 1)
        assert shown.wait(60)


def test_a_row_of_a_table_is_shown_by_the_columns_that_go_most_with_the_labels():
    x = RNG.normal(size=(80, 30))
    names, y = [f"c{i}" for i in range(30)], (x[:, 27] > 0).astype(int)
    train, queries = Examples(x[:60], y[:60], names=names), Examples(x[60:], y[60:], names=names)
    model = explainable(LogisticRegression(tol=1e-10).fit(train.x, train.y), train)
    rows = [line for line in printed(explain(model, train, queries, removals=0)).splitlines() if "#" in line][:-1]
    assert rows and all("c27 " in line and "c0 " not in line for line in rows if "labelled" in line)


def test_the_summary_states_whether_the_support_is_unusual():
    plain = explained(removals=0)
    assert "upport" not in printed(plain)
    known = explain(plain.fitted.model, plain.train, plain.queries, removals=0)
    assert "Support: Nothing unusual." in printed(known.with_audit(audit(known)))
    copy = explain(plain.fitted.model, plain.train, plain.train.take([3]).replaced(ids=[0]), removals=0)
    assert "Unusual support: Training example 3 is equal to it." in printed(copy.with_audit(audit(copy)))


def test_a_row_of_a_table_is_one_line_whatever_its_cells_hold():
    pd = pytest.importorskip("pandas")
    words = np.where(Y == 1, "two\nlines", "\x1b[31mred")
    frame = pd.DataFrame({"word": words, "size": RNG.normal(size=60)})
    numbers = ColumnTransformer([("size", "passthrough", ["size"]), ("word", OneHotEncoder(), ["word"])])
    train, queries = Examples(frame[:45], Y[:45]), Examples(frame[45:].reset_index(drop=True), Y[45:])
    model = explainable(make_pipeline(numbers, LogisticRegression(tol=1e-10)).fit(train.x, train.y), train)
    lines = printed(explain(model, train, queries, Influence(), removals=0), width=160).splitlines()
    rows = [line for line in lines if line.lstrip().startswith("#")]
    assert len(rows) > 3 and all("word " in line and "size " in line for line in rows)
    assert any("two lines" in line for line in rows) and any("\\x1b[31mred" in line for line in rows)
    assert "\x1b" not in "".join(lines) and not any(line.startswith("lines") for line in lines)
