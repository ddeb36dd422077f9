"""The labels that can be chosen, as texts, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from upweight.applications.patch import DROP
from upweight.core.examples import Examples
from upweight.report.wording import label_text

DROP_TEXT = "(drop this example)"
KEEP_TEXT = "(keep)"


class Choices:
    """The texts of the labels of a training set.

    Raises ValueError if it has no labels, or if two of them, or a label and a decision, have one text.
    """

    def __init__(self, train: Examples, is_regression: bool) -> None:
        if train.y is None or train.y.ndim != 1:
            raise ValueError("expected a training set with one label per example")
        self.is_regression = is_regression
        self._text_of: dict[Any, str] = {}
        if is_regression:
            return
        for label in np.unique(train.y).tolist():
            self._text_of[label] = _plain(str(label_text(train.labels.get(label, label))))
        self._label_of = {text: label for label, text in self._text_of.items()}
        taken = {DROP_TEXT, KEEP_TEXT} & set(self._label_of)
        if len(self._label_of) < len(self._text_of) or taken or "" in self._label_of:
            raise ValueError(
                f"expected labels with different names, none of them empty, {DROP_TEXT!r} or {KEEP_TEXT!r}, got "
                f"{list(self._text_of.values())[:10]}; name them with Examples(labels={{…}})"
            )

    @property
    def texts(self) -> list[str]:
        """The texts of all labels."""
        return list(self._text_of.values())

    def text(self, label: Any) -> str:
        """The text of a label or a regression target; a target in full."""
        return repr(float(label)) if self.is_regression else self._text_of[label]

    def decision(self, text: str) -> Any:
        """The decision: a label, "drop", or None to keep the label. Raises ValueError for any other text."""
        text = text.strip()
        if text in (KEEP_TEXT, ""):
            return None
        if text == DROP_TEXT:
            return DROP
        if self.is_regression:
            try:
                value = float(text.replace("−", "-"))
            except ValueError:
                raise ValueError(f"{text!r} is not a number") from None
            if not np.isfinite(value):
                raise ValueError(f"{text!r} is not a finite number")
            return value
        if text not in self._label_of:
            raise ValueError(f"no label is {text!r}; the labels are {self.texts[:10]}")
        return self._label_of[text]


def _plain(text: str) -> str:
    """The text without what XML and tables of text cannot hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
