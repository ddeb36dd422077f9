"""Plugins: methods and model families that installed packages provide as entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

METHODS = "upweight.methods"  # entry points: name = a subclass of Attributor
MODELS = "upweight.models"  # entry points: name = a ModelReader


@dataclass(frozen=True)
class Plugin:
    """An entry point, and the object that was loaded from it."""

    point: EntryPoint
    loaded: Any


@cache
def plugins(group: str, built_in: frozenset[str], misfit: Callable[[Any], str | None]) -> Mapping[str, Plugin]:
    """Every usable entry point of a group by its name, in the order of names; read once per process.

    A plugin is left out, with a UserWarning that names its package and entry point, if it cannot be imported, if
    `misfit` returns a reason why it does not belong to the group, or if its name is taken. Built-in names win over
    plugins; of two usable plugins of one name, the one wins whose package comes first in the alphabet.
    """
    usable: dict[str, Plugin] = {}
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, _package(point))):
        if point.name in built_in:
            warn_about(point, "upweight has one of this name itself")
        elif point.name in usable:
            warn_about(point, f"the package {_package(usable[point.name].point)} has one of this name")
        else:
            try:
                plugin = point.load()
                reason = misfit(plugin)
            except Exception as error:  # the code of a plugin may raise anything
                reason = f"{type(error).__name__}: {error}"
            if reason is None:
                usable[point.name] = Plugin(point, plugin)
            else:
                warn_about(point, reason)
    return MappingProxyType(usable)


def warn_about(point: EntryPoint, reason: str) -> None:
    """Warn that a plugin is left out, with its package and entry point."""
    warnings.warn(
        f"the plugin {point.name!r} of the package {_package(point)} is left out: {reason}. "
        f"Its entry point is {point.name} = {point.value} in the group {point.group}",
        UserWarning,
        stacklevel=3,
    )


def _package(point: EntryPoint) -> str:
    return "(unknown)" if point.dist is None else str(point.dist.name)
