"""The proximal Bregman response: what influence functions of a network approximate, as a truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.progress import Progress, no_progress
from upweight.core.responsive import Response, ResponseTerms, Responsive, UnboundedError
from upweight.evaluate.removals import Removal, as_removals
from upweight.evaluate.truth import Truth, identity_or_none

CONVERGED = 1e-3  # norm of the gradient, relative to that at the start of the search


@with_gradients()
def pbrf(
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal] | Mapping[str, Sequence[Id]],
    *,
    damping: float = 1e-3,
    steps: int = 1000,
    progress: Progress = no_progress,
) -> Truth:
    """The effects of removals on a trained network if nothing but the removal moves it.

    Starting from the trained parameters θ₀, each removal minimises the proximal Bregman objective

        (1/W) Σ wᵢ D(f(xᵢ, θ), f(xᵢ, θ₀)) + (l2 + λ)/2 ‖θ − θ₀‖² − (1/W) Σ_removed wᵢ ℓᵢ(θ)

    with the Bregman divergence D of the loss (Bae et al. 2022, eq. 11). Its minimum without a removal is the trained
    net itself, whether or not the training had converged. It costs no training, has no seed, and is what
    `Influence(curvature=GaussNewton(), damping=λ)` approximates to first order.

    Args:
        model: a `TorchModel` whose loss is a function of the net's output.
        train: its training set.
        queries: what to measure.
        removals: the examples to leave out, from `subsets` or `singles`, or groups of your own as name → ids.
        damping: λ, on the scale of the mean loss, as in `Influence(damping=λ)`.
        steps: of L-BFGS, at most. A removal for which they are too few is named in the truth's `warnings`.
        progress: called with ("respond", removals done, all removals).

    Returns:
        A `Truth` with one seed, 0. It is the response, not retraining: `facts["response"]` says so.

    Raises:
        TypeError: a model that is not a network, or whose loss is not a function of one output tensor.
        ValueError: no removals, two of the same name, a damping that is not positive, or one that is too small for
            every removal: the loss that is removed then outgrows λ/2 ‖θ − θ₀‖². Single removals of this kind are left
            out, and `facts["refused"]` says so.
    """
    require(model, [Responsive], "pbrf", train, queries)
    responses = Responses(model, train, queries, steps, progress)
    truth = responses.truth(as_removals(removals), responses.terms(bregman=True, proximity=damping))
    noted = {"warnings": [*model.notes, *truth.facts["reproduction"]["warnings"]]}
    facts = {**truth.facts, "response": "proximal Bregman", "damping": damping, "reproduction": noted}
    return Truth(truth.base, truth.after, truth.removals, (0,), truth.query_ids, truth.train_ids, facts)


class Responses:
    """Minimises objectives of one model near its trained parameters, and measures the queries there."""

    def __init__(
        self, model: Responsive, train: Examples, queries: Examples, steps: int, progress: Progress = no_progress
    ) -> None:
        self.model, self.train, self.queries = model, train, queries
        self.steps, self.progress = steps, progress
        self.objective = model.response_objective(train)

    @staticmethod
    def terms(*, bregman: bool, proximity: float) -> ResponseTerms:
        """Terms of the objective. Raises ValueError for a proximity that is negative, or 0 with divergences."""
        if not (proximity > 0 or (proximity == 0 and not bregman)):
            raise ValueError(f"expected a damping above 0, got {proximity}")
        return ResponseTerms(bregman, proximity)

    def truth(self, removals: Sequence[Removal], terms: ResponseTerms) -> Truth:
        """The measurements of the minimum with nothing removed, and without each removal."""
        names = [removal.name for removal in removals]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
        positions = [self.train.positions(removal.ids) for removal in removals]
        whole, start = self.model.measure(self.queries), None
        after, unfinished, refused = np.empty((1, len(self.queries), len(removals))), [], {}
        if not terms.bregman:  # the trained net is not a minimum of this objective: removals start from its minimum
            response = self.objective.minimise(np.empty(0, dtype=np.intp), terms, self.steps)
            whole, start = self._measured(response), response.shift
            if not response.gradient <= CONVERGED:
                unfinished.append("nothing removed")
        for column, removed in enumerate(positions):
            self.progress("respond", column, len(removals))
            try:
                response = self.objective.minimise(removed, terms, self.steps, start)
            except UnboundedError:
                refused[names[column]] = (
                    f"its response has no minimum near the trained net at damping {terms.proximity:g}"
                )
                continue
            after[0, :, column] = self._measured(response)
            if not response.gradient <= CONVERGED:
                unfinished.append(names[column])
        self.progress("respond", len(removals), len(removals))
        warnings = []
        if unfinished:
            searches = len(removals) + (start is not None)
            warnings = [
                f"{len(unfinished)} of {searches} responses were not followed to their end in {self.steps} steps "
                f"(the first is {unfinished[0]!r}); pass more steps, or a larger damping"
            ]
        facts = {
            "identity": identity_or_none(self.model, self.train, self.queries),
            "measurement": self.model.measurement,
            "refused": refused,
            "seed_noise": 0.0,
            "reproduction": {"warnings": warnings},
        }
        truth = Truth(whole[None], after, tuple(removals), (0,), self.queries.ids, self.train.ids, facts)
        if len(refused) == len(removals):
            raise ValueError(
                f"none of the {len(removals)} removals has a response near the trained net at damping "
                f"{terms.proximity:g}: the loss that is removed outgrows it; pass a larger damping"
            )
        return truth.take([column for column, name in enumerate(names) if name not in refused]) if refused else truth

    def _measured(self, response: Response) -> NDArray[np.float64]:
        """The measurement of every query at this minimum."""
        return self.model.measure_shifted(self.queries, response.shift[None])[:, 0]
