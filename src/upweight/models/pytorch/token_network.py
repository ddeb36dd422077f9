"""A network whose loss is known token by token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.token_scoring import Split, TokenDifferentiable, TokenProducts
from upweight.core.weights import sample_weights
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class TokenNetwork(TokenDifferentiable):
    """A network whose loss may be a `TokenLoss`; without one it lacks the scores of tokens."""

    network: Network
    objective: Objective

    def lacks(self, capability: type) -> str | None:
        """The losses of tokens, if the loss is another function."""
        from upweight.gradients.token_loss import TokenLoss

        if capability is TokenDifferentiable and TokenLoss.of(self.network.loss) is None:
            return (
                "its loss is not known token by token; make it by uw.hf, or with "
                "uw.TorchModel(net, uw.TokenLoss(token_losses))"
            )
        return super().lacks(capability)

    def token_products(self, train: Examples, vector: Array, by: Split) -> Sequence[TokenProducts]:
        """Products of v with every token's part of wᵢ(∇ℓᵢ + l2 θ), the second term in `rest`."""
        from upweight.gradients.token_products import token_products

        share = 0.0
        if self.objective.reduction == "mean" and self.objective.l2 > 0:
            share = self.objective.l2 * float(self.network.vector() @ vector)
        return token_products(self.network, train, vector, by, sample_weights(train), share)

    def token_ids(self, examples: Examples) -> Sequence[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """The tokens, from the batches that the loss receives."""
        from upweight.gradients.token_products import token_ids

        return token_ids(self.network, examples)

    def measuring_tokens(self, start: int, stop: int) -> Self:
        """The same net, with `LogProbability(loss, (start, stop))`."""
        from upweight.gradients.token_products import token_loss_of
        from upweight.models.pytorch.measurements import LogProbability

        measuring = copy.copy(self)
        measuring.network = copy.copy(self.network)
        measuring.network.measure = LogProbability(token_loss_of(self.network), (start, stop))
        return measuring
