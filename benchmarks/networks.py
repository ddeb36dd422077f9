"""Networks: every curvature and every other library on the same checkpoints, compared with the same retrained truth.

python -m benchmarks --only networks --data DIR --peers-env DIR
python -m benchmarks.networks --data DIR --peers-env DIR --tasks mlp --again upweight        some of it again
python -m benchmarks.networks --data DIR --peers-env DIR --tasks resnet --in-turn 3          target and peer in turn
python -m benchmarks.networks --data DIR --tasks        nothing again: the summary of the last figures
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import network_ours, network_peers
from benchmarks.cost_plot import draw
from benchmarks.nets import KINDS, Kind
from benchmarks.network_targets import COMPARED, DEFAULT_NOTES, DEFAULT_TARGET, DEFAULTS, NO_TARGET, STATED, TARGETS
from benchmarks.peers import install, one_thread
from benchmarks.results import HERE, Section, Table, kept_section, verdict, versions
from benchmarks.truth import prepare
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
MEGA = 1e6
BOOTSTRAP_DRAWS = 500  # over the halves


@dataclass(frozen=True)
class ContenderResult:
    """One contender on one task: its LDS with an interval and its cost, or the error if it has none."""

    name: str
    lds: tuple[float, float, float] | None
    cpu: float = 0.0
    memory: float = 0.0
    epoch: float = 0.0
    error: str = ""
    both: float = 0.0  # LDS against the mean of both seeds


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and sst2.zip")
    parser.add_argument("--peers-env", type=Path, help="folder of the peers' environment; by default only ours run")
    parser.add_argument("--tasks", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument(
        "--again", default="", help="run only contenders whose name starts with this; the others' last figures stay"
    )
    parser.add_argument("--missing", action="store_true", help="run only contenders without figures in the folder")
    parser.add_argument(
        "--in-turn", type=int, default=0, help="rounds of the method with a target and its peer alone; medians are kept"
    )
    chosen = parser.parse_args(arguments)
    chosen.tasks = [task for task in chosen.tasks if is_possible(task)]
    python = install(chosen.peers_env) if chosen.peers_env else None
    for task in chosen.tasks:
        folder = prepare(task, chosen.data)
        if chosen.in_turn:
            assert python is not None, "--in-turn needs --peers-env"
            run_in_turn(python, folder, task, chosen.in_turn)
            continue
        for name in contenders(task):
            interpreter = sys.executable if name.startswith("upweight") else python
            is_chosen = name.startswith(chosen.again) and not (
                chosen.missing and result_path(folder, task, name).exists()
            )
            if is_chosen and interpreter:
                print(task, name, flush=True)
                run(interpreter, folder, task, name)
    before = kept_section("networks")
    tables = {} if before is None else {table.title: table for table in before.tables}
    for task in chosen.tasks:
        folder = prepare(task, chosen.data)
        if read_results(folder, task):
            title = title_of(KINDS[task])
            tables[title] = table(task, folder, tables.get(title))
    titles = [title_of(kind) for kind in KINDS.values()]
    ordered = sorted(
        (tables[title] for title in titles if title in tables), key=lambda table: titles.index(table.title)
    )
    ordered.append(summary(ordered))
    command = "python -m benchmarks --only networks --data DIR --peers-env DIR"
    title = "Networks: accuracy against cost"
    numbers = {} if before is None else before.versions  # tasks that were not chosen keep their figures
    if chosen.tasks:
        numbers |= versions(["numpy", "torch", "upweight"]) | peers(chosen.tasks)
    Section("networks", title, command, ordered, numbers).keep()


def is_possible(task: str) -> bool:
    """Whether what the task needs is installed; says what is not."""
    absent = [module for module in KINDS[task].needs if importlib.util.find_spec(module) is None]
    if absent:
        print(f"{task} left out: not installed: {', '.join(absent)}", file=sys.stderr)
    return not absent


def contenders(task: str) -> list[str]:
    return network_peers.RUNS[task] + network_ours.RUNS[task]


def run(python: Path | str, folder: Path, task: str, name: str) -> None:
    """Run one contender in its own process; figures and scores are saved beside the truth."""
    path = result_path(folder, task, name)
    with tempfile.TemporaryDirectory() as scratch:  # libraries write files into the working folder
        env = one_thread() | {"PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE.parent)])}
        command = [python, "-m", "benchmarks.network_worker", folder, task, name, path.with_suffix(".npy")]
        process = subprocess.run(
            command, check=False, env=env, cwd=scratch, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    lines = process.stdout.splitlines()
    is_limit = process.returncode == -signal.SIGXCPU
    error = "stopped at the limit of processor seconds" if is_limit else f"ended with {process.returncode}, no figures"
    path.write_text(lines[-1] if lines else json.dumps({"error": error}))


def run_in_turn(python: Path, folder: Path, task: str, rounds: int) -> None:
    """Run the method with a target and the peer that it is compared with in turn; keep the medians of their figures."""
    ours, peer, _ = TARGETS[task]
    figures: dict[str, list[dict[str, Any]]] = {ours: [], peer: []}
    for _ in range(rounds):
        for name, interpreter in ((peer, python), (ours, sys.executable)):
            run(interpreter, folder, task, name)
            figures[name].append(json.loads(result_path(folder, task, name).read_text()))
    for name, each in figures.items():
        print(task, name, [round(figure["cpu"], 2) for figure in each], flush=True)
        medians = {key: float(np.median([figure[key] for figure in each])) for key in ("cpu", "memory", "epoch")}
        result_path(folder, task, name).write_text(json.dumps(each[-1] | medians))


def result_path(folder: Path, task: str, name: str) -> Path:
    plain = "".join(c if c.isalnum() else "-" for c in name)
    return folder / f"{task}-{plain}.json"


def read_results(folder: Path, task: str) -> list[ContenderResult]:
    """Read the results of every contender that was run on this task."""
    with np.load(folder / f"{task}.npz") as truth:
        member, seeds = truth["member"].astype(np.float64), truth["measured"]
    results = []
    for name in contenders(task):
        path = result_path(folder, task, name)
        if not path.exists():
            continue
        figures = json.loads(path.read_text())
        if "error" in figures:
            results.append(ContenderResult(name, None, error=figures["error"]))
            continue
        scores = np.load(path.with_suffix(".npy"))
        if not np.isfinite(scores).all():
            results.append(ContenderResult(name, None, error="scores that are not finite"))
            continue
        predicted = scores @ member.T
        reached, both = with_interval(predicted, seeds[0]), float(spearman(predicted, seeds.mean(axis=0))[0])
        results.append(ContenderResult(name, reached, figures["cpu"], figures["memory"], figures["epoch"], both=both))
    return results


def kept_results(before: Table, measured: set[str]) -> list[ContenderResult]:
    """Figures of the last table, as they were printed, for contenders that were not run again."""
    results = []
    for name, lds, middle, both, cpu, epochs, memory, _ in before.rows:
        if cpu and name not in measured:
            low, high = map(float, middle.split(" … "))
            epoch = float(cpu) / float(epochs) if float(epochs or 0) else 0.0
            reached = float(lds), low, high
            results.append(ContenderResult(name, reached, float(cpu), float(memory) * MEGA, epoch, both=float(both)))
    return results


def with_interval(predicted: Array, actual: Array) -> tuple[float, float, float]:
    """LDS, and the middle 95 % of it over halves drawn with replacement (each keeps its rank among all of them)."""
    drawn = np.random.default_rng(0).multinomial(
        actual.shape[1], np.ones(actual.shape[1]) / actual.shape[1], BOOTSTRAP_DRAWS
    )
    spread = spearman(predicted, actual, drawn / actual.shape[1])
    low, high = np.quantile(spread, [0.025, 0.975])
    return float(spearman(predicted, actual)[0]), float(low), float(high)


def spearman(predicted: Array, actual: Array, weights: Array | None = None) -> Array:
    """Mean over the rows (queries) of Spearman's correlation over the columns, under each row of weights."""
    weights = np.full((1, actual.shape[1]), 1 / actual.shape[1]) if weights is None else weights
    p, a = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (predicted, actual))

    def mean(values: Array) -> Array:
        return np.asarray(values @ weights.T)

    covered = mean(p * a) - mean(p) * mean(a)
    spread = (mean(p * p) - mean(p) ** 2) * (mean(a * a) - mean(a) ** 2)
    return np.asarray((covered / np.sqrt(np.maximum(spread, 1e-300))).mean(axis=0))


def table(task: str, folder: Path, before: Table | None) -> Table:
    """The table of a task; rows of the last one stay if its truth has the same ceiling, so that it is the same."""
    kind, results = KINDS[task], read_results(folder, task)
    with np.load(folder / f"{task}.npz") as truth:
        seeds = truth["measured"]
    said = notes(task, seeds)
    if before is not None and any(note.startswith("Ceiling") and note in before.notes for note in said):
        results += kept_results(before, {f.name for f in results})
    best = max((f.lds[0] for f in results if f.lds and not f.name.startswith("upweight")), default=0.0)
    ours, peer, times = TARGETS.get(task, NO_TARGET)
    cost = {f.name: f.cpu for f in results if f.lds}
    result = Table(
        title_of(kind),
        f"{ours} reaches the best peer's LDS (less .01) and {peer} takes {times:g} times its processor time or more"
        if task in TARGETS
        else "none was set beforehand",
        ["method", "LDS", "95 %", "LDS, two seeds", "CPU s", "× one epoch", "peak MB", "verdict"],
    )
    for f in sorted(results, key=lambda f: -(f.lds[0] if f.lds else -1)):
        if f.lds is None:
            result.add(f.name, f.error, "", "", "", "", "", "not measured")
            continue
        met = f.lds[0] >= best - 0.01 and cost.get(peer, 0) >= times * f.cpu
        mark = verdict(met) if f.name == ours and peer in cost else ""
        middle = f"{f.lds[1]:.3f} … {f.lds[2]:.3f}"
        epochs = f"{f.cpu / f.epoch:.0f}" if f.epoch > 0.005 else ""
        result.add(
            f.name, f"{f.lds[0]:.3f}", middle, f"{f.both:.3f}", f"{f.cpu:.2f}", epochs, f"{f.memory / MEGA:.0f}", mark
        )
    result.notes = said
    absent = [name for name in contenders(task) if name not in [f.name for f in results]]
    if absent:
        result.notes.append(f"No figures yet: {', '.join(absent)}.")
    drawn = draw([(f.name, f.lds, f.cpu) for f in results if f.lds], kind.title, HERE / f"cost-{task}.png")
    result.notes.append(f"![LDS against processor seconds]({drawn.name})")
    return result


def notes(task: str, seeds: Array) -> list[str]:
    kind = KINDS[task]
    truth = [
        f"Truth: −loss of every query after training on {kind.subsets} random halves of the training set. LDS: mean "
        "over queries of Spearman's correlation over the halves. Interval: halves drawn with replacement.",
    ]
    if not kind.epochs:
        return [*truth, "Trained to the optimum: no noise in the truth.", *filter(None, [STATED.get(task)])]
    if len(seeds) == 1:
        return [*truth, "Every half is trained with one seed, so the ceiling is not known.", STATED[task]]
    first, second = seeds
    reliability = float(spearman(second, first)[0])
    ceiling = np.sqrt(max(reliability, 0.0))
    return [
        *truth,
        f"Ceiling: retraining every half with another seed predicts this truth with {reliability:.3f}; a method that "
        f"predicts the mean over all seeds would reach about {ceiling:.3f} (its square root).",
        "LDS, two seeds: the truth is the mean over both seeds.",
        STATED[task],
    ]


def title_of(kind: Kind) -> str:
    return f"{kind.title}: {kind.train:,} train × {kind.queries} queries"


def summary(tables: list[Table]) -> Table:
    """LDS and cost of every curvature over all tasks, from which the order of the default was chosen."""
    columns = ["task", *(f"{name}: LDS at epochs" for name in COMPARED), "default"]
    result = Table("All tasks: which curvature is worth its price", DEFAULT_TARGET, columns)
    for task, kind in KINDS.items():
        table = next((table for table in tables if table.title == title_of(kind)), None)
        if table is None:
            continue
        rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        cells = []
        for name in COMPARED:
            row = rows.get(f"upweight {name}")
            cells.append(f"{row['LDS']} at {row['× one epoch'] or row['CPU s'] + ' s'}" if row and row["CPU s"] else "")
        result.add(task, *cells, DEFAULTS[task])
    result.notes = DEFAULT_NOTES
    return result


def peers(tasks: list[str]) -> dict[str, str]:
    """Versions that the workers reported; those that failed report none."""
    paths = {
        result_path(prepare(task, Path()), task, name): name.split()[0]
        for task in tasks
        for name in network_peers.RUNS[task]
    }
    reported = [(name, json.loads(path.read_text())) for path, name in paths.items() if path.exists()]
    return {name: figures["version"] for name, figures in reported if "version" in figures}


if __name__ == "__main__":
    main()
