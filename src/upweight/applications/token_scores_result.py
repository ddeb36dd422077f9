"""Scores of the tokens of training sequences: the result of `token_scores`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples, Id
from upweight.core.notebook_table import TABLE
from upweight.core.scores import Unit
from upweight.core.token_scoring import Span, Split

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
TOKENS_IN_HTML = 12  # of one sequence, strongest first
KINDS: Mapping[Split, str] = {
    "target": "by target token: a token's score is the effect of having learned to predict it",
    "position": "by position of the computation: a token's score is the effect of the use of parameters at its place",
}


@dataclass(frozen=True, eq=False)
class TokenText:
    """A text as its tokens.

    Attributes:
        tokens: one readable text per token.
        targets: (L,), which tokens the loss is about; the others are the prompt.
        values: of a query, the effect of its training sequences together on each of its target tokens, (L,); None if
            the measurement is not a sum over them, and for training sequences.
    """

    tokens: tuple[str, ...]
    targets: NDArray[np.bool_]
    values: Array | None = None

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class SequenceTokens:
    """One training sequence beside a query.

    Attributes:
        id: of the training example.
        score: of the whole sequence, as the method gives it.
        text: its tokens.
        values: the score of every token, (L,).
        rest: what belongs to no token: the regulariser's share, and layers without positions.
    """

    id: Id
    score: float
    text: TokenText
    values: Array
    rest: float

    @property
    def total(self) -> float:
        """The sum over tokens and rest, which is the score up to rounding."""
        return float(self.values.sum() + self.rest)

    def strongest(self, k: int = 10) -> list[tuple[str, float]]:
        """(token, score) of the k tokens with the largest |score|, strongest first."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:k]
        return [(self.text.tokens[j], float(self.values[j])) for j in order.tolist()]


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of every token of the training sequences behind some queries.

    Attributes:
        by: "target" or "position", the kind of the token scores; the two differ.
        queries: query id → its text.
        sequences: query id → training sequences, largest |score| first.
        span: (start, stop) of the query's tokens that were measured; None for the whole measurement.
        measurement: what was measured, in words.
        unit: EFFECT or RANK.
        recipe: the method.
        train, query_examples: the examples behind the ids.
        diagnostics: `warnings`.
    """

    by: Split
    queries: Mapping[Id, TokenText]
    sequences: Mapping[Id, tuple[SequenceTokens, ...]]
    span: Span | None
    measurement: str
    unit: Unit
    recipe: Mapping[str, Any]
    train: Examples
    query_examples: Examples
    diagnostics: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The kind of the token scores, as a sentence without its full stop."""
        return KINDS[self.by]

    def of(self, query: Id, train: Id) -> SequenceTokens:
        """The tokens of one training sequence for one query. Raises KeyError if the pair was not scored."""
        for sequence in self.sequences.get(query, ()):
            if sequence.id == train:
                return sequence
        known = {q: [s.id for s in sequences[:5]] for q, sequences in list(self.sequences.items())[:3]}
        raise KeyError(f"expected a query and one of its training examples, as in {known}, got {query!r}, {train!r}")

    def to_pandas(self) -> pd.DataFrame:
        """One row per token: query, train, position, token, target, score, kind."""
        import pandas as pd

        columns = ("query", "train", "position", "token", "target", "score", "kind")
        return pd.DataFrame(list(self._rows()), columns=columns)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.by,
            "measurement": self.measurement,
            "unit": str(self.unit),
            "method": dict(self.recipe),
            "span": None if self.span is None else list(self.span),
            "queries": [
                {
                    "id": query,
                    "tokens": list(text.tokens),
                    "values": None if text.values is None else text.values.tolist(),
                    "train": [
                        {
                            "id": s.id,
                            "score": s.score,
                            "rest": s.rest,
                            "tokens": list(s.text.tokens),
                            "targets": s.text.targets.tolist(),
                            "values": s.values.tolist(),
                        }
                        for s in self.sequences[query]
                    ],
                }
                for query, text in self.queries.items()
            ],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for query, sequences in self.sequences.items():
            for s in sequences:
                columns = zip(s.text.tokens, s.text.targets.tolist(), s.values.tolist(), strict=True)
                for position, (token, is_target, value) in enumerate(columns):
                    yield query, s.id, position, token, is_target, value, self.by

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(str(query))}</td><td>{escape(str(s.id))}</td><td>{s.score:.4g}</td>"
            f"<td>{', '.join(_strongest(s))}</td></tr>"
            for query, sequences in self.sequences.items()
            for s in sequences
        )
        head = "<tr><th>query</th><th>training example</th><th>score</th><th>strongest tokens</th></tr>"
        return f"<p><b>{escape(repr(self))}</b><br>Scores {escape(self.kind)}.</p>{TABLE}{head}{rows}</table>"

    def __repr__(self) -> str:
        each = max(map(len, self.sequences.values()))
        return f"TokenScores({len(self.sequences)} queries × {each} training examples, by {self.by}, {self.unit})"


def _strongest(sequence: SequenceTokens) -> Sequence[str]:
    """The strongest tokens with their scores, as HTML."""
    return [f"<code>{escape(token)}</code>&nbsp;{value:+.3g}" for token, value in sequence.strongest(TOKENS_IN_HTML)]
