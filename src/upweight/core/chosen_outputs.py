"""The output of a model that is explained: of one class for every example, or its only number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Measurable, Predictions

Array = NDArray[np.float64]


def predictions_of(model: Measurable, examples: Examples) -> Predictions:
    """The predictions for examples. Raises ValueError in one sentence if the model cannot take their inputs."""
    try:
        return model.predict(examples)
    except ValueError as error:
        reason = str(error).partition("\n")[0].rstrip(".:")
        those = "this query" if len(examples) == 1 else f"these {len(examples):,} examples"
        raise ValueError(
            f"the model cannot take {those} ({reason}); pass inputs as they went into fit(), without missing values "
            "if it takes none"
        ) from error


@dataclass(frozen=True, eq=False)
class ChosenOutputs:
    """One output of the model for every example.

    Attributes:
        model: the model.
        classes: its readable labels, in the order of its outputs; empty if its output is one number.
        targets: the readable label of every example's output; None for the only number.
        raw: readable label → label as the examples hold it.
        kind: "probability"; "prediction" of a number; or "measurement", if the model has neither.
    """

    model: Measurable
    classes: tuple[Any, ...]
    targets: tuple[Any, ...]
    raw: Mapping[Any, Any]
    kind: str

    @classmethod
    def of(cls, model: Measurable, examples: Examples, of: Any) -> ChosenOutputs:
        """The outputs that `of` names: "predicted", "label", one class for all, or one class per example.

        Raises ValueError for inputs that the model cannot take, a class that it does not have, or examples without the
        labels that are needed.
        """
        predictions = predictions_of(model, examples)
        classes, n = predictions.classes, len(examples)
        raw = {name: label for label, name in examples.labels.items()}
        if not classes:
            _require_no_class(of)
            is_number = isinstance(predictions.predicted[0], int | float | np.number)
            kind = "prediction" if is_number else "measurement"
            return cls(model, (), (None,) * n, raw, kind)
        if isinstance(of, str) and of == "predicted":
            targets = tuple(predictions.predicted)
        elif isinstance(of, str) and of == "label":
            if examples.y is None:
                raise ValueError('expected examples with labels for of="label"; pass Examples(x, y), or a class')
            targets = tuple(examples.label(i) for i in examples.ids.tolist())
        elif isinstance(of, Sequence | np.ndarray) and not isinstance(of, str):
            targets = tuple(_plain(label) for label in of)
        else:
            targets = (_plain(of),) * n
        if len(targets) != n:
            raise ValueError(f"expected one class per example ({n}), got {len(targets)}")
        targets = tuple(examples.labels.get(t, t) if t not in classes else t for t in targets)
        unknown = next((t for t in targets if t not in classes), None)
        if unknown is not None:
            raise ValueError(f"no class of the model is called {unknown!r}; the classes are {list(classes)[:12]}")
        kind = "measurement" if predictions.probabilities is None else "probability"
        return cls(model, classes, targets, raw, kind)

    @property
    def columns(self) -> NDArray[np.intp]:
        """The position of every example's output among those of the model; 0 for the only number."""
        return np.array([self.classes.index(t) if self.classes else 0 for t in self.targets], dtype=np.intp)

    def values(self, examples: Examples, target: Any, log: bool = False) -> Array:
        """The output for `target` on other inputs, (n,); of a probability its logarithm if `log`."""
        if self.kind == "measurement":
            label = self.raw.get(target, target)
            labelled = examples if target is None else examples.replaced(y=[label] * len(examples))
            return np.asarray(self.model.measure(labelled), dtype=np.float64)
        predictions = self.model.predict(examples)
        if self.kind == "prediction":
            return np.asarray(predictions.predicted, dtype=np.float64)
        assert predictions.probabilities is not None
        probabilities = predictions.probabilities[:, predictions.classes.index(target)]
        return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) if log else probabilities


def _require_no_class(of: Any) -> None:
    if not (isinstance(of, str) and of in ("predicted", "label")):
        raise ValueError(f"this model predicts no classes, so that it has no output of {of!r}; leave of= out")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
