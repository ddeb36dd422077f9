"""Deprecated keywords and attributes: they still work, with a warning that says what to write instead."""

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


class RenamedAttribute:
    """A class attribute that lets an old name of an attribute or method work; `name` is the current one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set_name__(self, owner: type, old: str) -> None:
        self.old = old

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        name = type(instance).__name__
        warnings.warn(f"{name}.{self.old} is deprecated; write .{self.name}", DeprecationWarning, stacklevel=2)
        return getattr(instance, self.name)


def adopt_renamed_methods(cls: type) -> None:
    """Let a subclass define methods under their old names: they become its methods under the current names as well."""
    renamed = {
        old: attribute.name
        for base in cls.__mro__[1:]
        for old, attribute in vars(base).items()
        if isinstance(attribute, RenamedAttribute)
    }
    for old, name in renamed.items():
        if old in vars(cls) and name not in vars(cls):
            message = f"{cls.__name__} defines {old}, which is deprecated; call it {name}"
            warnings.warn(message, DeprecationWarning, stacklevel=3)
            setattr(cls, name, vars(cls)[old])


class ReplacedBy(NamedTuple):
    """The replacement of an old keyword.

    Attributes:
        keyword: the current keyword.
        field: the field of its value that the old keyword sets; empty if the old keyword is only another name.
        value: converts the old value to the current one.
        shown: the current value as the warning writes it.
    """

    keyword: str
    field: str = ""
    value: Callable[[Any], Any] = _unchanged
    shown: str = "…"


class BuiltBy(NamedTuple):
    """How the value of a keyword is built from old keywords.

    Attributes:
        name: the class of the value as users write it, e.g. `uw.Retraining`; empty for values without a class.
        make: called with (the value passed for the keyword, or None; the fields by name).
        default: fields of the default value that the warning must mention, e.g. `processes=1`.
    """

    name: str
    make: Callable[..., Any]
    default: str = ""


def accept_old_keywords(
    older: Mapping[str, ReplacedBy], made: Mapping[str, BuiltBy] | None = None, positional: Sequence[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function accept old keywords as well; its signature stays the current one.

    Args:
        older: old keyword → its replacement.
        made: current keyword → how its value is built, for keywords whose fields old ones set.
        positional: old keywords that could be passed by position, after the current positional parameters.

    The function raises TypeError if a keyword is passed by both its old and its current name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        is_constructor = function.__name__ == "__init__"
        name = function.__qualname__.split(".")[-2] if is_constructor else function.__name__
        return _with_old_keywords(function, name, older, made or {}, positional)

    return decorate


def accept_old_fields(older: Mapping[str, ReplacedBy]) -> Callable[[type[C]], type[C]]:
    """Let the constructor of a dataclass accept old names of its fields as well."""

    def decorate(made: type[C]) -> type[C]:
        made.__init__ = _with_old_keywords(made.__init__, made.__name__, older, {}, ())  # type: ignore[method-assign]
        return made

    return decorate


def _with_old_keywords(
    function: Callable[P, R],
    name: str,
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
    positional: Sequence[str],
) -> Callable[P, R]:
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    max_positional = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters.values())

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        extra = args[max_positional:] if len(args) <= max_positional + len(positional) else ()
        if not extra and older.keys().isdisjoint(kwargs):
            return function(*args, **kwargs)
        passed = dict(zip(names, args[:max_positional] if extra else args, strict=False))
        current: dict[str, Any] = {**passed, **kwargs}
        deprecated = {
            **dict(zip(positional, extra, strict=False)),
            **{n: current.pop(n) for n in list(current) if n in older},
        }
        warnings.warn(_warning_text(name, current, deprecated, older, made), DeprecationWarning, stacklevel=2)
        return function(**_current_keywords(name, current, deprecated, older, made))  # type: ignore[call-arg]

    return wrapper


def _current_keywords(
    name: str,
    current: dict[str, Any],
    deprecated: Mapping[str, Any],
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
) -> dict[str, Any]:
    """The current keywords with their values."""
    fields: dict[str, dict[str, Any]] = {}
    for keyword, value in deprecated.items():
        new = older[keyword]
        if new.field:
            fields.setdefault(new.keyword, {})[new.field] = new.value(value)
        elif new.keyword in current:
            raise TypeError(f"{name}() got {new.keyword}= and its older name {keyword}=; pass {new.keyword}= alone")
        else:
            current[new.keyword] = new.value(value)
    for keyword, values in fields.items():
        current[keyword] = made[keyword].make(current.get(keyword), **values)
    return current


def _warning_text(
    name: str,
    current: Mapping[str, Any],
    deprecated: Mapping[str, Any],
    older: Mapping[str, ReplacedBy],
    made: Mapping[str, BuiltBy],
) -> str:
    """The warning, which says what to write; "…" stands for the rest of a value that was passed."""
    replacements: list[str] = []
    parts: dict[str, list[str]] = {}
    for new in (older[keyword] for keyword in deprecated):
        if new.field and made[new.keyword].name:
            parts.setdefault(new.keyword, []).append(f"{new.field}={new.shown}")
        else:
            replacements.append(f"{new.keyword}={new.shown}")
    for keyword, fields in parts.items():
        rest = "…" if current.get(keyword) is not None else made[keyword].default
        replacements.append(f"{keyword}={made[keyword].name}({', '.join(filter(None, [rest, *fields]))})")
    verb = "are" if len(deprecated) > 1 else "is"
    return f"uw.{name}: {', '.join(f'{n}=' for n in deprecated)} {verb} deprecated; write {', '.join(replacements)}"
