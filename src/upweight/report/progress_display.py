"""Progress on the terminal: a bar for each stage of the work, and plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.text import Text

from upweight.core.printable import printable

MAX_WIDTH = 78  # columns, so that lines fit the narrowest usual terminal
SECONDS_SILENT = 10.0  # of a stage, before the first plain line with the time left
LINE_SPACING = 1.5  # times the seconds that have passed, until the next one
STAGES = {
    "train": "Training a default model",
    "fit": "Fitting the attribution method",
    "attribute": "Scoring the training examples for each query",
    "retrain": "Retraining without some examples, to verify",
    "report": "Writing the report",
}


class ProgressDisplay:
    """Prints the stages of the work: a progress bar on a terminal, and one plain line per finished stage everywhere.

    Elsewhere than on a terminal, a long stage also has plain lines with the time left, or, if nobody knows it, with the
    time that it has taken so far: the first after 10 s, each of the others after half as much time again.

    Args:
        console: where to print.
        stages: stage → its description, for stages that `STAGES` does not describe or describes otherwise.
        clock: the time in seconds.
    """

    def __init__(
        self, console: Console, stages: Mapping[str, str], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.console = console
        self.clock = clock
        self.stages = {stage: printable(text, keep="") for stage, text in {**STAGES, **stages}.items()}
        self._started: dict[str, float] = {}
        self._first: dict[str, int] = {}  # how much was done before the stage began
        self._next_line: dict[str, float] = {}  # seconds from the start of a stage
        self._tasks: dict[str, TaskID] = {}
        self._counted: set[str] = set()  # stages that say how much of them is done
        texts = (TextColumn(" "), SpinnerColumn(), TextColumn("{task.description}", markup=False))
        columns = (*texts, BarColumn(16), TextColumn("{task.fields[count]}", style="dim"))
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._lock, self._ended = threading.RLock(), threading.Event()

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        self._ended.clear()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._progress.stop()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self.show_elapsed()

    def show_elapsed(self) -> None:
        """Show for how long stages have run that do not say how much of them is done. Called every second."""
        with self._lock:
            for stage in [stage for stage in self._started if stage not in self._counted]:
                seconds = self.clock() - self._started[stage]
                text = f"{duration_text(seconds)} so far"
                self._progress.update(self._tasks[stage], count=text)
                self._print_if_due(stage, text)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """A stage starts (done = 0), continues, or ends (done = total)."""
        with self._lock:
            self._advance(stage, done, total)

    def _advance(self, stage: str, done: int, total: int) -> None:
        description = self.stages.get(stage, printable(stage, keep=""))
        if stage not in self._started:
            self._started[stage], self._first[stage] = self.clock(), done
            self._next_line[stage] = SECONDS_SILENT
            self._tasks[stage] = self._progress.add_task(description, total=None, count="")
        seconds = self.clock() - self._started[stage]
        if total > 1 and done:
            self._counted.add(stage)
            since = done - self._first[stage]  # what was done before the stage began took none of its time
            left = f", about {duration_text(seconds / since * (total - done))} left" if since and done < total else ""
            text = f"{done} of {total}{left}"
            self._progress.update(self._tasks[stage], total=total, completed=done, count=text)
            if left:
                self._print_if_due(stage, text)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(stage))
            del self._started[stage]
            self._counted.discard(stage)
            self._print_line(description, seconds)

    def _print_if_due(self, stage: str, text: str) -> None:
        """A plain line about a stage that has been silent for long, unless there is a bar for it."""
        seconds = self.clock() - self._started[stage]
        if not self.console.is_terminal and seconds >= self._next_line[stage]:
            self._next_line[stage] = LINE_SPACING * seconds
            description = self.stages.get(stage, printable(stage, keep=""))
            self.console.print(Text(f"  … {description}: {text}"), highlight=False, soft_wrap=True)

    def _print_line(self, description: str, seconds: float) -> None:
        duration = f"{seconds:.1f} s"
        width = max(1, min(self.console.width, MAX_WIDTH) - 4 - len(duration))
        line = Text.assemble(("  ✓ ", "green"), f"{description:<{width}}", (duration, "dim"))
        self._progress.console.print(line, highlight=False)


def duration_text(seconds: float) -> str:
    """A time in whole seconds, minutes or hours: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
