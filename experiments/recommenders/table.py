"""Table 2 of Tran et al. (2021): how often counterfactual sets hold after retraining, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from experiments.recommenders.counterfactuals import SIZES, Recommender
from experiments.recommenders.outcomes import Outcome, Outcomes, outcomes_of
from experiments.results import Result, Row
from numpy.typing import NDArray
from scipy.stats import binomtest

USERS, DRAWS = 40, 2000
SECTION = "Recommenders: Tran et al. (2021), Cheng et al. (2019)"
LIMIT = 5.0  # seconds for one explanation


def result(recommender: Recommender, seeds: int, **facts: Any) -> Result:
    """The table, over the same users for every seed; `facts` are the texts of the result."""
    users = np.sort(np.random.default_rng(0).choice(recommender.users(), USERS, replace=False))
    outcomes = Outcomes()
    for seed in range(seeds):
        outcomes += outcomes_of(recommender, users, seed)
        print(f"seed {seed}: {len(outcomes.sets)} outcomes", flush=True)
    return table(recommender, outcomes, **facts)


def table(recommender: Recommender, outcomes: Outcomes, notes: Sequence[str], **facts: Any) -> Result:
    """The rows of all methods, those of the claims first; McNemar's tests after the notes."""
    methods = recommender.methods
    rows = [row for rival in recommender.rivals for row in _claims(outcomes, rival)]
    rows.append(_time(outcomes))
    rows += [_row(method, k, outcomes.of(method, k)) for k in SIZES for method in methods]
    random, accent = outcomes.of("random", 10), outcomes.of("ACCENT", 10)
    shares = f"{_share([o.displaced for o in accent], accent)} / {_share([o.displaced for o in random], random)}"
    rows.append(
        Row("k = 10: another of the k items comes first after retraining, ACCENT / as many random ratings", "–", shares)
    )
    predicted, actual = np.array(outcomes.changes).T
    fit = f"{np.corrcoef(predicted, actual)[0, 1]:.2f}, {float(predicted @ actual / (predicted @ predicted)):.2f}"
    rows.append(Row("change of the gap, predicted against retrained: Pearson, slope through 0", "–", fit))
    tests = [_compare(outcomes, other, k) for k in SIZES for other in methods[1:]]
    return Result(rows=rows, section=SECTION, notes=[*notes, *tests], **facts)


def _claims(outcomes: Outcomes, rival: str) -> list[Row]:
    """ACCENT's sets are no larger than those of the rival, and hold at least as often."""
    differences = [np.mean([a - b for a, b, _ in _sizes(outcomes, rival, k)] or [0.0]) for k in SIZES]
    means = {
        name: ", ".join(f"{np.mean([o.size for o in outcomes.of(name, k) if o.size]):.1f}" for k in SIZES)
        for name in ("ACCENT", rival)
    }
    alone = [_alone(outcomes, rival, k) for k in SIZES]
    return [
        Row(
            f"ACCENT's sets are no larger than those of {rival}, for every k",
            "yes",
            "; ".join(f"{name} {sizes}" for name, sizes in means.items()),
            bool(max(differences) <= 0),
        ),
        Row(
            f"cases in which ACCENT's set alone holds / that of {rival} alone, k = 5, 10, 20",
            "more",
            f"{', '.join(f'{first} / {second}' for first, second in alone)} of {len(outcomes.of(rival, 5))} cases",
            all(first >= second for first, second in alone),
        ),
    ]


def _time(outcomes: Outcomes) -> Row:
    wall, processor = np.array(outcomes.seconds).T
    what = "a recommendation explained: processor seconds, median (largest); wall seconds, beside other work"
    ours = f"{np.median(processor):.2f} ({processor.max():.2f}); {np.median(wall):.2f} ({wall.max():.2f})"
    return Row(what, f"< {LIMIT:g} s", ours, bool(processor.max() < LIMIT))


def _row(method: str, k: int, column: list[Outcome]) -> Row:
    sized = [o for o in column if o.size]
    missing = "" if len(sized) == len(column) else f"; none for {len(column) - len(sized)} of {len(column)}"
    mean, low, high = _interval([float(o.size or 0) for o in sized], sized)
    text = f"{_share([o.holds for o in column], column)}; {mean:.1f} ({low:.1f} to {high:.1f}){missing}"
    return Row(f"k = {k}, {method}: sets that hold after retraining; ratings in a set", "–", text)


def _compare(outcomes: Outcomes, other: str, k: int) -> str:
    """McNemar's exact test of the outcomes, and the differences of shares and of sizes with their intervals."""
    accent = outcomes.of("ACCENT", k)
    only, not_only = _alone(outcomes, other, k)
    p = binomtest(only, only + not_only).pvalue if only + not_only else 1.0
    pairs = zip(accent, outcomes.of(other, k), strict=True)
    share = [100 * x for x in _interval([float(a.holds) - float(b.holds) for a, b in pairs], accent)]
    text = (
        f"k = {k}: of {len(accent)} cases ACCENT's set alone holds in {only}, that of {other} alone in {not_only} "
        f"(McNemar's exact test p = {p:.2g}; difference {share[0]:.0f} points, {share[1]:.0f} to {share[2]:.0f})"
    ).replace("-", "−")
    both = _sizes(outcomes, other, k)
    if not both:
        return f"{text}; in no case both have a set."
    smaller, low, high = _interval([float(b - a) for a, b, _ in both], [o for *_, o in both])
    signed = f"{smaller:.1f} ratings ({low:.1f} to {high:.1f})".replace("-", "−")
    return f"{text}; where both have a set, ACCENT's is smaller by {signed}."


def _alone(outcomes: Outcomes, other: str, k: int) -> tuple[int, int]:
    """Cases in which only ACCENT's set holds, and in which only the other does."""
    pairs = list(zip(outcomes.of("ACCENT", k), outcomes.of(other, k), strict=True))
    return sum(a.holds > b.holds for a, b in pairs), sum(a.holds < b.holds for a, b in pairs)


def _sizes(outcomes: Outcomes, other: str, k: int) -> list[tuple[int, int, Outcome]]:
    """(size by ACCENT, by the other, ACCENT's outcome) of the cases in which both have a set."""
    pairs = zip(outcomes.of("ACCENT", k), outcomes.of(other, k), strict=True)
    return [(a.size, b.size, a) for a, b in pairs if a.size and b.size]


def _share(values: Sequence[bool], column: Sequence[Outcome]) -> str:
    mean, low, high = _interval([float(value) for value in values], column)
    return f"{100 * mean:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _interval(values: Sequence[float], column: Sequence[Outcome]) -> tuple[float, float, float]:
    """(mean, 95 % of it over bootstrap samples of users, whose values stay together); NaN without values."""
    if not values:
        return (float("nan"),) * 3
    names, member = np.unique([outcome.user for outcome in column], return_inverse=True)
    sums, counts = np.bincount(member, values), np.bincount(member)
    drawn: NDArray[np.intp] = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)
