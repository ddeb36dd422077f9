"""Reading trees: what one library says of a trained ensemble, checked against its own predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.contents import relevant
from upweight.core.examples import Examples
from upweight.core.input_kinds import columns_of
from upweight.core.measurement import Measurement
from upweight.models.pipeline import last_step, steps_before
from upweight.trees.boosting import Boosting, LeafRule
from upweight.trees.boosting_loss import BoostingLoss
from upweight.trees.ensemble import Indices, TreeEnsemble
from upweight.trees.forest import Forest
from upweight.trees.model import TreeModel

Array = NDArray[np.float64]
MARGIN = 2e-5  # what margins may differ by, of the largest: libraries add up in single precision


@dataclass(frozen=True, eq=False)
class TreeSpec:
    """What an adapter found.

    Attributes:
        leaf_numbers: the library's inputs → leaf numbers (n, trees).
        margins: the library's inputs → its own raw predictions (n, K), to hold the reading against.
        rule: how a boosted leaf follows from its sums; None for a forest.
        other_l2: (leaves,) another l2 that a leaf may have been made with, told apart by which reproduces its value.
        draws: (n, trees) how often each tree of a forest drew each example; None where all once.
        may_follow: whether the base may be the best constant for the training set (it is looked at whether it is).
        unrecorded: what happened in training without a record.
        retrain_estimator: (library's inputs, labels, weights or None, seed) → a new estimator, trained the same way.
        threads: whether training takes threads of the library's own.
        splits: what sends an example to a leaf, in the library's own form.
        library: its name and version, and that of the one that made the model, where the model says so.
    """

    ensemble: TreeEnsemble
    loss: BoostingLoss
    leaf_numbers: Callable[[Any], NDArray[np.integer]]
    margins: Callable[[Any], Array]
    retrain_estimator: Callable[[Any, Any, Any, int], Any]
    rule: LeafRule | None = None
    other_l2: Array | None = None
    draws: Array | None = None
    bootstrap: bool = False
    may_follow: bool = True
    unrecorded: tuple[str, ...] = ()
    splits: Any = None
    library: str = "scikit-learn"
    threads: bool = False

    def replay_training(self, leaves: Indices, targets: Array, weights: Array) -> Boosting | Forest:
        """How leaf values came about on these examples."""
        if self.rule is None:
            drawn = np.ones(leaves.shape) if self.draws is None else self.draws
            forest = Forest(self.ensemble, self.loss, leaves, targets, drawn, self.bootstrap, self.unrecorded)
            # Sample weights are weights in the leaves, or (scikit-learn from 1.8) the chances of being drawn.
            weighted = replace(forest, weights=weights[:, None] * drawn)
            return forest if forest.exact and not weighted.exact else weighted
        follows = self.may_follow and _is_best_constant(self.ensemble.base, self.loss, targets, weights)
        boosting = Boosting(self.ensemble, self.loss, self.rule, leaves, targets, weights, follows, self.unrecorded)
        if self.other_l2 is None:
            return boosting
        other = replace(boosting, rule=replace(self.rule, l2=self.other_l2))
        off = [np.abs(one.reproduced - self.ensemble.values).max(axis=1) for one in (boosting, other)]
        return replace(boosting, rule=replace(self.rule, l2=np.where(off[1] < off[0], self.other_l2, self.rule.l2)))


@dataclass(frozen=True)
class TreeInputs:
    """From `Examples.x` to what the library takes: the steps of a pipeline, and the check that columns fit."""

    steps: Any  # what comes before the last step of a pipeline, or None
    count: int | None
    names: tuple[str, ...] | None

    def __call__(self, x: Any) -> Any:
        """The inputs, checked."""
        if self.steps is not None and len(self.steps):
            try:
                x = self.steps.transform(x)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"the pipeline cannot take these inputs ({error}); pass what goes into its first step, as to fit()"
                ) from error
        given = columns_of(x)
        if (
            self.names is not None
            and given is not None
            and tuple(name.replace(" ", "_") for name in given) != tuple(name.replace(" ", "_") for name in self.names)
        ):
            raise ValueError(
                f"expected the columns {list(self.names)[:8]} in this order, as in fit(), got {given[:8]}; reorder them"
            )
        shape = np.shape(x) if not hasattr(x, "shape") else x.shape
        if len(shape) != 2 or (self.count is not None and shape[1] != self.count):
            raise ValueError(
                f"expected inputs with {self.count} columns, as the model was fitted on, got shape {tuple(shape)}"
            )
        return x


def library_of(estimator: Any) -> str:
    """The package that the estimator, or the last step of a pipeline, comes from."""
    return type(last_step(estimator)).__module__.partition(".")[0]


def read_trees(
    read: Callable[[Any, Examples, Measurement, Any, BoostingLoss | None], TreeModel],
    estimator: Any,
    train: Examples,
    measure: Measurement,
    loss: BoostingLoss | None,
) -> TreeModel:
    """The model that `read(last step, train, measure, steps before it, loss)` gives, recognised on its training set."""
    if train.y is None:
        raise ValueError("the training set has no labels; pass Examples(x, y) with the y the model was fitted on")
    return _recognised(read(last_step(estimator), train, measure, steps_before(estimator), loss), train)


def tree_model(
    estimator: Any,
    columns: TreeInputs,
    spec: TreeSpec,
    train: Examples,
    measure: Measurement,
    reread: Callable[[Any, Examples], TreeModel],
) -> TreeModel:
    """The reading as a model, if it gives the library's own margins and fits the training set; else ValueError.

    `reread(new estimator, train)` reads what training again gives.
    """

    def train_again(kept: Examples, seed: int) -> TreeModel:
        trained = spec.retrain_estimator(columns(kept.x), kept.y, kept.weights, seed)
        return reread(trained, kept)

    model = TreeModel(
        name=type(estimator).__name__,
        predictor=estimator,
        ensemble=spec.ensemble,
        loss=spec.loss,
        measurement_of=measure,
        numbers=lambda x: spec.leaf_numbers(columns(x)),
        grow=spec.replay_training,
        train_again=train_again,
        is_boosted=spec.rule is not None,
        threads=spec.threads,
        settings=(_settings(estimator), columns),
        splits=spec.splits,
    )
    _same_margins(model, spec.margins(columns(train.x)), train, spec.library)
    return model


def _settings(estimator: Any) -> Any:
    """What its training was told: by scikit-learn's interface, or in the library's own form."""
    if hasattr(estimator, "get_params"):
        return relevant(type(estimator), estimator.get_params())
    params = getattr(estimator, "params", None)
    return relevant(type(estimator), params) if params else estimator.save_config()


def _recognised(model: TreeModel, train: Examples) -> TreeModel:
    """The model with its notes, refused where these cannot be the examples it was fitted on."""
    grown = model.grown(train)
    if not grown.exact and not grown.unrecorded and grown.loss.differentiable:
        raise ValueError(
            f"expected the data that {model.name} was fitted on: leaf values made again from these examples differ "
            f"from the model's by {grown.mismatch:.2g} of the largest. Pass the same rows, labels and sample weights "
            "as to fit(), and no others (an evaluation set is not part of them). A base of its own for every row "
            "(init_score, base_margin) cannot be read"
        )
    return replace(model, notes=(*model.notes, *grown.notes))


def refuse_objective(library: str, found: str, supported: str, own: bool = True) -> ValueError:
    """The error for an objective that has no per-example loss here; `own`: whether the library takes one's own."""
    ranks = " (a ranking loss belongs to pairs or lists, not to single examples)" if "rank" in found.lower() else ""
    custom = " A loss of your own is explainable(…, loss=upweight.trees.losses.Custom(gradient, hessian, third))"
    return ValueError(
        f"the {library} objective {found!r} is not supported{ranks}; there are {supported}.{custom if own else ''}"
    )


def retrain_clone(final: Any, x: Any, y: Any, weights: Any, seed: int | None, **changed: Any) -> Any:
    """The same estimator fitted on other examples; the seed goes where it has none of its own."""
    new = unfitted_clone(final, seed, **changed)
    return new.fit(x, y) if weights is None else new.fit(x, y, sample_weight=weights)


def unfitted_clone(final: Any, seed: int | None, **changed: Any) -> Any:
    """The same estimator, not fitted, with those of the changed settings that it has."""
    from sklearn.base import clone

    new = clone(final)
    known = new.get_params()
    if known.get("random_state", 0) is None:
        changed["random_state"] = seed
    return new.set_params(**{name: value for name, value in changed.items() if name in known})


def leaf_lookup(leaf_nodes: Sequence[NDArray[np.integer]]) -> Callable[[NDArray[Any]], NDArray[np.intp]]:
    """From node numbers (n, trees) to leaf numbers, given every tree's leaves among its nodes."""
    tables = []
    for nodes in leaf_nodes:
        table = np.full(int(nodes.max(initial=0)) + 1, -1, dtype=np.intp)
        table[nodes] = np.arange(len(nodes))
        tables.append(table)

    def look(found: NDArray[Any]) -> NDArray[np.intp]:
        found = np.asarray(found, dtype=np.intp).reshape(len(found), len(tables))
        return np.stack([table[column] for table, column in zip(tables, found.T, strict=True)], axis=1)

    return look


def _same_margins(model: TreeModel, theirs: Array, train: Examples, library: str) -> None:
    ours = model.margins(train)
    theirs = np.asarray(theirs, dtype=np.float64).reshape(ours.shape)
    off, size = float(np.abs(ours - theirs).max()), float(np.abs(theirs).max())
    if not off <= MARGIN * max(size, 1.0):
        raise ValueError(
            f"the trees of this {model.name} ({library}) as read here predict other margins than it does itself (by "
            f"{off:.2g}): it was made by a version, or with a feature, that is not supported (linear leaves, a per-row "
            "base, a newer file format)"
        )


@contextmanager
def known_format(library: str) -> Iterator[None]:
    """Room to read what a library says of its trees: where a part is missing, the error names library and version."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{library} describes its trees otherwise than is known here ({type(error).__name__}: {error}): a model "
            "file of a newer version? Train or load it with an older one, or report it"
        ) from error


def _is_best_constant(base: Array, loss: BoostingLoss, targets: Array, weights: Array) -> bool:
    """Up to a constant where the loss sees differences of outputs alone."""
    mean = targets @ weights / weights.sum()
    if loss.classes is not None and ((mean <= 0) | (mean >= 1)).any():
        return False
    off = base - loss.link(mean)
    if loss.coupled:
        off = off - off.mean()
    return bool(np.abs(off).max() <= 1e-5 * max(1.0, float(np.abs(base).max())) and np.abs(base).max() > 0)
