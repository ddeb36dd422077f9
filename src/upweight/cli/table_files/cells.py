"""`Cells`: the texts of one column, each distinct one once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from numpy.typing import NDArray


class Cells(NamedTuple):
    """The texts of a column: the distinct ones, and for every row the position of its own among them."""

    texts: list[str]
    codes: NDArray[np.integer]

    @classmethod
    def of(cls, column: Sequence[str]) -> Cells:
        """Read a column of one text per row."""
        import numpy as np
        import pandas as pd

        values = np.empty(len(column), dtype=object)
        values[:] = column
        codes, texts = pd.factorize(values)
        return cls(texts.tolist(), codes)

    def spread(self, values: pandas.Series) -> pandas.Series:
        """A column of these values, one for each of the distinct texts."""
        return values.take(self.codes).reset_index(drop=True)

    def counts(self) -> dict[str, int]:
        """How often each text occurs."""
        import numpy as np

        return dict(zip(self.texts, np.bincount(self.codes, minlength=len(self.texts)).tolist(), strict=True))

    def without_first(self) -> Cells:
        """The cells of all rows but the first."""
        first, others = self.codes[0], self.codes[1:]
        if (others == first).any():
            return Cells(self.texts, others)
        return Cells([*self.texts[:first], *self.texts[first + 1 :]], others - (others > first))

    def without_leading_spaces(self) -> Cells:
        """The same with the spaces before each text taken away."""
        return self._as([text.lstrip(" ") for text in self.texts])

    def without_spaces_around(self) -> Cells:
        """The same with the white space around each text taken away."""
        return self._as(list(map(str.strip, self.texts)))

    def _as(self, texts: list[str]) -> Cells:
        """The same with other texts in place of the distinct ones; equal ones become one."""
        import numpy as np

        place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return Cells(list(place), np.array([place[text] for text in texts], dtype=np.intp)[self.codes])
