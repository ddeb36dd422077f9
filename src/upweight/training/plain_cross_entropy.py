"""Plain cross-entropies in a form whose second derivatives torch computes fast.

Torch has no forward derivative of the gradient of `nll_loss`: it falls back on one that is interpreted operation by
operation, which takes as long as a small net.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

IGNORED = -100  # torch's default ignore_index
PLAIN_SETTINGS = {
    "ignore_index": IGNORED,
    "reduction": "none",
    "label_smoothing": 0.0,
}  # the settings of a plain cross-entropy; all other settings must be None


class GatheredLosses(TorchFunctionMode):
    """Inside this mode, plain `cross_entropy` and `nll_loss` gather the log-probabilities of the labels.

    Values and gradients have the same bits.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace plain losses; all other calls run unchanged."""
        kwargs = kwargs or {}
        if func in (F.cross_entropy, F.nll_loss) and is_plain(*args, **kwargs):
            outputs, classes = args
            return -_label_outputs(outputs if func is F.nll_loss else F.log_softmax(outputs, dim=1), classes)
        return func(*args, **kwargs)


def is_plain(*tensors: Any, **settings: Any) -> bool:
    """Whether classes are integers, losses are per example, and settings (passed by name) have their defaults."""
    others = any(
        value is not None and (name not in PLAIN_SETTINGS or value != PLAIN_SETTINGS[name])
        for name, value in settings.items()
    )
    if len(tensors) != 2 or others or settings.get("reduction") != "none":
        return False
    outputs, classes = tensors
    return bool(outputs.ndim == 2 and classes.ndim == 1 and not classes.is_floating_point())


def _label_outputs(outputs: Tensor, classes: Tensor) -> Tensor:
    """The output of each example's class, (batch,); 0 where the class is ignored."""
    ignored = classes == IGNORED
    of_labels = outputs.gather(1, torch.where(ignored, 0, classes).long()[:, None])[:, 0]
    return torch.where(ignored, torch.zeros_like(of_labels), of_labels)
