"""Texts of tokenised rows, decoded when they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from upweight.core.input_kinds import take_rows
from upweight.models.huggingface.dataset_rows import rows_of, sequences_of


class DecodedTexts(Sequence[str]):
    """The text of every row, without special tokens; if its targets are another text, that text too.

    Args:
        rows: rows with `input_ids`, as the inputs of `Examples`.
        tokenizer: what decodes them.
        has_own_targets: whether the labels are another text (sequence to sequence).
    """

    def __init__(self, rows: Any, tokenizer: Any, has_own_targets: bool = False) -> None:
        self.rows, self.tokenizer, self.has_own_targets = rows, tokenizer, has_own_targets

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 256):
            block = take_rows(self.rows, np.arange(start, min(start + 256, len(self))))
            yield from map(self._text, rows_of(block))

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice | NDArray[np.intp]) -> DecodedTexts: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        if not isinstance(index, int | np.integer):
            return DecodedTexts(take_rows(self.rows, np.asarray(index)), self.tokenizer, self.has_own_targets)
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected a position below {len(self)}, got {index}")
        return self._text(rows_of(take_rows(self.rows, np.array([int(index) % len(self)])))[0])

    def _text(self, row: dict[str, Any]) -> str:
        text = self._decode(row["input_ids"])
        if self.has_own_targets and "labels" in row:
            text += " → " + self._decode(row["labels"])
        return text

    def _decode(self, tokens: Any) -> str:
        known = [[token for token in sequence if token >= 0] for sequence in sequences_of(tokens)]
        return "\n".join(str(self.tokenizer.decode(sequence, skip_special_tokens=True)) for sequence in known)
