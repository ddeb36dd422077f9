"""Data-OOB: values of training examples from the members of a bagging ensemble, without any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.answers import AnswerFacts, Blocks
from upweight.core.attributor import Attributor, Fitted, Promises
from upweight.core.examples import Examples
from upweight.core.laws import Law
from upweight.core.refittable import Bagged
from upweight.core.scores import Unit
from upweight.core.weights import sample_weights, weighted_positions
from upweight.methods.parts.random_refits import one_by_one
from upweight.methods.parts.refit_intervals import t_quantile

Array = NDArray[np.float64]
MIN_MEMBERS = 8  # fewer give no intervals
MIN_DIFFERENT = 8  # members that differ from most others, below which their variance is hardly known
PSEUDO_MEMBERS = 4  # Agresti & Coull (1998): two with the lowest measurement and two with the highest


@dataclass(frozen=True, kw_only=True)
class DataOOB(Attributor):
    """Members with an example in their bag are compared with those without it, with 90 % intervals. RANK.

    score[q, i] = mean of m_q over members whose bag holds i − mean of m_q over the others. A member's measurement is
    that of its own predictions. The self-influence is Data-OOB (Kwon & Zou 2023): the mean measurement of example i by
    members that were trained without it; low = hard to predict from the others, perhaps mislabeled. No training is
    needed. For a forest pass `uw.refittable(forest, train)`.
    """

    summary = "Values of training examples from the members of a bagging ensemble, without any training"
    paper = "Kwon & Zou (2023), 2304.07718"
    cost = "the predictions of all members"
    unit = Unit.RANK
    needs = (Bagged,)

    @property
    def promises(self) -> Promises:
        """No floor against leave-one-out: members are trained on bags, not on the whole set."""
        waives = {
            Law.WEIGHTS: "a bag of weighted examples is another draw",
            Law.SELF: "Data-OOB judges an example by the members that were trained without it",
        }
        return Promises(no_floor="the effect on a member is not the effect on the ensemble", waives=waives)

    def fit(self, model: Any, train: Examples) -> FittedDataOOB:
        """Read which members drew which examples. Raises ValueError for fewer than eight members."""
        bags = model.bags(train)
        if len(bags) < MIN_MEMBERS:
            raise ValueError(f"expected an ensemble of at least {MIN_MEMBERS} members, got {len(bags)}")
        return FittedDataOOB(self, model, train, bags)


class FittedDataOOB(Fitted[DataOOB, Any]):
    """The bags of all members, ready to be compared with what the members predict."""

    def __init__(self, recipe: DataOOB, model: Any, train: Examples, bags: Array) -> None:
        super().__init__(recipe, model, train, Unit.RANK)
        self.is_drawn = bags > 0
        drawn_by_some = self.is_drawn.any(axis=0) & ~self.is_drawn.all(axis=0)
        positions = np.flatnonzero(drawn_by_some & (sample_weights(train) > 0))
        self._positions = positions
        self._measured = model.measure_members(train)
        self._range = float(np.ptp(self._measured))
        self._undefined = np.setdiff1d(weighted_positions(train), positions)
        self._self_half_widths: Array | None = None

    def blocks(self, queries: Examples) -> Blocks:
        """One block of all training examples, with intervals; NaN for an example that all members drew, or none."""
        measured, drawn = self.model.measure_members(queries), self.is_drawn[:, self._positions].astype(np.float64)
        values, half_widths = np.zeros((2, len(queries), len(self.train)))
        slopes, errors, degrees = one_by_one(drawn, measured)
        counts = np.stack([drawn.sum(axis=0), len(drawn) - drawn.sum(axis=0)])
        variances = errors**2 + self._unseen_variance(measured)[:, None] * (1.0 / counts).sum(axis=0)
        values[:, self._positions], half_widths[:, self._positions] = slopes, t_quantile(degrees) * np.sqrt(variances)
        values[:, self._undefined] = half_widths[:, self._undefined] = np.nan
        yield slice(0, len(self.train)), values
        return AnswerFacts(half_widths=half_widths)

    def self_values(self) -> Array:
        """Data-OOB: the mean measurement of each example by the members that did not draw it."""
        measured = np.where(self.is_drawn, np.nan, self._measured)
        counts = (~self.is_drawn).sum(axis=0)
        values, half_widths = np.zeros(len(self.train)), np.full(len(self.train), np.nan)
        counted = np.setdiff1d(weighted_positions(self.train), self._undefined)
        values[counted] = np.nanmean(measured[:, counted], axis=0)
        several = counted[counts[counted] > 1]
        variances = np.nanvar(measured[:, several], axis=0, ddof=1) + self._unseen_variance(measured[:, several])
        half_widths[several] = t_quantile(counts[several] - 1.0) * np.sqrt(variances / counts[several])
        values[self._undefined] = np.nan
        self._self_half_widths = half_widths[None]
        return values

    def _unseen_variance(self, measured: Array) -> Array:
        """The term added to the variance of a query whose measurements almost all members (members, m) agree on, (m,).

        That of four more members, two at each end of all measurements of the training set. Without it, an interval
        would have no width if, by luck, no member made a mistake.
        """
        sizes = np.sum(~np.isnan(measured), axis=0)
        values = [np.unique(column[~np.isnan(column)], return_counts=True)[1].max() for column in measured.T]
        is_rare = sizes - np.array(values) < MIN_DIFFERENT
        return np.where(is_rare, self._range**2 / (sizes + PSEUDO_MEMBERS), 0.0)

    def self_facts(self) -> AnswerFacts:
        """Intervals of the self-influence that was computed last."""
        return AnswerFacts(half_widths=self._self_half_widths)

    @property
    def diagnostics(self) -> Mapping[str, Any]:
        """The number of members, and the examples that all of them drew, or none."""
        sentences = [f"Scores come from the {len(self.is_drawn):,} members of the ensemble; nothing was trained."]
        if not len(self._undefined):
            return {"trainings": 0, "warnings": [*self.model.notes, *sentences]}
        sentences.append(
            f"{len(self._undefined):,} examples have no score (NaN), since all members drew them, or none did; more "
            "members help."
        )
        undefined = self.train.ids[self._undefined].tolist()
        return {"trainings": 0, "undefined": undefined, "warnings": [*self.model.notes, *sentences]}
