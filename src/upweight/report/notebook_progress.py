"""Progress of long work: bars on a terminal, and bars in a notebook."""

from __future__ import annotations

import sys
import threading
import time
from html import escape
from types import TracebackType
from typing import Any

from upweight.core.notebook_table import TABLE
from upweight.report.progress_display import STAGES, ProgressDisplay, duration_text

SPACING = 0.1  # seconds between two updates of a notebook


class ProgressBars:
    """Shows the stages of long work, for `Retraining(progress=…)` and everything else that takes `progress=`.

    In a notebook there is one bar per stage, with the time left, below the cell; elsewhere the bars and lines of the
    command line, on stderr. It may be used as a context manager; on a terminal it then ends its bars.

    Works in marimo, in Jupyter, and in everything that displays updates of IPython; it needs no widgets.
    """

    def __init__(self) -> None:
        self._display: Any = _notebook_display()
        self._stages: dict[
            str, tuple[float, int, int, int, float]
        ] = {}  # start, done then, done, total, end (0 while it runs)
        self._lock, self._handle, self._shown = threading.Lock(), None, 0.0
        self._terminal: ProgressDisplay | None = None

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """A stage starts (done = 0), continues, or ends (done = total)."""
        with self._lock:
            if self._display is None:
                self._on_terminal()(stage, done, total)
                return
            now = time.perf_counter()
            start, first, _, _, end = self._stages.get(stage, (now, done, 0, 0, 0.0))
            is_new = stage not in self._stages or (end and done < total)
            start, first = (now, done) if is_new else (start, first)
            self._stages[stage] = (start, first, done, total, now if done >= total else 0.0)
            if is_new or done >= total or now - self._shown >= SPACING:
                self._shown = now
                self._draw(now)

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal is not None:
            self._terminal.__exit__()
            self._terminal = None

    def _on_terminal(self) -> ProgressDisplay:
        if self._terminal is None:
            from rich.console import Console

            self._terminal = ProgressDisplay(Console(file=sys.stderr), {}).__enter__()
        return self._terminal

    def _draw(self, now: float) -> None:
        html = _Html("".join(_line(stage, *numbers, now) for stage, numbers in self._stages.items()))
        if self._handle is None:
            self._handle = self._display(html, display_id=True)
        else:
            self._handle.update(html)


class _MarimoOutput:
    """The output of the cell that runs; the last line of the cell takes its place."""

    def __call__(self, html: _Html, display_id: bool) -> _MarimoOutput:
        self.update(html)
        return self

    def update(self, html: _Html) -> None:
        import marimo

        marimo.output.replace(html)


class _Html:
    def __init__(self, lines: str) -> None:
        self._lines = lines

    def _repr_html_(self) -> str:
        return f"{TABLE}{self._lines}</table>"

    def __repr__(self) -> str:
        return "progress of upweight"


def _line(stage: str, start: float, first: int, done: int, total: int, end: float, now: float) -> str:
    """One row of the table; `first` was done before the stage began, and took none of its time."""
    name = escape(STAGES.get(stage, stage))
    if end:
        return f"<tr><td>✓ {name}</td><td></td><td>{end - start:.1f} s</td></tr>"
    known = total > 1 and done > first
    left = f", about {duration_text((now - start) / (done - first) * (total - done))} left" if known else ""
    bar = f'<progress value="{done}" max="{total}" aria-label="{name}"></progress>' if total > 1 else "…"
    return f"<tr><td>{name}</td><td>{bar}</td><td>{f'{done} of {total}' if total > 1 else ''}{left}</td></tr>"


def _notebook_display() -> Any:
    """IPython's `display` in a kernel that shows HTML, the output of a cell of marimo; None elsewhere."""
    if "marimo" in sys.modules:
        import marimo

        if marimo.running_in_notebook():
            return _MarimoOutput()
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):  # a terminal
        return None
    from IPython.display import display

    return display
