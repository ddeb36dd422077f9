"""A network that says beforehand what a method's work on it will take."""

from __future__ import annotations

import logging
from typing import Any

from upweight.core.checkpoints import Checkpointed
from upweight.core.curvature import Curvature
from upweight.core.curvature_recipes import CurvatureRecipe, Identity
from upweight.core.examples import Examples
from upweight.core.forecast import Forecast
from upweight.core.model import Measurable
from upweight.core.weights import sample_weights
from upweight.gradients.double_precision import doubled_if_possible
from upweight.gradients.network import Network

SMALL_WORK = 10**7  # examples × parameters below which a pilot is not worth its time
SHORT_FLOPS = 1e11  # nor below so many flops: a processor core takes seconds; if more, the loops say it

logger = logging.getLogger("upweight")


class ForecastNetwork(Measurable):
    """Time and memory of the methods by gradients, from a pilot of at most 1 % of the examples."""

    network: Network

    def forecast(
        self, recipe: Any, train: Examples, queries: int | None = None, fitted: Curvature | None = None
    ) -> Forecast | None:
        """What fitting the recipe takes, or attributing this many queries; None if the work is small or not known.

        What answers take depends on the fitted curvature: an iterative solver on its shift, the dual form on its rows.
        """
        if len(train) * self.network.size < SMALL_WORK or hasattr(recipe, "store"):
            return None
        described = recipe.described()
        is_pairwise = any(name in described for name in ("curvature", "layers", "modules"))
        if not is_pairwise or described.get("modules") is not None:
            return None
        if Checkpointed in recipe.needs and hasattr(recipe, "curvature"):  # by steps or exponentials, not by solves
            return None
        curvature = getattr(recipe, "curvature", Identity())
        if not isinstance(curvature, CurvatureRecipe | None):
            return None
        try:
            return self._forecast(recipe, curvature, train, queries, fitted)
        except Exception as error:  # the work itself will raise it
            logger.debug("no forecast: %s", error)
            return None

    def _forecast(
        self,
        recipe: Any,
        curvature: CurvatureRecipe | None,
        train: Examples,
        queries: int | None,
        fitted: Curvature | None,
    ) -> Forecast | None:
        from upweight.curvature.forecast import forecast_answer, forecast_fit, forecast_pairs
        from upweight.curvature.pilot import Pilot
        from upweight.curvature.price import counted_flops
        from upweight.curvature.registry import first_choice
        from upweight.curvature.summed_objective import SummedObjective

        network = doubled_if_possible(self.network, "loss", train) if recipe.normalises_gradients else self.network
        summed = SummedObjective.of(network, train, sample_weights(train), 0.0)
        if Checkpointed not in recipe.needs:
            curvature = first_choice(summed, curvature)
            answered = queries or (len(train) if recipe.solves_train else 0)
            if counted_flops(summed, curvature, answered, has_fit=queries is None) < SHORT_FLOPS:
                return None
        pilot = Pilot(summed, fitted=fitted)
        if queries is None:
            fit = forecast_fit(pilot, curvature)
            return fit + forecast_pairs(pilot, curvature) if recipe.solves_train else fit
        answer = forecast_answer(pilot, curvature, queries)
        if Checkpointed in recipe.needs:
            times = len(self.checkpoints()) if isinstance(self, Checkpointed) else 1
            return Forecast({name: times * seconds for name, seconds in answer.parts.items()}, answer.bytes)
        return answer
