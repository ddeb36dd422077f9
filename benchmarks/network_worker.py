"""Network worker: one contender on one task in a process of its own; seconds, memory and scores.

python -m benchmarks.network_worker FOLDER TASK NAME SCORES.npy
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.nets import Task

LIMIT = 110  # processor seconds of one run
LIMITS = {"upweight EKFAC, all directions": 1200}  # measured for its accuracy, whatever it costs
MOST = 14 * 2**30  # bytes of address space: a run that wants more ends, not the machine
REPEATED = 5  # a run below so many seconds is repeated
TIMES = 3


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    folder, task_name, name, target = sys.argv[1:]
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    if name.startswith("upweight"):
        from benchmarks.network_ours import CONTENDERS
    else:
        from benchmarks.network_peers import CONTENDERS
    run, task = CONTENDERS[name], Task.load(Path(folder), task_name)
    try:
        answers.write(
            json.dumps(measure(run, task, target, LIMITS.get(name, LIMIT)) | {"version": version(package(name))}) + "\n"
        )
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:200]}) + "\n")


def measure(run: Any, task: Task, target: str, limit: int = LIMIT) -> dict[str, Any]:
    """Median processor seconds, the most memory beyond what was held before, and an epoch's seconds beside it."""
    run(task.few(24, 4))  # imports and first calls are not counted
    epoch(task)
    floor, cpu, memory = epoch(task), [], _held()
    while not cpu or (sum(cpu) < REPEATED and len(cpu) < TIMES):
        soft = int(time.process_time()) + limit
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
        start = time.process_time()
        scores = run(task)
        cpu.append(time.process_time() - start)
        most = _most()
    scores = scores.detach().numpy() if hasattr(scores, "detach") else np.asarray(scores)
    assert scores.shape == (len(task.xq), len(task.x)), scores.shape
    np.save(target, scores.astype(np.float64))
    return {"cpu": float(np.median(cpu)), "memory": max(0, most - memory), "epoch": min(floor, epoch(task))}


def epoch(task: Task) -> float:
    """Processor seconds of one plain forward and backward pass over training set and queries."""
    start = time.process_time()
    for x, y in ((task.x, task.y), (task.xq, task.yq)):
        for a, b in zip(x.split(256), y.split(256), strict=True):
            task.kind.losses(task.net(a), b).sum().backward()
    task.net.zero_grad()
    return time.process_time() - start


def package(name: str) -> str:
    """The distribution behind a contender's name."""
    return name.split(maxsplit=1)[0].lower()


def _most() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _held() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else _most()


if __name__ == "__main__":
    main()
