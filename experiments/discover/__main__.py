"""python -m experiments.discover --data DIR: planted groups of training examples in three kinds of data."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from experiments.discover import data
from experiments.discover.missing import missing_pictures, missing_table, missing_texts
from experiments.results import Result, Row

import upweight as uw

SEEDS = 20
RECOVERED = 0.8  # Jaccard from which a planted group counts as found


def main() -> None:
    warnings.simplefilter("ignore")  # of categories that a refit no longer knows
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and sst2.zip")
    folder = parser.parse_args().data
    start = time.process_time()
    numbers = {kind: measured(kind, folder) for kind in KINDS}
    result = replace(summary(numbers), seconds=time.process_time() - start)
    print(result.keep(Path(__file__).parent / "results"))


KINDS = ("tables", "texts", "pictures")


def measured(kind: str, folder: Path) -> dict[str, Any]:
    """What is found in data sets with planted groups and in as many without, and the areas of missing domains."""
    makers: dict[str, Callable[[int, bool], data.Planted]] = {
        "tables": data.table,
        "texts": partial(data.text, data=folder),
        "pictures": partial(data.pictures, data=folder),
    }
    missing: dict[str, Callable[[int], float]] = {
        "tables": missing_table,
        "texts": partial(missing_texts, folder=folder),
        "pictures": partial(missing_pictures, folder=folder),
    }
    return {
        "planted": [outcome(makers[kind](seed, True)) for seed in range(SEEDS)],
        "nothing planted": [outcome(makers[kind](seed, False)) for seed in range(SEEDS)],
        "areas": [missing[kind](seed) for seed in range(SEEDS)] if kind in missing else [],
    }


def summary(numbers: dict[str, dict[str, Any]]) -> Result:
    """The table of all figures."""
    rows, inside, seconds = [], [], []
    for kind, of_kind in numbers.items():
        planted, nothing, areas = of_kind["planted"], of_kind["nothing planted"], of_kind["areas"]
        for name in planted[0]["jaccard"]:
            values = [one["jaccard"][name] for one in planted]
            found = sum(value >= RECOVERED for value in values)
            text = f"{found} of {len(values)} (mean Jaccard {np.mean(values):.2f})"
            rows.append(Row(f"{kind}: {name} found", "≥ 9 of 10", text, found >= 0.9 * len(values)))
        quiet = sum(one["groups"] == 0 for one in nothing)
        text = f"{quiet} of {len(nothing)}"
        rows.append(
            Row(
                f"{kind}: nothing planted, nothing reported",
                "≥ 9 of 10",
                f"{quiet} of {len(nothing)}",
                quiet >= 0.9 * len(nothing),
            )
        )
        if areas:
            text = f"{np.mean(areas):.3f} (least {min(areas):.3f})"
            rows.append(Row(f"{kind}: AUC of the queries of a missing domain, by outlier factor", "–", text))
        inside += [hit for one in [*planted, *nothing] for hit in one["inside"]]
        seconds += [one["seconds"] for one in planted]
    share = float(np.mean(inside))
    text = f"{share:.0%} of {len(inside)}"
    rows.append(Row("effects on 2,000 other queries inside the 90 % interval", "≥ 85 %", text, share >= 0.85))
    text = f"{np.median(seconds):.1f} (most {max(seconds):.1f})"
    rows.append(Row("CPU seconds of one call on 1,500 examples × 200 queries", "–", text))
    return Result(
        title="Planted groups in tables, texts and pictures",
        claim="Planted groups of training examples are found, described in words and confirmed by retraining; where "
        "nothing is planted, nothing is reported.",
        rows=rows,
        settings="Logistic regressions of 1,500 training examples: customers by four columns and their products, "
        "reviews (SST-2) by TF-IDF, threes and eights (MNIST, 7 × 7). Three groups of 2 to 5 % are planted at once. "
        f"200 queries, a fifth from each affected domain. `uw.discover` with its defaults, {SEEDS} seeds.",
        section="Groups that nobody named",
        name="planted",
        command="PYTHONPATH=. python -m experiments.discover --data DIR",
        notes=[
            "The targets are those of this package; there is no paper. A planted group counts as found if a reported "
            "group has a Jaccard index of .8 or more with it.",
            "What a group's own members lose without it tells a planted group from others: it does not depend on which "
            "queries were drawn, so that a shortcut is found though it harms a few of 100 queries only, and examples "
            "beside the group have nothing to lose, which shows its borders. When only gains of the queries were "
            "compared, 13, 10 and 14 of 30 groups were found in tables, texts and pictures.",
            "The search was built with other seeds (from 100 on). The first ten of these seeds had been run before; "
            "three changes were prompted by what was missed there, and checked with other seeds: that a description on "
            "the same columns has to win by its own evidence, that thresholds move until none is better, and that they "
            "move by up to a tenth of the examples (a twentieth left .79 in one table). The other ten seeds were new.",
            "Missed: in one table the borders of the sub-population (older than 66, income below 13) are off by three "
            "years (Jaccard .68), in one the index is .79: the evidence is largest at the planted borders, and the "
            "thresholds, which move one after the other, end at a second maximum. In two sets of pictures the removal "
            "of the bold digits is not confirmed by 100 queries.",
            "A missing domain inside the range of all columns (old customers with a low income) is hardly thinner than "
            "its surroundings; fours among threes and eights are. E-mails among film reviews are told by the share of "
            "their words that no review has.",
        ],
        numbers=numbers,
    )


def outcome(planted: data.Planted) -> dict[str, Any]:
    """What is found in one data set, and whether effects hold on fresh queries."""
    model = uw.explainable(planted.estimator, planted.train)
    start = time.process_time()
    result = uw.discover(model, planted.train, planted.queries, columns=planted.columns)
    seconds = time.process_time() - start
    ids = planted.train.ids
    members = [np.isin(ids, group.ids) for group in result.groups]
    jaccard = {
        name: max([float((m & group).sum() / (m | group).sum()) for m in members], default=0.0)
        for name, group in planted.groups.items()
    }
    removed, before, inside = np.zeros(len(ids), dtype=bool), model, []
    for group, member in zip(result.groups, members, strict=True):
        removed |= member
        after = model.forget(planted.train, ~removed).model
        actual = float((after.measure(planted.fresh) - before.measure(planted.fresh)).mean())
        inside.append(group.interval[0] <= actual <= group.interval[1])
        before = after
    found: dict[str, Any] = {
        "groups": len(result.groups),
        "names": [group.name for group in result.groups],
        "jaccard": jaccard,
        "inside": inside,
        "seconds": seconds,
    }
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
