"""attack: training examples moved by less than a grey level to turn predictions, to audit a pipeline one owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from upweight.applications.perturb import Field
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import take_rows
from upweight.core.model import Measurable, Perturbable, Retrainable, require, require_reads_examples
from upweight.core.progress import Progress, as_progress

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attack:
    """What became of the moved training examples and of the queries.

    Attributes:
        train: the training set with the moved examples in place of the old ones.
        moved: ids of the training examples that were moved.
        measured: (steps + 1, queries), the measurement before and after every step, by real training.
        predicted: (before, after): what was said of each query.
        moves: (moved, …), what was added to their numbers, in grey levels.
    """

    train: Examples
    queries: Examples
    moved: NDArray[Any]
    measured: Array
    predicted: tuple[tuple[Any, ...], tuple[Any, ...]]
    moves: Array
    measurement: str
    diagnostics: Mapping[str, Any]

    @property
    def turned(self) -> list[Any]:
        """Ids of the queries whose prediction is another one at the end."""
        pairs = zip(self.queries.ids.tolist(), *self.predicted, strict=True)
        return [identifier for identifier, before, after in pairs if before != after]

    @property
    def farthest(self) -> float:
        """The largest move of any number, in grey levels."""
        return float(np.abs(self.moves).max())

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = zip(self.queries.ids.tolist(), self.measured[0], self.measured[-1], *self.predicted, strict=True)
        return {
            "measurement": self.measurement,
            "moved": self.moved.tolist(),
            "farthest": self.farthest,
            "steps": len(self.measured) - 1,
            "queries": [
                {"id": i, "before": float(m), "after": float(n), "predicted": [a, b]} for i, m, n, a, b in rows
            ],
            "turned": self.turned,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"Attack({len(self.moved)} training examples moved by at most {self.farthest:.2f} grey levels, "
            f"{len(self.turned)} of {self.measured.shape[1]} predictions turned in {len(self.measured) - 1} steps)"
        )


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent on training inputs: how far they may go, and in which steps (Madry et al. 2018).

    With a radius of .5 the moved images are the same 8-bit images.

    Args:
        grey: one grey level in units of the inputs, e.g. 1/255 for pixels in [0, 1].
        radius, step: how far a number may go, and goes in one round, in grey levels. `steps`: rounds at most.
        bounds: smallest and largest value that a number may have; None for those of the training set.
    """

    grey: float
    radius: float = 0.5
    step: float = 0.02
    steps: int = 100
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (self.grey > 0 and self.radius > 0 and self.step > 0 and self.steps >= 1):
            raise ValueError(
                "expected grey, radius and step above 0 and steps ≥ 1, got "
                f"{self.grey}, {self.radius}, {self.step}, {self.steps}"
            )

    def box(self, train: Examples, places: NDArray[np.intp]) -> tuple[Array, Array]:
        """The least and the largest value that every number of the examples at these places may take."""
        original = train.x[places].astype(np.float64)
        low, high = self.bounds if self.bounds is not None else (float(train.x.min()), float(train.x.max()))
        reach = self.radius * self.grey
        return np.maximum(original - reach, low), np.minimum(original + reach, high)


def _pgd(current: PGD | None, **fields: Any) -> PGD:
    return PGD(**fields) if current is None else replace(current, **fields)


@accept_old_keywords(
    {field.name: ReplacedBy("pgd", field.name) for field in fields(PGD)}, {"pgd": BuiltBy("uw.PGD", _pgd)}
)
def attack(
    model: Measurable,
    train: Examples,
    queries: Examples,
    examples: Sequence[Id] | int = 1,
    *,
    pgd: PGD,
    progress: Progress | None = None,
) -> Attack:
    """Move training examples, each number by less than `pgd.radius` grey levels, so that the queries get worse.

    Each round takes a step along the sign of the perturbation influence on the queries' mean measurement, projects to
    the box around the original, and really trains again (Koh & Liang 2017, §5.2). With a radius of .5, the moved images
    are the same 8-bit images. It stops when every query's prediction has turned.

    Args:
        model: `Perturbable` and `Retrainable`, with inputs that are numbers (or a `FrozenFeatures` step before it).
        train, queries: as for `perturb`; the queries need labels.
        examples: ids of the training examples to move, or how many of those with the farthest reach.
        pgd: how far and how often they may be moved, e.g. `PGD(grey=1 / 255)`.
        progress: called with ("retrain", rounds done, of how many at most).

    Raises TypeError for a model that cannot be trained again, or whose inputs are no numbers of its own.
    """
    require(model, [Perturbable, Retrainable], "attack", train, queries)
    require_reads_examples(model, "attack")
    tell = as_progress(progress, "attack", stacklevel=4)  # past the decorator
    _require_numbers(model, train, examples)
    ready: Any = cast(Perturbable, model).hypothetical(new_inputs=True)
    here = ready.retrain(train, np.ones(len(train)))
    before = here.predict(queries).predicted
    places = _levers(here, train, queries, examples) if isinstance(examples, int) else train.positions(examples)
    least, most = pgd.box(train, places)
    measured, now = [here.measure(queries)], train
    for done in range(1, pgd.steps + 1):
        x = now.x.astype(np.float64)
        x[places] = np.clip(x[places] - pgd.step * pgd.grey * np.sign(_uphill(here, now, queries, places)), least, most)
        now = train.replaced(x=x, shown=_redrawn(train, x, places))
        here = ready.retrain(now, np.ones(len(now)))
        measured.append(here.measure(queries))
        tell("retrain", done, pgd.steps)
        if all(a != b for a, b in zip(here.predict(queries).predicted, before, strict=True)):
            break
    return Attack(
        train=now,
        queries=queries,
        moved=train.ids[places],
        measured=np.stack(measured),
        predicted=(tuple(before), tuple(here.predict(queries).predicted)),
        moves=(now.x[places] - train.x[places].astype(np.float64)) / pgd.grey,
        measurement=model.measurement,
        diagnostics={"warnings": list(model.notes)},
    )


def _require_numbers(model: Any, train: Examples, examples: Sequence[Id] | int) -> None:
    if isinstance(examples, int) and examples < 1:
        raise ValueError(f"expected at least one training example to move, got {examples}")
    movable = model.movable(train.take([0]))
    if not (movable.is_input and isinstance(train.x, np.ndarray)):
        raise TypeError(
            f"expected training inputs as an array of numbers, what can be moved are the {movable.described}"
        )


def _uphill(model: Any, train: Examples, queries: Examples, places: NDArray[np.intp]) -> Array:
    """∂ mean measurement of the queries / ∂ inputs of these training examples, (examples, …)."""
    field = Field.of(model, train)
    return np.asarray(field.gradients(train.take(places), field.directions(queries).mean(axis=0, keepdims=True))[0])


def _levers(model: Any, train: Examples, queries: Examples, count: int) -> NDArray[np.intp]:
    """Positions of the training examples by whose numbers the mean measurement can be moved most."""
    field = Field.of(model, train)
    mean = field.directions(queries).mean(axis=0, keepdims=True)
    reach = np.concatenate([np.abs(g).sum(axis=2)[0] for _, g in field.blocks(mean)])
    return np.argsort(-reach, kind="stable")[:count]


def _redrawn(train: Examples, x: Array, places: NDArray[np.intp]) -> Any:
    """What is shown, with the moved examples as they are now.

    Pictures that are the inputs on another scale follow on that scale; else the numbers themselves are shown.
    """
    if train.shown is None:
        return None
    pictures = np.asarray(train.shown) if isinstance(train.shown, np.ndarray) else None
    if pictures is not None and pictures.dtype.kind in "iuf" and pictures.size == x.size:
        old, drawn = train.x.astype(np.float64).ravel(), pictures.astype(np.float64).ravel()
        slope, offset = np.polyfit(old, drawn, 1)
        if np.allclose(slope * old + offset, drawn, atol=1e-6 * max(float(np.ptp(drawn)), 1e-300)):
            redrawn = pictures.astype(np.float64)
            redrawn[places] = (slope * x[places] + offset).reshape(redrawn[places].shape)
            return redrawn
    moved = set(places.tolist())
    return [x[place] if place in moved else take_rows(train.shown, np.array([place]))[0] for place in range(len(train))]
