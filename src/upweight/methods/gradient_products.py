"""Products: sums of inner products of gradients, or of their directions, over moments of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor, Fitted
from upweight.core.checkpoints import Checkpoint, Layered
from upweight.core.examples import Examples
from upweight.core.model import Differentiable, require
from upweight.core.rows import Rows
from upweight.core.scores import Unit
from upweight.core.weights import example_counts, sample_weights

Array = NDArray[np.float64]
Layers = Literal["last"] | tuple[str, ...] | None
BLOCK = 4096  # training examples whose scores are held at a time
PAIRED = 64  # examples that are multiplied at a time when each meets only itself


@dataclass(frozen=True, kw_only=True)
class Cosines(Attributor):
    """What the methods have in common that compare directions of gradients.

    Args:
        by: divide by the norm over "all" parameters, or in each "layer" by its own, so that no layer drowns the others.
        layers: the only layers whose gradients count: their names, or "last" for the last one; None for all.
    """

    by: Literal["all", "layer"] = "all"
    layers: Layers = None

    def __post_init__(self) -> None:
        if self.by not in ("all", "layer"):
            raise ValueError(f'expected by="all" or "layer", got {self.by!r}')


class FittedProducts(Fitted[Attributor, Differentiable]):
    """score[q, i] = −Σ_c τ_c ⟨∇m_q, ∇ℓ_i⟩ at the parameters of checkpoint c, RANK.

    Args:
        moments: the checkpoints, with their τ.
        layers: the only layers that count; None for all.
        direction: divide gradients by their norm, over "all" parameters or in each "layer"; None for as they are.
    """

    def __init__(
        self,
        recipe: Attributor,
        model: Differentiable,
        train: Examples,
        moments: Sequence[Checkpoint],
        layers: Layers = None,
        direction: Literal["all", "layer"] | None = None,
    ) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.moments, self.direction = moments, direction
        # Gradients carry their weights. A direction knows none, and is there as often as the example is.
        self._factors = np.ones(len(train)) if direction is None else example_counts(sample_weights(train))
        self.layers = chosen(model, layers, type(recipe).__name__)
        if direction == "layer":
            require(model, [Layered], f'{type(recipe).__name__}(by="layer")')

    def blocks(self, queries: Examples) -> Iterator[tuple[slice, Array]]:
        """All moments for one block of training examples after the other."""
        n = len(self.train)
        for start in range(0, n, BLOCK):
            where = np.arange(start, min(start + BLOCK, n))
            block = np.zeros((len(queries), len(where)))
            for moment, asked, rows in self._pairs(queries, self.train.take(where)):
                block -= moment.travelled * asked.dot(rows)
            yield slice(start, int(where[-1]) + 1), block * self._factors[where]

    def self_values(self) -> Array:
        """−Σ τ ⟨∇m_i, ∇ℓ_i⟩: with −loss, what TracIn calls self-influence."""
        values = np.zeros(len(self.train))
        for moment, asked, rows in self._pairs(self.train, self.train):
            for start in range(0, len(values), PAIRED):
                where = np.arange(start, min(start + PAIRED, len(values)))
                values[where] -= moment.travelled * np.diagonal(asked.take(where).dot(rows.take(where)))
        return values * self._factors

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """Which moments and layers were looked at."""
        steps = [moment.step for moment in self.moments if moment.step is not None]
        news: dict[str, Any] = {"checkpoints": steps} if steps else {}
        if self.layers is not None:
            news["layers"] = self.layers
        return {**news, "warnings": list(self.model.notes)}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Nothing is prepared; the checkpoints' names, so that others are noticed."""
        return {}, {"checkpoints": [moment.identity for moment in self.moments]}

    def _pairs(self, queries: Examples, train: Examples) -> Iterator[tuple[Checkpoint, Rows, Rows]]:
        for moment in self.moments:
            if moment.travelled == 0.0:
                continue
            model = moment.model()
            if self.layers is not None and isinstance(model, Layered):
                model = model.narrowed(self.layers)
            asked, rows = model.measure_rows(queries), model.loss_rows(train)
            if self.direction is not None:
                by_layer = self.direction == "layer"
                asked, rows = asked.normalised(by_layer), rows.normalised(by_layer)
            yield moment, asked, rows


def as_it_is(model: Differentiable) -> tuple[Checkpoint]:
    """The model handed in as the only moment, with a step of one."""
    return (Checkpoint(None, 1.0, "as handed in", lambda: model),)


def chosen(model: Any, layers: Layers, wanted_by: str) -> tuple[str, ...] | None:
    """Names of the layers that count."""
    if layers is None:
        return None
    require(model, [Layered], f"{wanted_by}(layers=…)")
    names = model.layers[-1:] if layers == "last" else tuple(layers)
    model.narrowed(names)  # says what is unknown
    return tuple(names)


def same_checkpoints(facts: Mapping[str, Any], moments: Sequence[Checkpoint]) -> None:
    """Raise ValueError where a saved fit was made with other checkpoints."""
    here = [moment.identity for moment in moments]
    if facts["checkpoints"] != here:
        raise ValueError(f"fitted with other checkpoints ({facts['checkpoints']}, not {here}); fit again")
