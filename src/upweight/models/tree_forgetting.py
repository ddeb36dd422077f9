"""Trees without some training examples: leaf values of the remaining ones, written into a copy of the estimator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.forgettable import ForgottenStep, Route, Unlearned
from upweight.core.weights import require_classes, sample_weights
from upweight.models.pipeline import last_step
from upweight.models.tree_spec import WrittenLeaves
from upweight.models.unlearning import is_fitted, refit_estimator, step_records, steps_of, with_last_step
from upweight.trees.leaf_values_without import LeavesWithout, leaf_values_without
from upweight.trees.model import TreeModel

WRITTEN_TOLERANCE = 1e-5  # difference of margins from those of the leaf values, relative to the largest
SPLITS = "its splits were chosen with these examples and stayed where they were"
BEFORE_SPLITS = "it was fitted with these examples, and the splits after it refer to its outputs"


@dataclass(frozen=True, eq=False)
class TreeForgetting:
    """How an ensemble of trees forgets training examples.

    Attributes:
        whole: the pipeline that ends in the trees, or the estimator itself.
        inputs: raw inputs → the matrix that the trees get.
        write: new leaf values → (a copy of the estimator with them, its margins); None if they cannot be written.
        reread: (fitted estimator or pipeline, its training set) → the model of it.
    """

    whole: Any
    inputs: Callable[[Any], Any]
    write: Callable[[WrittenLeaves], tuple[Any, Callable[[Any], NDArray[np.float64]]]] | None
    reread: Callable[[Any, Examples], TreeModel]

    def __call__(
        self, model: TreeModel, train: Examples, remaining: NDArray[np.bool_], seed: int, refit: bool
    ) -> Unlearned:
        """New leaf values; a refit on request, or if leaf values cannot be computed or written."""
        require_classes(train, remaining.astype(np.float64), model.loss)
        reason = None if refit else self._why_refit(model, train)
        if not refit and reason is None:
            return self._leaves(model, train, remaining)
        return self._refit(model, train, remaining, seed, reason)

    def _why_refit(self, model: TreeModel, train: Examples) -> str | None:
        """Why there are no new leaf values, as a clause; None if there are."""
        if self.write is None:
            return "its library does not let leaf values be written"
        grown = model.grown(train)
        if grown.exact:
            return None
        return "; ".join(grown.unrecorded) or "its leaf values are not sums over training examples"

    def _leaves(self, model: TreeModel, train: Examples, remaining: NDArray[np.bool_]) -> Unlearned:
        """The estimator with leaf values of the remaining examples, checked against its own predictions."""
        without, given = leaf_values_without(model.grown(train), remaining), train.take(remaining)
        assert given.y is not None and self.write is not None
        matrix, targets = self.inputs(given.x), model.loss.encode(given.y).T
        written, margins = self.write(WrittenLeaves(without.ensemble, matrix, targets, sample_weights(given)))
        steps = self.whole[:-1] if hasattr(self.whole, "steps") else None
        whole = with_last_step(self.whole, steps, written)
        new = replace(model, predictor=written, whole=whole, ensemble=without.ensemble, _cache={})
        _require_written(new, given, margins(matrix))
        return Unlearned(
            estimator=whole,
            model=new,
            route=Route.FIXED_STRUCTURE,
            steps=self._records(),
            facts=_facts(without),
            notes=_notes(without),
        )

    def _refit(
        self, model: TreeModel, train: Examples, remaining: NDArray[np.bool_], seed: int, reason: str | None
    ) -> Unlearned:
        notes = () if reason is None else (f"{model.name} was fitted again, because {reason}.",)
        if not all(hasattr(last_step(self.whole), name) for name in ("fit", "get_params")):  # a Booster
            new = model.retrain(train, remaining.astype(np.float64), seed)
            return Unlearned(new.whole, new, Route.REFIT, step_records(self.whole, "kept", "trained again"), {}, notes)
        fitted, steps = refit_estimator(self.whole, train, remaining, seed)
        return Unlearned(fitted, self.reread(fitted, train.take(remaining)), Route.REFIT, steps, {}, notes)

    def _records(self) -> tuple[ForgottenStep, ...]:
        *before, (name, final) = steps_of(self.whole)
        earlier_steps = (
            ForgottenStep(step, type(part).__name__, "kept", BEFORE_SPLITS if is_fitted(part) else None)
            for step, part in before
        )
        return (*earlier_steps, ForgottenStep(name, type(final).__name__, "leaf values computed again", SPLITS))


def _require_written(model: TreeModel, given: Examples, margins: NDArray[np.float64]) -> None:
    """Raise ValueError if the estimator does not predict what its new leaf values give."""
    expected = model.margins(given)
    margins = np.asarray(margins, dtype=np.float64).reshape(expected.shape)
    if model.loss.coupled:  # the loss depends on differences of outputs alone
        expected, margins = (part - part.mean(axis=1, keepdims=True) for part in (expected, margins))
    difference, largest = float(np.abs(margins - expected).max()), float(np.abs(expected).max())
    if not difference <= WRITTEN_TOLERANCE * max(largest, 1.0):
        raise ValueError(
            f"expected a {model.name} that predicts with its new leaf values, got margins that differ by "
            f"{difference:.2g}; pass refit=True, and please report the version of the library"
        )


def _facts(without: LeavesWithout) -> dict[str, Any]:
    return {"leaves": len(without.emptied), "emptied_leaves": int(without.emptied.sum())}


def _notes(without: LeavesWithout) -> tuple[str, ...]:
    """How many leaves lost all their examples: a training without them would not have made these splits."""
    count = int(without.emptied.sum())
    if not count:
        return ()
    return (
        f"{count:,} of {len(without.emptied):,} leaves lost all their examples: a training without them would not have "
        "made the splits above these leaves.",
    )
