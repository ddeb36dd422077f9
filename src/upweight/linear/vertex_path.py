"""The path of a piecewise-linear objective without an l2 from one set of example weights to another, over vertices.

The objective Σ wᵢ ℓᵢ(xᵢθ) + Σ μⱼ |θⱼ| of losses that are linear between kinks has its optimum at a vertex, where as
many rows (examples, and columns with an l1) are at a kink as there are parameters. As the weights change linearly, the
vertex stays, and the forces of its rows change linearly, until one of them reaches its end: then that row leaves its
kink along an edge, until another row arrives at its own.

Source: Gass & Saaty (1955), parametric linear programming; Barrodale & Roberts (1973) for the step over several kinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.linear.losses.loss import Kinks

Array = NDArray[np.float64]
MAX_PIVOTS = 20_000  # on one path
INDEPENDENT = 1e-9  # a row is independent of those before if they do not span this share of it
TOLERANCE = 1e-9  # of forces, relative to the largest weight, and of times
NEAR_END = 1e-7  # time before the end in which a change of the vertex is a rounding error
SHIFT = 1e-10  # by which kinks are moved apart, relative to their spread, so that no two vertices are one place


class VertexError(ArithmeticError):
    """The path could not be followed, or the rows determine no vertex."""


@dataclass
class _State:
    """The rows at a kink (d,), the inverse of their matrix, and whether each row is above its kink, (rows,)."""

    basis: NDArray[np.intp]
    inverse: Array
    above: NDArray[np.bool_]


class VertexPath:
    """The optimum of a piecewise-linear objective under changing weights of its rows.

    Args:
        rows: (r, d) the rows, which times θ are the outputs.
        kinks: the kinks of the losses of rows, one each.
        theta: (d,) parameters near the optimum under `weights`.
        weights: (r,) the weights at which the path starts.

    Raises:
        VertexError: fewer rows than parameters are independent, or the optimum is not found.
    """

    def __init__(self, rows: Array, kinks: Kinks, theta: Array, weights: Array) -> None:
        self.rows, self.weights = rows, weights
        self.above_force, self.below_force = kinks.forces[:, 1], kinks.forces[:, 0]
        self.places = kinks.places[:, 0]
        spread = float(np.ptp(self.places)) or 1.0
        self._moved = self.places + SHIFT * spread * np.random.default_rng(0).uniform(-1.0, 1.0, len(rows))
        self.undetermined = 0  # ends of paths at which other vertices are as good
        self._start = self._optimum(self._vertex_near(theta), weights)

    @property
    def start(self) -> Array:
        """θ (d,) at the start."""
        return self._parameters(self._start)

    def to(self, weights: Array) -> Array:
        """θ (d,) at the optimum under other weights. Raises VertexError if the path ends before it."""
        state = _State(self._start.basis.copy(), self._start.inverse.copy(), self._start.above.copy())
        change, time, scale = weights - self.weights, 0.0, max(float(self.weights.max()), 1e-300)
        for _ in range(MAX_PIVOTS):
            at = self.weights + time * change
            force, velocity = self._forces(state, at), self._forces(state, change)
            length, place, side = (1.0 - time) * (1.0 - TOLERANCE), -1, 0
            for towards, level in ((-1, self.below_force[state.basis]), (1, self.above_force[state.basis])):
                gap = towards * (force - level * at[state.basis])
                closing = -towards * (velocity - level * change[state.basis])
                with np.errstate(divide="ignore", invalid="ignore"):
                    times = np.where(closing > TOLERANCE * scale, np.maximum(gap, 0.0) / closing, np.inf)
                if times.min() < length:
                    length, place, side = float(times.min()), int(times.argmin()), towards
            if place < 0 or time + length > 1.0 - NEAR_END:
                return self._end(state, weights, scale)
            time += length
            self._pivot(state, place, side, self.weights + time * change, 0.0)
        raise VertexError(f"no end after {MAX_PIVOTS} vertices")

    def _end(self, state: _State, weights: Array, scale: float) -> Array:
        """θ at this vertex; counts it if a force of its rows is at an end, so that an edge is as good."""
        force, used = self._forces(state, weights), weights[state.basis]
        ends = np.minimum(self.below_force[state.basis] * used - force, force - self.above_force[state.basis] * used)
        self.undetermined += bool((ends <= TOLERANCE * scale).any())
        return self._parameters(state)

    def _parameters(self, state: _State) -> Array:
        """θ at the vertex; a parameter that a row alone holds at its kink is exactly there."""
        theta = np.asarray(state.inverse @ self.places[state.basis])
        alone = state.basis[np.count_nonzero(self.rows[state.basis], axis=1) == 1]
        columns = np.argmax(self.rows[alone] != 0, axis=1)
        theta[columns] = self.places[alone] / self.rows[alone, columns]
        return theta

    def _forces(self, state: _State, weights: Array) -> Array:
        """The forces of the rows at kinks that balance all others under these weights, (d,)."""
        others = np.where(state.above, self.above_force, self.below_force) * weights
        others[state.basis] = 0.0
        return np.asarray(-(others @ self.rows) @ state.inverse)

    def _optimum(self, state: _State, weights: Array) -> _State:
        """The optimal vertex, by steps along the edges of steepest descent."""
        scale = max(float(weights.max()), 1e-300)
        for _ in range(MAX_PIVOTS):
            force, used = self._forces(state, weights), weights[state.basis]
            too_large = force - self.below_force[state.basis] * used
            too_small = self.above_force[state.basis] * used - force
            violation = np.maximum(too_large, too_small)
            place = int(violation.argmax())
            if violation[place] <= TOLERANCE * scale:
                return state
            self._pivot(state, place, -1 if too_large[place] > 0 else 1, weights, float(violation[place]))
        raise VertexError("the optimum was not found")

    def _pivot(self, state: _State, place: int, side: int, weights: Array, descent: float) -> None:
        """Let the row at this place of the basis leave to a side of its kink, until another row arrives at its own.

        `descent` is the slope of the objective at the start of the edge, downwards; every kink on the way takes some of
        it, and the row at whose kink nothing is left arrives.
        """
        leaving = int(state.basis[place])
        slopes = self.rows @ state.inverse[:, place] * side
        gaps = self._moved - self.rows @ (state.inverse @ self._moved[state.basis])
        towards = np.where(state.above, slopes < -TOLERANCE, slopes > TOLERANCE)
        towards[state.basis] = False
        ahead = np.flatnonzero(towards)
        # A row that the shift of kinks puts on the wrong side of its own arrives at once.
        order = ahead[np.argsort(np.maximum(gaps[ahead] / slopes[ahead], 0.0), kind="stable")]
        jumps = (self.below_force - self.above_force)[order] * weights[order] * np.abs(slopes[order])
        enough = np.flatnonzero((np.cumsum(jumps) > descent) & (jumps > 0))
        if not len(enough):
            raise VertexError("nothing bounds the optimum along an edge")
        crossed, entering = order[: enough[0]], int(order[enough[0]])
        state.above[crossed] = ~state.above[crossed]
        state.above[leaving] = side > 0
        combination = self.rows[entering] @ state.inverse
        column = state.inverse[:, place] / combination[place]
        state.inverse = state.inverse - np.outer(column, combination)
        state.inverse[:, place] = column
        state.basis[place] = entering

    def _vertex_near(self, theta: Array) -> _State:
        """The vertex of the rows nearest to their kinks at θ, as many independent ones as there are parameters."""
        distance = np.abs(self.rows @ theta - self.places)
        lengths = np.linalg.norm(self.rows, axis=1)
        order = np.argsort(np.where((self.weights > 0) & (lengths > 0), distance, np.inf), kind="stable")
        chosen: list[int] = []
        directions = np.empty((0, self.rows.shape[1]))
        for row in order.tolist():
            if not (self.weights[row] > 0 and lengths[row] > 0):
                break
            rest = self.rows[row] / lengths[row]
            for _ in range(2):  # twice is enough for rounding
                rest = rest - (directions @ rest) @ directions
            size = float(np.linalg.norm(rest))
            if size > INDEPENDENT:
                directions = np.vstack([directions, rest / size])
                chosen.append(row)
                if len(chosen) == self.rows.shape[1]:
                    break
        if len(chosen) < self.rows.shape[1]:
            raise VertexError("the columns depend on each other, so that the optimum is not one place")
        inverse = np.linalg.inv(self.rows[chosen])
        outputs = self.rows @ (inverse @ self._moved[chosen])
        return _State(np.array(chosen, dtype=np.intp), np.asarray(inverse, dtype=np.float64), outputs > self._moved)
