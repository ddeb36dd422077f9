"""The laws that every method and every model keeps, for the methods and models of other packages too.

>>> from upweight import GradDot
>>> from upweight.testing import check_method, families
>>> check_method(GradDot(), families()[:1])
Report(17 held, 1 silent)
"""

from __future__ import annotations

from upweight.core.laws import Law
from upweight.testing.case import Case, candidates
from upweight.testing.estimator_family import EstimatorFamily
from upweight.testing.families import families
from upweight.testing.family import Family
from upweight.testing.laws_of_models import ModelLaw
from upweight.testing.methods import check_method, laws_for
from upweight.testing.models import check_model, try_model_law
from upweight.testing.registry import standing, try_law
from upweight.testing.results import BrokenLawError, Outcome, Report, Result

__all__ = [
    "BrokenLawError",
    "Case",
    "EstimatorFamily",
    "Family",
    "Law",
    "ModelLaw",
    "Outcome",
    "Report",
    "Result",
    "candidates",
    "check_method",
    "check_model",
    "families",
    "laws_for",
    "standing",
    "try_law",
    "try_model_law",
]
