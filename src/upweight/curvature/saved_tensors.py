"""Tensors of a fitted curvature as arrays of a saved state, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.saved_state import SavedState
from upweight.gradients.network import Network


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The numbers of a tensor, in its precision."""
    return np.asarray(tensor.detach().cpu().numpy())


def as_tensor(state: SavedState, name: str, shape: tuple[int | None, ...], network: Network) -> Tensor:
    """The tensor that was saved under this name, on the device of the network and in the precision that it had.

    Raises ValueError if it is missing or not as it was written.
    """
    return torch.as_tensor(state.array(name, shape)).to(network.device)
