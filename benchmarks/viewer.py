"""The viewer at 50,000 training examples × 1,000 queries: start, first page, search.

`python -m benchmarks.viewer`, with OMP_NUM_THREADS=1. Makes scores files of 200 MB and 400 MB in the temporary folder.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from benchmarks.results import Section, Table, verdict

import upweight as uw

ROWS, QUERIES = 50_000, 1_000
TIMES = 5
TASK = """
import numpy as np, upweight as uw
words = np.array("the a of film plot actor scene good bad great dull love war music light dark funny sad".split())
texts = [" ".join(row) for row in words[np.random.default_rng(0).integers(0, len(words), ({rows}, 60))]]
train = uw.Examples(texts, np.arange({rows}) % 10)
queries = uw.Examples(texts[:{queries}], np.arange({queries}) % 10)
model = None
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = [start(folder, QUERIES // 2) for _ in range(3)]
        answers = answer_times(folder)
    table = Table(
        f"The viewer: {ROWS:,} texts × {QUERIES:,} queries",
        "start ≤ 3 s from a file of 200 MB, first page < .5 s, search < .2 s",
        ["step", "wall seconds", "target", ""],
    )
    steps = [
        ("start of the command, 200 MB of scores, after what the task file itself takes", starts, 3.0),
        ("first page: the page, the list of queries, the first query, its rows", answers["first"], 0.5),
        ("another query with its rows", answers["next"], None),
        ("search over all training examples", answers["search"], 0.2),
        ("search over all queries", answers["queries"], 0.2),
        ("over all queries: overview and groups, once", answers["whole"], None),
    ]
    for step, seconds, limit in steps:
        median = statistics.median(seconds)
        bound = "–" if limit is None else f"{limit:g}"
        table.add(step, f"{median:.2f}", bound, "" if limit is None else verdict(median <= limit))
    table.notes.append(f"Medians of up to {TIMES} runs on a machine that did other work at the same time.")
    Section("viewer", "The viewer", "OMP_NUM_THREADS=1 python -m benchmarks.viewer", [table]).keep()


def files(folder: Path, queries: int) -> list[str]:
    """A file of scores and its task file."""
    values = np.random.default_rng(0).normal(size=(queries, ROWS))
    predicted = ((np.arange(queries) + (np.arange(queries) % 5 == 0)) % 10).tolist()
    chances = np.full((queries, 10), 0.1)
    predictions = uw.Predictions(tuple(predicted), tuple(range(10)), chances)
    ids, train_ids = np.arange(queries), np.arange(ROWS)
    uw.Scores(values, ids, train_ids, uw.Unit.EFFECT, "−loss (nats)", predictions=predictions).save(folder / "s.npz")
    (folder / "task.py").write_text(TASK.format(rows=ROWS, queries=queries))
    return [str(folder / "s.npz"), str(folder / "task.py")]


def start(folder: Path, queries: int) -> float:
    """Seconds from the command until it prints the address, less those of the task file alone."""
    scores, task = files(folder, queries)
    began = time.perf_counter()
    subprocess.run([sys.executable, task], check=True)
    of_task = time.perf_counter() - began
    command = [sys.executable, "-m", "upweight", "view", scores, task, "-q"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as ran:
        assert ran.stdout is not None
        ran.stdout.readline()
        seconds = time.perf_counter() - began
        ran.stdout.readline()
        ran.terminate()
    return seconds - of_task


def answer_times(folder: Path) -> dict[str, list[float]]:
    """Seconds of answers of a server, in this process."""
    scores_file, task_file = files(folder, QUERIES)
    names: dict[str, object] = {}
    exec(Path(task_file).read_text(), names)
    times: dict[str, list[float]] = {name: [] for name in ("first", "next", "search", "queries", "whole")}

    def ask(name: str, server: uw.ViewerServer, *parts: str) -> None:
        began = time.perf_counter()
        for part in parts:
            with urllib.request.urlopen(server.url + part) as response:
                response.read()
        times[name].append(time.perf_counter() - began)

    for run in range(TIMES):
        scores = uw.Scores.load(scores_file, mapped=True)
        with uw.Viewer(scores, names["train"], names["queries"]).serve() as server:  # type: ignore[arg-type]
            ask("first", server, "", "queries", "query?at=0", "rows?at=0")
            ask("next", server, f"query?at={run + 1}", f"rows?at={run + 1}")
            if run == 0:
                ask("whole", server, "whole")
            else:
                urllib.request.urlopen(server.url + "rows?at=0&text=x").read()  # waits for what a search needs
                urllib.request.urlopen(server.url + "queries?text=x").read()
            ask("search", server, f"rows?at=1&text=love%20war%20m{run % 2 * 'usic'}")
            ask("queries", server, "queries?text=good%20bad%20dull")
    return times


if __name__ == "__main__":
    main()
