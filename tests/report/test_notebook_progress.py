"""Progress in a notebook is one bar per stage, updated in place; elsewhere it is the lines of the terminal."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import upweight as uw
from upweight.report import notebook_progress


class Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, html, display_id):
        assert display_id is True
        self.shown.append(html._repr_html_())
        return self

    def update(self, html):
        self.shown.append(html._repr_html_())


def test_the_time_left_does_not_count_what_was_there_before():
    assert "about 3 min left" in notebook_progress._line("cook", 0.0, 90, 91, 100, 0.0, 20.0)
    assert "left" not in notebook_progress._line("cook", 0.0, 90, 90, 100, 0.0, 20.0)


def test_a_notebook_shows_one_display_that_is_updated(monkeypatch):
    handle = Handle()
    monkeypatch.setattr(notebook_progress, "_notebook_display", lambda: handle)
    monkeypatch.setattr(notebook_progress, "SPACING", 0.0)
    bars = uw.ProgressBars()
    for done in range(4):
        bars("retrain", done, 3)
    bars("<b>own</b>", 0, 1)
    assert '<progress value="2" max="3"' in handle.shown[2] and "left" in handle.shown[2]
    assert "✓ Retraining without some examples" in handle.shown[3] and "<progress" not in handle.shown[3]
    assert "&lt;b&gt;own" in handle.shown[-1] and len(handle.shown) == 5


def test_updates_are_spaced_but_the_end_is_always_shown(monkeypatch):
    handle = Handle()
    monkeypatch.setattr(notebook_progress, "_notebook_display", lambda: handle)
    monkeypatch.setattr(notebook_progress, "SPACING", 1e9)
    bars = uw.ProgressBars()
    for done in range(1001):
        bars("retrain", done, 1000)
    assert len(handle.shown) == 2 and "✓" in handle.shown[-1]


def test_elsewhere_finished_stages_are_lines(capsys):
    with uw.ProgressBars() as bars:
        bars("fit", 0, 1)
        bars("fit", 1, 1)
    assert "Fitting the attribution method" in capsys.readouterr().err


def test_a_cell_of_marimo_shows_the_bars_in_its_output(monkeypatch):
    shown = []
    marimo = ModuleType("marimo")
    marimo.running_in_notebook = lambda: True
    marimo.output = SimpleNamespace(replace=lambda html: shown.append(html._repr_html_()))
    monkeypatch.setitem(sys.modules, "marimo", marimo)
    with uw.ProgressBars() as bars:
        bars("retrain", 0, 2)
        bars("retrain", 2, 2)
    assert "<progress" in shown[0] and "✓" in shown[-1]
    marimo.running_in_notebook = lambda: False
    assert uw.ProgressBars()._display is None
