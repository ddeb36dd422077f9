"""Provenance: which model and data a saved file or folder belongs to, and the refusal of any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upweight.core.examples import Examples
from upweight.core.model import Measurable

WORDS = {
    "parameters": "other parameters",
    "data": "another training set",
    "layers": "other layers",
    "queries": "another set of queries",
}


def identity_of(model: Measurable, train: Examples, queries: Examples | None = None) -> dict[str, str]:
    """The digests of a model's parts (`Measurable.identity`), of its training set (`data`) and of the queries.

    Raises:
        UnidentifiedError: they hold a value that cannot be compared.
    """
    of_queries = {} if queries is None else {"queries": queries.digest()}
    return {**model.identity(), "data": train.digest(), **of_queries}


def require_same(name: str | Path, stored: Mapping[str, Any], given: Mapping[str, str], advice: str) -> None:
    """Raise ValueError if a saved result belongs to another model, other data or other settings, and say which.

    Args:
        name: the saved result, for the message.
        stored: the digests in it.
        given: the digests of the model, data and settings passed by the caller.
        advice: what to do instead.
    """
    others = [WORDS.get(part, f"another {part}") for part in given if stored.get(part) != given[part]]
    if others:
        raise ValueError(f"{name} was made with {_listed(others)} than those passed here; {advice}")


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
