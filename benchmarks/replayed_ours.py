"""Contenders over a replayed training: metagradients, and what the last checkpoint or a few of them say."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.replayed import Task, keep
from benchmarks.replayed_peer import NAME as BERGSON
from benchmarks.replayed_peer import magic
from numpy.typing import NDArray

import upweight as uw

Array = NDArray[np.float64]
CHECKPOINTS, MORE, SEGMENTS = 12, 40, 6  # of SOURCE; more of them where the learning rate is at the edge of stability
FULL, CENTRE, LAST = "metagradient, full set", "metagradient, centre", "Influence, last checkpoint"
STEPS, SOURCE = "SOURCE, {} checkpoints, by steps", f"SOURCE, {CHECKPOINTS} checkpoints, {SEGMENTS} segments"
MEAN = "mean of metagradients at {} random training sets"
JITTERED = "mean of metagradients at the centre with {} jittered weights"
CLIP, CLIPS = CENTRE + ", clip {}", (0.99, 0.98)
CLIPPED = ("digits", "hard", "rough", "cnn")


@dataclass(frozen=True)
class Way:
    """How scores are made.

    `everywhere`: the same for every share. `saved_as`: the name that they are saved under if it is not their own.
    """

    scores: Callable[[Task, float], Array]
    everywhere: bool = False
    saved_as: str = ""


def metagradient(**settings: Any) -> Way:
    """Without the gate: the truth here is the gate."""

    def scores(task: Task, share: float) -> Array:
        kept = {} if settings.get("at") == "full" else {"keep": 1 - share}
        fitted = uw.Metagradient(removals=0, **settings, **kept).fit(task.model, task.train)
        return np.asarray(fitted.attribute(task.queries).values)

    return Way(scores, settings.get("at") == "full")


def influence(task: Task, share: float) -> Array:
    """From the parameters at the end alone, of the run in which everything weighs what removals leave on average."""
    weights = np.full(len(task.train), 1 - share)
    model = task.model.retrain(task.train, weights)
    train = uw.Examples(task.train.x, task.train.y, weights=weights)
    return np.asarray(uw.Influence().fit(model, train).attribute(task.queries).values / (1 - share))


def source(recipe: uw.SOURCE, checkpoints: int) -> Callable[[Task, float], Array]:
    """From checkpoints of that run."""

    def scores(task: Task, share: float) -> Array:
        weights = np.full(len(task.train), 1 - share)
        train = uw.Examples(task.train.x, task.train.y, weights=weights)
        with tempfile.TemporaryDirectory() as folder:
            model = task.recorded(weights, checkpoints, folder, steps=recipe.segments is None)
            return np.asarray(recipe.fit(model, train).attribute(task.queries).values / (1 - share))

    return scores


def ways(task: Task, bergson: Path | None = None) -> dict[str, Way]:
    chosen_ways = {FULL: metagradient(at="full")}
    if task.name == "digits" and (bergson or task.path(BERGSON).exists()):
        chosen_ways[BERGSON] = Way(lambda task, share: magic(task, bergson or Path()), True)
    chosen_ways[CENTRE] = metagradient()
    if task.name in CLIPPED:
        chosen_ways |= {CLIP.format(clip): metagradient(clip=clip) for clip in CLIPS}
    if task.samples:
        chosen_ways[MEAN.format(task.samples)] = metagradient(samples=task.samples)
        jittered, some = JITTERED.format(task.samples), {"samples": task.samples, "jitter": 0.1}
        chosen_ways |= {
            jittered: metagradient(**some),
            f"{jittered}, clip {CLIPS[0]}": metagradient(**some, clip=CLIPS[0]),
        }
    if task.name in ("digits", "calm", "hard", "cnn", "gpt"):
        if task.name != "gpt":  # more than three processor minutes, without a time that damping could be matched to
            chosen_ways[LAST] = Way(influence, saved_as=f"{LAST}, later half")
        count = MORE if task.name == "hard" else CHECKPOINTS
        chosen_ways[STEPS.format(count)] = Way(source(uw.SOURCE(), count))
    if task.name == "digits":  # a wider net takes hundreds of trainings for its series of products
        chosen_ways[SOURCE] = Way(source(uw.SOURCE(segments=SEGMENTS), CHECKPOINTS), saved_as="SOURCE")
    return chosen_ways


def scored(task: Task, name: str, way: Way, share: float) -> tuple[Array, float]:
    """(scores, processor time in trainings); made once, then read."""
    saved_as = way.saved_as or name
    path = task.path(saved_as if way.everywhere else f"{saved_as} {share}")
    if not path.exists():
        once = []
        for _ in range(4):  # the first one is slower
            start = time.process_time()
            task.model.retrain(task.train, np.ones(len(task.train)))
            once.append(time.process_time() - start)
        start = time.process_time()
        values = way.scores(task, share)
        keep(path, values=values, cost=(time.process_time() - start) / float(np.median(once[1:])))
    with np.load(path) as archive:
        return archive["values"], float(archive["cost"])
