"""check_model: the laws of models, tried on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from upweight.core.examples import Examples, require_examples
from upweight.core.model import Measurable, can, require
from upweight.testing.laws_of_models import MODEL_RULES, ModelLaw, Modelled
from upweight.testing.results import Outcome, Report, Result, tried


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
    """Try the laws on a model: those of the capabilities that it has.

    Args:
        model: a `Measurable`.
        train: what it was trained on.
        queries: some examples to measure, with labels where the measurement needs them; a dozen will do.
        others: models of the same data that are not this one, e.g. with another measurement or loss: what differs → the
            model. They must neither share its identity nor read its retrainings.
        not_weighted: why its training takes weights otherwise than as copies of examples; empty where it does not.
        laws: which.
        strict: raise where a law is broken; else the report says so.

    Raises:
        BrokenLawError: an AssertionError that lists the laws that do not hold, with what was measured.
        TypeError: an estimator in place of a model, arrays in place of Examples.
    """
    require(model, [Measurable], "check_model", train)
    require_examples(queries, "the queries")
    of = Modelled(model, train, queries, others or {}, not_weighted)
    report = Report([try_model_law(law, of) for law in laws])
    if strict:
        report.require()
    return report


def try_model_law(law: ModelLaw, of: Modelled) -> Result:
    """What comes of a law on a model: silent where the model does not have the capability that it is about."""
    capability, check = MODEL_RULES[law]
    if not can(of.model, capability):
        return Result(str(law), of.name, Outcome.SILENT, f"the model is not {capability.__name__}")
    if law == ModelLaw.WEIGHTS and not of.model.reads_examples:
        return Result(str(law), of.name, Outcome.SILENT, "its training has examples of its own and takes weights alone")
    if law == ModelLaw.WEIGHTS and of.not_weighted:
        return Result(str(law), of.name, Outcome.WAIVED, of.not_weighted)
    return tried(str(law), of.name, lambda: check(of))
