"""A network seen through a store: gradients are rows in its coordinates, in which KFAC and EK-FAC are diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from upweight.core.checkpoints import Layered
from upweight.core.curvature import Curvature, Solved
from upweight.core.curvature_recipes import EKFAC, KFAC, CurvatureRecipe, Identity
from upweight.core.examples import Examples
from upweight.core.identity import digest
from upweight.core.model import Predictions
from upweight.core.modules import Modules, chosen_parameters
from upweight.core.rows import Rows
from upweight.curvature.ekfac import FittedEKFAC
from upweight.curvature.registry import objective_of
from upweight.gradients.captured_rows import CapturedRows
from upweight.store.build import Builder
from upweight.store.codes import Code
from upweight.store.coordinate_rows import LazyRows, QueryRows, StoredRows
from upweight.store.quantisation import SEPARATION
from upweight.store.row_blocks import Factors
from upweight.store.stored_shards import StoredShards

Array = NDArray[np.float64]
COPIES_OF_QUERIES = 2  # as captured, and after the inverse
BYTES_OF_A_NUMBER = 4
SCORES_AT_A_TIME = 4096  # of a query: a part of a shard, and what is selected from it


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
        """Both, by the network."""
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
        captured = self.inner.loss_rows(self.builder.train.take([0]))
        share = None
        if captured.share is not None:
            vector = {name: block[None] for name, block in captured.share.items()}
            share = QueryRows(self.codes, {code.name: code.vector(vector) for code in self.codes})
        return StoredRows(self.shards, self.codes, self.builder.weights[positions], share, positions)

    def measure_rows(self, queries: Examples) -> LazyRows:
        """∇m of every query, by a pass over the queries."""
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
        return CoordinateCurvature(self, fitted, isinstance(recipe, Identity))

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


@final
class CoordinateCurvature(Curvature):
    """KFAC, EK-FAC or the identity, which are diagonal in the coordinates of a store.

    Args:
        model: the network seen through the store.
        fitted: the curvature with all eigenvalues and dampings.
        is_identity: whether the identity is asked instead.
    """

    def __init__(self, model: CoordinateModel, fitted: FittedEKFAC, is_identity: bool) -> None:
        self.codes, self.header, self.fitted = model.codes, model.builder.header, fitted
        self._is_identity = is_identity
        self._shifted = {name: values.double() for name, values in fitted.shifted()}
        self._values = {name: values.double() for name, values in fitted.eigenvalues()}
        self._diagonal = {
            code.name: np.ones((code.layout.left, code.layout.right))
            if is_identity
            else code.leading_values(self._shifted[code.name])
            for code in self.codes
        }

    def matvec(self, vectors: Array) -> Array:
        """(C + λ) v in the coordinates of the store."""
        return np.asarray(vectors * np.concatenate([self._diagonal[code.name].ravel() for code in self.codes]))

    def solve(self, rows: Rows) -> Solved:
        """(C + λ)⁻¹ rows by division."""
        if isinstance(rows, LazyRows):
            rows = rows.rows
        elif isinstance(rows, StoredRows):
            rows = rows.in_memory()
        if not isinstance(rows, QueryRows):
            raise TypeError(f"expected rows of the same store, got {type(rows).__name__}")
        if self._is_identity:
            return Solved(rows, 0.0, 0, True)
        return Solved(rows.times(self._inverse), 0.0, 0, True)

    @cached_property
    def _inverse(self) -> dict[str, Factors]:
        """1/(Λ + λ) of every block, with the separable terms of which it is made up."""
        tolerance = SEPARATION[self.header.encoding.precision]
        return {code.name: Factors(1.0 / self._diagonal[code.name], tolerance, code.typical) for code in self.codes}

    @property
    def calibrated(self) -> bool:
        """False: this approximates the curvature, and rows are rounded."""
        return False

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Diagnostics of the curvature, the store's encoding and coverage, and the share of scores that it keeps."""
        facts: dict[str, Any] = {"curvature": "identity", "solver": "none", "damping": 0.0, "warnings": []}
        if not self._is_identity:
            facts = {**self.fitted.diagnostics, "kept_share": dict(self._kept_share)}
        if self.fitted.summed.time_matched and not self._is_identity:
            facts["warnings"] = [
                *facts["warnings"],
                "Without a store, scores of this training would count how gradients changed in its later half; a store "
                "has those of the end alone.",
            ]
        return {**facts, "store": self.header.encoding.described, "coverage": self.header.coverage}

    @cached_property
    def _kept_share(self) -> dict[str, float]:
        """For each block the share Σ h² (h = Λ/(Λ + λ)) of all directions that lies in the directions of the store.

        It is the share of the squared scores among examples like the training examples.
        """
        return _kept_shares(self.codes, self._values, self._shifted)


def fitted_from(builder: Builder, recipe: CurvatureRecipe, damping: float | None) -> FittedEKFAC:
    """KFAC or EK-FAC with the factors of a finished store (EK-FAC for `EKFAC()`); no pass is made."""
    summed = objective_of(builder.model, builder.train, recipe, damping)
    summed = replace(summed, losses=float(builder.basis_facts["losses"]))
    is_refined = isinstance(recipe, EKFAC)
    return FittedEKFAC(summed, is_refined, factors=builder.basis.factors(is_refined))


def kept_share_of(builder: Builder) -> dict[str, float]:
    """As in the diagnostics of EK-FAC with its own damping, as soon as the basis of a store is finished."""
    fitted = fitted_from(builder, EKFAC(), None)
    values, shifted = (dict(part) for part in (fitted.eigenvalues(), fitted.shifted()))
    return _kept_shares(builder.codes, values, shifted)


def _kept_shares(codes: Sequence[Code], values: Mapping[str, Any], shifted: Mapping[str, Any]) -> dict[str, float]:
    shares = {}
    for code in codes:
        squares = (values[code.name].double() / shifted[code.name].double()) ** 2
        whole = float(squares.sum())
        shares[code.name] = float(code.leading_values(squares).sum()) / whole if whole > 0 else 1.0
    return shares


def _module(code: Code) -> str:
    return code.name.rpartition(".")[0]
