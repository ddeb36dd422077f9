"""Growing spheres: the smallest change of a query that changes its prediction, beside the nearest training examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explained_output import inputs_like, require_one
from upweight.applications.interpretable.columns import Columns
from upweight.applications.interpretable.mixed_space import MixedSpace
from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.chosen_outputs import predictions_of
from upweight.core.examples import Examples, Id
from upweight.core.model import Measurable
from upweight.core.tabular import Tabular
from upweight.core.weights import weighted_positions

Array = NDArray[np.float64]
IsEnemy = Callable[[Array], NDArray[np.bool_]]
SHRINK = 0.1  # of the radius, if the first ball has enemies
GROWTH = 0.1  # width of a ring, as a share of its inner radius
SMALLEST = 1e-9  # smallest radius at which rings start


@dataclass(frozen=True, kw_only=True)
class Spheres:
    """How the space around a query is searched.

    Args:
        radius: of the first ball, in standard deviations.
        samples: how many rows are drawn in the ball and in every ring.
        categorical: names or positions of columns whose numbers are codes, as in `Neighbours`.
        seed: of what is drawn.
    """

    radius: float = 0.1
    samples: int = 2000
    categorical: Sequence[str | int] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("samples", self.samples)
        require_count("seed", self.seed, least=0)
        if not 0 < self.radius < np.inf:
            raise ValueError(f"expected a radius above 0, got {self.radius!r}")


class ColumnChange(NamedTuple):
    """One column of the query and its value in the enemy; `size` in standard deviations, 1 for another category."""

    name: str
    before: Any
    after: Any
    size: float


class TrainingEnemy(NamedTuple):
    """A training example with another predicted label than the query, and its distance from it."""

    id: Id
    distance: float
    predicted: Any


@dataclass(frozen=True, eq=False)
class NearestEnemy(Tabular):
    """The nearest changed query that was found with another predicted label.

    Attributes:
        query: the query.
        predicted: its predicted label.
        enemy: the changed query, with only the changes that it needs, in the form of the query's inputs.
        enemy_predicted: its predicted label.
        changes: what is changed, the largest first.
        distance: of the enemy from the query.
        distance_before: of the enemy before changes were undone.
        changed_before: how many columns it changed before.
        training: the nearest training examples that the model predicts as it predicts an enemy, nearest first.
        train: the training set.
        spheres: how the space was searched.
        diagnostics: `warnings`; `predictions`, how many the search took.
    """

    _table: ClassVar = "changes"
    query: Examples
    predicted: Any
    enemy: Examples
    enemy_predicted: Any
    changes: tuple[ColumnChange, ...]
    distance: float
    distance_before: float
    changed_before: int
    training: tuple[TrainingEnemy, ...]
    train: Examples
    spheres: Spheres
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "query": self.query.ids[0].item(),
            "predicted": self.predicted,
            "enemy_predicted": self.enemy_predicted,
            "changes": [change._asdict() for change in self.changes],
            "distance": self.distance,
            "distance_before": self.distance_before,
            "changed_before": self.changed_before,
            "training": [enemy._asdict() for enemy in self.training],
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        changed = "; ".join(f"{c.name} {_text(c.before)} → {_text(c.after)}" for c in self.changes)
        return f"NearestEnemy({self.predicted} → {self.enemy_predicted} at distance {self.distance:.3g}: {changed})"


def growing_spheres(
    model: Measurable,
    query: Examples,
    train: Examples,
    *,
    label: Any = None,
    k: int = 5,
    spheres: Spheres | None = None,
) -> NearestEnemy:
    """Find the smallest change of a query that changes its predicted label (Laugel et al. 2017).

    A ball around the query shrinks until the model predicts the same label in it; rings around it then grow until one
    holds rows of another label, the enemies. The closest is taken, and its columns are set back to those of the query,
    the smallest changes first, wherever it remains an enemy.

    Args:
        model: a classifier.
        query: one row of a table, or an array of numbers.
        train: the training set. It gives standard deviations, ranges and categories; examples of weight 0 do not count.
        label: the predicted label of enemies; None for any other than the query's.
        k: how many of the nearest training enemies to list.
        spheres: how the space is searched.

    Raises:
        ValueError: more than one query, texts or sparse rows, other columns than in the training set, a model that
            predicts numbers, an unknown label or the query's own, or no enemy within the range of the training set.
    """
    require(model, [Measurable], "growing_spheres", train, query)
    require_count("k", k)
    require_one(query)
    settings = spheres or Spheres()
    search = _Search(model, query, train, label, settings)
    codes = search.nearest(settings, np.random.default_rng(settings.seed))
    sparse = search.sparsified(codes)
    sizes = search.space.moves(np.stack([codes, sparse]))
    distances = np.sqrt((sizes**2).sum(axis=1))
    enemy = search.examples(sparse[None])
    training = search.training(train, k)
    warnings = []
    if training and training[0].distance < distances[1]:
        warnings.append(
            f"Training example {training[0].id} is a nearer enemy ({training[0].distance:.3g}) than the one that was "
            f"found ({distances[1]:.3g}): rings hold too few samples for so many columns; raise Spheres(samples=…)."
        )
    return NearestEnemy(
        query=query,
        predicted=search.predicted,
        enemy=enemy,
        enemy_predicted=model.predict(enemy).predicted[0],
        changes=_changes(search.space, sparse, sizes[1]),
        distance=float(distances[1]),
        distance_before=float(distances[0]),
        changed_before=int(np.count_nonzero(sizes[0])),
        training=training,
        train=train,
        spheres=settings,
        diagnostics={"warnings": warnings, "predictions": search.predictions},
    )


def _changes(space: MixedSpace, codes: Array, sizes: Array) -> tuple[ColumnChange, ...]:
    columns, query = space.columns, space.query
    changed = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist()
    values = [(columns.value(j, query[j]), columns.value(j, codes[j])) for j in changed]
    return tuple(
        ColumnChange(columns.names[j], *both, float(sizes[j])) for j, both in zip(changed, values, strict=True)
    )


class _Search:
    """The space around one query, and what the model predicts in it."""

    def __init__(self, model: Measurable, query: Examples, train: Examples, label: Any, settings: Spheres) -> None:
        self.model, self.query, self.predictions = model, query, 0
        self.space = space_of(train, query, settings)
        self._present = weighted_positions(train)
        predictions = predictions_of(model, query)
        if not predictions.classes:
            raise ValueError("expected a model that predicts labels, got one that predicts numbers: it has no enemies")
        self.predicted = predictions.predicted[0]
        self.label = None if label is None else query.labels.get(label, label)
        if self.label is not None and (self.label not in predictions.classes or self.label == self.predicted):
            others = [name for name in predictions.classes if name != self.predicted]
            raise ValueError(f"expected one of the other labels {others[:12]}, got {label!r}")
        self._shape = np.shape(query.x)[1:] if isinstance(query.x, np.ndarray) else ()

    def examples(self, codes: Array) -> Examples:
        """Rows with these codes, in the form of the query's inputs."""
        columns = self.space.columns
        sources = np.full(codes.shape, len(columns) - 1)
        numbers = {}
        for j in range(codes.shape[1]):
            if columns.is_number[j]:
                numbers[j] = codes[:, j]
            else:
                sources[:, j] = columns.first_with(j)[codes[:, j].astype(np.intp)]
        x = columns.rows(sources, numbers)
        return inputs_like(self.query, x.reshape(-1, *self._shape) if len(self._shape) > 1 else x)

    def are_enemies(self, codes: Array) -> NDArray[np.bool_]:
        """Whether the model predicts rows with these codes as an enemy, (m,)."""
        if not len(codes):
            return np.zeros(0, dtype=bool)
        self.predictions += len(codes)
        return self._is_enemy(self.model.predict(self.examples(codes)).predicted)

    def _is_enemy(self, predicted: Sequence[Any]) -> NDArray[np.bool_]:
        if self.label is None:
            return np.array([label != self.predicted for label in predicted])
        return np.array([label == self.label for label in predicted])

    def nearest(self, settings: Spheres, rng: np.random.Generator) -> Array:
        """The codes of the closest enemy in the first ring that has one, (d,). Raises ValueError if none has."""
        space, radius = self.space, settings.radius
        while radius > SMALLEST and self.are_enemies(space.ring(0.0, radius, settings.samples, rng)).any():
            radius *= SHRINK
        while radius <= space.farthest:
            codes = space.ring(radius, (1.0 + GROWTH) * radius, settings.samples, rng)
            enemies = codes[self.are_enemies(codes)]
            if len(enemies):
                return np.asarray(enemies[space.distances(enemies).argmin()])
            radius *= 1.0 + GROWTH
        what = "another label" if self.label is None else f"label {self.label}"
        raise ValueError(
            f"found no row of {what} within the range of the training set, up to a distance of {space.farthest:.3g}; "
            "raise Spheres(samples=…)"
        )

    def sparsified(self, codes: Array) -> Array:
        """The enemy with every column set back to the query that can be, the smallest changes first, (d,)."""
        sizes = self.space.moves(codes[None])[0]
        enemy = codes.copy()
        for j in np.argsort(sizes, kind="stable").tolist():
            if sizes[j] == 0:
                continue
            trial = enemy.copy()
            trial[j] = self.space.query[j]
            if self.are_enemies(trial[None])[0]:
                enemy = trial
        return enemy

    def training(self, train: Examples, k: int) -> tuple[TrainingEnemy, ...]:
        """The k training examples nearest to the query that are predicted as enemies."""
        predicted = self.model.predict(train).predicted
        enemies = self._present[self._is_enemy([predicted[i] for i in self._present.tolist()])]
        distances = self.space.distances(self.space.columns.codes[enemies])
        order = np.argsort(distances, kind="stable")[:k].tolist()
        return tuple(
            TrainingEnemy(train.ids[enemies[i]].item(), float(distances[i]), predicted[enemies[i]]) for i in order
        )


def space_of(train: Examples, query: Examples, spheres: Spheres) -> MixedSpace:
    """The space around a query in which enemies are searched for."""
    columns = Columns(_flat(train), _flat(query), spheres.categorical)
    return MixedSpace(columns, weighted_positions(train))


def _flat(examples: Examples) -> Examples:
    """Arrays of any shape as rows of numbers."""
    x = examples.x
    if isinstance(x, np.ndarray) and x.ndim > 2:
        return examples.replaced(x=x.reshape(len(x), -1), names=None)
    return examples


def _text(value: Any) -> str:
    return "missing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
