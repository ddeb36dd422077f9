"""The laws of models, on every family."""

from __future__ import annotations

import pytest

from support.closed_form_families import CLOSED_FORMS
from support.learner_families import LEARNERS, PERCEPTRONS
from support.linear_families import JUMPING, PROBLEMS
from support.network_families import NETWORKS, RECORDED, TRAINED
from support.refit_families import BAGS, REFITS
from support.tree_families import BOOSTERS, FORESTS
from upweight.testing import Family, ModelLaw, Outcome, try_model_law
from upweight.testing.model_case import ModelCase

ESTIMATORS = [*PROBLEMS, *JUMPING, *CLOSED_FORMS, *LEARNERS, *PERCEPTRONS]
FAMILIES = [*ESTIMATORS, *NETWORKS, *RECORDED, *TRAINED, *BOOSTERS, *FORESTS, *REFITS, BAGS]


LONG_TRAININGS = TRAINED[1:]  # attention is tried on the net that needs no training
PARAMETERS = [pytest.param(f, id=repr(f), marks=[pytest.mark.slow] if f in LONG_TRAININGS else []) for f in FAMILIES]


@pytest.fixture(params=PARAMETERS, scope="module")
def of(request: pytest.FixtureRequest) -> ModelCase:
    family: Family = request.param
    excuse = family.not_retrained_as_copies
    return ModelCase(family.trained, family.train, family.queries, family.other_models, excuse)


@pytest.mark.parametrize("law", ModelLaw, ids=lambda law: law.name.lower())
def test_model_law(law: ModelLaw, of: ModelCase) -> None:
    result = try_model_law(law, of)
    if result.outcome in (Outcome.SILENT, Outcome.WAIVED):
        pytest.skip(f"{result.outcome}: {result.reason}")
    result.require()
