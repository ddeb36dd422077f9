"""Influence on parameters on which only some training examples depend, such as the row of a user in an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import Answer, Blocks
from upweight.core.attributor import Attributor
from upweight.core.examples import Examples
from upweight.core.inverse_hvp import InverseHVP
from upweight.core.model import Differentiable
from upweight.core.scores import Unit
from upweight.core.weights import sample_weights
from upweight.methods.parts.fitted_influence import FittedInfluence

Array = NDArray[np.float64]


class PartialInfluence(InverseHVP[Attributor, Differentiable]):
    """Influence, fitted on the examples whose losses depend on the parameters.

    The loss of every other example is constant in them: it has no gradient, and removing the example changes nothing
    but its share of the regulariser of a mean loss.

    Args:
        model: the whole model.
        inner: the fit on the dependent examples.
        positions: of these examples in `train`.
    """

    def __init__(
        self,
        recipe: Attributor,
        model: Differentiable,
        train: Examples,
        inner: FittedInfluence,
        positions: NDArray[np.intp],
    ) -> None:
        super().__init__(recipe, inner.model, train, Unit.RANK, model)
        self.inner, self.positions = inner, positions
        others = np.setdiff1d(np.flatnonzero(sample_weights(train)), positions)[:1]
        share = inner.model.loss_rows(train.take(others)) if len(others) else None
        # of an example of any weight: its gradient is the share of the regulariser alone
        self._share = None if share is None or not share.squares().any() else share
        self._share_weight = float(sample_weights(train)[others].sum())

    def blocks(self, queries: Examples) -> Blocks:
        """The scores of the dependent examples, and the share of the regulariser for all others."""
        answer = Answer(self.inner.blocks(queries), len(queries), len(self.positions), type(self.recipe).__name__)
        values = np.outer(self._by_share(queries), sample_weights(self.train))
        for where, scores in answer:
            values[:, self.positions[where]] = scores
        yield slice(0, len(self.train)), values
        return answer.facts

    def self_values(self) -> Array:
        """The scores of dependent examples on themselves, and the share of the regulariser for all others."""
        values = self._by_share(self.train) * sample_weights(self.train)
        values[self.positions] = self.inner.self_values()
        return values

    def query_ihvps(self, queries: Examples) -> Array:
        """(H + λ)⁻¹ ∇m of every query, (m, chosen parameters)."""
        return self.inner.query_ihvps(queries)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The diagnostics of the inner fit, and how many examples the parameters act on."""
        return {**self.inner.diagnostics, "dependent_examples": len(self.positions)}

    def _by_share(self, queries: Examples) -> Array:
        """−∇m_qᵀ (H + λ)⁻¹ l2 θ of every query, (m,)."""
        if self._share is None:
            return np.zeros(len(queries))
        solved = self.inner.curvature.solve(self.inner.model.measure_rows(queries)).rows
        return np.asarray(-solved.dot(self._share)[:, 0] / self._share_weight)
