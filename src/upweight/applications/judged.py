"""Judged: an answer whose effects may have been compared with retraining."""

from __future__ import annotations

from typing import Any

from upweight.evaluate.verdict import Judgement, Verdict


class Judged:
    """An answer whose effects may have been compared with retraining.

    Attributes:
        judgement: how the effects agree with retraining; None if nothing was retrained.
    """

    judgement: Judgement | None

    @property
    def verdict(self) -> Verdict | None:
        """Whether the effects agree with retraining; None if nothing could be compared."""
        return None if self.judgement is None else self.judgement.verdict

    def judgement_as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"verdict": None} if self.judgement is None else self.judgement.as_dict()
