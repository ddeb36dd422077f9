"""Neurons: the training examples that activate each neuron of a layer most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks, require_count
from upweight.core.capability_checks import require
from upweight.core.examples import Examples, Id
from upweight.core.input_kinds import is_sparse
from upweight.core.layer_activations import LayerActivations
from upweight.core.model import Embeddable, Measurable
from upweight.core.tabular import Tabular
from upweight.core.weights import sample_weights

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
BATCH_EXAMPLES = 1024  # of features that are computed at a time
SHOWN = 16  # neurons, if none are named


@dataclass(frozen=True, eq=False)
class NeuronExamples(Tabular):
    """The training examples with the largest activations of some neurons.

    Attributes:
        layer: the name of the layer; None for the features that enter the last step of the model.
        neurons: their positions in the layer, (neurons,).
        ids: the training examples, most active first, (neurons, k).
        activations: their activations, (neurons, k).
        places: of a map, where each activation was largest: a flat position in `map_shape`, (neurons, k).
        map_shape: the positions of a neuron of a convolution or a sequence; () for a layer without positions.
        means, deviations: of each neuron over the training set, (neurons,).
        train: the training set.
        diagnostics: `warnings`.
    """

    _examples: ClassVar = {"id": "train"}
    layer: str | None
    neurons: Positions
    ids: NDArray[Any]
    activations: Array
    places: Positions
    map_shape: tuple[int, ...]
    means: Array
    deviations: Array
    train: Examples
    diagnostics: Mapping[str, Any]

    def of(self, neuron: int) -> list[tuple[Id, float]]:
        """(id, activation) of the examples of one neuron. Raises KeyError for a neuron that was not chosen."""
        row = self._row(neuron)
        return list(zip(self.ids[row].tolist(), self.activations[row].tolist(), strict=True))

    def label(self, neuron: int) -> tuple[Any, float, float] | None:
        """The most frequent label of these examples, its share among them and in the training set; None without labels.

        Raises KeyError for a neuron that was not chosen.
        """
        if self.train.y is None or self.train.y.ndim > 1 or self.train.y.dtype.kind == "f":
            return None
        labels = [self.train.label(i) for i in self.ids[self._row(neuron)].tolist()]
        label, count = Counter(labels).most_common(1)[0]
        everywhere = [self.train.labels.get(y, y) for y in self.train.y.tolist()]
        return label, count / len(labels), everywhere.count(label) / len(everywhere)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = []
        for row, neuron in enumerate(self.neurons.tolist()):
            label = self.label(neuron)
            entry: dict[str, Any] = {
                "neuron": neuron,
                "mean": float(self.means[row]),
                "deviation": float(self.deviations[row]),
                "examples": [{"id": i, "activation": a} for i, a in self.of(neuron)],
            }
            if label is not None:
                entry["label"] = {"name": label[0], "share": label[1], "in_training_set": label[2]}
            rows.append(entry)
        return {"layer": self.layer, "neurons": rows, "warnings": list(self.diagnostics["warnings"])}

    def _row(self, neuron: int) -> int:
        rows = np.flatnonzero(self.neurons == neuron)
        if not len(rows):
            raise KeyError(f"neuron {neuron!r} was not chosen; those chosen are {self.neurons.tolist()[:10]}")
        return int(rows[0])

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        for neuron in self.neurons.tolist():
            for identifier, activation in self.of(neuron):
                yield {"neuron": neuron, "id": identifier, "activation": float(activation)}

    def __repr__(self) -> str:
        where = "the last step's features" if self.layer is None else f"layer {self.layer!r}"
        return f"NeuronExamples({len(self.neurons)} neurons of {where}, {self.ids.shape[1]} training examples each)"


def neuron_examples(
    model: Measurable,
    train: Examples,
    layer: str | None = None,
    neurons: int | Sequence[int] = SHOWN,
    *,
    k: int = 9,
) -> NeuronExamples:
    """The training examples that activate each neuron of a layer most (Girshick et al. 2014).

    Args:
        model: a `TorchModel`; with layer None, any model that turns inputs into features (`Embeddable`).
        train: the training set, or any other examples. Those of weight 0 are left out.
        layer: the name of a module of the net, as in `net.named_modules()`; None for the features that enter the last
            step. A neuron of a convolution is a channel, whose activation is its largest one over the positions.
        neurons: positions of neurons in the layer; or how many, the most selective first: those whose k largest
            activations are farthest above their mean, in standard deviations.
        k: how many training examples per neuron.

    Raises:
        TypeError: a model without layers or features, or a layer without one row per example.
        ValueError: an unknown layer or neuron, k beyond the number of examples, activations that are not finite.
    """
    require_count("k", k)
    require(model, [Measurable], "neuron_examples", train)
    positions = np.flatnonzero(sample_weights(train) > 0)
    if k > len(positions):
        raise ValueError(f"expected k of at most {len(positions)}, the training examples with weight, got {k}")
    chosen_examples = train.take(positions)
    best = _Largest(k)
    for values, places, shape in _activations(model, chosen_examples, layer):
        best.add(values, places, shape)
    chosen, warnings = _choose(best, neurons)
    return NeuronExamples(
        layer=layer,
        neurons=chosen,
        ids=chosen_examples.ids[best.positions[:, chosen].T],
        activations=best.values[:, chosen].T,
        places=best.places[:, chosen].T,
        map_shape=best.shape,
        means=best.means[chosen],
        deviations=best.deviations[chosen],
        train=train,
        diagnostics={"warnings": warnings},
    )


class _Largest:
    """The k largest activations of every neuron, with their moments, from batches as they come."""

    def __init__(self, k: int) -> None:
        self.k, self.count = k, 0
        self.shape: tuple[int, ...] = ()
        self.values: Array = np.empty((0, 0))  # (k, neurons), as the two below
        self.positions: Positions = np.empty((0, 0), np.intp)
        self.places: Positions = np.empty((0, 0), np.intp)
        self.means: Array = np.empty(0)
        self._squares: Array = np.empty(0)

    @property
    def deviations(self) -> Array:
        """Standard deviations, (neurons,)."""
        return np.asarray(np.sqrt(self._squares / self.count))

    def add(self, values: Array, places: Positions, shape: tuple[int, ...]) -> None:
        """Take a batch (b, neurons) into account. Raises ValueError for numbers that are not finite."""
        if not np.isfinite(values).all():
            raise ValueError("the layer has activations that are NaN or infinite; check the inputs of the training set")
        rows = np.broadcast_to(self.count + np.arange(len(values))[:, None], values.shape)
        if not self.count:
            self.means, self._squares = np.zeros(values.shape[1]), np.zeros(values.shape[1])
            self.values, self.positions, self.places = values[:0], rows[:0], places[:0]
        total, self.shape = self.count + len(values), shape
        shift = values.mean(axis=0) - self.means  # Chan's update of mean and sum of squares
        self._squares += ((values - values.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * self.count * len(values) / total
        self.means, self.count = self.means + shift * len(values) / total, total
        stacked = (
            np.concatenate([self.values, values]),
            np.concatenate([self.positions, rows]),
            np.concatenate([self.places, places]),
        )
        order = np.argsort(-stacked[0], axis=0, kind="stable")[: self.k]
        self.values, self.positions, self.places = (np.take_along_axis(each, order, axis=0) for each in stacked)


def _activations(
    model: Measurable, examples: Examples, layer: str | None
) -> Iterator[tuple[Array, Positions, tuple[int, ...]]]:
    if layer is not None:
        require(model, [LayerActivations], "neuron_examples with a layer")
        assert isinstance(model, LayerActivations)
        yield from model.activations(examples, layer)
        return
    require(model, [Embeddable], "neuron_examples")
    assert isinstance(model, Embeddable)
    for block in blocks(len(examples), BATCH_EXAMPLES):
        features = model.embed(examples.take(np.arange(block.start, block.stop)))
        dense = np.asarray(features.toarray() if is_sparse(features) else features, dtype=np.float64)
        yield dense, np.zeros(dense.shape, dtype=np.intp), ()


def _choose(best: _Largest, neurons: int | Sequence[int]) -> tuple[Positions, list[str]]:
    total = best.values.shape[1]
    if not isinstance(neurons, int | np.integer):
        chosen = np.asarray(list(neurons))
        if chosen.dtype.kind not in "iu" or not len(chosen) or chosen.min() < 0 or chosen.max() >= total:
            raise ValueError(f"expected neurons from 0 to {total - 1}, got {list(neurons)[:10]}")
        return chosen.astype(np.intp), _off(best, chosen)
    require_count("neurons", neurons)
    spread = np.where(best.deviations > 0, best.deviations, np.inf)
    selectivity = (best.values.mean(axis=0) - best.means) / spread
    chosen = np.argsort(-selectivity, kind="stable")[: int(neurons)]
    return chosen, _off(best, chosen)


def _off(best: _Largest, chosen: NDArray[Any]) -> list[str]:
    """A warning that names neurons that never change."""
    constant = [int(neuron) for neuron in chosen if best.deviations[neuron] == 0]
    if not constant:
        return []
    return [
        f"{len(constant)} of {len(chosen)} neurons are the same for all examples (e.g. neuron {constant[0]}), so that "
        "their examples mean nothing."
    ]
