"""retrain_truth: train again without each of many removals, once per seed, and set apart what a model refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable, require
from upweight.evaluate.removals import Removal
from upweight.evaluate.reproduction import reproduction
from upweight.evaluate.truth import Truth, identity
from upweight.retraining.engine import Engine, How, Progress
from upweight.retraining.pool import available
from upweight.retraining.task import Task

Array = NDArray[np.float64]


def retrain_truth(  # noqa: PLR0913 - four that everyone passes, five by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    *,
    seeds: int | Sequence[int] = 1,
    processes: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    how: How | None = None,
    folder: str | Path | None = None,
) -> Truth:
    """Train again without each removal, once per seed, and measure the queries.

    Args:
        model, train, queries: as everywhere.
        removals: what to leave out, from `subsets`, `singles`, `named` or `strongest`.
        seeds: how many (0, 1, …) or which. With one, a second training on everything says whether seeds matter.
        processes: trainings at a time; all processors where it is left out.
        strict: raise when the model cannot be trained without a removal (most often because a class goes with it);
            otherwise the removal is left out, and `facts["refused"]` says why.
        progress: called with (done, of how many trainings).
        how, folder: as in `retrain`; a call that was broken off goes on from what its folder holds.

    Raises:
        ValueError: nothing to remove, two removals of one name, a model that refuses every removal.
        OSError: the disk is full; what was finished is kept.
    """
    require(model, [Retrainable], "retraining", train, queries)
    runs = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not runs or len(set(runs)) < len(runs):
        raise ValueError(f"expected at least one seed, and each once, got {seeds}")
    names = [one.name for one in removals]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
    engine = Engine(how=how, processes=available() if processes is None else processes, folder=folder)
    base, after, refused = _trained(engine, model, train, queries, removals, runs, strict, progress)
    other = base[1] if len(runs) > 1 else engine.results(model, train, [Task(seed=runs[0] + 1)], queries)[0]
    noise = float(np.abs(base[0] - other).max())
    facts = {**identity(model, train, queries), "refused": refused, "seed_noise": noise}
    kept = [column for column, name in enumerate(names) if name not in refused]
    chosen = tuple(removals[column] for column in kept)
    truth = Truth(base, after[:, :, kept], chosen, runs, queries.ids, train.ids, facts)
    if 0 in runs:  # the seed of the run that made the model
        facts["reproduction"] = reproduction(model, train, queries, base[runs.index(0)], truth.actual)
    return truth


def _trained(  # noqa: PLR0913, PLR0917 - what `retrain_truth` was given
    engine: Engine,
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    runs: Sequence[int],
    strict: bool,
    progress: Progress | None,
) -> tuple[Array, Array, dict[str, str]]:
    """(on everything (seeds, m), without each removal (seeds, m, removals), removal → why the model refuses it)."""
    base, after = np.empty((len(runs), len(queries))), np.full((len(runs), len(queries), len(removals)), np.nan)
    refused: dict[str, str] = {}
    total = len(runs) * len(removals)
    for place, seed in enumerate(runs):
        left = [column for column, one in enumerate(removals) if one.name not in refused]
        told = replace(engine, progress=_further(progress, place * len(removals), total))
        gone = [train.positions(removals[column].ids) for column in left]
        tasks = [Task(seed=seed), *(Task(removed=positions, seed=seed) for positions in gone)]
        whole, *found = told.attempts(model, train, tasks, queries)
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
    if progress is not None and refused:
        progress(total, total)
    return base, after, refused


def _further(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one seed's trainings among all; the engine counts the training on everything too."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done - 1, total) if done > 1 else None
