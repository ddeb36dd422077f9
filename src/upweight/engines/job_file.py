"""The data that the tasks of a run share, written to a file once and mapped into the memory of every worker."""

from __future__ import annotations

import io
import mmap
import pickle
import sys
from pathlib import Path
from typing import Any

ALIGNMENT = 64  # bytes; arrays start at multiples of it, as numpy's own may
BUFFERS = ".buffers"
BY_VALUE: set[str] = set()  # names of modules whose functions and classes are sent whole, as those of __main__


class UnsendableError(Exception):
    """Raised for what cannot be sent to another process; the message is the reason."""


def write_job(path: Path, job: Any) -> None:
    """Write a job to `path`, and its arrays beside it. Raises UnsendableError if it cannot be pickled."""
    cloudpickle, sizes = _cloudpickle(), []
    for name in BY_VALUE & sys.modules.keys():
        cloudpickle.register_pickle_by_value(sys.modules[name])
    with open(f"{path}{BUFFERS}", "wb") as file:

        def write(buffer: pickle.PickleBuffer) -> None:
            with buffer.raw() as raw:
                sizes.append(raw.nbytes)
                file.write(raw)
                file.write(bytes(-raw.nbytes % ALIGNMENT))

        try:
            pickled = cloudpickle.dumps(job, protocol=5, buffer_callback=write)
        except Exception as error:  # objects refuse to be pickled with every type of error, or the disk is full
            raise UnsendableError(f"{type(error).__name__}: {error}") from error
    path.write_bytes(pickle.dumps((sizes, pickled)))


def read_job(path: Path) -> Any:
    """The job in a file. Its arrays are mapped copy-on-write: a page of memory is copied when it is written to."""
    sizes, pickled = pickle.loads(path.read_bytes())
    with open(f"{path}{BUFFERS}", "rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if any(sizes) else b"")
    buffers, start = [], 0
    for size in sizes:
        buffers.append(mapped[start : start + size] if size else bytearray())
        start += size + -size % ALIGNMENT
    return pickle.loads(pickled, buffers=buffers)


def pickle_by_value(task: Any) -> bytes:
    """A task as it is sent to a worker. Raises UnsendableError if it cannot be pickled."""
    try:
        return bytes(_cloudpickle().dumps(task))
    except Exception as error:
        raise UnsendableError(f"{type(error).__name__}: {error}") from error


def to_caller(value: Any) -> bytes:
    """A result or an error, pickled for the process that sent the job.

    Classes that were sent by value, such as those of a notebook, are written as references: the caller gets back its
    own class, not a copy of it.
    """
    with io.BytesIO() as file:
        _result_pickler()(file, protocol=5).dump(value)
        return file.getvalue()


def lookup(module: str, qualname: str) -> Any:
    """The class of this name."""
    value: Any = sys.modules[module]
    for name in qualname.split("."):
        value = getattr(value, name)
    return value


def _result_pickler() -> Any:
    class ResultPickler(_cloudpickle().Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and _was_sent_by_value(obj):
                return lookup, (obj.__module__, obj.__qualname__)
            return super().reducer_override(obj)

    return ResultPickler


def _was_sent_by_value(cls: type) -> bool:
    """Whether the caller has this class in a module that this process did not import."""
    return (cls.__module__ == "__main__" or cls.__module__ not in sys.modules) and "<locals>" not in cls.__qualname__


def _cloudpickle() -> Any:
    """The pickler for lambdas and for what is defined in a script or notebook. It comes with scikit-learn's joblib."""
    try:
        import cloudpickle
    except ImportError:  # joblib before 1.6 has a copy
        from joblib.externals import cloudpickle
    return cloudpickle
