"""Warnings of trainings in workers, shown once in the process that asked for the trainings."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class CollectedWarning(NamedTuple):
    """A warning as it can be sent to another process: its text, class, file and line."""

    text: str
    category: type[Warning]
    file: str
    line: int


@contextmanager
def collect_warnings() -> Iterator[list[CollectedWarning]]:
    """A list that is filled with each warning, once, that the filters of this process would have shown."""
    collected: list[CollectedWarning] = []
    with warnings.catch_warnings(record=True) as shown:
        yield collected
    for each in shown:
        category, text = each.category, str(each.message)
        if not _can_be_sent(category):
            category, text = UserWarning, f"{category.__name__}: {text}"
        warning = CollectedWarning(text, category, each.filename, each.lineno)
        if warning not in collected:
            collected.append(warning)


def show_once(collected: Iterable[CollectedWarning], shown: set[CollectedWarning]) -> None:
    """Warn of what is not in `shown`, and add it there. Python leaves out warnings that this process showed before."""
    for warning in collected:
        if warning in shown:
            continue
        shown.add(warning)
        module = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == warning.file), None)
        registry = {} if module is None else vars(module).setdefault("__warningregistry__", {})
        warnings.warn_explicit(
            warning.text,
            warning.category,
            warning.file,
            warning.line,
            None if module is None else module.__name__,
            registry,
        )


def _can_be_sent(category: type[Warning]) -> bool:
    try:
        return category.__module__ != "__main__" and pickle.loads(pickle.dumps(category)) is category
    except Exception:  # a class of a function, or one that has gone
        return False
