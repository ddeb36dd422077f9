"""Programs that run in a process of their own which has the large libraries already, so that none waits for imports.

A server imports the libraries and nothing else. For each program it forks a child, in which `__main__` is empty and
the folder is the program's, as with `python -c`. Where a system cannot fork, every program gets a new Python.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("sklearn.ensemble", "sklearn.datasets", "pandas", "statsmodels.api", "matplotlib.pyplot"),
    *("lightgbm", "xgboost", "catboost", "datasets", "peft"),
    *("torch", "torch._dynamo", "torch.func"),  # an optimiser imports the second
    *("transformers.trainer", "transformers.models.bert.modeling_bert", "transformers.models.gpt2.modeling_gpt2"),
    "upweight",
)


def output_of(program: str, folder: Path) -> str:
    """What this program prints when it is run in the folder; an error has what it wrote there and to stderr."""
    if not hasattr(os, "fork"):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    server = _server()
    streams = [folder.parent / f"{folder.name}.{stream}" for stream in ("stdout", "stderr")]
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps([program, str(folder), *map(str, streams)]) + "\n")
    server.stdin.flush()
    code = server.stdout.readline().strip()
    output, errors = (path.read_text(encoding="utf-8") for path in streams)
    assert code == "0", f"the program ended with {code or 'its server'}:\n{output}{errors}"
    return output


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # threads that spin take minutes on a busy machine
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


def _serve() -> None:
    """Fork a child for each program that comes, until the tests end."""
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.freeze()  # children share what is there, and need not copy it to look for garbage
    for line in sys.stdin:
        program, folder, *streams = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(folder, streams)
            exec(compile(program, "<program>", "exec"), sys.modules["__main__"].__dict__)
            return  # the rest, such as temporary folders, is cleared as at the end of any program
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(folder: str, streams: list[str]) -> None:
    """Make this process one that was started in the folder for a program, with files for stdout and stderr."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.path[0] = ""
    sys.argv[:] = ["-c"]
    sys.modules["__main__"] = types.ModuleType("__main__")


if __name__ == "__main__":
    _serve()
