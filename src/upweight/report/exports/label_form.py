"""`LabelForm`: a form in which suspect labels go to people who decide, and in which their decisions come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upweight.applications.patch import Patch, checksum
from upweight.applications.suspects import Suspects
from upweight.core.archive import MALFORMED
from upweight.core.examples import Examples
from upweight.core.files import open_regular
from upweight.report.exports.choices import Choices
from upweight.report.exports.decisions import Decided, patch_of
from upweight.report.exports.export_folder import ExportFolder


@dataclass(frozen=True, kw_only=True)
class LabelForm(ABC):
    """One of the forms: `LabelStudioTasks`, `ArgillaRecords`, `CleanlabIssues`, `LabelTable`.

    `write` makes a folder with everything the tool needs; `read` makes a `Patch` of what it returns. Nothing is changed
    before the patch is applied.
    """

    def write(self, folder: str | Path, suspects: Suspects) -> Path:
        """Write the examples to review, with what is suggested, to a new folder; returns it.

        Raises:
            FileExistsError: there is a file or folder of this name. It is left as it is.
            ValueError: what the form cannot hold, such as regression targets, or two classes of one name.
        """
        choices = Choices(suspects.train, suspects.is_regression)
        with ExportFolder(Path(folder)) as export:
            self._write(export, suspects, choices)
        return Path(folder)

    def read(self, path: str | Path, train: Examples) -> Patch:
        """The decisions in a file of this form, as a patch for this training set.

        Examples without a decision, and those that keep their label, are not part of it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: another form, an id or a label that the training set does not have, two people who decided
                differently, another training set, or no decision at all. Nothing is lost: the file stays as it is.
        """
        with open_regular(path) as file:
            content = file.read()
        choices = Choices(train, _is_regression(train))
        with read_as(str(path)):
            decided = self._read(content, str(path), train, choices)
        return patch_of(decided, train, choices, str(path))

    @abstractmethod
    def _write(self, export: ExportFolder, suspects: Suspects, choices: Choices) -> None: ...

    @abstractmethod
    def _read(self, content: bytes, name: str, train: Examples, choices: Choices) -> list[Decided]: ...


@contextmanager
def read_as(name: str) -> Iterator[None]:
    """Turn what goes wrong with entries of other types than a tool writes into a ValueError that names the file."""
    try:
        yield
    except ValueError:
        raise
    except MALFORMED as error:
        raise ValueError(
            f"{name} has entries that this form does not have ({error}); export it from the tool again. Nothing was "
            "changed"
        ) from error


def require_same_train(mark: Any, train: Examples, name: str) -> None:
    """Raise ValueError if a file was written for another training set; files without the mark are accepted."""
    if mark is not None and mark != checksum(train):
        raise ValueError(
            f"{name} was exported from another training set: its ids or labels differ from these. Read it with the "
            "training set that it was exported from; the patch can then be rebased (patch.rebased(train))"
        )


def require_labels(choices: Choices, form: str) -> None:
    """Raise ValueError for regression targets, which this form has no question for."""
    if choices.is_regression:
        raise ValueError(f"{form} are for labels of classes, and these are regression targets; use uw.LabelTable")


def _is_regression(train: Examples) -> bool:
    return train.y is not None and train.y.dtype.kind == "f"
