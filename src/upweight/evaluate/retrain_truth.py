"""retrain_truth: train again without each of many removals, once per seed, and set apart what a model refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.model import Retrainable, require
from upweight.core.processes import available
from upweight.evaluate.removals import Removal
from upweight.evaluate.retrain import Engine, How, Progress, without
from upweight.evaluate.truth import Truth, identity

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
    require(model, [Retrainable], "retraining")
    runs = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not runs or len(set(runs)) < len(runs):
        raise ValueError(f"expected at least one seed, and each once, got {seeds}")
    names = [one.name for one in removals]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
    engine = _Engine(model, train, queries, available() if processes is None else processes, how, folder)
    base, after = np.empty((len(runs), len(queries))), np.full((len(runs), len(queries), len(names)), np.nan)
    refused: dict[str, str] = {}
    for place, seed in enumerate(runs):
        left = [column for column, name in enumerate(names) if name not in refused]
        told = _further(progress, place * len(names), len(runs) * len(names))
        base[place], after[place][:, left], why = engine.without([removals[c] for c in left], seed, told)
        refused |= why
        if why and strict:
            raise ValueError(next(iter(why.values())))
        if len(refused) == len(names):
            raise ValueError(f"the model cannot be trained without any of the removals: {next(iter(why.values()))}")
    other = base[1] if len(runs) > 1 else engine.base(runs[0] + 1)
    facts = {
        **identity(model, train, queries),
        "refused": refused,
        "seed_noise": float(np.abs(base[0] - other).max()),
    }
    if progress is not None and refused:
        progress(len(runs) * len(names), len(runs) * len(names))
    kept = [column for column, name in enumerate(names) if name not in refused]
    chosen = tuple(removals[column] for column in kept)
    return Truth(base, after[:, :, kept], chosen, runs, queries.ids, train.ids, facts)


@dataclass(frozen=True)
class _Engine:
    """The retraining engine, with the removals that a model refuses set apart."""

    model: Any
    train: Examples
    queries: Examples
    processes: int
    how: How | None
    folder: str | Path | None

    def base(self, seed: int) -> Array:
        """Measurements after training on everything."""
        return self._measured([], seed, None)[0]

    def without(
        self, removals: Sequence[Removal], seed: int, progress: Progress | None
    ) -> tuple[Array, Array, dict[str, str]]:
        """(base, after, name → why not) of these removals."""
        positions = [self.train.positions(one.ids) for one in removals]
        try:
            base, after = self._measured(positions, seed, progress)
        except ValueError as error:
            if len(removals) == 1:
                base = self.base(seed)  # if this fails too, it is not the removal that is refused
                return base, np.full((len(self.queries), 1), np.nan), {removals[0].name: str(error)}
            # One that is refused takes the others with it; halves find it in a few rounds.
            half = len(removals) // 2
            base, first, why = self.without(removals[:half], seed, progress)
            _, second, more = self.without(removals[half:], seed, None)
            return base, np.hstack([first, second]), why | more
        strange = np.flatnonzero(~np.isfinite(after).all(axis=0)).tolist()
        return base, after, {removals[c].name: "the measurement came out NaN or infinite" for c in strange}

    def _measured(
        self, positions: Sequence[NDArray[np.intp]], seed: int, progress: Progress | None
    ) -> tuple[Array, Array]:
        engine = Engine(how=self.how, processes=self.processes, folder=self.folder, progress=progress)
        return without(engine, self.model, self.train, self.queries, positions, seed)


def _further(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of one seed's trainings among all; the engine counts the training on everything too."""
    if progress is None:
        return None
    return lambda done, _: progress(before + done - 1, total) if done > 1 else None
