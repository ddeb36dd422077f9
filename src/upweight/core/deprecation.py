"""Deprecation: older keywords go on working, with a warning that says what to write instead."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


def _unchanged(value: Any) -> Any:
    return value


class ReplacedBy(NamedTuple):
    """What an older keyword is today.

    Attributes:
        keyword: today's keyword.
        field: the field of its value that the older keyword sets; empty where it is another name of the keyword.
        value: today's value from the older one.
        shown: that value as the warning writes it.
    """

    keyword: str
    field: str = ""
    value: Callable[[Any], Any] = _unchanged
    shown: str = "…"


class BuiltBy(NamedTuple):
    """How the value of a keyword is made of older keywords.

    Attributes:
        name: its class, as users write it, e.g. `uw.Retraining`; empty for values without a class.
        make: called with (what was passed for the keyword, or None; fields by name).
        default: fields of the default value that the warning has to write, e.g. `processes=1`.
    """

    name: str
    make: Callable[..., Any]
    default: str = ""


def accept_old_keywords(
    older: Mapping[str, ReplacedBy], made: Mapping[str, BuiltBy] | None = None, positional: Sequence[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take older keywords as well; its signature stays today's.

    Args:
        older: older keyword → what it is today.
        made: today's keyword → how its value is made, for keywords whose fields older ones set.
        positional: older keywords that were passed by position, after today's positional parameters.

    The function raises TypeError where a keyword is passed by its older and by today's name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        is_constructor = function.__name__ == "__init__"
        name = function.__qualname__.split(".")[-2] if is_constructor else function.__name__
        return _newer(function, name, older, made or {}, positional)

    return decorate


def accept_old_fields(older: Mapping[str, ReplacedBy]) -> Callable[[type[C]], type[C]]:
    """Let a dataclass be made with older names of its fields as well."""

    def decorate(made: type[C]) -> type[C]:
        made.__init__ = _newer(made.__init__, made.__name__, older, {}, ())  # type: ignore[method-assign]
        return made

    return decorate


def _newer(
    function: Callable[P, R],
    name: str,
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
    positional: Sequence[str],
) -> Callable[P, R]:
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    places = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters.values())

    @wraps(function)
    def newer(*args: P.args, **kwargs: P.kwargs) -> R:
        beyond = args[places:] if len(args) <= places + len(positional) else ()
        if not beyond and older.keys().isdisjoint(kwargs):
            return function(*args, **kwargs)
        passed = dict(zip(names, args[:places] if beyond else args, strict=False))
        taken: dict[str, Any] = {**passed, **kwargs}
        given = {**dict(zip(positional, beyond, strict=False)), **{n: taken.pop(n) for n in list(taken) if n in older}}
        warnings.warn(_instead(name, taken, given, older, made), DeprecationWarning, stacklevel=2)
        return function(**_today(name, taken, given, older, made))  # type: ignore[call-arg]

    return newer


def _today(
    name: str,
    taken: dict[str, Any],
    given: Mapping[str, Any],
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
) -> dict[str, Any]:
    """Today's keywords with their values."""
    fields: dict[str, dict[str, Any]] = {}
    for keyword, value in given.items():
        today = older[keyword]
        if today.field:
            fields.setdefault(today.keyword, {})[today.field] = today.value(value)
        elif today.keyword in taken:
            raise TypeError(f"{name}() got {today.keyword}= and its older name {keyword}=; pass {today.keyword}= alone")
        else:
            taken[today.keyword] = today.value(value)
    for keyword, values in fields.items():
        taken[keyword] = made[keyword].make(taken.get(keyword), **values)
    return taken


def _instead(
    name: str,
    taken: Mapping[str, Any],
    given: Mapping[str, Any],
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
) -> str:
    """The sentence that says what to write; "…" stands for the rest of a value that was passed."""
    whole: list[str] = []
    parts: dict[str, list[str]] = {}
    for today in (older[keyword] for keyword in given):
        if today.field and made[today.keyword].name:
            parts.setdefault(today.keyword, []).append(f"{today.field}={today.shown}")
        else:
            whole.append(f"{today.keyword}={today.shown}")
    for keyword, fields in parts.items():
        rest = "…" if taken.get(keyword) is not None else made[keyword].default
        whole.append(f"{keyword}={made[keyword].name}({', '.join(filter(None, [rest, *fields]))})")
    verb = "are" if len(given) > 1 else "is"
    return f"uw.{name}: {', '.join(f'{n}=' for n in given)} {verb} deprecated; write {', '.join(whole)}"
