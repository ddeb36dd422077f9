"""FrozenFeatures: a trained torch network as a step before a scikit-learn estimator, with gradients through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from upweight.core.blocks import blocks
from upweight.gradients.preserve_model import preserve_model

Array = NDArray[np.float64]
BATCH_EXAMPLES = 64  # examples in one pass through the network


class FrozenFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A step for `make_pipeline(FrozenFeatures(net), LogisticRegression())`: inputs (n, …) → the net's outputs (n, d).

    The estimator after it keeps its closed form, and `uw.perturb` differentiates through the net down to the inputs.

    Args:
        net: the feature extractor, which runs in eval mode and is never changed. Outputs are flattened to rows.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def fit(self, x: Any, y: Any = None) -> FrozenFeatures:
        """Does nothing: the net is already trained."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """True: the net is already trained."""
        return True

    def transform(self, x: Any) -> Array:
        """The net's outputs, (n, d)."""
        parts = []
        for batch in blocks(len(x), BATCH_EXAMPLES):
            with preserve_model(self.net, frozenset()), torch.no_grad():
                parts.append(self.net(self._tensor(x[batch])).flatten(1).double().cpu().numpy())
        return np.concatenate(parts)

    def pull_back(self, x: Any, gradients: Array) -> Array:
        """Gradients with respect to the inputs, (k, n, …), from those with respect to the outputs, (k, n, d)."""
        out = np.empty((len(gradients), *np.shape(x)))
        for batch in blocks(len(x), BATCH_EXAMPLES):
            with preserve_model(self.net, frozenset()):
                inputs = self._tensor(x[batch]).requires_grad_(True)
                outputs = self.net(inputs).flatten(1)
                for k, gradient in enumerate(gradients[:, batch]):
                    output_gradient = torch.as_tensor(gradient).to(outputs)
                    (input_gradient,) = torch.autograd.grad(outputs, inputs, output_gradient, retain_graph=True)
                    out[k, batch] = input_gradient.detach().double().cpu().numpy()
        return out

    def _tensor(self, x: Any) -> torch.Tensor:
        """The inputs on the device and in the precision of the net."""
        parameter = next(self.net.parameters(), torch.zeros(1))
        return torch.as_tensor(np.asarray(x)).to(parameter.device, parameter.dtype)
