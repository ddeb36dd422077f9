"""Neighbourhoods of a query: random ones, and those made of the training examples that influence its prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.applications.explained_output import ExplainedOutput
from upweight.applications.interpretable.features import Drawn, InterpretableFeatures
from upweight.applications.surrogate import Neighbourhood

Array = NDArray[np.float64]
Positions = NDArray[np.intp]
HELD_OUT_EVERY = 4  # influential examples of which one is held out
HELD_OUT_SHARE = 5  # neighbours that a surrogate is fitted to, for each held-out one
TRAINING_EXAMPLES = 5_000  # training examples of which those nearest to the query are taken
NEAREST = 500  # training examples on which surrogates are compared


@dataclass(frozen=True, eq=False)
class NeighbourSet:
    """A neighbourhood to fit a surrogate to, and neighbours of the same kind that were held out."""

    fitted: Neighbourhood
    held_out: Neighbourhood


def random_set(
    features: InterpretableFeatures, output: ExplainedOutput, samples: int, rng: np.random.Generator
) -> NeighbourSet:
    """Random neighbours, as in LIME, and a fifth as many held-out ones."""
    fitted = _measured(features, output, features.random(samples - 1, rng))
    fresh = _measured(features, output, features.random(samples // HELD_OUT_SHARE, rng))
    return NeighbourSet(fitted, _without_query(fresh))


def influential_set(
    features: InterpretableFeatures,
    output: ExplainedOutput,
    influential: tuple[Positions, Array],
    samples: int,
    rng: np.random.Generator,
) -> NeighbourSet:
    """Neighbours made of influential training examples (IFME, PAAP 2019), and held-out ones made of others.

    They are the training examples themselves, and perturbations of the query whose hidden parts are taken from them.
    The weight of each neighbour is that of its distance times 1 + |score| / max |score| of its training example.

    Args:
        features: which describe neighbours.
        output: the number of the model that is explained.
        influential: positions of the training examples, the largest |score| first, and their |scores|. Every fourth is
            held out.
        samples: how many perturbations to draw.
        rng: for drawing.
    """
    positions, sizes = influential
    factors = 1.0 + sizes / (sizes.max() or 1.0)
    is_held_out = np.arange(len(positions)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    sets = []
    for part, count in ((~is_held_out, samples), (is_held_out, samples // HELD_OUT_SHARE)):
        chosen = rng.choice(np.flatnonzero(part), count)
        drawn = [features.random(0, rng), features.mixed(positions[chosen], rng)]
        parts_factors = [np.array([factors.max()]), factors[chosen]]
        whole = features.of_training(positions[part])
        if whole is not None:
            drawn.append(whole)
            parts_factors.append(factors[part])
        sets.append(_joined([_measured(features, output, d) for d in drawn], np.concatenate(parts_factors)))
    return NeighbourSet(sets[0], _without_query(sets[1]))


def nearest_training(
    features: InterpretableFeatures, output: ExplainedOutput, others: Positions, rng: np.random.Generator
) -> Neighbourhood | None:
    """The training examples nearest to the query, of at most 5,000; None if these features do not describe them."""
    if len(others) > TRAINING_EXAMPLES:
        others = np.sort(rng.choice(others, TRAINING_EXAMPLES, replace=False))
    drawn = features.of_training(others) if len(others) else None
    if drawn is None:
        return None
    nearest = others[np.argsort(features.distances(drawn.rows), kind="stable")[:NEAREST]]
    near = features.of_training(nearest)
    return None if near is None else _measured(features, output, near)


def _measured(features: InterpretableFeatures, output: ExplainedOutput, drawn: Drawn) -> Neighbourhood:
    outputs = np.concatenate([output.of_inputs(x) for x in drawn.inputs()])
    return Neighbourhood(drawn.rows, outputs, features.weights(drawn.rows), features.names)


def _without_query(neighbourhood: Neighbourhood) -> Neighbourhood:
    rows, outputs, weights = neighbourhood.rows[1:], neighbourhood.outputs[1:], neighbourhood.weights[1:]
    return Neighbourhood(rows, outputs, weights, neighbourhood.names)


def _joined(parts: list[Neighbourhood], factors: Array) -> Neighbourhood:
    return Neighbourhood(
        rows=np.concatenate([part.rows for part in parts]),
        outputs=np.concatenate([part.outputs for part in parts]),
        weights=np.concatenate([part.weights for part in parts]) * factors,
        names=parts[0].names,
    )
