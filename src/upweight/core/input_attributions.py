"""`InputAttributions`: how much an output owes to each part of the inputs, and the capability to compute it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.erasing import Parts
from upweight.core.examples import Examples, Id
from upweight.core.input_recipes import UNSIGNED, InputRecipe
from upweight.core.model import Measurable

Array = NDArray[np.float64]


class InputPart(NamedTuple):
    """One word, column or number of an input, and what the output owes to it."""

    name: str
    value: Any
    attribution: float


@dataclass(frozen=True, eq=False)
class InputAttributions:
    """The contribution of each part of each example to one output of the model.

    Attributes:
        values: one array per example. Of numbers and columns it has the shape of the input; of words, and of token
            ids, one number per word or token.
        names: the name of every part of every example: its word, its column, or its place in the array.
        contents: the value of every part of every example, as it is shown.
        examples: the examples.
        targets: the class whose output was attributed; None if the output is one number.
        described: the output in words.
        parts: "words", "columns" or "numbers".
        recipe: how they were computed.
        diagnostics: `warnings`; `delta`, the share of f(x) − f(x′) by which the parts fail to add up, where they
            should; `neurons`, the chosen neurons of `InfluenceDirected`.
    """

    values: tuple[Array, ...]
    names: tuple[tuple[str, ...], ...]
    contents: tuple[tuple[Any, ...], ...]
    examples: Examples
    targets: tuple[Any, ...]
    described: str
    parts: Parts
    recipe: InputRecipe
    diagnostics: Mapping[str, Any]

    @property
    def is_signed(self) -> bool:
        """Whether negative numbers speak against the output; else the numbers have no sign."""
        return not isinstance(self.recipe, UNSIGNED)

    def of(self, identifier: Id) -> Array:
        """The attributions of one example. Raises KeyError for an unknown id."""
        return self.values[int(self.examples.positions([identifier])[0])]

    def top(self, identifier: Id, k: int = 5) -> list[InputPart]:
        """The k parts of one example with the largest attributions, by absolute value."""
        require_count("k", k)
        position = int(self.examples.positions([identifier])[0])
        flat = self.values[position].ravel()
        order = np.argsort(-np.abs(flat), kind="stable")[:k]
        names, contents = self.names[position], self.contents[position]
        return [InputPart(names[j], contents[j], float(flat[j])) for j in order.tolist()]

    def as_dict(self, k: int = 10) -> dict[str, Any]:
        """Plain values for JSON: the k parts with the largest attributions of every example."""
        return {
            "recipe": type(self.recipe).__name__,
            "output": self.described,
            "parts": self.parts,
            "examples": [
                {"id": i, "of": _plain(target), "parts": [_part(part) for part in self.top(i, k)]}
                for i, target in zip(self.examples.ids.tolist(), self.targets, strict=True)
            ],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"InputAttributions({len(self.examples)} examples, {type(self.recipe).__name__} of the {self.described}, "
            f"by {self.parts})"
        )


@dataclass(frozen=True, eq=False)
class NetAttributions:
    """The attributions that a network returns to `attribute_inputs`.

    Attributes:
        values: one array per example, shaped as what the net receives; of token ids one number per position.
        contents: what the net receives, one array per example.
        is_token: whether these are token ids.
        warnings: sentences.
        facts: for the diagnostics.
    """

    values: tuple[Array, ...]
    contents: tuple[NDArray[Any], ...]
    is_token: bool
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None


class InputAttributable(Measurable):
    """A model whose outputs can be attributed to its inputs by their derivatives."""

    @abstractmethod
    def attribute_inputs(self, examples: Examples, recipe: InputRecipe, columns: NDArray[np.intp]) -> NetAttributions:
        """Attributions of one output per example, by its column among the outputs (n,)."""

    @abstractmethod
    def signed_step(
        self, examples: Examples, radius: float, bounds: tuple[float, float], towards: bool = False
    ) -> Array:
        """x + radius · sign(∂loss/∂x), cut to the bounds, (n, …); x − … if `towards` the labels of the examples."""


def _part(part: InputPart) -> dict[str, Any]:
    return {"name": part.name, "value": _plain(part.value), "attribution": part.attribution}


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
