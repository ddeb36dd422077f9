"""perturb: which features of which training example would move this prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from upweight.core.attributor import Attributor
from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable, Movable, Perturbable, require
from upweight.core.scores import Unit, require_finite
from upweight.methods.influence import FittedInfluence, Influence

Array = NDArray[np.float64]
HELD = 8_000_000  # gradients (queries × examples × numbers) that are held at a time: 64 MB


class Feature(NamedTuple):
    """One number of one training example, and what it does to one query.

    `gradient` is the change of the query's measurement per unit of this number, after retraining; `contribution` is
    (value − baseline) · gradient: to first order the measurement with this number minus with the baseline in its place.
    """

    name: str
    value: float
    gradient: float
    contribution: float


@dataclass(frozen=True, eq=False)
class Perturbation:
    """What moving the numbers of training examples would do to queries, after retraining.

    Attributes:
        gradients: (queries, chosen examples, …): ∂ measurement / ∂ number, in the measurement's own unit.
        values: (chosen examples, …): the numbers themselves.
        baseline: what `contributions` compare them with; it broadcasts against `values`.
        example_ids: the chosen training examples, farthest reach first unless they were named.
        described: what the numbers are; `names` one for each where an example is a row of them.
        unit: EFFECT or RANK.
    """

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
        """(queries, chosen examples): Σ |gradient|, what all numbers moved by one unit in the worst direction do."""
        return np.asarray(np.abs(self.gradients).reshape(*self.gradients.shape[:2], -1).sum(axis=2))

    @property
    def contributions(self) -> Array:
        """(values − baseline) ⊙ gradients, shaped as `gradients`: a number that is not there has no part in it."""
        return np.asarray((self.values - self.baseline) * self.gradients)

    def features(
        self, query: Id, example: Id, k: int = 5, by: Literal["contribution", "gradient"] = "contribution"
    ) -> list[Feature]:
        """The k numbers of this training example with the largest part in this query, by size.

        By contribution a dummy that the row does not have never comes up; by gradient it may come first.
        """
        if by not in ("contribution", "gradient"):
            raise ValueError(f'expected by="contribution" or "gradient", got {by!r}')
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        q, i = _place(self.query_ids, query, "query"), _place(self.example_ids, example, "chosen training example")
        gradient, value = self.gradients[q, i].ravel(), self.values[i].ravel()
        part = self.contributions[q, i].ravel()
        order = np.argsort(-np.abs(part if by == "contribution" else gradient), kind="stable")[:k]
        return [Feature(self.name(j), float(value[j]), float(gradient[j]), float(part[j])) for j in order.tolist()]

    def as_dict(self, k: int = 10) -> dict[str, Any]:
        """Plain values for JSON: the k features of largest contribution for every query and chosen example."""
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

    def name(self, place: int) -> str:
        """The name of one number: its column, or its index in the example's array."""
        if self.names is not None:
            return self.names[place]
        index = np.unravel_index(place, self.values.shape[1:])
        return f"x[{', '.join(str(i) for i in index)}]"

    def predicted(self, moves: Mapping[Id, Any]) -> Array:
        """The change of every query's measurement if these numbers were added to these examples, (queries,).

        `moves` maps ids of chosen examples to arrays shaped as one example. First order: exact as they go to zero.
        """
        out = np.zeros(len(self.query_ids))
        for identifier, move in moves.items():
            i = _place(self.example_ids, identifier, "chosen training example")
            step = np.broadcast_to(np.asarray(move, dtype=np.float64), self.values.shape[1:])
            out += self.gradients[:, i].reshape(len(out), -1) @ step.ravel()
        return out

    def __repr__(self) -> str:
        size = " × ".join(str(side) for side in self.values.shape[1:])
        return (
            f"Perturbation({len(self.query_ids)} queries × {len(self.example_ids)} of {len(self.train)} training "
            f"examples × {size} {self.described}, {self.unit} of {self.measurement})"
        )


@accept_old_keywords({"method": ReplacedBy("recipe")})
def perturb(
    model: Measurable,
    train: Examples,
    queries: Examples,
    *,
    examples: Sequence[Id] | None = None,
    k: int = 10,
    baseline: Any = 0.0,
    recipe: Influence | None = None,
) -> Perturbation:
    """Which features of which training examples would move these predictions if the model were trained again.

    With m the measurement and H the Hessian of the training objective (summed over examples), the gradient for
    feature j of example i is −∇m_qᵀ H⁻¹ ∂∇ℓᵢ/∂xᵢⱼ: with the default measurement, −loss, it is −I_pert,loss / n of
    Koh & Liang (2017), eq. 5. Positive: raising the number raises the measurement.

    Args:
        model: anything `Perturbable`: `uw.explainable` of a linear scikit-learn estimator or pipeline (closed form,
            through its scalers and projections to the raw inputs; after an encoder or vectorizer for the columns it
            makes), or a `TorchModel` (double backward, through frozen layers too).
        train, queries: as for `explain`.
        examples: ids of the training examples to look into; None for the k of the farthest reach, over all queries.
        baseline: what contributions compare a feature's value with: a number, or an array shaped as one example.
        recipe: an `Influence(curvature=…, damping=…)`; None for the model's own best.

    Raises:
        TypeError: a model whose inputs cannot be moved (a kernel machine, token ids).
        ValueError: k below 1, or a baseline of another shape.
        KeyError: an unknown training id.
    """
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}; it says how many training examples to look into")
    require(model, [Perturbable], "perturb", train, queries)
    chosen = None if examples is None else train.positions(examples)
    field = Field.of(model, train, recipe)
    vectors = field.directions(queries)
    if chosen is None:
        reach = np.concatenate([np.abs(g).sum(axis=2).max(axis=0) for _, g in field.blocks(vectors)])
        chosen = np.argsort(-require_finite(reach), kind="stable")[:k]
    some = train.take(chosen)
    movable = field.model.movable(some)
    gradients = field.gradients(some, vectors)
    return Perturbation(
        gradients=require_finite(gradients),
        values=movable.values,
        baseline=_baseline(baseline, movable),
        query_ids=queries.ids,
        example_ids=some.ids,
        train=train,
        queries=queries,
        described=movable.described,
        names=movable.names,
        unit=field.fitted.unit,
        measurement=model.measurement,
        diagnostics=_news(field.fitted, movable),
    )


@dataclass(frozen=True, eq=False)
class Field:
    """The gradient field of a fitted influence over the inputs of the training set."""

    fitted: FittedInfluence
    model: Perturbable
    train: Examples

    @classmethod
    def of(cls, model: Any, train: Examples, recipe: Attributor | None = None) -> Field:
        """At the optimum of the model's training; parameters on the columns, wherever they were before."""
        recipe = Influence(polish=0) if recipe is None else recipe
        if not isinstance(recipe, Influence):
            raise TypeError(f"expected an Influence(…) as recipe, got {type(recipe).__name__}")
        model.gradient_norm(train)  # refuses data that the model was not fitted on, which the next line would not
        fitted = recipe.fit(model.hypothetical(new_inputs=True), train)
        return cls(fitted, cast(Perturbable, fitted.model), train)

    def directions(self, queries: Examples) -> Array:
        """(H + λ)⁻¹ ∇m of every query: (m, parameters)."""
        return self.fitted.curvature.solve(self.model.measure_rows(queries)).rows.dense()

    def gradients(self, examples: Examples, vectors: Array) -> Array:
        """−vᵀ ∂rowᵢ/∂xᵢ: (m, n, …)."""
        return -self.model.input_gradients(examples, vectors)

    def blocks(self, vectors: Array) -> Any:
        """Gradients of all training examples, some at a time: (which, (m, b, numbers))."""
        width = math.prod(self.model.movable(self.train.take([0])).values.shape[1:])
        size = max(1, HELD // max(1, len(vectors) * width))
        for start in range(0, len(self.train), size):
            where = np.arange(start, min(start + size, len(self.train)))
            found = self.gradients(self.train.take(where), vectors)
            yield where, found.reshape(*found.shape[:2], -1)


def _place(ids: NDArray[Any], identifier: Id, what: str) -> int:
    found = np.flatnonzero(ids == identifier)
    if len(found) == 0:
        raise KeyError(f"no {what} has the id {identifier!r}; ids look like {ids[:5].tolist()}")
    return int(found[0])


def _baseline(given: Any, movable: Movable) -> Array:
    baseline = np.asarray(given, dtype=np.float64)
    shape = movable.values.shape[1:]
    if not np.isfinite(baseline).all() or (baseline.ndim and baseline.shape != shape):
        raise ValueError(f"expected a finite baseline, one number or an array of shape {shape}, got {baseline.shape}")
    return baseline


def _news(fitted: FittedInfluence, movable: Movable) -> dict[str, Any]:
    news = dict(fitted.diagnostics)
    warnings = list(news.pop("warnings", ()))
    if not movable.is_input:
        warnings.append(
            f"Features are the {movable.described}: what comes before cannot be followed backwards, and is held fixed."
        )
    return {**news, "moved": movable.described, "warnings": warnings}
