"""Frames of cleanlab's shape: suspect labels for its functions, and its results as suspects or as a patch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.applications.patch import Patch
from upweight.applications.suspects import Suspects
from upweight.core.examples import Examples
from upweight.report.exports.choices import Choices
from upweight.report.exports.decisions import Decided, patch_of
from upweight.report.exports.export_folder import ExportFolder
from upweight.report.exports.label_form import LabelForm, require_labels

if TYPE_CHECKING:
    import pandas

QUALITY = ("label_quality", "label_score")  # its column in CleanLearning and in Datalab
WHAT = "the label issues of cleanlab (CleanLearning.get_label_issues or Datalab.get_issues('label')) as a table"
README = """cleanlab: issues.csv has one row per training example, with the columns of CleanLearning.get_label_issues()
and the id in front; is_label_issue marks the examples to review. `upweight import-labels --form cleanlab` or
`uw.CleanlabIssues().read(file, train)` makes a patch of the rows that are marked, with their predicted labels. Look at
them first: a prediction is not a label.
"""


@final
@dataclass(frozen=True, kw_only=True)
class CleanlabIssues(LabelForm):
    """Tables with cleanlab's columns `is_label_issue`, `label_quality`, `given_label` and `predicted_label`.

    `frame` and `write` make one of suspects; `inputs` are out-of-fold probabilities for cleanlab's functions.
    `suspects`, `patch` and `read` take what cleanlab found. Rows are named by the ids of the training examples, or
    numbered from 0 in their order; labels are the labels, or numbers of the classes. Which of these it is must follow
    from `given_label`.
    """

    def frame(self, suspects: Suspects) -> pandas.DataFrame:
        """One row per training example, in their order, with their ids as index.

        `label_quality` is 1 − the rank of the suspicion over the number of examples: lower is more suspicious.
        """
        import pandas as pd

        columns = _issues(suspects)
        return pd.DataFrame(columns, index=pd.Index(suspects.train.ids, name="id"))

    def inputs(self, suspects: Suspects) -> dict[str, NDArray[Any]]:
        """Arguments for cleanlab: `labels` (n,), numbers of classes, and out-of-fold `pred_probs` (n, classes).

        Raises ValueError if there are no out-of-fold probabilities of all examples.
        """
        table = _chances(suspects)
        if table is None or np.isnan(table).any():
            raise ValueError(
                "expected suspects with out-of-fold probabilities of every example: of a classifier with probabilities "
                "that can be retrained, and classes with at least two examples"
            )
        assert suspects.train.y is not None
        return {"labels": np.unique(suspects.train.y, return_inverse=True)[1], "pred_probs": table}

    def suspects(self, issues: pandas.DataFrame, train: Examples) -> Suspects:
        """The label issues of cleanlab as suspects for a review page, of the lowest quality first.

        Losses and self-influences are not known (NaN). Raises ValueError as `read`.
        """
        table = _Issues(_columns_of(issues), issues.index.tolist(), "the frame", train)
        chosen = np.flatnonzero(table.is_issue)
        if not len(chosen):
            raise ValueError("cleanlab found no label issue in this frame, so there is nothing to review")
        quality = np.full(len(train), np.nan)
        quality[table.places] = table.quality
        chosen = chosen[np.argsort(table.quality[chosen], kind="stable")]
        unknown = np.full(len(train), np.nan)
        return Suspects(
            ids=train.ids[table.places[chosen]],
            score=1.0 - quality,
            loss=unknown,
            self_influence=unknown,
            held_out=None,
            suggested=tuple(table.predicted[i] for i in chosen.tolist()),
            chances=np.full((len(chosen), 2), np.nan),
            harm=None,
            train=train,
            evaluation=None,
            measurement="−loss",
            notes=("These labels were found by cleanlab.",),
        )

    def patch(self, issues: pandas.DataFrame, train: Examples) -> Patch:
        """The rows of a frame that cleanlab marked, relabelled as it predicts. Raises ValueError as `read`."""
        choices = Choices(train, is_regression=False)
        table = _Issues(_columns_of(issues), issues.index.tolist(), "the frame", train)
        return patch_of(table.decided(choices), train, choices, "the frame")

    def _write(self, export: ExportFolder, suspects: Suspects, choices: Choices) -> None:
        require_labels(choices, "cleanlab's label issues")
        columns = _issues(suspects)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(["id", *columns])
        writer.writerows(
            zip(suspects.train.ids.tolist(), *(values.tolist() for values in columns.values()), strict=True)
        )
        export.add("issues.csv", out.getvalue())
        export.add("README.txt", README)

    def _read(self, content: bytes, name: str, train: Examples, choices: Choices) -> list[Decided]:
        require_labels(choices, "cleanlab's label issues")
        try:
            rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{name} is not a table of text ({error}); expected {WHAT}") from None
        if not rows or any(len(row) != len(rows[0]) for row in rows):
            raise ValueError(f"{name} is empty, or its rows are not equally long; expected {WHAT}")
        columns = {head: [row[i] for row in rows[1:]] for i, head in enumerate(rows[0])}
        index = next((columns[head] for head in ("id", "") if head in columns), [str(i) for i in range(len(rows) - 1)])
        return _Issues(columns, index, name, train).decided(choices)


class _Issues:
    """A table of issues whose rows and labels were matched with a training set.

    Attributes:
        places: the position of the training example of each row.
        is_issue, quality: the columns of these names.
        predicted: the predicted labels, as labels of the training set.
    """

    def __init__(self, columns: dict[str, list[Any]], index: Sequence[Any], name: str, train: Examples) -> None:
        assert train.y is not None
        missing = [head for head in ("is_label_issue", "given_label", "predicted_label") if head not in columns]
        if missing:
            raise ValueError(f"{name} has no column {missing[0]!r}; expected {WHAT}")
        self.is_issue = np.array([_truth(value, name) for value in columns["is_label_issue"]], dtype=bool)
        classes = np.unique(train.y).tolist()
        readings: list[tuple[NDArray[np.intp], Callable[[Any], Any]]] = []
        for places in (_by_id(index, train), _by_number(index, train)):
            for labels in ({str(c): c for c in classes}, {str(code): c for code, c in enumerate(classes)}):
                if places is not None and _fits(columns["given_label"], places, labels, train):
                    readings.append((places, labels.get))
        meanings = {
            (tuple(places.tolist()), *map(get, map(_text, columns["predicted_label"]))) for places, get in readings
        }
        if not meanings:
            raise ValueError(
                f"{name} does not fit the training set: its given labels are not those of the examples with its ids, "
                "nor of the examples in its order, as labels or as numbers of the classes. Nothing was changed"
            )
        if len(meanings) > 1:
            raise ValueError(
                f"{name} fits the training set in more than one way: give it the ids of the examples as its index, and "
                "the labels themselves as given_label and predicted_label. Nothing was changed"
            )
        self.places, get = readings[0]
        self.predicted = [get(_text(value)) for value in columns["predicted_label"]]
        self._ids = train.ids[self.places].tolist()
        self._name = name
        quality = next((columns[head] for head in QUALITY if head in columns), None)
        self.quality = np.zeros(len(index)) if quality is None else np.array(quality, dtype=np.float64)

    def decided(self, choices: Choices) -> list[Decided]:
        """The rows that are marked, with their predicted labels."""
        rows = np.flatnonzero(self.is_issue).tolist()
        unknown = [self._ids[row] for row in rows if self.predicted[row] is None]
        if unknown:
            raise ValueError(f"{self._name} predicts a label that the training set does not have, of {unknown[0]!r}")
        return [Decided(self._ids[row], choices.text(self.predicted[row])) for row in rows]


def _by_id(index: Sequence[Any], train: Examples) -> NDArray[np.intp] | None:
    place = {str(identifier): i for i, identifier in enumerate(train.ids.tolist())}
    names = [str(value) for value in index]
    if len(set(names)) < len(names) or any(name not in place for name in names):
        return None
    return np.array([place[name] for name in names], dtype=np.intp)


def _by_number(index: Sequence[Any], train: Examples) -> NDArray[np.intp] | None:
    numbered = [str(value) for value in index] == [str(i) for i in range(len(train))]
    return np.arange(len(train)) if numbered else None


def _fits(given: Sequence[Any], places: NDArray[np.intp], labels: dict[str, Any], train: Examples) -> bool:
    assert train.y is not None
    expected: list[Any] = train.y[places].tolist()
    return [labels.get(_text(value)) for value in given] == expected


def _text(value: Any) -> str:
    """A label of a table as a text: 1, 1.0 and "1" give the same."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _truth(value: Any, name: str) -> bool:
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise ValueError(f"{name}: expected True or False as is_label_issue, got {value!r:.40}")
    return text in ("true", "1")


def _columns_of(frame: pandas.DataFrame) -> dict[str, list[Any]]:
    return {str(name): frame[name].tolist() for name in frame.columns}


def _issues(suspects: Suspects) -> dict[str, NDArray[Any]]:
    """The columns of cleanlab, (n,) each."""
    train = suspects.train
    require_labels(Choices(train, suspects.is_regression), "cleanlab's label issues")
    assert train.y is not None
    chosen = train.positions(suspects.ids)
    is_issue = np.zeros(len(train), dtype=bool)
    is_issue[chosen] = True
    table, predicted = _chances(suspects), train.y.copy()
    if table is not None:
        known = ~np.isnan(table).any(axis=1)
        predicted[known] = np.unique(train.y)[table[known].argmax(axis=1)]
    predicted[chosen] = np.array(suspects.suggested, dtype=train.y.dtype)
    return {
        "is_label_issue": is_issue,
        "label_quality": 1.0 - rankdata(suspects.score) / len(train),
        "given_label": train.y,
        "predicted_label": predicted,
    }


def _chances(suspects: Suspects) -> NDArray[np.float64] | None:
    """Out-of-fold probabilities of all training examples, (n, classes); None if there are none."""
    train = suspects.train
    if suspects.held_out is None or train.y is None:
        return None
    names = [train.labels.get(c, c) for c in np.unique(train.y).tolist()]
    return suspects.held_out.chances(np.arange(len(train)), names)
