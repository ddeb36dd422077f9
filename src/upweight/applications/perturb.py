"""Perturbation influence: which features of which training examples would move a prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.input_gradients import InputGradients
from upweight.core.attributor import Attributor, Fitted
from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.choices import require_choice
from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.library_calls import with_gradients
from upweight.core.lookup import position_of
from upweight.core.model import Measurable, Movable, Perturbable
from upweight.core.scores import Unit, require_finite
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


class Feature(NamedTuple):
    """One number of one training example, and its effect on one query.

    `gradient` is the change of the query's measurement per unit of this number, after retraining. `contribution` is
    (value − baseline) · gradient: to first order, the measurement with this number minus the measurement with the
    baseline in its place.
    """

    name: str
    value: float
    gradient: float
    contribution: float


@dataclass(frozen=True, eq=False)
class Perturbation(Tabular):
    """The effect on queries, after retraining, of changing the numbers of training examples.

    Attributes:
        gradients: (queries, chosen examples, …): ∂ measurement / ∂ number, in the measurement's own unit.
        values: (chosen examples, …): the numbers themselves.
        baseline: the values that `contributions` compare them with; it broadcasts against `values`.
        example_ids: the chosen training examples. Unless the caller named them, the largest reach comes first.
        described: what the numbers are, in words.
        names: one name per number if an example is a row of numbers, else None.
        unit: EFFECT or RANK.
    """

    _examples: ClassVar = {"query": "queries", "example": "train"}
    gradients: Array
    values: Array
    baseline: Array
    query_ids: NDArray[Any]
    example_ids: NDArray[Any]
    train: Examples
    queries: Examples
    described: str
    names: tuple[str, ...] | None
    unit: Unit
    measurement: str
    diagnostics: Mapping[str, Any]

    @property
    def reach(self) -> Array:
        """(queries, chosen examples): Σ |gradient|, the effect of moving every number by one unit, worst signs."""
        return np.asarray(np.abs(self.gradients).reshape(*self.gradients.shape[:2], -1).sum(axis=2))

    @property
    def contributions(self) -> Array:
        """(values − baseline) ⊙ gradients, shaped as `gradients`; a number equal to the baseline contributes 0."""
        return np.asarray((self.values - self.baseline) * self.gradients)

    def features(
        self, query: Id, example: Id, k: int = 5, by: Literal["contribution", "gradient"] = "contribution"
    ) -> list[Feature]:
        """The k numbers of this training example with the largest effect on this query, by absolute value.

        Ranked by contribution, a dummy variable that is 0 in this row never appears; by gradient it may be first.
        """
        require_choice("by", by, "contribution", "gradient")
        require_count("k", k)
        q = position_of(self.query_ids, query, "query")
        i = position_of(self.example_ids, example, "chosen training example")
        gradient, value = self.gradients[q, i].ravel(), self.values[i].ravel()
        contribution = self.contributions[q, i].ravel()
        order = np.argsort(-np.abs(contribution if by == "contribution" else gradient), kind="stable")[:k]
        return [
            Feature(self.name(j), float(value[j]), float(gradient[j]), float(contribution[j])) for j in order.tolist()
        ]

    def as_dict(self, k: int = 10) -> dict[str, Any]:
        """Plain values for JSON: the k features with the largest contribution for every query and chosen example."""
        pairs = [(q, i) for q in self.query_ids.tolist() for i in self.example_ids.tolist()]
        return {
            "measurement": self.measurement,
            "unit": str(self.unit),
            "moved": self.described,
            "features": [
                {"query": q, "example": i, "of": [f._asdict() for f in self.features(q, i, k)]} for q, i in pairs
            ],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def name(self, position: int) -> str:
        """The name of one number: its column, or its index in the example's array."""
        if self.names is not None:
            return self.names[position]
        index = np.unravel_index(position, self.values.shape[1:])
        return f"x[{', '.join(str(i) for i in index)}]"

    def predicted(self, moves: Mapping[Id, Any]) -> Array:
        """The change of every query's measurement if these numbers were added to these examples, (queries,).

        `moves` maps ids of chosen examples to arrays shaped like one example. Exact in the limit of small moves.
        """
        changes = np.zeros(len(self.query_ids))
        for identifier, move in moves.items():
            i = position_of(self.example_ids, identifier, "chosen training example")
            step = np.broadcast_to(np.asarray(move, dtype=np.float64), self.values.shape[1:])
            changes += self.gradients[:, i].reshape(len(changes), -1) @ step.ravel()
        return changes

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for query in self.query_ids.tolist():
            for identifier in self.example_ids.tolist():
                for feature in self.features(query, identifier, self.values[0, 0].size):
                    yield {"query": query, "example": identifier, **feature._asdict()}

    def __repr__(self) -> str:
        size = " × ".join(str(side) for side in self.values.shape[1:])
        return (
            f"Perturbation({len(self.query_ids)} queries × {len(self.example_ids)} of {len(self.train)} training "
            f"examples × {size} {self.described}, {self.unit} of {self.measurement})"
        )


@accept_old_keywords({"method": ReplacedBy("recipe")})
@with_gradients()
def perturb(
    model: Measurable,
    train: Examples,
    queries: Examples,
    *,
    examples: Sequence[Id] | None = None,
    k: int = 10,
    baseline: Any = 0.0,
    recipe: Attributor | None = None,
) -> Perturbation:
    """Which features of which training examples would move these predictions if the model were retrained.

    With m the measurement and H the Hessian of the training objective (summed over examples), the gradient for
    feature j of example i is −∇m_qᵀ H⁻¹ ∂∇ℓᵢ/∂xᵢⱼ: with the default measurement, −loss, it is −I_pert,loss / n of
    Koh & Liang (2017), eq. 5. Positive: raising the number raises the measurement.

    Args:
        model: any `Perturbable` model. One is `uw.explainable` of a linear scikit-learn estimator or pipeline (closed
            form, through its scalers and projections to the raw inputs; after an encoder or vectorizer, for the
            columns that it makes). The other is a `TorchModel` (double backward, also through frozen layers).
        train, queries: as for `explain`.
        examples: ids of the training examples to examine; None for the k with the largest reach over all queries.
        baseline: the value that contributions compare a feature with: a number, or an array shaped like one example.
        recipe: an `Influence(curvature=…, damping=…)`; None for `Influence(polish=0)`.

    Raises:
        TypeError: a model whose inputs cannot be moved (a kernel machine, token ids), or a recipe that does not solve
            with its curvature.
        ValueError: k below 1, or a baseline of another shape.
        KeyError: an unknown training id.
    """
    require_count("k", k)
    require(model, [Perturbable], "perturb", train, queries)
    chosen = None if examples is None else train.positions(examples)
    input_gradients = InputGradients.of(model, train, recipe)
    vectors = input_gradients.query_ihvps(queries)
    if chosen is None:
        train_blocks = input_gradients.train_blocks(vectors)
        reach = np.concatenate([np.abs(block).sum(axis=2).max(axis=0) for block in train_blocks])
        chosen = np.argsort(-require_finite(reach), kind="stable")[:k]
    chosen_examples = train.take(chosen)
    movable = input_gradients.model.movable(chosen_examples)
    gradients = input_gradients.gradients(chosen_examples, vectors)
    return Perturbation(
        gradients=require_finite(gradients),
        values=movable.values,
        baseline=_baseline(baseline, movable),
        query_ids=queries.ids,
        example_ids=chosen_examples.ids,
        train=train,
        queries=queries,
        described=movable.described,
        names=movable.names,
        unit=input_gradients.fitted.unit,
        measurement=model.measurement,
        diagnostics=_diagnostics(input_gradients.fitted, movable),
    )


def _baseline(value: Any, movable: Movable) -> Array:
    baseline = np.asarray(value, dtype=np.float64)
    shape = movable.values.shape[1:]
    if not np.isfinite(baseline).all() or (baseline.ndim and baseline.shape != shape):
        raise ValueError(f"expected a finite baseline, one number or an array of shape {shape}, got {baseline.shape}")
    return baseline


def _diagnostics(fitted: Fitted[Any, Any], movable: Movable) -> dict[str, Any]:
    diagnostics = dict(fitted.diagnostics)
    warnings = list(diagnostics.pop("warnings", ()))
    if not movable.is_input:
        warnings.append(
            f"Features are the {movable.described}. What comes before them cannot be differentiated and is held fixed."
        )
    return {**diagnostics, "moved": movable.described, "warnings": warnings}
