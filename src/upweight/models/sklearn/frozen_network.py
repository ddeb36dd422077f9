"""Frozen: a torch network that is not trained as a step before a scikit-learn estimator, with gradients through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from upweight.gradients.preserve_model import preserve_model

Array = NDArray[np.float64]
BATCH = 64  # examples per pass


class FrozenFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step for `make_pipeline(FrozenFeatures(net), LogisticRegression())`: inputs (n, …) → the net's outputs (n, d).

    What follows keeps its closed form; `uw.perturb` goes back through the net to the inputs.

    Args:
        net: the feature extractor; it is run in eval mode and never changed. Outputs are flattened to rows.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def fit(self, x: Any, y: Any = None) -> FrozenFeatures:
        """Nothing to learn."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """It comes trained."""
        return True

    def transform(self, x: Any) -> Array:
        """The net's outputs, (n, d)."""
        parts = []
        for start in range(0, len(x), BATCH):
            with preserve_model(self.net, frozenset()), torch.no_grad():
                parts.append(self.net(self._tensor(x[start : start + BATCH])).flatten(1).double().cpu().numpy())
        return np.concatenate(parts)

    def pull_back(self, x: Any, gradients: Array) -> Array:
        """Gradients with respect to the outputs, (k, n, d), as gradients with respect to the inputs, (k, n, …)."""
        out = np.empty((len(gradients), *np.shape(x)))
        for start in range(0, len(x), BATCH):
            where = slice(start, start + BATCH)
            with preserve_model(self.net, frozenset()):
                inputs = self._tensor(x[where]).requires_grad_(True)
                outputs = self.net(inputs).flatten(1)
                for k, gradient in enumerate(gradients[:, where]):
                    along = torch.as_tensor(gradient).to(outputs)
                    (found,) = torch.autograd.grad(outputs, inputs, along, retain_graph=True)
                    out[k, where] = found.detach().double().cpu().numpy()
        return out

    def _tensor(self, x: Any) -> torch.Tensor:
        like = next(self.net.parameters(), torch.zeros(1))
        return torch.as_tensor(np.asarray(x)).to(like.device, like.dtype)
