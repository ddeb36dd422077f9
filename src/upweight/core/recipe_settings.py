"""The settings of a recipe as a dictionary, with those of the recipes inside it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def settings_of(recipe: Any) -> dict[str, Any]:
    """Name → value of each field of a dataclass that changes answers; a recipe inside it becomes its own settings."""
    settings: dict[str, Any] = {}
    for item in (item for item in fields(recipe) if item.compare):  # fields that are not compared do not change answers
        value = getattr(recipe, item.name)
        is_recipe = is_dataclass(value) and not isinstance(value, type)
        settings[item.name] = {"kind": type(value).__name__, **settings_of(value)} if is_recipe else value
    return settings
