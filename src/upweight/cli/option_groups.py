"""Options that belong together as one dataclass: a command names the dataclass, and gets one option for each field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option for every field of its parameters that are dataclasses.

    A field is written as an option is: `target: Annotated[str | None, typer.Option(…)] = None`. The command itself is
    called with instances of the dataclasses. Raises TypeError if two options have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        options += [parameter.replace(annotation=hints[parameter.name])] if group is None else _options(group)
    names = [option.name for option in options]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise TypeError(f"expected different names of options in {command.__name__}, got twice: {sorted(repeated)}")

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    expanded.__dict__["__signature__"] = inspect.Signature(options)
    expanded.__annotations__ = {option.name: option.annotation for option in options}
    return expanded


@functools.cache
def _options(group: type) -> tuple[inspect.Parameter, ...]:
    """The fields of the dataclass as keyword-only parameters."""
    hints = get_type_hints(group, include_extras=True)
    return tuple(
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    )
