"""The truth by retraining: train without each of many removals, once per seed, and measure the queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.capability_checks import require
from upweight.core.deprecation import accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Retrainable
from upweight.evaluate.removals import Removal, as_removals
from upweight.evaluate.reproduction import check_reproduction
from upweight.evaluate.truth import Truth, identity_or_none
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
    removals: Sequence[Removal] | Mapping[str, Sequence[Id]],
    *,
    strict: bool = False,
    retraining: Retraining | None = None,
) -> Truth:
    """Retrain without each removal, once per seed, and measure the queries.

    Args:
        model: the model, which must be `Retrainable`.
        train: its training set.
        queries: what to measure.
        removals: the examples to leave out, from `subsets` or `singles`, or groups of your own as name → ids.
        strict: raise an error if the model cannot be trained without a removal (most often because a class has no
            example left). Otherwise the removal is left out of the truth, and `facts["refused"]` says why.
        retraining: where and how, and with which seeds; None for all processors and seed 0. With one seed, a second
            training on everything shows whether seeds matter. Its progress counts the removals of all seeds.

    Raises:
        ValueError: no removals, two removals of the same name, or a model that cannot be trained without any of them.
        OSError: the disk is full; finished trainings are kept.
    """
    require(model, [Retrainable], "retraining", train, queries)
    retraining = Retraining() if retraining is None else retraining
    removals = as_removals(removals)
    runs, names = retraining.runs, [removal.name for removal in removals]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
    one_run = bool(getattr(model, "has_one_run", False))
    if one_run and set(runs) != {0}:
        raise ValueError(f"expected seed 0 alone for a training that was recorded as one run, got seeds {list(runs)}")
    identity = identity_or_none(model, train, queries)
    base, after, refused = _measurements(retraining, model, train, queries, removals, strict)
    quiet = replace(retraining, progress=None)
    noise: float | None = None
    if not one_run:
        other = base[1] if len(runs) > 1 else run_tasks(quiet, model, train, [Task(seed=runs[0] + 1)], queries)[0]
        noise = float(np.abs(base[0] - other).max())
    facts = {"identity": identity, "measurement": model.measurement, "refused": refused, "seed_noise": noise}
    columns = [column for column, name in enumerate(names) if name not in refused]
    done = tuple(removals[column] for column in columns)
    truth = Truth(base, after[:, :, columns], done, runs, queries.ids, train.ids, facts)
    if 0 in runs:  # the seed of the run that made the model
        facts["reproduction"] = check_reproduction(model, train, queries, base[runs.index(0)], truth.actual)
    return truth


def _measurements(
    retraining: Retraining,
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    strict: bool,
) -> tuple[Array, Array, dict[str, str]]:
    """Measurements after retraining.

    Returns:
        Those after training on everything (seeds, m), those without each removal (seeds, m, removals), and name of a
        removal → why the model cannot be trained without it.
    """
    runs = retraining.runs
    base, after = np.empty((len(runs), len(queries))), np.full((len(runs), len(queries), len(removals)), np.nan)
    refused: dict[str, str] = {}
    total = len(runs) * len(removals)
    for run, seed in enumerate(runs):
        columns = [column for column, removal in enumerate(removals) if removal.name not in refused]
        removed = [train.positions(removals[column].ids) for column in columns]
        tasks = [Task(seed=seed), *(Task(removed=positions, seed=seed) for positions in removed)]
        # The training on everything, which comes first, is not counted.
        whole, *results = try_tasks(retraining.part(run * len(removals) - 1, total), model, train, tasks, queries)
        if isinstance(whole, str):
            raise ValueError(whole)
        base[run] = whole
        for column, result in zip(columns, results, strict=True):
            if isinstance(result, str):
                refused[removals[column].name] = result
            elif not np.isfinite(result).all():
                refused[removals[column].name] = "the measurement came out NaN or infinite"
            else:
                after[run, :, column] = result
        why = next(iter(refused.values()), "")
        if refused and strict:
            raise ValueError(why)
        if len(refused) == len(removals):
            raise ValueError(f"the model cannot be trained without any of the removals: {why}")
    if retraining.progress is not None and refused:
        retraining.progress("retrain", total, total)
    return base, after, refused
