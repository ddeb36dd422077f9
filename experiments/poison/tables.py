"""The outcomes of an attack as rows beside the papers' numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from experiments.results import Result, Row

SECTION = "Peri et al. (2020) and Hammoudeh & Lowd (2022): finding training-set attacks"
Outcomes = Sequence[dict[str, Any]]
BASELINES = ("random", "loss", "nearest neighbours", "activation clustering")


def result(outcomes: Outcomes, **facts: Any) -> Result:
    """The table of one attack; `facts` are the texts of the result."""
    method, hit = facts.pop("method", "GAS"), [h for outcome in outcomes for h in outcome["hit"]]
    inert = facts.pop("inert", "")
    successful = [outcome for outcome in outcomes if any(outcome["hit"])]
    rows = [
        Row("success, undefended", facts.pop("paper_success", "–"), _share(hit), _mean(hit) >= 0.5),
        Row("poisons", "–", _each([outcome["poisons"] for outcome in outcomes])),
        *_deep_knn(outcomes, facts.pop("clean_label", False)),
        *(_fit(outcomes, successful, method, inert) if successful else []),
    ]
    return Result(
        rows=rows,
        section=SECTION,
        seconds=sum(outcome["seconds"] for outcome in outcomes),
        numbers={"outcomes": list(outcomes)},
        **facts,
    )


def _deep_knn(outcomes: Outcomes, has_paper: bool) -> list[Row]:
    after = [h for outcome in outcomes for h in outcome["deep_knn"]["hit"]]
    found, poisons = (sum(values) for values in ([o["deep_knn"]["found"] for o in outcomes], _poisons(outcomes)))
    clean = np.mean([o["deep_knn"]["clean"] / (o["train"] - o["poisons"]) for o in outcomes])
    costs = np.mean([o["deep_knn"]["accuracy"] - o["accuracy"] for o in outcomes])
    return [
        Row(
            "success after Deep k-NN, k = 50",
            "0" if has_paper else "–",
            _share(after),
            _mean(after) <= 0.1 if has_paper else None,
        ),
        Row(
            "Deep k-NN: poisons found",
            "> 99 %" if has_paper else "–",
            f"{found / poisons:.0%} ({found} of {poisons})",
            found >= 0.99 * poisons if has_paper else None,
        ),
        Row("Deep k-NN: clean training examples dropped", "–", f"{clean:.1%}"),
        Row("Deep k-NN: accuracy, after − before", "–", _points(costs)),
    ]


def _fit(outcomes: Outcomes, successful: Outcomes, method: str, inert: str) -> list[Row]:
    after = [h for o in outcomes for h in (o["fit"]["hit"] if "fit" in o else o["hit"])]
    removed, poisons = (sum(o["fit"][name] for o in successful) for name in ("removed", "poisons_removed"))
    ranks = [rank for o in successful for rank in o["rank"]]
    first = [rank <= max(1, 0.01 * o["clean"]) for o in successful for rank in o["rank"]]
    of_poisons = {name: _mean([v for o in successful for v in o["poison_ap"][name]]) for name in ("gas", *BASELINES)}
    of_targets = {name: _mean([o["target_ap"][name] for o in successful]) for name in ("fit", *BASELINES)}
    costs = np.mean([o["fit"]["accuracy"] - o["accuracy"] for o in successful])
    flagged = np.mean([o["flagged_clean"] / o["clean"] for o in successful])
    return [
        Row(f"success after FIT + {method}", "–", _share(after), _mean(after) <= 0.1),
        Row(f"FIT + {method}: removed, of which poisons", "–", f"{removed}, {poisons}"),
        Row(f"FIT + {method}: accuracy, after − before", "–", _points(costs)),
        Row(
            f"AUPRC of poisons, {method}",
            "≥ .9",
            f"{of_poisons.pop('gas'):.3f}",
            _mean([v for o in successful for v in o["poison_ap"]["gas"]]) >= 0.9,
        ),
        *_without_inert(successful, inert),
        Row("AUPRC of poisons: random, loss, nearest neighbours, activation clustering", "–", _numbers(of_poisons)),
        Row(
            "rank of the targets among clean queries: median, worst",
            "first 1 %",
            f"{np.median(ranks):g}, {max(ranks)} of {successful[0]['clean'] + 1:,}",
            all(first),
        ),
        Row("targets in the first 1 %", "all", f"{sum(first)} of {len(first)}", all(first)),
        Row("AUPRC of targets, FIT", "–", f"{of_targets.pop('fit'):.2f}"),
        Row("AUPRC of targets: random, loss, nearest neighbours, activation clustering", "–", _numbers(of_targets)),
        Row("clean queries flagged at level .01", "≤ 1 %", f"{flagged:.1%}", bool(flagged <= 0.01)),
    ]


def _without_inert(successful: Outcomes, which: str) -> list[Row]:
    """The row without inert poisons; `which` says which are."""
    inert = sum(outcome.get("inert", 0) for outcome in successful)
    if not inert:
        return []
    values = [value for outcome in successful for value in outcome["active_ap"]]
    what = f"the same without the {inert} poisons {which}"
    return [Row(what, "≥ .9", f"{_mean(values):.3f}", _mean(values) >= 0.9)]


def _poisons(outcomes: Outcomes) -> list[int]:
    return [outcome["poisons"] for outcome in outcomes]


def _share(values: Sequence[bool]) -> str:
    return f"{_mean(values):.2f} ({sum(values)} of {len(values)})"


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(values))


def _numbers(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values.values())


def _points(difference: Any) -> str:
    return f"{100 * float(difference):+.1f} points".replace("-", "−")


def _each(values: Sequence[int]) -> str:
    return f"{values[0]}" if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
