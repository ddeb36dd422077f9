"""Results of laws: held, waived with a reason, silent with a reason, or broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """HELD; WAIVED by the method, which gives the reason; SILENT, if the law does not apply to the case; BROKEN."""

    HELD = "held"
    WAIVED = "waived"
    SILENT = "silent"
    BROKEN = "broken"


class BrokenLawError(AssertionError):
    """A law that does not hold. The message names the law, the case, and what was measured."""


@dataclass(frozen=True)
class Result:
    """The result of one law on one case.

    Attributes:
        law: the sentence that states the law.
        of: the case or model on which it was tried.
        reason: why it was waived or is silent; if it is broken, what was measured.
        error: the exception that was raised, if it is broken.
    """

    law: str
    of: str
    outcome: Outcome
    reason: str = ""
    error: Exception | None = None

    def require(self) -> None:
        """Raise BrokenLawError if the law is broken."""
        if self.outcome == Outcome.BROKEN:
            raise BrokenLawError(f"{self.law}: {self.of}: {self.reason}") from self.error


@dataclass(frozen=True, repr=False)
class Report:
    """Results of many laws, and the (method on family) pairs that could not be tried, each with the reason."""

    results: Sequence[Result]
    no_pairs: Sequence[tuple[str, str]] = ()

    @property
    def broken(self) -> tuple[Result, ...]:
        """The laws that do not hold."""
        return tuple(result for result in self.results if result.outcome == Outcome.BROKEN)

    def require(self) -> None:
        """Raise BrokenLawError, which lists every broken law.

        It is also raised if no law was tried at all, because then nothing was checked.
        """
        broken = self.broken
        if broken:
            lines = "\n".join(f"  {line}" for line in _grouped(broken))
            raise BrokenLawError(f"{len(broken)} of {len(self.results)} laws are broken:\n{lines}") from broken[0].error
        if not any(result.outcome == Outcome.HELD for result in self.results):
            why = "".join(f"\n  {pair}: {reason}" for pair, reason in self.no_pairs)
            raise BrokenLawError(f"no law was tried: no family fits{why}")

    def __repr__(self) -> str:
        counts = Counter(str(result.outcome) for result in self.results)
        return f"Report({', '.join(f'{count} {outcome}' for outcome, count in counts.items())})"

    def __str__(self) -> str:
        lines = [f"{result.outcome:<7} {result.of}: {result.law}" + _because(result.reason) for result in self.results]
        lines += [f"no pair {pair}" + _because(reason) for pair, reason in self.no_pairs]
        return "\n".join(lines)


def try_check(law: str, of: str, check: Callable[[], None]) -> Result:
    """Call a check: the law is held if it returns, and broken if it raises."""
    try:
        check()
    except AssertionError as error:
        return Result(law, of, Outcome.BROKEN, str(error), error)
    except Exception as error:
        return Result(law, of, Outcome.BROKEN, f"{type(error).__name__}: {error}", error)
    return Result(law, of, Outcome.HELD)


def _grouped(broken: Sequence[Result]) -> list[str]:
    """One line for every failure; equal failures, of one law or of several, share a line."""
    equal: dict[str, list[Result]] = {}
    for result in broken:
        equal.setdefault(result.reason, []).append(result)
    return [_line(results) for results in equal.values()]


def _line(results: Sequence[Result]) -> str:
    first, laws = results[0], len({result.law for result in results})
    if len(results) == 1:
        return f"{first.law}: {first.of}: {first.reason}"
    if laws == 1:
        return f"{first.law}: {first.reason} (in {len(results)} pairs: first on {first.of})"
    return f"{first.reason} (in {len(results)} pairs, of {laws} laws: first on {first.of}, by the law: {first.law})"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
