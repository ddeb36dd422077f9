"""Calls in children: their processor seconds, how many examples go through a GPT, and SIGKILL in the middle of it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.nets import GPT
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

PROCESSES = multiprocessing.get_context("fork")
PATIENCE = 300  # seconds that a child may take


class Ran(NamedTuple):
    """What a child did.

    `error`: empty if it ended. `examples`: that went through the net. `is_killed`: before it ended.
    """

    value: Any
    error: str
    seconds: float
    examples: int
    is_killed: bool


def run(call: Callable[[], Any], stop: float | None = None) -> Ran:
    """The call in a child and its processor seconds. It is killed soon after `stop` examples."""
    counted = PROCESSES.Value("q", 0, lock=False)  # one that is killed would hold the lock
    receiver, sender = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=_child, args=(call, counted, sender))
    child.start()
    sender.close()
    deadline = time.monotonic() + PATIENCE
    while stop is not None and child.is_alive() and counted.value < stop and time.monotonic() < deadline:
        time.sleep(0.001)
    if stop is not None:
        time.sleep(random.uniform(0.0, 0.05))
        child.kill()
    value, error, seconds = None, "no answer in time", 0.0
    try:
        if receiver.poll(PATIENCE):
            value, error, seconds = receiver.recv()
    except EOFError:
        error = "no answer"
    child.kill()
    child.join()
    if error == "no answer":
        error = f"ended with {child.exitcode}"
    is_killed = stop is not None and error == f"ended with {-signal.SIGKILL}"
    return Ran(value, error, seconds, counted.value, is_killed)


def _child(call: Callable[[], Any], counted: Any, sender: Any) -> None:
    """Runs in the child; what it prints is thrown away."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.environ["TQDM_DISABLE"] = "1"

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, GPT):
            counted.value += len(inputs[0]) if inputs[0].dim() > 1 else 1

    register_module_forward_pre_hook(count)
    start = time.process_time()
    try:
        value, error = call(), ""
    except Exception as problem:
        value, error = None, f"{type(problem).__name__}: {problem}"
    sender.send((value, error, time.process_time() - start))
