"""The state of a model and a training set at a fit, to detect that one of them was changed in place since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.examples import Examples
from upweight.core.identity import checksum
from upweight.core.model import Measurable


@dataclass(frozen=True)
class Snapshot:
    """The state of a model and a training set.

    Attributes:
        version: of the model; None if it does not tell its version.
        contents: a checksum of the training set; of labels and weights alone if the inputs cannot be checked.
    """

    version: Any
    contents: int

    @staticmethod
    def of(model: Measurable, train: Examples) -> Snapshot:
        """The state now."""
        return Snapshot(model.version(), _checksum(train))

    def require_unchanged(self, model: Measurable, train: Examples) -> None:
        """Raise ValueError if the model or the training set is in another state."""
        if model.version() != self.version:
            raise ValueError(
                "the model was changed, moved or copied since this fit (for instance trained further), so "
                "the fit belongs to neither model; fit again, or fit a model of a copy that does not change: "
                "copy.deepcopy(net) or copy.deepcopy(estimator)"
            )
        if _checksum(train) != self.contents:
            raise ValueError(
                "the training set was changed in place since this fit, so the fit belongs to neither set; make "
                "other examples with train.replaced(x=…, y=…) and fit again"
            )


def _checksum(train: Examples) -> int:
    contents = train.checksum()
    return checksum(train.y, train.weights) if contents is None else contents
