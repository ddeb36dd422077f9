"""Files of fitted methods: what they hold, and the identity that they are saved under."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from upweight.core.archive import read_archive, well_formed, write_archive
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.provenance import identity_of, require_same

KIND = "fitted"  # of the archive
SCHEMA = 2  # since version 2 a file holds the identity of the model, part by part


class Recipe(Protocol):
    """A recipe that can describe itself."""

    def described(self) -> dict[str, Any]:
        """Name and settings of the method, as values that JSON can hold."""


class FitParts(NamedTuple):
    """The recipe, model and training set of a fit."""

    recipe: Recipe
    model: Any
    train: Examples

    def identity(self) -> dict[str, Any]:
        """Digests of recipe, model and training set. Raises UnidentifiedError if one of them has none."""
        return {"recipe": digest(self.recipe), **identity_of(self.model, self.train)}


def write_fit(path: str | Path, parts: FitParts, state: dict[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write the state of a fit to one file, under the identity of its parts."""
    described = {"described": parts.recipe.described(), "identity": parts.identity()}
    write_archive(path, KIND, state, {**facts, **described}, SCHEMA)


def read_fit(path: str | Path, parts: FitParts) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
    """The state and facts of the fit in this file. Raises ValueError if it was made from other parts, or is damaged."""
    state, facts = read_archive(path, KIND, SCHEMA)
    identity = parts.identity()
    with well_formed(path):
        saved = dict(facts["identity"])
    require_same(f"the fit in {path}", saved, identity, "fit again")
    return state, facts
