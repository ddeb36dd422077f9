"""Resume: the trainings behind a truth, kept on disk as they finish, so that a run that was broken off goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
TOGETHER = 32  # trainings between two writes to disk


def retrain_truth(  # noqa: PLR0913 - four that everyone passes, five by keyword
    model: Any,
    train: Examples,
    queries: Examples,
    removals: Sequence[Removal],
    *,
    seeds: int | Sequence[int] = 1,
    processes: int | None = None,
    path: str | Path | None = None,
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
        path: a file that is read first and written as trainings finish: a run that was broken off goes on from there.
        strict: raise when the model cannot be trained without a removal (most often because a class goes with it);
            otherwise the removal is left out, and `facts["refused"]` says why.
        progress: called with (done, of how many trainings).
        how, folder: as in `retrain`.

    Raises:
        ValueError: nothing to remove, two removals of one name, a path that holds the truth of something else, a
            model that refuses every removal.
    """
    require(model, [Retrainable], "retraining")
    runs = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not runs or len(set(runs)) < len(runs):
        raise ValueError(f"expected at least one seed, and each once, got {seeds}")
    names = [one.name for one in removals]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected removals of different names, got {len(names)} with {len(set(names))} names")
    truth = _empty(model, train, queries, tuple(removals), runs)
    if path is not None and Path(path).exists():
        truth = _resumed(truth, Truth.load(path), path)
    engine = _Engine(model, train, queries, available() if processes is None else processes, how, folder)
    for filled in _filled(engine, truth, None if path is None else TOGETHER, strict, progress):
        truth = filled
        if path is not None:
            truth.save(path)
    refused = truth.facts["refused"]
    if len(refused) == len(names):
        raise ValueError(f"the model cannot be trained without any of the removals: {next(iter(refused.values()))}")
    return truth.take([column for column, name in enumerate(names) if name not in refused])


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


def _empty(
    model: Any, train: Examples, queries: Examples, removals: tuple[Removal, ...], seeds: tuple[int, ...]
) -> Truth:
    m = len(queries)
    base, after = np.full((len(seeds), m), np.nan), np.full((len(seeds), m, len(removals)), np.nan)
    facts = {**identity(model, train, queries), "refused": {}, "seed_noise": None}
    return Truth(base, after, removals, seeds, queries.ids, train.ids, facts)


def _resumed(wanted: Truth, kept: Truth, path: Any) -> Truth:
    """What is on disk, if it is the beginning of what is wanted."""
    kept.require_same(wanted.facts)
    asked, there = ([(one.name, frozenset(one.ids)) for one in truth.removals] for truth in (wanted, kept))
    if asked != there or kept.seeds != wanted.seeds:
        raise ValueError(
            f"{path} holds the truth of {len(kept.removals)} other removals or other seeds ({list(kept.seeds)}); "
            "use another folder, or ask for the same number of subsets, share and seed"
        )
    return kept


def _filled(
    engine: _Engine, truth: Truth, together: int | None, strict: bool, progress: Progress | None
) -> Iterator[Truth]:
    """The truth after every batch of trainings, the last one complete."""
    base, after, facts = truth.base.copy(), truth.after.copy(), dict(truth.facts)
    refused: dict[str, str] = dict(facts["refused"])
    total, told = truth.done.size, 0

    def now() -> Truth:
        here = {**facts, "refused": dict(refused)}
        return Truth(base.copy(), after.copy(), truth.removals, truth.seeds, truth.query_ids, truth.train_ids, here)

    def tell(done: int) -> None:
        nonlocal told
        if progress is not None and done > told:
            progress(done, total)
        told = max(told, done)

    for place, seed in enumerate(truth.seeds):
        left = [c for c in np.flatnonzero(~truth.done[place]).tolist() if truth.removals[c].name not in refused]
        size = together or max(1, len(left))
        for start in range(0, len(left), size):
            some = left[start : start + size]
            before = int(np.isfinite(after).all(axis=1).sum())

            # An engine may count the training on everything too.
            def further(done: int, _: int, at: int = before, most: int = len(some)) -> None:
                tell(at + min(done, most))

            base[place], after[place][:, some], why = engine.without([truth.removals[c] for c in some], seed, further)
            if why and strict:
                raise ValueError(next(iter(why.values())))
            refused |= why
            yield now()
    if facts["seed_noise"] is None:
        other = base[1] if len(base) > 1 else engine.base(truth.seeds[0] + 1)
        facts["seed_noise"] = float(np.abs(base[0] - other).max())
    tell(total)
    yield now()
