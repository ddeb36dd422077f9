"""The capability of models whose loss is known token by token, and fitted methods whose scores are linear in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Fitted, ModelT, RecipeT
from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.model import Differentiable

Array = NDArray[np.float64]
Split = Literal["target", "position"]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TokenProducts:
    """Inner products of one vector with the loss gradient of one example, split over its L tokens.

    Attributes:
        ids: (L,) token ids, without padding.
        values: (L,) products.
        targets: (L,), which tokens the loss is about.
        rest: the product with what belongs to no token.
    """

    ids: NDArray[Any]
    values: Array
    targets: NDArray[np.bool_]
    rest: float


class TokenDifferentiable(Differentiable):
    """A model whose loss is a sum over the tokens of an example."""

    @abstractmethod
    def token_products(self, train: Examples, vector: Array, by: Split) -> Sequence[TokenProducts]:
        """⟨v, ∇θ of the part of the objective⟩ of every token of every example, for a vector v (parameters,).

        By "target", a token's part is its own loss; by "position", it is what its position contributes to the gradient
        of the whole loss. With weights and regulariser as in `loss_rows`; the latter is in `rest`.
        """

    @abstractmethod
    def token_ids(self, examples: Examples) -> Sequence[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """(token ids (L,), which of them the loss is about) of every example, without padding."""

    @abstractmethod
    def measuring_tokens(self, start: int, stop: int) -> Self:
        """The same model, whose measurement is the log-probability of the tokens start … stop − 1 of a query."""


class ScoreDirection(NamedTuple):
    """Vectors of some queries (m, parameters), and the model whose loss gradients they are multiplied with."""

    model: Differentiable
    vectors: Array


class LinearScores(Fitted[RecipeT, ModelT]):
    """A fitted method whose scores are −Σ ⟨v, rowᵢ⟩ over one or more models, with rows of loss gradients.

    A score can then be split over the tokens of the training example.
    """

    @abstractmethod
    def score_directions(self, queries: Examples, tokens: Span | None = None) -> Sequence[ScoreDirection]:
        """The vectors of the queries, model by model.

        Args:
            queries: the queries.
            tokens: (start, stop) of the tokens of a query whose log-probability is measured; None for the measurement
                of the fit.

        Raises TypeError if the scores of this fit hold something else, such as a correction.
        """

    def joint_directions(self, positions: NDArray[np.intp]) -> Sequence[ScoreDirection] | None:
        """Vectors u (1, parameters) with Σᵢ score[q, i] = −Σ ⟨u, ∇m_q⟩ over the training examples at these positions.

        With them the sum can be split over the tokens of the query. By default None: the fit does not know them.
        """
        return None

    def row_scales(self, positions: NDArray[np.intp]) -> Array:
        """The factors of the scores of the training examples at these positions; by default 1."""
        return np.ones(len(positions))


def measuring(model: Any, tokens: Span | None) -> Any:
    """The model, or the same with the log-probability of these tokens of a query as its measurement."""
    if tokens is None:
        return model
    require(model, [TokenDifferentiable], "the score of some tokens of a query")
    return model.measuring_tokens(*tokens)
