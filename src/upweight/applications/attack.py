"""Data poisoning by tiny changes of training inputs, to audit a pipeline that one owns.

The moved images stay the same after rounding to whole grey levels, yet retraining on them flips predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from upweight.applications.input_gradients import InputGradients
from upweight.core.capability_checks import require, require_reads_examples
from upweight.core.deprecation import BuiltBy, RenamedAttribute, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import take_rows
from upweight.core.model import Measurable, Perturbable, Retrainable
from upweight.core.progress import Progress, as_progress
from upweight.core.tabular import Tabular

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attack(Tabular):
    """The moved training examples, and the queries before and after.

    Attributes:
        train: the training set with the moved examples in place of the original ones.
        moved: ids of the training examples that were moved.
        measured: (steps + 1, queries), the measurement before the first and after every step, by real training.
        predicted: (before, after), the prediction of each query.
        moves: (moved, …), the change of their numbers, in grey levels.
    """

    _table: ClassVar = "queries"
    _examples: ClassVar = {"id": "queries"}
    train: Examples
    queries: Examples
    moved: NDArray[Any]
    measured: Array
    predicted: tuple[tuple[Any, ...], tuple[Any, ...]]
    moves: Array
    measurement: str
    diagnostics: Mapping[str, Any]
    turned = RenamedAttribute("flipped")

    @property
    def flipped(self) -> list[Any]:
        """Ids of the queries whose prediction flipped."""
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
            "turned": self.flipped,
            "warnings": list(self.diagnostics["warnings"]),
        }

    def __repr__(self) -> str:
        return (
            f"Attack({len(self.moved)} training examples moved by at most {self.farthest:.2f} grey levels, "
            f"{len(self.flipped)} of {self.measured.shape[1]} predictions flipped in {len(self.measured) - 1} steps)"
        )


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Settings of projected gradient descent on training inputs (Madry et al. 2018).

    With a radius of 0.5 the moved images are the same 8-bit images.

    Args:
        grey: one grey level in the unit of the inputs, e.g. 1/255 for pixels in [0, 1].
        radius: the largest total move of a number, in grey levels.
        step: the move of a number in one step, in grey levels.
        steps: the largest number of steps.
        bounds: the smallest and largest value that a number may have; None for those of the training set.
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

    def box(self, train: Examples, positions: NDArray[np.intp]) -> tuple[Array, Array]:
        """The smallest and the largest value that each number of the examples at these positions may take."""
        original = train.x[positions].astype(np.float64)
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
    """Move training examples, each number by at most `pgd.radius` grey levels, to lower the queries' measurement.

    Each step follows the sign of the perturbation influence on the queries' mean measurement, projects onto the box
    around the original, and retrains the model (Koh & Liang 2017, §5.2). With a radius of 0.5 the moved images are the
    same 8-bit images. The attack stops when the prediction of every query has flipped.

    Args:
        model: `Perturbable` and `Retrainable`, with inputs that are numbers (or a `FrozenFeatures` step before it).
        train, queries: as for `perturb`; the queries need labels.
        examples: ids of the training examples to move, or how many to move: those with the largest reach.
        pgd: how far and how often they may be moved, e.g. `PGD(grey=1 / 255)`.
        progress: called with ("retrain", steps done, most steps).

    Raises TypeError if the model cannot be retrained, or if the numbers that can be moved are not its inputs.
    """
    require(model, [Perturbable, Retrainable], "attack", train, queries)
    require_reads_examples(model, "attack")
    report = as_progress(progress, "attack", stacklevel=4)  # past the decorator
    _require_numbers(model, train, examples)
    ready: Any = cast(Perturbable, model).hypothetical(new_inputs=True)
    current = ready.retrain(train, np.ones(len(train)))
    before = current.predict(queries).predicted
    if isinstance(examples, int):
        positions = _farthest_reach(current, train, queries, examples)
    else:
        positions = train.positions(examples)
    low, high = pgd.box(train, positions)
    measured, moved_train = [current.measure(queries)], train
    for step in range(1, pgd.steps + 1):
        x = moved_train.x.astype(np.float64)
        gradient = _mean_gradient(current, moved_train, queries, positions)
        x[positions] = np.clip(x[positions] - pgd.step * pgd.grey * np.sign(gradient), low, high)
        moved_train = train.replaced(x=x, shown=_redrawn(train, x, positions))
        current = ready.retrain(moved_train, np.ones(len(moved_train)))
        measured.append(current.measure(queries))
        report("retrain", step, pgd.steps)
        if all(a != b for a, b in zip(current.predict(queries).predicted, before, strict=True)):
            break
    return Attack(
        train=moved_train,
        queries=queries,
        moved=train.ids[positions],
        measured=np.stack(measured),
        predicted=(tuple(before), tuple(current.predict(queries).predicted)),
        moves=(moved_train.x[positions] - train.x[positions].astype(np.float64)) / pgd.grey,
        measurement=model.measurement,
        diagnostics={"warnings": list(model.notes)},
    )


def _require_numbers(model: Any, train: Examples, examples: Sequence[Id] | int) -> None:
    if isinstance(examples, int) and examples < 1:
        raise ValueError(f"expected at least one training example to move, got {examples}")
    movable = model.movable(train.take([0]))
    if not (movable.is_input and isinstance(train.x, np.ndarray)):
        raise TypeError(
            f"expected training inputs that are an array of numbers; what can be moved here is the {movable.described}"
        )


def _mean_gradient(model: Any, train: Examples, queries: Examples, positions: NDArray[np.intp]) -> Array:
    """∂ mean measurement of the queries / ∂ inputs of these training examples, (examples, …)."""
    field = InputGradients.of(model, train)
    mean = field.query_ihvps(queries).mean(axis=0, keepdims=True)
    return np.asarray(field.gradients(train.take(positions), mean)[0])


def _farthest_reach(model: Any, train: Examples, queries: Examples, count: int) -> NDArray[np.intp]:
    """Positions of the `count` training examples whose numbers can change the mean measurement most."""
    field = InputGradients.of(model, train)
    mean = field.query_ihvps(queries).mean(axis=0, keepdims=True)
    reach = np.concatenate([np.abs(block).sum(axis=2)[0] for block in field.train_blocks(mean)])
    return np.argsort(-reach, kind="stable")[:count]


def _redrawn(train: Examples, x: Array, positions: NDArray[np.intp]) -> Any:
    """A preview of each example after the move, for the report.

    If the pictures are the inputs on another scale, they are redrawn on that scale; otherwise the numbers are shown.
    """
    if train.shown is None:
        return None
    pictures = np.asarray(train.shown) if isinstance(train.shown, np.ndarray) else None
    if pictures is not None and pictures.dtype.kind in "iuf" and pictures.size == x.size:
        old, drawn = train.x.astype(np.float64).ravel(), pictures.astype(np.float64).ravel()
        slope, offset = np.polyfit(old, drawn, 1)
        if np.allclose(slope * old + offset, drawn, atol=1e-6 * max(float(np.ptp(drawn)), 1e-300)):
            redrawn = pictures.astype(np.float64)
            redrawn[positions] = (slope * x[positions] + offset).reshape(redrawn[positions].shape)
            return redrawn
    moved = set(positions.tolist())
    return [x[i] if i in moved else take_rows(train.shown, np.array([i]))[0] for i in range(len(train))]
