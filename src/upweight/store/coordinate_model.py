"""A network seen through a store: gradients are rows in its coordinates, in which KFAC and EK-FAC are diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.checkpoints import Layered
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import EKFAC, KFAC, CurvatureRecipe, Identity
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.model import Predictions
from upweight.core.modules import Modules, chosen_parameters
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.outputs import NoOutputsError
from upweight.gradients.predictions import Observed
from upweight.store.build import Builder
from upweight.store.codes import Code
from upweight.store.coordinate_curvature import CoordinateCurvature, fitted_from
from upweight.store.coordinate_rows import LazyRows, QueryRows, StoredRows
from upweight.store.stored_shards import StoredShards

Array = NDArray[np.float64]
COPIES_OF_QUERIES = 2  # as captured, and after the inverse
BYTES_OF_A_NUMBER = 4
SCORES_AT_A_TIME = 4096  # of a query: a part of a shard, and what is selected from it


@final
class CapturedQueries:
    """The gradients of the queries that were measured last, until they are asked; a model and its parts share it."""

    def __init__(self) -> None:
        self._kept: tuple[Examples, int, LazyRows] | None = None

    def keep(self, queries: Examples, contents: int, rows: LazyRows) -> None:
        """Keep the rows of queries with these contents, in place of any others."""
        self._kept = queries, contents, rows

    def take(self, queries: Examples) -> LazyRows | None:
        """The rows of these queries, which are kept no longer; None if others are kept, or these were changed since."""
        kept, self._kept = self._kept, None
        is_same = kept is not None and kept[0] is queries and kept[1] == queries.checksum()
        return kept[2] if kept is not None and is_same else None


@final
class CoordinateModel(Layered):
    """A network whose training gradients are read from a store; everything else is that of the network.

    Args:
        model: the network.
        builder: of the finished store.
        shards: its rows.
        memory: bytes that the gradients of queries may take; None for no limit.
    """

    def __init__(self, model: Any, builder: Builder, shards: StoredShards, memory: int | None = None) -> None:
        self.inner, self.builder, self.shards, self._memory = model, builder, shards, memory
        self.codes: Sequence[Code] = builder.codes
        self._captured = CapturedQueries()

    @property
    def measurement(self) -> str:
        """The measurement of the network."""
        return str(self.inner.measurement)

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query by the network."""
        return np.asarray(self.inner.measure(queries))

    def predict(self, examples: Examples) -> Predictions:
        """The predictions of the network."""
        predictions: Predictions = self.inner.predict(examples)
        return predictions

    def measure_and_predict(self, queries: Examples) -> tuple[Array, Predictions]:
        """Both, by the network: in the pass for the gradients of these queries, which are kept until they are asked."""
        contents, is_within_memory = queries.checksum(), len(queries) <= (self.max_queries or len(queries))
        if self.inner.network.measure is None and is_within_memory and contents is not None:
            observed = Observed(queries)
            rows = LazyRows(self.codes, self.inner.measure_rows(queries).observed(observed))
            try:
                rows.capture()
            except NoOutputsError:
                pass
            else:
                self._captured.keep(queries, contents, rows)
                return observed.both()
        both: tuple[Array, Predictions] = self.inner.measure_and_predict(queries)
        return both

    @property
    def max_queries(self) -> int | None:
        """How many queries fit into memory with all their numbers multiplied out, and with their scores of a part."""
        if self._memory is None:
            return None
        numbers = sum(code.layout.left * code.layout.right for code in self.codes)
        of_query = BYTES_OF_A_NUMBER * (COPIES_OF_QUERIES * numbers + SCORES_AT_A_TIME)
        return max(1, self._memory // of_query)

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the network, and which parameters are not in the store."""
        header, names = self.builder.header, {name for code in self.codes for name in code.names}
        left_out = list(header.left_out)
        sentences = list(self.inner.notes)
        if left_out:
            sentences.append(
                f"The store keeps {header.coverage:.1%} of the trainable numbers; gradients of {len(left_out)} "
                f"parameters (e.g. {left_out[0]}) are left out of these scores."
            )
        if len(self.codes) < len(header.layouts):
            sentences.append(f"Scores are about {len(names)} parameters of the layers that were asked alone.")
        return tuple(sentences)

    @property
    def classes(self) -> NDArray[Any] | None:
        """The classes of the network."""
        classes: NDArray[Any] | None = self.inner.classes
        return classes

    def only_examples(self, train: Examples) -> Mapping[Any, Any]:
        """Class → id of its only training example, as the network has it."""
        alone: Mapping[Any, Any] = self.inner.only_examples(train)
        return alone

    def identity(self) -> Mapping[str, str]:
        """The identity of the network, in which the store is a part of the parameters."""
        parts = dict(self.inner.identity())
        names = [code.name for code in self.codes]
        return {**parts, "parameters": digest(parts["parameters"], self.builder.identity("rows"), names)}

    def version(self) -> Any:
        """The version of the network."""
        return self.inner.version()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that the store keeps."""
        return tuple(dict.fromkeys(_module(code) for code in self.codes))

    def narrowed(self, modules: Modules) -> CoordinateModel:
        """The same model, with rows of these modules alone.

        Raises ValueError for a pattern that matches nothing, for rows of embeddings, and for a weight without its bias.
        """
        chosen = chosen_parameters(modules, [name for code in self.codes for name in code.names])
        if any(rows is not None for rows in chosen.values()):
            raise ValueError("a store keeps no single rows of embeddings: name whole modules, or ask without a store")
        narrowed = copy(self)
        narrowed.codes = [code for code in self.codes if chosen.keys() & set(code.names)]
        for code in narrowed.codes:
            if not set(code.names) <= chosen.keys():
                raise ValueError(f"a store keeps {' and '.join(code.names)} together: name their module")
        return narrowed

    def loss_rows(self, train: Examples) -> StoredRows:
        """wᵢ(∇ℓᵢ + l2 θ) of training examples, from the store. Raises ValueError for others."""
        positions = np.arange(len(train)) if train is self.builder.train else self._positions(train)
        return StoredRows(self.shards, self.codes, self.builder.weights[positions], self.share(), positions)

    def share(self) -> QueryRows | None:
        """l2 θ, one row that is part of every gradient; None if there is none."""
        captured: CapturedRows = self.inner.loss_rows(self.builder.train.take([0]))
        if captured.share is None:
            return None
        vector = {name: block[None] for name, block in captured.share.items()}
        return QueryRows(self.codes, {code.name: code.vector(vector) for code in self.codes})

    def measure_rows(self, queries: Examples) -> LazyRows:
        """∇m of every query, by a pass over the queries."""
        kept = self._captured.take(queries)
        if kept is not None:
            return kept.narrowed(self.codes)
        captured: CapturedRows = self.inner.measure_rows(queries)
        return LazyRows(self.codes, captured)

    def curvature(self, train: Examples, recipe: CurvatureRecipe | None, damping: float | None) -> Curvature:
        """KFAC, EK-FAC (the default) or the identity.

        Raises TypeError for any other, which is not diagonal in these coordinates.
        """
        recipe = EKFAC() if recipe is None else recipe
        if isinstance(recipe, EKFAC) and recipe.eigenvalue_examples is not None:
            raise TypeError(
                f"a store computes its eigenvalues when it is built, got {recipe}: use EKFAC(), and "
                "Store(factor_examples=…) for factors and eigenvalues from a part of the examples"
            )
        if not isinstance(recipe, KFAC | EKFAC | Identity):
            raise TypeError(
                f"{type(recipe).__name__}() cannot be computed from {self.builder.header.encoding.summary}: use "
                "KFAC(), EKFAC() or Identity(), or a store with ExactFactors()"
            )
        fitted = fitted_from(self.builder, recipe, damping)
        return CoordinateCurvature(self.codes, self.builder, fitted, self.share(), isinstance(recipe, Identity))

    def gradient_norm(self, train: Examples) -> float | None:
        """None: computing it takes a pass over the training set."""
        return None

    def dispersion(self, train: Examples, effective: float) -> float:
        """The dispersion of the network."""
        return float(self.inner.dispersion(train, effective))

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """Raise TypeError: shifts in the store's coordinates are not parameters."""
        raise TypeError("a model that is read from a store has no parameters to shift; attribute without a store")

    def _positions(self, train: Examples) -> NDArray[np.intp]:
        try:
            return self.builder.train.positions(train.ids)
        except KeyError as error:
            raise ValueError(f"expected examples of the store's training set, but {error.args[0]}") from None


def _module(code: Code) -> str:
    return code.name.rpartition(".")[0]
