"""The best curvature within a budget of counted flops: which are tried, in which order, and why."""

from __future__ import annotations

from upweight.core.curvature_recipes import (
    EKFAC,
    KFAC,
    CurvatureRecipe,
    Diagonal,
    EmpiricalFisher,
    GaussNewton,
    WithinBudget,
)
from upweight.curvature.linear_head import is_linear_head
from upweight.curvature.price import Prices
from upweight.curvature.summed_objective import SummedObjective
from upweight.gradients.outputs import NoOutputsError

CANDIDATES: tuple[CurvatureRecipe, ...] = (GaussNewton(), EKFAC(), KFAC(), EmpiricalFisher(), Diagonal())
SMALL_FLOPS = 5e11  # always within the budget: a processor core takes a few seconds for them
Candidate = tuple[CurvatureRecipe, str]


def candidates_within(summed: SummedObjective, budget: WithinBudget) -> list[Candidate]:
    """(recipe, why) of every curvature that the budget allows, the best one first; `Diagonal()` if none is allowed.

    The order is that of the LDS in benchmarks/RESULTS.md. On nets of more than `limits.dense_parameters` that are not
    linear, the Gauss–Newton matrix is not more accurate than EK-FAC for its higher price, and is left out.
    """
    try:
        if is_linear_head(summed):
            return _exact_first("The net is linear in its parameters, so its objective is convex")
        prices = Prices.of(summed)
    except NoOutputsError:
        return _exact_first("")
    allowed = max(budget.passes * prices.one_pass, SMALL_FLOPS)
    affordable: list[Candidate] = []
    too_costly: list[str] = []
    for recipe in CANDIDATES:
        name = type(recipe).__name__
        if isinstance(recipe, GaussNewton) and summed.network.size > summed.limits.dense_parameters:
            continue
        passes = prices.flops(recipe) / prices.one_pass
        if prices.flops(recipe) <= allowed and prices.is_possible(recipe):
            excluded = f"; {' and '.join(too_costly)}" if too_costly else ""
            affordable.append((recipe, f"{name}() takes about {passes:,.0f} forward-backward passes{excluded}"))
        else:
            too_costly.append(f"{name}() would take about {passes:,.0f}")
    return affordable or [(Diagonal(), f"Every curvature exceeds {budget.passes:g} forward-backward passes")]


def _exact_first(why: str) -> list[Candidate]:
    return [(recipe, why) for recipe in CANDIDATES if not isinstance(recipe, KFAC)]
