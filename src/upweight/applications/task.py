"""Task files: Python files that define `model`, `train` and `queries`, for the command line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from upweight.core.examples import Examples
from upweight.engines.job_file import BY_VALUE

NAMES = ("model", "train", "queries")


def read_task(path: Path) -> tuple[Any, Examples, Examples]:
    """The (model, train, queries) that the file defines; the model may be a bare estimator.

    Raises:
        RuntimeError: the file raises an error; the message says on which line.
        ValueError: it is not a Python file, or a name is missing.
        TypeError: train or queries is not an Examples.
    """
    module = _execute(path)
    missing = [name for name in NAMES if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"expected {path.name} to define model, train and queries; it has no {' and no '.join(missing)}; e.g. "
            "train = upweight.Examples(x, y), and model = your fitted estimator"
        )
    model, train, queries = (getattr(module, name) for name in NAMES)
    for name, value in (("train", train), ("queries", queries)):
        if not isinstance(value, Examples):
            raise TypeError(f"expected {name} in {path.name} to be upweight.Examples(x, y), got {type(value).__name__}")
    return model, train, queries


def _execute(path: Path) -> ModuleType:
    """Import the file as a module that can be found by its name. Workers get what it defines, and do not run it."""
    path = path.resolve()
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_task"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a Python file, got {path.name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    BY_VALUE.add(name)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(f"{Path(error.filename or path).name}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f", line {lines[-1]}," if lines else ""
        raise RuntimeError(f"{path.name}{where} failed with {type(error).__name__}: {error}") from error
    return module
