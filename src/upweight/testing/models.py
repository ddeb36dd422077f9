"""check_model: tries the laws of models on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from upweight.core.capability_checks import can, require
from upweight.core.examples import Examples, require_examples
from upweight.core.model import Measurable
from upweight.testing.laws_of_models import MODEL_LAW_CHECKS, ModelLaw
from upweight.testing.model_case import ModelCase
from upweight.testing.results import Outcome, Report, Result, try_check


def check_model(
    model: Any,
    train: Examples,
    queries: Examples,
    *,
    others: Mapping[str, Any] | None = None,
    not_weighted: str = "",
    laws: Sequence[ModelLaw] = tuple(ModelLaw),
    strict: bool = True,
) -> Report:
    """Try the laws on a model: those about the capabilities that it has.

    Args:
        model: a `Measurable`.
        train: the examples on which it was trained.
        queries: examples to measure, with labels if the measurement needs them; a dozen is enough.
        others: models of the same data that differ from this one, e.g. in the measurement or loss: what differs → the
            model. They must neither share its identity nor read its retrainings.
        not_weighted: why its training does not treat a weight k as k copies of an example; empty if it does.
        laws: the laws to try.
        strict: whether to raise if a law is broken; if False, the report lists it.

    Raises:
        BrokenLawError: an AssertionError that lists the laws that do not hold, with what was measured.
        TypeError: `model` is an estimator instead of a model, or the data are arrays instead of Examples.
    """
    require(model, [Measurable], "check_model", train)
    require_examples(queries, "the queries")
    case = ModelCase(model, train, queries, others or {}, not_weighted)
    report = Report([try_model_law(law, case) for law in laws])
    if strict:
        report.require()
    return report


def try_model_law(law: ModelLaw, case: ModelCase) -> Result:
    """Try one law on one model; it is silent if the model lacks the capability that the law is about."""
    capability, check = MODEL_LAW_CHECKS[law]
    if not can(case.model, capability):
        return Result(str(law), case.name, Outcome.SILENT, f"the model is not {capability.__name__}")
    if law == ModelLaw.WEIGHTS and not case.model.reads_examples:
        return Result(str(law), case.name, Outcome.SILENT, "its training reads its own examples and takes only weights")
    if law == ModelLaw.WEIGHTS and case.not_weighted:
        return Result(str(law), case.name, Outcome.WAIVED, case.not_weighted)
    return try_check(str(law), case.name, lambda: check(case))
