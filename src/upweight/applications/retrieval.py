"""Settings of `retrieve`: how candidates are chosen and scored, and what is audited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from upweight.core.attributor import Attributor
from upweight.core.blocks import require_count
from upweight.core.curvature_recipes import EKFAC
from upweight.core.examples import Examples
from upweight.methods.influence import Influence


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """How candidates are chosen and scored.

    Args:
        method: scores the candidates exactly.
        by: methods that choose candidates, at both ends. None for `method` itself if there is a store, `BM25` if
            examples have words, and `RepSim` if the model has features.
        candidates: of each of these methods, at each end, per query.
        k: proponents and opponents in the answer.
    """

    method: Attributor = field(default_factory=lambda: Influence(curvature=EKFAC()))
    by: Sequence[Attributor] | None = None
    candidates: int = 100
    k: int = 10

    def __post_init__(self) -> None:
        require_count("candidates", self.candidates)
        require_count("k", self.k)


@dataclass(frozen=True, kw_only=True)
class RetrievalAudit:
    """Which pairs are scored exactly in addition to the candidates, to estimate what was missed.

    Args:
        queries: this many of the queries, drawn at random, are scored on all training examples, to certify the share of
            queries whose k strongest proponents are all found; 59 without a miss certify 95 %.
        rows: this many training examples, drawn at random, are scored for every query, to bound how many others
            may score higher than the k-th proponent.
        confidence: of each of these statements.
        seed: of the draws.
    """

    queries: int = 0
    rows: int = 0
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("queries", self.queries, least=0)
        require_count("rows", self.rows, least=0)
        if not 0 < self.confidence < 1:
            raise ValueError(f"expected a confidence between 0 and 1, got {self.confidence}")

    def require_enough(self, queries: Examples, train: Examples) -> None:
        """Raise ValueError if more is to be audited than there is."""
        for name, wanted, available in (("queries", self.queries, len(queries)), ("rows", self.rows, len(train))):
            if wanted > available:
                more = "; ask more queries (on the command line --queries all), or audit fewer" * (name == "queries")
                raise ValueError(
                    f"expected at most {available} audited {name}, as many as there are, got {wanted}{more}"
                )
