"""Necessity and sufficiency of attributed parts: the output without the first of them, and with these alone."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import require_count
from upweight.core.capability_checks import require
from upweight.core.chosen_outputs import ChosenOutputs
from upweight.core.erasing import Eraser
from upweight.core.examples import Examples
from upweight.core.input_attributions import InputAttributions
from upweight.core.model import Measurable

Array = NDArray[np.float64]
Criterion = Literal["necessity", "sufficiency"]
DRAWS = 5  # random orders for comparison


@dataclass(frozen=True, eq=False)
class PartOrdering:
    """What is left of an output as parts are erased, or put back, in the order of their attributions.

    Attributes:
        criterion: "necessity" (parts are erased) or "sufficiency" (all others are).
        shares: the share of parts that are erased, or put back, (points,), from 0 to 1.
        values: f at each point, (examples, points).
        random: f for random orders, (draws, examples, points).
        whole, erased: f(x) and f(x with every part erased), (examples,).
        described: f in words.
        example_ids: the examples.
    """

    criterion: Criterion
    shares: Array
    values: Array
    random: Array
    whole: Array
    erased: Array
    described: str
    example_ids: NDArray[Any]

    @property
    def areas(self) -> Array:
        """The area under the curve of every example, (examples,); low is good for necessity, high for sufficiency.

        Necessity: the mean over the points of max(f − f(erased), 0). Sufficiency: of min(f, f(x)) − f(erased).
        """
        return self._areas(self.values)

    @property
    def random_areas(self) -> Array:
        """The areas of random orders, (examples,): the mean over the draws."""
        return np.asarray(np.mean([self._areas(values) for values in self.random], axis=0))

    @property
    def beats_random(self) -> float:
        """The share of examples whose area is better than that of random orders."""
        gain = self.areas - self.random_areas
        return float(np.mean(gain < 0 if self.criterion == "necessity" else gain > 0))

    def _areas(self, values: Array) -> Array:
        clipped = (
            np.maximum(values - self.erased[:, None], 0.0)
            if self.criterion == "necessity"
            else np.minimum(values, self.whole[:, None]) - self.erased[:, None]
        )
        return np.asarray(clipped.mean(axis=1))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means over the examples."""
        return {
            "criterion": self.criterion,
            "output": self.described,
            "shares": self.shares.tolist(),
            "values": self.values.mean(axis=0).tolist(),
            "random": self.random.mean(axis=(0, 1)).tolist(),
            "area": float(self.areas.mean()),
            "random_area": float(self.random_areas.mean()),
            "beats_random": self.beats_random,
        }

    def __repr__(self) -> str:
        better = "lower" if self.criterion == "necessity" else "higher"
        return (
            f"PartOrdering({self.criterion} of {len(self.example_ids)} examples: area {self.areas.mean():.3g}, random "
            f"{self.random_areas.mean():.3g}; {better} is better)"
        )

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(repr(self))}</b></p>"


def necessity(
    model: Measurable,
    attributions: InputAttributions,
    *,
    baseline: Any = None,
    train: Examples | None = None,
    points: int = 20,
    seed: int = 0,
) -> PartOrdering:
    """The output that is left as the parts with the largest attributions are erased first (Wang et al. 2020).

    If the parts are necessary, f falls at once, and the area under the curve is small.

    Args:
        model: the model.
        attributions: of its outputs, from `attribute_inputs`.
        baseline, train: what stands in for erased parts, as for `Erasure`.
        points: how many steps from the whole input to nothing.
        seed: of the random orders for comparison.

    Raises:
        ValueError: points below 2; a baseline of another shape; attributions of what a `collate` made, whose parts are
            not those of the examples.
    """
    return _ordering("necessity", model, attributions, Eraser(attributions.examples, baseline, train), points, seed)


def sufficiency(
    model: Measurable,
    attributions: InputAttributions,
    *,
    baseline: Any = None,
    train: Examples | None = None,
    points: int = 20,
    seed: int = 0,
) -> PartOrdering:
    """The output that is recovered as the parts with the largest attributions are put back first (Wang et al. 2020).

    If the parts are sufficient, f rises at once, and the area under the curve is large. Arguments and errors are those
    of `necessity`.
    """
    return _ordering("sufficiency", model, attributions, Eraser(attributions.examples, baseline, train), points, seed)


def _ordering(
    criterion: Criterion,
    model: Measurable,
    attributions: InputAttributions,
    eraser: Eraser,
    points: int,
    seed: int,
) -> PartOrdering:
    require(model, [Measurable], criterion)
    require_count("points", points, least=2)
    examples = attributions.examples
    outputs = ChosenOutputs.of(
        model, examples, attributions.targets if attributions.targets[0] is not None else "label"
    )
    shares, rng = np.linspace(0.0, 1.0, points + 1), np.random.default_rng(seed)
    values, random, ends = [], [], []
    for i, (target, attributed) in enumerate(zip(outputs.targets, attributions.values, strict=True)):
        count = len(eraser.parts(i))
        if count != attributed.size:
            raise ValueError(
                f"expected attributions of the {count} parts of the examples, got {attributed.size}: they are of what "
                "the net receives from `collate`; attribute the parts of the examples with uw.Erasure()"
            )
        orders = [np.argsort(-attributed.ravel(), kind="stable"), *(rng.permutation(count) for _ in range(DRAWS))]
        masks = np.concatenate([_masks(order, shares, criterion) for order in orders])
        curves = outputs.values(eraser.erased(i, masks), target).reshape(len(orders), -1)
        values.append(curves[0])
        random.append(curves[1:])
        ends.append(curves[0][[0, -1]] if criterion == "necessity" else curves[0][[-1, 0]])
    whole, erased = np.array(ends).T
    described = {"probability": "probability of the class", "measurement": model.measurement}
    return PartOrdering(
        criterion,
        shares,
        np.array(values),
        np.stack(random, axis=1),
        whole,
        erased,
        described.get(outputs.kind, "prediction"),
        examples.ids,
    )


def _masks(order: NDArray[np.intp], shares: Sequence[float] | Array, criterion: Criterion) -> NDArray[np.bool_]:
    """Which parts are erased at every point, (points, parts)."""
    ranks = np.empty(len(order), dtype=np.intp)
    ranks[order] = np.arange(len(order))
    first: NDArray[np.bool_] = ranks[None] < np.rint(np.asarray(shares)[:, None] * len(order))
    return first if criterion == "necessity" else ~first
