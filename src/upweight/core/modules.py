"""The part of a model that scores are about: modules by patterns of their names, and rows of embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

MAX_NAMED = 12  # modules that a message names


class Part(NamedTuple):
    """Modules whose names match a pattern; `rows` are those of their tables, None for all parameters."""

    pattern: str
    rows: tuple[int, ...] | None = None


Modules = str | Sequence[str] | Mapping[str, Sequence[int] | int | None] | Sequence[Part]
Rows = tuple[int, ...]


def as_parts(modules: Any) -> tuple[Part, ...]:
    """The parts that an argument `modules=` names.

    Args:
        modules: one pattern or several (`"head"`, `["encoder.3", "*.mlp.*"]`), or pattern → rows of embeddings
            (`{"user_*": [12], "head": None}`), with None for all parameters.

    Raises:
        TypeError: anything else.
        ValueError: there is no pattern, or rows are missing, negative or repeated.
    """
    if isinstance(modules, str):
        return (Part(modules),)
    if isinstance(modules, Mapping):
        parts = [Part(pattern, _as_rows(pattern, rows)) for pattern, rows in modules.items()]
    elif isinstance(modules, Sequence):
        parts = [part if isinstance(part, Part) else Part(part) for part in modules]
    else:
        raise TypeError(_expectation(modules))
    if not all(isinstance(part.pattern, str) for part in parts):
        raise TypeError(_expectation(modules))
    if not parts:
        raise ValueError("expected at least one module, got none; modules=None is the whole model")
    return tuple(parts)


def as_settings(parts: Iterable[Part]) -> list[Any]:
    """The parts as JSON can hold them: a pattern, or [pattern, rows]."""
    return [part.pattern if part.rows is None else [part.pattern, list(part.rows)] for part in parts]


def chosen_parameters(modules: Any, names: Sequence[str]) -> dict[str, Rows | None]:
    """Name of each parameter in the parts → its rows; None for all of it.

    A pattern (`*`, `?` and `[…]` as in `fnmatch`) matches a parameter by its own name or by the name of a module that
    holds it, directly or inside others; `""` are the parameters that the net holds itself. If several patterns match a
    parameter, their rows are united.

    Args:
        modules: as for `as_parts`.
        names: of the trained parameters, in their order.

    Raises:
        ValueError: a pattern matches nothing.
    """
    chosen: dict[str, set[int] | None] = {}
    for part in as_parts(modules):
        matched = [name for name in names if _matches(part.pattern, name)]
        if not matched:
            raise ValueError(_unmatched(part.pattern, names))
        for name in matched:
            rows = chosen.get(name, set())
            chosen[name] = None if rows is None or part.rows is None else rows | set(part.rows)
    in_order = {name: chosen[name] for name in names if name in chosen}
    return {name: None if rows is None else tuple(sorted(rows)) for name, rows in in_order.items()}


def _matches(pattern: str, name: str) -> bool:
    parts = name.split(".")
    if pattern == "":
        return len(parts) == 1
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))


def _unmatched(pattern: str, names: Sequence[str]) -> str:
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    near = get_close_matches(pattern, [*modules, *names], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    more = ", …" if len(modules) > MAX_NAMED else ""
    return (
        f"expected patterns of modules with trained parameters ({', '.join(map(repr, modules[:MAX_NAMED]))}{more}), "
        f"got {pattern!r}, which matches none{hint}"
    )


def _as_rows(pattern: str, rows: Any) -> Rows | None:
    if rows is None:
        return None
    values = np.atleast_1d(np.asarray(rows))
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu":
        raise ValueError(
            f"expected rows of {pattern!r} as whole numbers, e.g. [12, 40], or None for all parameters, got {rows!r}"
        )
    numbers: list[int] = values.tolist()
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ValueError(f"expected rows of {pattern!r} from 0 on, each once, got {numbers[:MAX_NAMED]}")
    return tuple(numbers)


def _expectation(modules: Any) -> str:
    return (
        "expected modules as patterns of their names ('head', ['encoder.3', '*.mlp.*']) or as pattern → rows of "
        f"embeddings ({{'user_*': [12], 'head': None}}), got {modules!r}"
    )
