"""Every command that works long ends when it is told, in the middle of its work, and loses nothing that was there."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

LIMIT = 100  # seconds until a command is at work; it would then stand still for ten minutes
PROMPTLY = 10.0  # seconds in which it ends, on a machine that does much else; about one on an idle machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are listed in /proc"),
]

TASK = """
import numpy as np
import upweight
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
x = rng.normal(size=(140, 3))
y = (x[:, 0] + 0.3 * rng.normal(size=140) > 0).astype(int)
names = {"names": ["size", "noise", "other"], "labels": {0: "no", 1: "yes"}}
train = upweight.Examples(x[:100], y[:100], ids=[f"t{i}" for i in range(100)], **names)
queries = upweight.Examples(x[100:], y[100:], ids=[f"q{i}" for i in range(40)], **names)
model = LogisticRegression(tol=1e-8).fit(train.x, train.y)
"""
NET = """
import torch
torch.manual_seed(0)

def loss(net, batch):
    return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

train, queries = (e.replaced(x=e.x.astype("float32")) for e in (train, queries))
training = upweight.Training(lr=0.1, epochs=2, batch_size=20)
model = upweight.TorchModel.trained(lambda seed: torch.nn.Linear(3, 2), loss, train, training=training)
"""
TOKENS = """
from support.token_nets import language_model, sequences

model, train, queries = language_model(), sequences(6), sequences(2, start=6)
"""
# Stands still for ten minutes where a stage is reported, or where a function is called.
PROGRAM = """
import importlib, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from upweight.report.progress_display import ProgressDisplay
from upweight.cli import main

place = sys.argv.pop(1)
module, _, function = place.rpartition(":")

def stand(*_, **__):
    Path("working").touch()
    time.sleep(600)

def advance(display, stage, done, total, shown=ProgressDisplay.__call__):
    shown(display, stage, done, total)
    if stage.startswith(place) and done < max(total, 1):
        stand()

if module:
    owner = importlib.import_module(module)
    assert callable(getattr(owner, function))
    setattr(owner, function, stand)
else:
    ProgressDisplay.__call__ = advance
main()
"""
VERBS = {
    "demo": ("retrain",),
    "explain": ("retrain", "task.py"),
    "verify": ("retrain", "task.py", "--removals", "4"),
    "verify ": ("search", "task.py", "--removals", "4", "--brittleness"),
    "evaluate": ("retrain", "task.py", "--method", "graddot"),
    "mislabeled": ("retrain", "task.py"),
    "export-labels": ("retrain", "task.py", "--out", "labels"),
    "patch": ("upweight.applications.patch:quality", "task.py", "patch.json"),
    "slices": ("retrain", "task.py", "--by", "size"),
    "discover": ("upweight.applications.discover:require", "task.py"),
    "audit": ("upweight.applications.audit:reference_of", "task.py"),
    "prototypes": ("kernel", "task.py"),
    "poisoned": ("attribute", "task.py"),
    "local-model": ("explain", "task.py"),
    "growing-spheres": ("search", "task.py"),
    "global-explanation": ("explain", "task.py"),
    "inputs": ("upweight.applications.shared_inputs:SharedInputs", "task.py"),
    "neurons": ("upweight.applications.neuron_examples:_activations", "task.py"),
    "tokens": ("fit", "tokens.py"),
    "tree": ("upweight.applications.extract_tree:_warnings", "task.py"),
    "perturb": ("upweight.applications.perturb:require", "task.py"),
    "perturb ": ("retrain", "task.py", "--attack", "2", "--grey", "0.5"),
    "fgsm": ("upweight.applications.fgsm:require", "net.py", "--radius", "0.1"),
    "flip-set": ("search", "task.py", "--query", "q26"),
    "what-if": ("retrain", "task.py", "--remove", "t7"),
    "forget": ("fit", "task.py", "--example", "t1"),
    "store build": ("store", "net.py", "--out", "store"),
    "retrieve": ("score", "task.py"),
    "reweight": ("retrain", "task.py", "--steps", "2"),
}
WITHOUT_PAGE = ("export-labels", "patch", "store build")


def descendants(mark):
    """The processes that were started with this environment variable, and that run."""
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z" and f"STARTED_BY={mark}".encode() in (folder / "environ").read_bytes():
                running.append(int(folder.name))
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return running


@pytest.mark.parametrize("verb", VERBS)
def test_it_ends_in_the_middle_of_its_work(verb, tmp_path):
    number = (signal.SIGINT, signal.SIGTERM)[list(VERBS).index(verb) % 2]
    place, *arguments = VERBS[verb]
    texts = {"task.py": TASK, "net.py": TASK + NET, "tokens.py": TOKENS, "page.html": "<!doctype html>the old page"}
    texts["program.py"] = PROGRAM.format(tests=str(Path(__file__).parent))
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "temporary").mkdir()
    if verb == "patch":
        make_patch(tmp_path)
    if verb not in WITHOUT_PAGE:
        arguments += ["--out", "page.html"]
    before = sorted(path.name for path in tmp_path.iterdir())
    mark = uuid.uuid4().hex
    environment = {**os.environ, "STARTED_BY": mark, "TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen(
        [sys.executable, "program.py", place, *verb.split(), *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + LIMIT
        while not (tmp_path / "working").exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.05)
        sent = time.monotonic()
        process.send_signal(number)
        errors = process.communicate(timeout=LIMIT)[1]
        seconds = time.monotonic() - sent
    finally:
        process.kill()
        process.wait()
    sentence = " ".join(errors.split())
    assert process.returncode == 128 + number and "Traceback" not in errors, errors
    assert "Stopped " in sentence and ("the same command again" in sentence or "Run the command again" in sentence)
    assert seconds < PROMPTLY
    while descendants(mark):
        assert time.monotonic() < sent + PROMPTLY, descendants(mark)
        time.sleep(0.05)
    (tmp_path / "working").unlink()
    kept = {"store"} if verb == "store build" else set()
    after = {path.name for path in tmp_path.iterdir()}
    assert {*before} - {"__pycache__"} == after - kept - {"__pycache__"}
    assert list((tmp_path / "temporary").iterdir()) == []
    assert (tmp_path / "page.html").read_text() == texts["page.html"]


def make_patch(folder):
    """A patch of the task's training set."""
    import upweight as uw
    from upweight.applications.task import read_task

    _, train, _ = read_task(folder / "task.py")
    uw.Patch.of(train, {"t1": "drop"}).save(folder / "patch.json")


def test_every_command_is_here():
    from upweight.cli.app import HELP_ORDER

    quick = {"methods", "import-labels"}
    served = {"view"}  # is ended by Ctrl-C as a matter of course
    assert {verb.split()[0] for verb in VERBS} | quick | served == set(HELP_ORDER)
