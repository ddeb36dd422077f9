"""Retrain a model with other example weights, once or many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from upweight.core.capability_checks import require
from upweight.core.deprecation import RenamedAttribute, ReplacedBy, accept_old_fields, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.model import Parametric, Retrainable
from upweight.core.weights import checked_weights
from upweight.retraining import deprecated_keywords
from upweight.retraining.engine import run_tasks
from upweight.retraining.retraining import Retraining
from upweight.retraining.task import Task

Array = NDArray[np.float64]
ModelT = TypeVar("ModelT", bound=Retrainable)


@accept_old_fields({"found": ReplacedBy("results")})
@dataclass(frozen=True, eq=False)
class Retrained(Generic[ModelT]):
    """The results of retraining one model many times.

    Attributes:
        model: the model that was retrained.
        results: what training changes, one row per training (`Parametric.trained_state`); or a list of retrained
            models if the model has no parameter vector (trees).
    """

    model: ModelT
    results: Any
    found = RenamedAttribute("results")

    @property
    def parameters(self) -> Array:
        """(M, p), one row per training. Raises TypeError for models without a parameter vector."""
        require(self.model, [Parametric], "parameters")
        return np.asarray(self.results)[:, : len(cast(Parametric, self.model).parameters)]

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, position: int) -> ModelT:
        result: Any = self.results[position]
        return cast(ModelT, self.model.with_trained_state(result) if isinstance(self.model, Parametric) else result)

    def __iter__(self) -> Iterator[ModelT]:
        return (self[position] for position in range(len(self)))

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query on every retrained model, (m, M)."""
        return np.stack([model.measure(queries) for model in self], axis=1)

    def __repr__(self) -> str:
        return f"Retrained({len(self)} × {type(self.model).__name__})"


@accept_old_keywords(
    deprecated_keywords.keywords("how", "processes", "folder", "progress"),
    deprecated_keywords.retraining_builder(),
    positional=("how",),
)
def retrain(
    model: ModelT,
    train: Examples,
    weights: ArrayLike,
    seed: int | Sequence[int] = 0,
    *,
    retraining: Retraining | None = None,
) -> ModelT | Retrained[ModelT]:
    """Retrain a model with other example weights.

    Args:
        model: a model that can be retrained.
        train: its training set.
        weights: (n,) for one model; (M, n) for M models. 1 leaves an example as it was, 0 removes it.
        seed: 0 repeats the run that made the model; for weights (M, n) also a list of one seed per row.
        retraining: where and how to train. None trains many small nets at once (stacked), and everything else on all
            processors.

    Returns:
        The retrained model for weights (n,), a `Retrained` for (M, n).

    Raises:
        ValueError: weights of another length, negative, not finite, or all zero; training that diverged; a `Retraining`
            with seeds, which are passed here as `seed`.
        OSError: the disk is full; finished results are kept.
    """
    require(model, [Retrainable], "retrain", train)
    is_single = np.ndim(weights) != 2
    rows = (
        checked_weights(train, weights)[None]
        if is_single
        else checked_weights(train, weights, len(np.asarray(weights)))
    )
    seeds = [seed] * len(rows) if isinstance(seed, int | np.integer) else list(seed)
    if len(seeds) != len(rows) or not len(rows):
        raise ValueError(f"expected weights of at least one model and one seed each, got {len(rows)}, {len(seeds)}")
    retraining = Retraining() if retraining is None else retraining
    if retraining.runs != (0,):
        raise ValueError(f"expected a seed per row of weights as seed=, got Retraining(seeds={retraining.seeds})")
    if is_single and retraining.how is None and retraining.folder is None:
        return cast(ModelT, model.retrain(train, rows[0], int(seeds[0])))
    tasks = [Task(weights=row, seed=int(s)) for row, s in zip(rows, seeds, strict=True)]
    retrained = Retrained(model, run_tasks(retraining, model, train, tasks, None))
    return retrained[0] if is_single else retrained
