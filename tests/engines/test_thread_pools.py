"""Workers do not wait for threads of their caller's libraries, whichever were used and however they were set."""

import os
import subprocess
import sys
from itertools import product

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightgbm")
LIMIT = 240  # seconds; a worker that waits for threads that it does not have waits for ever
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

SCRIPT = """
import multiprocessing, sys
import numpy as np
from upweight.core.threads import limit_threads
from upweight.engines.process_pool import run_in_processes

start_method, used = sys.argv[1], sys.argv[2].split(",")
if start_method != "default":
    multiprocessing.set_start_method(start_method)
x = np.random.default_rng(0).normal(size=(400, 400))

def use(libraries):
    result = []
    if "numpy" in libraries:
        result.append(float((x @ x).sum()))
    if "torch" in libraries:
        import torch
        a = torch.tensor(x, requires_grad=True)
        torch.nn.functional.mse_loss(a @ a, a.exp()).backward()
        result.append(float(a.grad.sum()))
    if "lightgbm" in libraries:
        import lightgbm
        data = lightgbm.Dataset(x[:, :20], x[:, 0])
        settings = {"verbose": -1, "num_threads": 2, "deterministic": True, "force_row_wise": True}
        result.append(float(lightgbm.train(settings, data, 3).predict(x[:, :20]).sum()))
    return result

if "torch" in used:
    import torch
    torch.set_num_threads(2)
use(used)  # their pools of threads exist now
with limit_threads(1):
    expected = use(used)
results = dict(run_in_processes(lambda x, task: use(used), x, [0, 1, 2], 2))
assert results == dict.fromkeys(range(3), expected), (results, expected)
print("same bits")
"""


def run(tmp_path, variables, start_method, used):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, script, start_method, used]
    environment |= dict.fromkeys(variables, "2")
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert process.stdout == "same bits\n", process.stderr


@pytest.mark.parametrize(
    ("variables", "start_method", "used"),
    [(("MKL_NUM_THREADS",), "default", "torch"), ((), "fork", "numpy")],
)
def test_workers_train_whatever_threads_their_caller_has(variables, start_method, used, tmp_path):
    run(tmp_path, variables, start_method, used)


SETTINGS = ((), *((name,) for name in VARIABLES), VARIABLES[:2], VARIABLES)


@pytest.mark.slow
@pytest.mark.parametrize("used", ["numpy", "torch", "lightgbm", "numpy,torch,lightgbm"])
@pytest.mark.parametrize(("variables", "start_method"), list(product(SETTINGS, ["fork", "spawn", "forkserver"])))
def test_workers_train_under_all_settings(variables, start_method, used, tmp_path):
    run(tmp_path, variables, start_method, used)
