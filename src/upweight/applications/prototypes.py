"""Prototypes and criticisms of a data set, and the few training examples that represent a set of predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.applications.example_kernels import ExampleKernel, FisherKernel, KernelRecipe, RBFKernel
from upweight.applications.greedy_choice import Choice, choose_criticisms, choose_prototypes, choose_quadrature
from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.model import Embeddable, Measurable
from upweight.core.progress import as_progress
from upweight.core.tabular import Tabular
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]
NOT_POSITIVE = 1e-6  # share of the largest k(i, i) below 0 from which a kernel is refused


@dataclass(frozen=True, eq=False)
class Prototypes(Tabular):
    """Training examples that represent a data set or predictions, and those that they represent worst.

    Attributes:
        ids: the prototypes, in the order in which they were chosen.
        weights: of the prototypes in the mean that they represent, (k,): equal for a data set; those of the
            quadrature for predictions.
        values: the objective with each prototype and those before, (k,). For a data set J, which is higher the nearer
            the prototypes are to the data; for predictions the squared norm of what they span.
        criticism_ids: the criticisms, in the order in which they were chosen.
        witness: of the criticisms: positive where the data are denser than the prototypes say, negative where sparser.
        train: the training set.
        queries: what the prototypes represent; None for the training set itself.
        kernel: the settings of the kernel.
        diagnostics: `warnings`, `width` of an RBF kernel.
    """

    _table: ClassVar = "prototypes"
    _examples: ClassVar = {"id": "train"}
    ids: NDArray[Any]
    weights: Array
    values: Array
    criticism_ids: NDArray[Any]
    witness: Array
    train: Examples
    queries: Examples | None
    kernel: KernelRecipe
    diagnostics: Mapping[str, Any]

    @property
    def stands_for(self) -> str:
        """What the prototypes represent, in words."""
        if self.queries is None:
            return "the training set"
        return "1 query" if len(self.queries) == 1 else f"{len(self.queries):,} queries"

    def by_class(self) -> dict[Any, tuple[list[Id], list[Id]]]:
        """Label → (its prototypes, its criticisms), in the order of the labels; one entry None without labels."""
        label_of = self.train.label if self.train.y is not None else lambda _: None
        classes: dict[Any, tuple[list[Id], list[Id]]] = {}
        for part, ids in enumerate((self.ids.tolist(), self.criticism_ids.tolist())):
            for identifier in ids:
                classes.setdefault(label_of(identifier), ([], []))[part].append(identifier)
        return dict(sorted(classes.items(), key=lambda item: str(item[0])))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        prototypes = zip(self.ids.tolist(), self.weights.tolist(), self.values.tolist(), strict=True)
        criticisms = zip(self.criticism_ids.tolist(), self.witness.tolist(), strict=True)
        return {
            "stands_for": self.stands_for,
            "kernel": type(self.kernel).__name__,
            "prototypes": [{"id": i, "weight": weight, "value": value} for i, weight, value in prototypes],
            "criticisms": [{"id": i, "witness": witness} for i, witness in criticisms],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def accuracy(self, model: Embeddable, queries: Examples) -> float:
        """The share of queries whose nearest prototype, by the model's features, has their label.

        Raises ValueError if training examples or queries have no labels.
        """
        return nearest_accuracy(model, self.train.select(self.ids.tolist()), queries)

    def __repr__(self) -> str:
        return (
            f"Prototypes({len(self.ids)} of {len(self.train):,} training examples for {self.stands_for}, "
            f"{len(self.criticism_ids)} criticisms, {type(self.kernel).__name__})"
        )


@with_gradients()
def prototypes(
    model: Measurable,
    train: Examples,
    queries: Examples | None = None,
    *,
    k: int = 10,
    criticisms: int | None = None,
    kernel: KernelRecipe | None = None,
    progress: Callable[..., None] | None = None,
) -> Prototypes:
    """Choose training examples that represent a data set or, with queries, for what the model does on them.

    Without queries: MMD-critic (Kim, Khanna & Koyejo 2016). Prototypes are chosen one by one so that their mean is
    nearest to the mean of the data in the space of the kernel, and criticisms where prototypes and data differ most.
    With queries: sequential Bayesian quadrature (Khanna et al. 2019), whose weighted examples span the mean of the
    queries in the space of the kernel. With the Fisher kernel, the first one has the largest relative influence
    (`RelatIF`), whose steps of the parameters are measured in the Fisher metric, as changes of the loss.

    Args:
        model: a model with features (`Embeddable`) for an RBF kernel, with gradients (`Differentiable`) for a Fisher
            kernel.
        train: the training set. Examples of weight 0 are not chosen.
        queries: examples whose predictions are to be explained; None for the training set itself.
        k: number of prototypes.
        criticisms: number of criticisms; None for k of a data set, and none for queries.
        kernel: `RBFKernel()` or `FisherKernel()`; None for RBF on a data set and Fisher for queries.
        progress: called with (stage, done, total).

    Raises:
        ValueError: k or criticisms beyond the number of examples, features with NaN, a kernel that is not positive
            semi-definite.
        TypeError: a model without the capability that the kernel needs.
    """
    require_count("k", k)
    require(model, [Measurable], "prototypes", train)
    recipe = kernel or (RBFKernel() if queries is None else FisherKernel())
    number = (k if queries is None else 0) if criticisms is None else criticisms
    allowed = sample_weights(train) > 0
    _require_enough(k, number, int(allowed.sum()))
    between = recipe.between(model, train)
    _require_positive(between)
    report = as_progress(progress, "prototypes", stacklevel=4)  # past the decorator
    if queries is None:
        target = between.mean(report)
        chosen = choose_prototypes(between, target, k, allowed)
    else:
        require(model, [Measurable], "prototypes", train, queries)
        target = between.mean_to(queries)
        chosen = choose_quadrature(between, target, k, allowed)
    free = allowed.copy()
    free[chosen.positions] = False
    critics = choose_criticisms(between, target - chosen.covered, number, free) if number else None
    return _result(train, chosen, critics, recipe, queries, k, getattr(between, "width", math.nan))


def nearest_accuracy(model: Embeddable, chosen: Examples, queries: Examples) -> float:
    """The share of queries whose nearest chosen example, by the model's features, has their label."""
    from sklearn.neighbors import NearestNeighbors

    if chosen.y is None or queries.y is None:
        raise ValueError("expected labels of training examples and queries; pass Examples(x, y)")
    nearest = NearestNeighbors(n_neighbors=1).fit(model.embed(chosen))
    positions = nearest.kneighbors(model.embed(queries), return_distance=False)[:, 0]
    return float(np.mean(chosen.y[positions] == queries.y))


def _result(
    train: Examples,
    chosen: Choice,
    critics: Choice | None,
    kernel: KernelRecipe,
    queries: Examples | None,
    k: int,
    width: float,
) -> Prototypes:
    none, warnings = np.empty(0), []
    if len(chosen.positions) < k:
        warnings.append(
            f"{len(chosen.positions)} of {k} prototypes: in this kernel every other example adds nothing to them."
        )
    return Prototypes(
        ids=train.ids[chosen.positions],
        weights=chosen.weights,
        values=chosen.values,
        criticism_ids=train.ids[none.astype(np.intp) if critics is None else critics.positions],
        witness=none if critics is None else critics.values,
        train=train,
        queries=queries,
        kernel=kernel,
        diagnostics={"warnings": warnings, **({} if math.isnan(width) else {"width": width})},
    )


def _require_enough(k: int, criticisms: int, available: int) -> None:
    if criticisms < 0 or k + criticisms > available:
        raise ValueError(
            f"expected at most {available:,} prototypes and criticisms together, the number of training examples "
            f"with a weight above 0, got {k} and {criticisms}"
        )


def _require_positive(kernel: ExampleKernel) -> None:
    """Raise ValueError for a negative k(i, i); `greedy_choice` looks at the rest of the kernel."""
    smallest, largest = float(kernel.diagonal.min()), float(np.abs(kernel.diagonal).max())
    if not smallest >= -NOT_POSITIVE * largest:
        raise ValueError(
            f"expected a kernel that is positive semi-definite, got k(i, i) down to {smallest:.3g}: the curvature has "
            "negative directions; pass FisherKernel(curvature=GaussNewton()), or more damping"
        )
