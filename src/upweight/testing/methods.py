"""check_method: tries the laws of methods on one method and several families of models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upweight.core.attributor import Attributor
from upweight.core.laws import Law
from upweight.testing.case import Case, candidates
from upweight.testing.families import families as small_families
from upweight.testing.family import Family
from upweight.testing.registry import try_law
from upweight.testing.results import Report


def laws_for(
    method: Attributor | type[Attributor], families: Sequence[Family] | None = None
) -> Iterator[tuple[Law, Case]]:
    """Yield (law, case) for every law and every family that the method can be fitted on, e.g. as parameters of a test.

    Args:
        method: a recipe, or a class, which is tried with its default settings and its variants.
        families: the families on which to try it; None for `families()`.
    """
    for case in candidates(method, small_families() if families is None else families):
        if case.lacks is None:
            for law in Law:
                yield law, case


def check_method(
    method: Attributor | type[Attributor],
    families: Sequence[Family] | None = None,
    laws: Sequence[Law] = tuple(Law),
    *,
    strict: bool = True,
) -> Report:
    """Try the laws on a method.

    Args:
        method: a recipe, or a class, which is tried with its default settings and its variants.
        families: the families on which to try it; None for `families()`, the small ones that come with the package.
        laws: the laws to try.
        strict: whether to raise if a law is broken; if False, the report lists it.

    Raises:
        BrokenLawError: an AssertionError that lists the laws that do not hold, with method, family and what was
            measured; also if no family fits the method. Equal failures are listed once.
        TypeError: `method` is not a method, or `families` is not a list of families.
    """
    results, no_pairs = [], []
    for case in candidates(method, small_families() if families is None else families):
        if case.lacks is None:
            results += [try_law(law, case) for law in laws]
        else:
            no_pairs.append((case.name, case.lacks))
    report = Report(results, no_pairs)
    if strict:
        report.require()
    return report
