"""The laws of models, on every family."""

from __future__ import annotations

import pytest

from boosters import BOOSTERS, FORESTS
from networks import NETWORKS, RECORDED, TRAINED
from problems import PROBLEMS
from upweight.testing import Family, ModelLaw, Outcome, try_model_law
from upweight.testing.laws_of_models import Modelled


@pytest.fixture(params=[*PROBLEMS, *NETWORKS, *RECORDED, *TRAINED, *BOOSTERS, *FORESTS], ids=repr, scope="module")
def of(request: pytest.FixtureRequest) -> Modelled:
    family: Family = request.param
    excuse = family.not_retrained_as_copies
    return Modelled(family.trained, family.train, family.queries, family.other_models, excuse)


@pytest.mark.parametrize("law", ModelLaw, ids=lambda law: law.name.lower())
def test_model_law(law: ModelLaw, of: Modelled) -> None:
    result = try_model_law(law, of)
    if result.outcome in (Outcome.SILENT, Outcome.WAIVED):
        pytest.skip(f"{result.outcome}: {result.reason}")
    result.require()
