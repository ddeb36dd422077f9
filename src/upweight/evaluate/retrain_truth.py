"""retrain_truth: train again without each of many removals, once per seed, and set apart what a model refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.contents import UnidentifiedError
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Measurable, Retrainable, require
from upweight.core.provenance import identity_of
from upweight.evaluate.removals import Removal
from upweight.evaluate.reproduction import check_reproduction
from upweight.evaluate.truth import Truth
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks, try_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]


@accept_old_keywords(deprecated_keywords.KEYWORDS, deprecated_keywords.retraining_builder())
def retrain_truth(
    model: Measurable,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    *,
    strict: bool = False,
    retraining: Retraining | None = None,
) -> Truth:
    """Train again without each removal, once per seed, and measure the queries.

    Args:
        model, train, queries: as everywhere.
        removals: what to leave out, from `subsets`, `singles`, `named_removals` or `default_removals`.
        strict: raise when the model cannot be trained without a removal (most often because a class goes with it);
            otherwise the removal is left out, and `facts["refused"]` says why.
        retraining: where and how, and with which seeds; None for all processors and seed 0 (with one seed, a second
            training on everything says whether seeds matter). Its progress counts the removals of all seeds.

    Raises:
        ValueError: nothing to remove, two removals of one name, a model that refuses every removal.
        OSError: the disk is full; what was finished is kept.
    """
    require(model, [Retrainable], "retraining", train, queries)
    retraining = Retraining() if retraining is None else retraining
    runs, names = retraining.runs, [one.name for one in removals]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
    identity = _identity(model, train, queries)
    base, after, refused = _trained(retraining, model, train, queries, removals, strict)
    quiet = replace(retraining, progress=None)
    other = base[1] if len(runs) > 1 else run_tasks(quiet, model, train, [Task(seed=runs[0] + 1)], queries)[0]
    noise = float(np.abs(base[0] - other).max())
    facts = {"identity": identity, "measurement": model.measurement, "refused": refused, "seed_noise": noise}
    kept = [column for column, name in enumerate(names) if name not in refused]
    chosen = tuple(removals[column] for column in kept)
    truth = Truth(base, after[:, :, kept], chosen, runs, queries.ids, train.ids, facts)
    if 0 in runs:  # the seed of the run that made the model
        facts["reproduction"] = check_reproduction(model, train, queries, base[runs.index(0)], truth.actual)
    return truth


def _trained(
    retraining: Retraining,
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    strict: bool,
) -> tuple[Array, Array, dict[str, str]]:
    """(on everything (seeds, m), without each removal (seeds, m, removals), removal → why the model refuses it)."""
    runs = retraining.runs
    base, after = np.empty((len(runs), len(queries))), np.full((len(runs), len(queries), len(removals)), np.nan)
    refused: dict[str, str] = {}
    total = len(runs) * len(removals)
    for place, seed in enumerate(runs):
        left = [column for column, one in enumerate(removals) if one.name not in refused]
        gone = [train.positions(removals[column].ids) for column in left]
        tasks = [Task(seed=seed), *(Task(removed=positions, seed=seed) for positions in gone)]
        # The training on everything, which comes first, is not counted.
        whole, *found = try_tasks(retraining.part(place * len(removals) - 1, total), model, train, tasks, queries)
        if isinstance(whole, str):
            raise ValueError(whole)
        base[place] = whole
        for column, one in zip(left, found, strict=True):
            if isinstance(one, str):
                refused[removals[column].name] = one
            elif not np.isfinite(one).all():
                refused[removals[column].name] = "the measurement came out NaN or infinite"
            else:
                after[place, :, column] = one
        why = next(iter(refused.values()), "")
        if refused and strict:
            raise ValueError(why)
        if len(refused) == len(removals):
            raise ValueError(f"the model cannot be trained without any of the removals: {why}")
    if retraining.progress is not None and refused:
        retraining.progress("retrain", total, total)
    return base, after, refused


def _identity(model: Any, train: Examples, queries: Examples) -> dict[str, str] | None:
    """What the truth is the truth of; None where that cannot be told apart from something else."""
    try:
        return identity_of(model, train, queries)
    except UnidentifiedError:
        return None
