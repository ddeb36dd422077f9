"""The verdict on scores that were compared with retraining: whether to believe their sizes, their order, or neither."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from upweight.core.blocks import blocks
from upweight.core.scores import Unit
from upweight.evaluate.agreement import Agreement, agreement, correlation, formatted

Array = NDArray[np.float64]
Band = tuple[float, float]
NO_BAND: Band = (float("nan"), float("nan"))
NOT_CHECKED = "not checked"
NOT_COMPARABLE = "too few retrainings, or no effects, to compare"
MIN_CORRELATION = 0.5
MIN_LOW_END = 0.25  # of the band of a correlation under which sizes count
MIN_R2 = 0.25  # that of calibrated predictions with the lowest correlation
SLOPES = (0.5, 2.0)  # sizes within a factor of two
MIN_PAIRS = 4  # for a correlation; fewer pairs are compared by their sizes alone
MIN_EXPLAINED = 0.75  # share of the sum of squared effects that the predictions of fewer pairs must explain
MAX_FEW_REMOVALS = 2  # of which leaving out one leaves nothing to compare with
MAX_FEW_QUERIES, MIN_REMOVALS = 2, 8  # with so few queries, a bootstrap of a correlation needs this many removals
LEVEL_Z = 1.96  # 95 %
BOOTSTRAP_SAMPLES = 1000
SAMPLE_BLOCK = 100  # bootstrap samples that are held in memory at once
ROUNDING = 1e-12  # share of a measurement below which an effect is rounding


class Verdict(StrEnum):
    """The verdict of retraining on scores. The value of a member is the text that people read.

    AGREES: order and sizes are right. ORDER_ONLY: the order is right; the sizes are not, or the scores are RANK and
    promise none. FAILS: the scores predict neither.
    """

    AGREES = "agrees"
    ORDER_ONLY = "order only"
    FAILS = "does not predict retraining here: do not act on single examples"


@dataclass(frozen=True)
class Judgement:
    """A verdict with the numbers behind it.

    Attributes:
        verdict: None if the effects can not be compared: too few pairs, or no effect on either side.
        agreement: slope, correlations and R² over all pairs.
        pearson, spearman, slope: their bands (low, high) at 95 %; NaN if there is none.
        removals: how many removals were compared.
    """

    verdict: Verdict | None
    agreement: Agreement
    pearson: Band
    spearman: Band
    slope: Band
    removals: int

    def __str__(self) -> str:
        return words(self.verdict)

    def numbers(self, counted: str = "removal") -> str:
        """The numbers in words, such as "Pearson 0.26, at least −0.10, over 8 removals"."""
        over = f"over {self.removals} {counted}{'' if self.removals == 1 else 's'}"
        if not math.isfinite(self.agreement.pearson):
            return f"no correlation, because one side is constant, {over}"
        low = f", at least {formatted(self.pearson[0], 2)}" if math.isfinite(self.pearson[0]) else ""
        return f"Pearson {formatted(self.agreement.pearson, 2)}{low}, {over}"

    def unit_after(self, unit: Unit) -> Unit:
        """The unit in view of the verdict: EFFECT becomes RANK if retraining does not confirm the sizes."""
        return unit if self.verdict in (None, Verdict.AGREES) else Unit.RANK

    def warnings(self, unit: Unit, judged: str, counted: str = "removal", of: str = "", clause: str = "") -> list[str]:
        """A sentence that says why these do not agree with retraining; none if they do, or were not compared.

        Args:
            unit: that of the effects before the verdict.
            judged: what was compared, in the plural ("scores").
            counted: what a retraining was done with or without ("removal").
            of: what was removed, in the plural ("single examples"); empty if `counted` says it.
            clause: a clause for the end of the sentence.
        """
        numbers = self.numbers(counted) + (f" of {of}" if of else "")
        if self.verdict is Verdict.FAILS:
            acted = "examples" if judged == "scores" else judged
            return [f"These {judged} do not predict retraining here ({numbers}): do not act on single {acted}{clause}."]
        if self.verdict is Verdict.ORDER_ONLY and unit == Unit.EFFECT:
            return [
                f"Retraining confirms only the order of these {judged}, not their sizes ({numbers}{self._slope_words}, "
                f"R² {self.agreement.r2:.2f}): their unit is RANK{clause}.{self._advice}"
            ]
        return []

    @property
    def _slope_words(self) -> str:
        """The slope and its band; empty if it is withheld."""
        if not math.isfinite(self.agreement.slope):
            return ""
        low, high = (formatted(end, 2) for end in self.slope)
        band = f" ({low} to {high})" if math.isfinite(self.slope[0]) else ""
        return f", slope {formatted(self.agreement.slope, 2)}{band}"

    @property
    def _advice(self) -> str:
        """A sentence if the sizes may be right, and these removals are too few to tell."""
        is_open = self.agreement.r2 >= MIN_R2 and SLOPES[0] <= self.agreement.slope <= SLOPES[1]
        return " These are too few removals to confirm the sizes; retrain with more of them." if is_open else ""

    def warnings_of_sums(self, clause: str = "") -> list[str]:
        """A sentence if this verdict on groups says that sums of scores predict nothing, whatever single scores do.

        A few removals of groups are too few to say so.
        """
        if self.verdict is not Verdict.FAILS or self.removals < MIN_REMOVALS:
            return []
        failed = "Sums of these scores do not predict retraining without groups"
        return [f"{failed} ({self.numbers()} of groups): do not add them up{clause}."]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        verdict = None if self.verdict is None else str(self.verdict)
        return {"verdict": verdict, "agreement": {**self.agreement.as_dict(), "removals": self.removals}}


def result_words(judgement: Judgement | None) -> str:
    """The verdict on a result whose effects may have been retrained, as text."""
    return NOT_CHECKED if judgement is None else str(judgement)


def words(verdict: Verdict | None) -> str:
    """The verdict on effects that were compared with retraining, as text."""
    return NOT_COMPARABLE if verdict is None else str(verdict)


def judge(predicted: Array, actual: Array, unit: Unit, scale: float = 0.0, seed: int = 0) -> Judgement:
    """The verdict on predicted and actual effects, both (queries, removals).

    - AGREES: Pearson is at least .5 and its band lies above .25; R² is at least .25, which calibrated predictions of
      that correlation reach; and the band of the slope lies within .5 to 2. So few removals do not say more than many.
    - ORDER_ONLY: Pearson or Spearman is at least .5, and its band lies above 0. RANK scores can get no more than this.
    - FAILS otherwise.

    The lower end of a correlation's band is the lowest of three: that of a bootstrap over removals; that of Fisher's
    transformation over pairs, which counts when there are few of them; and the correlation without the pair or the
    removal that adds most to it. The band of the slope is the wider one of two: that of a bootstrap, and that of the
    standard error over pairs. One to three pairs have no correlation worth the name; scores agree if they explain three
    quarters of the squared effects, and fail if 0 predicts better.

    Args:
        predicted, actual: the effects. A removal whose prediction is NaN is left out.
        unit: that of the scores.
        scale: size of the measurements; effects below 1e-12 of it are rounding.
        seed: of the bootstrap.
    """
    is_predicted = np.isfinite(predicted).all(axis=0)
    sides = (predicted[:, is_predicted], actual[:, is_predicted])
    predicted, actual = (np.where(np.abs(side) <= ROUNDING * scale, 0.0, side) for side in sides)
    agreed, (pearson, spearman, slope) = agreement(predicted, actual), bands(predicted, actual, seed)
    verdict = _verdict(predicted, actual, unit, agreed, (pearson, spearman, slope))
    if unit != Unit.EFFECT:
        agreed, slope = agreed.without_sizes(), NO_BAND
    return Judgement(verdict, agreed, pearson, spearman, slope, predicted.shape[1])


def _verdict(
    predicted: Array, actual: Array, unit: Unit, agreed: Agreement, bounds: tuple[Band, Band, Band]
) -> Verdict | None:
    pearson, spearman, slope = bounds
    if agreed.count < MIN_PAIRS:
        return _verdict_of_few_pairs(predicted, actual, unit)
    if not (np.ptp(predicted) > 0 or np.ptp(actual) > 0):
        return None
    is_linear = agreed.pearson >= MIN_CORRELATION and pearson[0] > 0
    is_monotone = agreed.spearman >= MIN_CORRELATION and spearman[0] > 0
    has_sizes = agreed.r2 >= MIN_R2 and slope[0] >= SLOPES[0] and slope[1] <= SLOPES[1]
    if is_linear and pearson[0] >= MIN_LOW_END and has_sizes and unit == Unit.EFFECT:
        return Verdict.AGREES
    return Verdict.ORDER_ONLY if is_linear or is_monotone else Verdict.FAILS


def _verdict_of_few_pairs(predicted: Array, actual: Array, unit: Unit) -> Verdict | None:
    total = float((actual**2).sum())
    if predicted.size < 2 or unit != Unit.EFFECT or total == 0:
        return None
    explained = 1.0 - float(((actual - predicted) ** 2).sum()) / total
    return Verdict.AGREES if explained >= MIN_EXPLAINED else Verdict.FAILS if explained <= 0 else None


def bands(predicted: Array, actual: Array, seed: int = 0) -> tuple[Band, Band, Band]:
    """Bands of Pearson, Spearman and the slope at 95 %; see `judge`."""
    shape, pairs = predicted.shape, predicted.size
    if pairs < MIN_PAIRS:
        return NO_BAND, NO_BAND, NO_BAND
    ranks = [rankdata(side).reshape(shape) for side in (predicted, actual)]
    of_values, of_ranks = _sums(predicted, actual), _sums(*ranks)
    pearson, spearman, slopes = (np.empty(BOOTSTRAP_SAMPLES) for _ in range(3))
    drawn = np.random.default_rng(seed).integers(shape[1], size=(BOOTSTRAP_SAMPLES, shape[1]))
    for block in blocks(BOOTSTRAP_SAMPLES, SAMPLE_BLOCK):
        value_totals, rank_totals = (sums[:, drawn[block]].sum(axis=2) for sums in (of_values, of_ranks))
        pearson[block], spearman[block] = _correlation(value_totals, pairs), _correlation(rank_totals, pairs)
        slopes[block] = _ratio(value_totals[4], value_totals[2], value_totals[2] > 0)
    resampled = shape[0] > MAX_FEW_QUERIES or shape[1] >= MIN_REMOVALS
    sides = ((predicted, actual), of_values, pearson), (ranks, of_ranks, spearman)
    correlations = [
        _widest(
            _fisher(_correlation(sums.sum(axis=1, keepdims=True), pairs)[0], pairs),
            _band(samples, resampled),
            _without_largest(*both),
        )
        for both, sums, samples in sides
    ]
    of_slope = _widest(_slope_over_pairs(of_values.sum(axis=1), pairs), _band(slopes, resampled))
    return correlations[0], correlations[1], of_slope


def _sums(p: Array, a: Array) -> Array:
    """The sums over queries from which correlation and slope are computed, (5, removals)."""
    return np.stack([values.sum(axis=0) for values in (p, a, p * p, a * a, p * a)])


def _without_largest(p: Array, a: Array) -> Band:
    """The lowest correlation without the pair, or the removal, that adds most to it, as a band without an upper end.

    Where all other effects are about 0, one pair makes a correlation by itself. It is 0 if one side of the rest is
    constant, and NaN if both are.
    """
    products = (p - p.mean()) * (a - a.mean())
    rests = [[np.delete(side.ravel(), products.argmax()) for side in (p, a)]]
    if p.shape[1] > MAX_FEW_REMOVALS:
        rests.append([np.delete(side, products.sum(axis=0).argmax(), axis=1).ravel() for side in (p, a)])
    lowest = float("nan")
    for rest in rests:
        if any(np.ptp(side) > 0 for side in rest):
            lowest = float(np.fmin(lowest, np.nan_to_num(correlation(*rest))))
    return lowest, float("nan")


def _correlation(totals: Array, count: int) -> Array:
    """Pearson's r from totals (5, samples); NaN if one side is constant up to rounding."""
    p, a, p_squared, a_squared, product = totals
    p_power, a_power = p_squared - p * p / count, a_squared - a * a / count
    varies = (p_power > ROUNDING * p_squared) & (a_power > ROUNDING * a_squared)
    return _ratio(product - p * a / count, np.sqrt(np.abs(p_power * a_power)), varies)


def _ratio(above: Array, below: Array, where: NDArray[np.bool_]) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(len(below), np.nan), where=where))


def _fisher(r: float, pairs: int) -> Band:
    """The band of a correlation over independent pairs (Fisher 1921)."""
    if not math.isfinite(r):
        return NO_BAND
    middle, width = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15)), LEVEL_Z / math.sqrt(max(pairs - 3, 0.25))
    return math.tanh(middle - width), math.tanh(middle + width)


def _slope_over_pairs(totals: Array, pairs: int) -> Band:
    """The band of the slope over independent pairs, from their totals (5,)."""
    _, _, p_squared, a_squared, product = totals
    if not p_squared > 0:
        return NO_BAND
    slope = product / p_squared
    error = math.sqrt(max(a_squared - slope * product, 0.0) / (p_squared * (pairs - 1)))
    return slope - LEVEL_Z * error, slope + LEVEL_Z * error


def _band(samples: Array, resampled: bool) -> Band:
    """Quantiles of bootstrap samples; NaN if most of them have no value."""
    samples = samples[np.isfinite(samples)]
    if not resampled or len(samples) < BOOTSTRAP_SAMPLES / 2:
        return NO_BAND
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _widest(*bands: Band) -> Band:
    """The lowest and the highest of the ends that are known."""
    lows, highs = zip(*bands, strict=True)
    return float(np.fmin.reduce(lows)), float(np.fmax.reduce(highs))
