"""Table 2 of Tran et al. (2021): how often counterfactual sets hold after retraining, and how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from experiments.recommenders import ncf
from experiments.recommenders.counterfactuals import (
    METHODS,
    SIZES,
    Case,
    chosen,
    explain,
    random_removals,
    retrained_scores,
)
from experiments.results import Result, Row
from numpy.typing import NDArray
from scipy.stats import binomtest

import upweight as uw

USERS, SEEDS, DRAWS = 40, 3, 2000
SETTINGS = (
    "MovieLens-100k, 61,054 ratings of 452 users; NCF (GMF 8, MLP 32→16→8), squared loss; "
    f"{USERS} seeded users × {SEEDS} seeds of the training; the influence is on the user's rows of the embeddings, "
    "damping 1e-6; every set is retrained from the beginning with the seed of its model; intervals: 95 %, bootstrap "
    "over users."
)
NOTES = (
    f"Shortened schedule: {ncf.EPOCHS} epochs (735 steps) of batches of {ncf.BATCH:,} with Adam, learning rate "
    f"{ncf.RATE} on a cosine, in place of 120,000 steps at .001; one retraining for each set in place of the mean of "
    "five.",
    f"l2 {ncf.DECAY:g} in place of .001. With .001 and 24 epochs at .01, every rating of a user had the same influence "
    "on all items: the products of embeddings had gone to zero.",
    "The rows of the items are left out: no unrated item shares a rating with the user, so the block of the curvature "
    "is diagonal, and their part of the influence of a user's rating is zero (checked on one user).",
    "A set that the sum of influences finds need not hold: retraining moves the items and the layers too. "
    "`uw.flip_set` retrains every set that it returns.",
    "The numbers of the paper's table were not at hand. RCF with its attention baselines was not made.",
)


def result(train: uw.Examples) -> Result:
    """The table, over the same users for every seed."""
    users = np.sort(np.random.default_rng(0).choice(np.unique(train.x[:, 0]), USERS, replace=False))
    outcomes, seconds, predictions = [], [], []
    for seed in range(SEEDS):
        model = ncf.model(train, seed)
        cases = [explain(model, train, int(user)) for user in users]
        seconds += [case.seconds for case in cases]
        of_seed, predicted = _outcomes(train, cases, seed)
        outcomes += of_seed
        predictions += predicted
        print(f"seed {seed}: {len(of_seed)} outcomes", flush=True)
    return _table(outcomes, np.array(seconds), np.array(predictions))


def _outcomes(
    train: uw.Examples, cases: list[Case], seed: int
) -> tuple[list[dict[str, Any]], list[tuple[float, float]]]:
    """One outcome per case, method and k; and (predicted, actual) changes of the gap, one for each set."""
    sets = {(c, m, k): chosen(case, m, k) for c, case in enumerate(cases) for m in METHODS for k in SIZES}
    controls = {
        c: random_removals(cases[c], len(s.removed), seed)
        for (c, m, k), s in sets.items()
        if s and (m, k) == ("ACCENT", 10)
    }
    asked = [(c, tuple(sorted(s.removed))) for (c, _, _), s in sets.items() if s]
    asked = list(dict.fromkeys([*asked, *((c, tuple(sorted(r))) for c, r in controls.items())]))
    scores = dict(zip(asked, retrained_scores(train, cases, asked, seed), strict=True))
    outcomes, changes = [], {}
    for (c, method, k), found in sets.items():
        case, size, holds, displaced = cases[c], None, False, False
        if found is not None:
            key = c, tuple(sorted(found.removed))
            after, size = scores[key], len(found.removed)
            holds, displaced = bool(after[found.replacement] > after[0]), bool(after[1:k].max() > after[0])
            effect = case.influence[:, list(found.removed)].sum(axis=1)
            before = case.scores[0] - case.scores[found.replacement]
            changes[key, found.replacement] = (
                float(effect[0] - effect[found.replacement]),
                float(before - (after[0] - after[found.replacement])),
            )
        outcomes.append(
            {
                "user": case.user,
                "seed": seed,
                "method": method,
                "k": k,
                "size": size,
                "holds": holds,
                "displaced": displaced,
            }
        )
    for c, removed in controls.items():
        after = scores[c, tuple(sorted(removed))]
        outcomes.append(
            {"user": cases[c].user, "seed": seed, "method": "random", "k": 10, "size": len(removed), "holds": False}
            | {"displaced": bool(after[1:10].max() > after[0])}
        )
    return outcomes, list(changes.values())


def _table(outcomes: list[dict[str, Any]], seconds: NDArray[np.float64], changes: NDArray[np.float64]) -> Result:
    rows = [
        Row(
            "a recommendation explained, wall seconds, median (largest); processor seconds",
            "–",
            f"{np.median(seconds[:, 0]):.2f} ({seconds[:, 0].max():.2f}); {np.median(seconds[:, 1]):.2f}",
            bool(seconds[:, 0].max() < 5),
        )
    ]
    notes = []
    for k in SIZES:
        of = {m: _column(outcomes, m, k) for m in METHODS}
        rows += [_row(method, k, of[method]) for method in METHODS]
        notes += [_compare(of["ACCENT"], of[other], other, k) for other in METHODS[1:]]
    random, accent = _column(outcomes, "random", 10), _column(outcomes, "ACCENT", 10)
    rows.append(
        Row(
            "k = 10: another of the k items comes first after retraining, ACCENT / as many random ratings",
            "–",
            f"{_share(accent, 'displaced')} / {_share(random, 'displaced')}",
        )
    )
    predicted, actual = changes.T
    slope = float(predicted @ actual / (predicted @ predicted))
    rows.append(
        Row(
            "change of the gap, predicted against retrained: Pearson, slope through 0",
            "–",
            f"{np.corrcoef(predicted, actual)[0, 1]:.2f}, {slope:.2f}",
        )
    )
    smaller = all(_paired_size(outcomes, k) <= 0 for k in SIZES)
    rows.insert(0, Row("ACCENT's sets are no larger than FIA's, for every k", "yes", _sizes(outcomes), smaller))
    ahead = all(_rate(_column(outcomes, "ACCENT", k)) >= _rate(_column(outcomes, "FIA", k)) for k in SIZES)
    text = f"{', '.join(_odds(outcomes, k) for k in SIZES)} of {USERS * SEEDS} cases"
    rows.insert(1, Row("cases in which ACCENT's set alone holds / FIA's alone, k = 5, 10, 20", "more", text, ahead))
    return Result(
        title="Counterfactual sets of recommendations: ACCENT against FIA",
        claim="The smallest set of a user's own ratings without which the recommender would show another item: ACCENT, "
        "which closes the gap between two items, finds it more often and smaller than removal by influence on the "
        "recommended item.",
        rows=rows,
        settings=SETTINGS,
        section="Recommenders: Tran et al. (2021), Cheng et al. (2019)",
        name="accent",
        command="python -m experiments.recommenders --data DIR",
        notes=[*NOTES, *notes],
    )


def _column(outcomes: list[dict[str, Any]], method: str, k: int) -> list[dict[str, Any]]:
    return [o for o in outcomes if o["method"] == method and o["k"] == k]


def _rate(column: list[dict[str, Any]], what: str = "holds") -> float:
    return float(np.mean([o[what] for o in column]))


def _interval(values: NDArray[np.float64], users: NDArray[np.int64]) -> tuple[float, float]:
    """95 % of the mean over bootstrap samples of users, whose values stay together."""
    names, member = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(member, values), np.bincount(member)
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _share(column: list[dict[str, Any]], what: str = "holds") -> str:
    values, users = np.array([float(o[what]) for o in column]), np.array([o["user"] for o in column])
    low, high = _interval(values, users)
    return f"{100 * values.mean():.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _row(method: str, k: int, column: list[dict[str, Any]]) -> Row:
    sized = [o for o in column if o["size"] is not None]
    values, users = np.array([float(o["size"]) for o in sized]), np.array([o["user"] for o in sized])
    low, high = _interval(values, users)
    missing = "" if len(sized) == len(column) else f"; none for {len(column) - len(sized)} of {len(column)}"
    text = f"{_share(column)}; {values.mean():.1f} ({low:.1f} to {high:.1f}){missing}"
    return Row(f"k = {k}, {method}: sets that hold after retraining; ratings in a set", "–", text)


def _pairs(accent: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    by_case = {(o["user"], o["seed"]): o for o in other}
    return [(o, by_case[o["user"], o["seed"]]) for o in accent]


def _paired_size(outcomes: list[dict[str, Any]], k: int) -> float:
    pairs = _pairs(_column(outcomes, "ACCENT", k), _column(outcomes, "FIA", k))
    return float(np.mean([a["size"] - b["size"] for a, b in pairs if a["size"] and b["size"]]))


def _sizes(outcomes: list[dict[str, Any]]) -> str:
    """Mean sizes of ACCENT and of FIA for every k."""
    sized = {m: [[o["size"] for o in _column(outcomes, m, k) if o["size"]] for k in SIZES] for m in METHODS[:2]}
    return "; ".join(f"{m} {', '.join(f'{np.mean(column):.1f}' for column in sized[m])}" for m in sized)


def _odds(outcomes: list[dict[str, Any]], k: int) -> str:
    pairs = _pairs(_column(outcomes, "ACCENT", k), _column(outcomes, "FIA", k))
    return f"{sum(a['holds'] > b['holds'] for a, b in pairs)} / {sum(a['holds'] < b['holds'] for a, b in pairs)}"


def _compare(accent: list[dict[str, Any]], other: list[dict[str, Any]], name: str, k: int) -> str:
    """McNemar's exact test of the outcomes, and the difference of the sizes where both methods have a set."""
    pairs = _pairs(accent, other)
    only, not_only = sum(a["holds"] > b["holds"] for a, b in pairs), sum(a["holds"] < b["holds"] for a, b in pairs)
    p = binomtest(only, only + not_only).pvalue if only + not_only else 1.0
    both = [(a["size"] - b["size"], a["user"]) for a, b in pairs if a["size"] and b["size"]]
    differences, users = np.array([float(d) for d, _ in both]), np.array([u for _, u in both])
    low, high = _interval(differences, users)
    return (
        f"k = {k}: of {len(pairs)} cases ACCENT's set alone holds in {only}, that of {name} alone in {not_only} "
        f"(McNemar's exact test p = {p:.2g}); ACCENT's set is smaller by {-differences.mean():.1f} ratings "
        f"({-high:.1f} to {-low:.1f})."
    )
