"""Provenance: whose numbers are kept in a file or a folder, and the refusal of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upweight.core.examples import Examples
from upweight.core.model import Measurable

WORDS = {"parameters": "other parameters", "data": "another training set", "queries": "another set of queries"}


def identity_of(model: Measurable, train: Examples, queries: Examples | None = None) -> dict[str, str]:
    """The digests of a model's parts (`Measurable.identity`), of its training set (`data`) and of the queries.

    Raises:
        UnidentifiedError: something in them cannot be told apart from another.
    """
    asked = {} if queries is None else {"queries": queries.digest()}
    return {**model.identity(), "data": train.digest(), **asked}


def require_same(kept: str | Path, there: Mapping[str, Any], here: Mapping[str, str], instead: str) -> None:
    """Raise ValueError where what is kept is of another model, other data or other settings, and say of which.

    Args:
        kept: what was kept: a file, or words for it.
        there: the digests it was kept under.
        here: those of what is handed in.
        instead: what to do.
    """
    others = [WORDS.get(name, f"another {name}") for name in here if there.get(name) != here[name]]
    if others:
        raise ValueError(f"{kept} was made with {' and '.join(others)} than those handed in; {instead}")
