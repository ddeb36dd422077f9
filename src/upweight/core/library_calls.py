"""Inside every call of the library, data are checked for changes once, and torch records gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from upweight.core.change_checks import one_change_check

P = ParamSpec("P")
R = TypeVar("R")


def library_call(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that users call, so that it runs inside `one_change_check` and `with_gradients`."""

    @wraps(function)
    def called(*given: P.args, **named: P.kwargs) -> R:
        with one_change_check(), with_gradients():
            return function(*given, **named)

    return called


@contextmanager
def with_gradients() -> Iterator[None]:
    """A context, or a decorator, in which a caller's `torch.inference_mode()` and `torch.no_grad()` do not hold.

    Tensors that are made under them have no gradients, or wrong ones.
    """
    torch: Any = sys.modules.get("torch")  # if nothing has loaded it, no caller is in one of its modes
    if not hasattr(torch, "inference_mode"):
        yield
        return
    with torch.inference_mode(False), torch.enable_grad():
        yield
