"""The path of a piecewise-linear loss with an l2 from one set of example weights to another, from kink to kink.

At the optimum every example has a force g = −w ∂ℓ/∂z on its output z. Between two kinks of its loss the force is fixed,
and at a kink it is free between the forces on both sides. As the weights change linearly, so do forces and
outputs, until a force reaches its end or an output reaches a kink.

Source: Hastie, Rosset, Tibshirani & Zhu (2004), The entire regularization path for the support vector machine;
Karasuyama et al. (2012), for example weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from upweight.linear.kink_intercepts import Intercepts
from upweight.linear.losses.loss import Kinks

Array = NDArray[np.float64]
MAX_EVENTS = 20_000  # on one path
MAX_STUCK = 100  # events at one time, beyond one of each example
ROUNDING = 1e-10  # of times and of forces
SOLVED = 1e-6  # largest relative error of a solve, beyond which the smallest solution is taken
VIOLATION = 1e-8  # of a force or an output, relative to the weights and to the spread of outputs
PATIENCE = 5  # rounds in which violations do not become fewer, after which they are repaired one by one
REPAIRS = 500  # changes of the sets on the way from an approximate optimum to the exact one
NEAR = 1e-5  # distance of outputs from a kink, relative to their spread, up to which an approximate optimum is at it


class PathError(ArithmeticError):
    """The path could not be followed: the examples at kinks do not determine how their forces change."""


@dataclass
class _State:
    """Forces and outputs (n,), intercepts (g,); of every example its segment, and the kink that it is at, or −1."""

    force: Array
    output: Array
    intercept: Array
    segment: NDArray[np.intp]
    kink: NDArray[np.intp]


class KinkPath:
    """The optimum of Σ wᵢ ℓᵢ(zᵢ) + ridge/2 ‖θ‖² under changing weights, for one output z = Xθ + intercept.

    There may be several intercepts, each of a group of examples, whose forces then sum to a share of all weights.

    Args:
        gram: (n, n) inner products of the penalised columns, divided by the ridge.
        kinks: the kinks of the losses.
        intercepts: the intercepts without a penalty.
        outputs: (n,) outputs near the optimum under `weights`.
        weights: (n,) the weights at which the path starts.

    Raises:
        PathError: the optimum could not be found from these outputs.
    """

    def __init__(self, gram: Array, kinks: Kinks, intercepts: Intercepts, outputs: Array, weights: Array) -> None:
        self.gram, self.kinks, self.intercepts, self.weights = gram, kinks, intercepts, weights
        self.spread = float(np.ptp(kinks.places)) or 1.0
        self._outputs = outputs
        self.undetermined = 0  # ends of paths at which the intercept may be anywhere in an interval
        self._start = self._exact(outputs)

    @property
    def start(self) -> tuple[Array, Array]:
        """Forces (n,) and intercepts (g,) at the start."""
        return self._start.force, self._start.intercept

    @property
    def examples_at_kinks(self) -> int:
        """How many examples are at a kink at the start."""
        return int((self._start.kink >= 0).sum())

    def to(self, weights: Array) -> tuple[Array, Array]:
        """Forces (n,) and intercepts (g,) at the optimum under other weights. Raises PathError if it gets stuck."""
        state = _State(*(np.copy(part) for part in vars(self._start).values()))
        change, time, stuck = weights - self.weights, 0.0, 0
        for _ in range(MAX_EVENTS):
            if time >= 1.0:
                return state.force, self._centred_intercepts(state, weights)
            before, time = time, self._advance(state, change, time)
            stuck = stuck + 1 if time <= before else 0
            if stuck > MAX_STUCK + len(weights):
                raise PathError("events follow each other without an end")
        raise PathError(f"no end after {MAX_EVENTS} events")

    def _advance(self, state: _State, change: Array, time: float) -> float:
        """Follow the path to its next event or to its end at time 1; returns the time."""
        at_kink = np.flatnonzero(state.kink >= 0)
        velocity = self._levels(state) * change
        velocity[at_kink] = 0.0
        excess = self.intercepts.excess(velocity, change)
        free = ~self.intercepts.determined(at_kink) & (np.abs(excess) > ROUNDING * max(np.abs(velocity).max(), 1.0))
        if free.any():
            group = int(np.argmax(free))
            self._move_intercept(state, group, up=excess[group] > 0)
            return time
        pushed = self._times(velocity)
        velocity[at_kink], intercept_slope = self._solve(at_kink, -pushed[at_kink], excess)
        slope = pushed + velocity[at_kink] @ self.gram[at_kink] + intercept_slope @ self.intercepts.members
        slope[at_kink] = 0.0
        weights = self.weights + time * change
        length, example, where = self._next_event(state, at_kink, velocity, slope, weights, change)
        length = min(length, 1.0 - time)
        state.force += length * velocity
        state.output += length * slope
        state.intercept += length * intercept_slope
        if length < 1.0 - time:
            self._change_sets(state, example, where)
            return time + length
        return 1.0

    def _next_event(
        self, state: _State, at_kink: NDArray[np.intp], velocity: Array, slope: Array, weights: Array, change: Array
    ) -> tuple[float, int, int]:
        """(time to the next event, its example, what happens: +1 or −1 for the next or previous segment or kink)."""
        best = (np.inf, -1, 0)
        if len(at_kink):
            kink = state.kink[at_kink]
            for side in (0, 1):  # the larger force below the kink, the smaller one above it
                level = self.kinks.forces[at_kink, kink + side]
                gap = state.force[at_kink] - level * weights[at_kink]
                closing = level * change[at_kink] - velocity[at_kink]
                towards = closing < -ROUNDING if side == 0 else closing > ROUNDING
                with np.errstate(divide="ignore", invalid="ignore"):
                    times = np.where(towards, np.maximum(gap / closing, 0.0), np.inf)
                i = int(times.argmin())
                if times[i] < best[0]:
                    best = (float(times[i]), int(at_kink[i]), 1 if side else -1)
        others = np.flatnonzero(state.kink < 0)
        # A copy of an example at its kink moves only by rounding.
        moving = np.abs(slope[others]) > ROUNDING * np.abs(slope).max(initial=0.0)
        for step in (-1, 1):
            has_kink = (state.segment[others] > 0) if step < 0 else (state.segment[others] < self.kinks.places.shape[1])
            rows = others[has_kink & moving & (np.sign(slope[others]) == step)]
            if len(rows):
                kink = state.segment[rows] + (0 if step > 0 else -1)
                times = np.maximum((self.kinks.places[rows, kink] - state.output[rows]) / slope[rows], 0.0)
                i = int(times.argmin())
                if times[i] < best[0]:
                    best = (float(times[i]), int(rows[i]), step)
        return best

    def _change_sets(self, state: _State, example: int, where: int) -> None:
        """Let the example leave its kink to a segment, or arrive at a kink."""
        if state.kink[example] >= 0:
            state.segment[example] = state.kink[example] + (1 if where > 0 else 0)
            state.kink[example] = -1
        else:
            state.kink[example] = state.segment[example] + (0 if where > 0 else -1)
            state.output[example] = self.kinks.places[example, state.kink[example]]

    def _move_intercept(self, state: _State, group: int, up: bool) -> None:
        """Without an example of the group at a kink, move its intercept until one arrives there."""
        step, members = 1 if up else -1, self.intercepts.members[group]
        kink = state.segment + (0 if up else -1)
        possible = (kink >= 0) & (kink < self.kinks.places.shape[1]) & (self.weights > 0) & (members > 0)
        if not possible.any():
            raise PathError("no example can balance the intercept")
        rows = np.flatnonzero(possible)
        distances = np.abs(self.kinks.places[rows, kink[rows]] - state.output[rows])
        nearest = int(distances.argmin())
        state.intercept[group] += step * distances[nearest]
        state.output += step * distances[nearest] * members
        self._change_sets(state, int(rows[nearest]), step)

    def _centred_intercepts(self, state: _State, weights: Array) -> Array:
        """The intercepts; the middle of its interval if no example is at a kink, which libsvm takes too."""
        free = np.flatnonzero(~self.intercepts.determined(np.flatnonzero(state.kink >= 0)))
        self.undetermined += bool(len(free))
        for group in free:
            used = (weights > 0) & (np.ptp(self.kinks.forces, axis=1) > 0) & (self.intercepts.members[group] > 0)
            gaps = self.kinks.places[used] - state.output[used, None]
            above, below = gaps[gaps > 0], gaps[gaps < 0]
            if len(above) and len(below):
                state.intercept[group] += 0.5 * (above.min() + below.max())
        return state.intercept

    def _levels(self, state: _State) -> Array:
        """Forces per weight of the segments, (n,)."""
        return np.asarray(np.take_along_axis(self.kinks.forces, state.segment[:, None], axis=1)[:, 0])

    def _times(self, forces: Array) -> Array:
        """The outputs of these forces, of which few are not 0, without the intercept."""
        pushing = np.flatnonzero(forces)
        return np.asarray(forces[pushing] @ self.gram[pushing])

    def _solve(self, at_kink: NDArray[np.intp], right: Array, excess: Array) -> tuple[Array, Array]:
        """Forces at the kinks, and intercepts, for these outputs there; forces take away the excess (g,) of others.

        The intercept of a group without an example at a kink is 0.
        """
        intercepts = np.zeros(len(excess))
        if not len(at_kink):
            return np.empty(0), intercepts
        groups = self.intercepts.determined(at_kink)
        edges = self.intercepts.members[np.ix_(groups, at_kink)]
        corner = np.zeros((len(edges), len(edges)))
        matrix = np.block([[self.gram[np.ix_(at_kink, at_kink)], edges.T], [edges, corner]])
        right = np.append(right, -excess[groups])
        try:
            solved = np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
            is_solved = bool(np.abs(matrix @ solved - right).max() <= SOLVED * (np.abs(right).max() + 1.0))
        except np.linalg.LinAlgError:
            is_solved = False
        if not is_solved:
            solved = np.asarray(np.linalg.lstsq(matrix, right, rcond=None)[0], dtype=np.float64)
        intercepts[groups] = solved[len(at_kink) :]
        return solved[: len(at_kink)], intercepts

    def _exact(self, outputs: Array) -> _State:
        """The exact optimum, from outputs near it: sets are changed until forces and outputs agree with them."""
        places = self.kinks.places
        distance = np.abs(places - outputs[:, None])
        nearest = distance.argmin(axis=1)
        is_near = distance[np.arange(len(outputs)), nearest] <= NEAR * self.spread
        segment = (places < outputs[:, None]).sum(axis=1)
        used = (self.weights > 0) & (np.ptp(self.kinks.forces, axis=1) > 0)
        intercepts = np.zeros(len(self.intercepts.members))
        kink = np.where(is_near & used, nearest, -1)
        state = _State(np.zeros(len(outputs)), outputs.copy(), intercepts, segment, kink)
        fewest, rounds = len(outputs) + 1, 0  # violations, and rounds since they became fewer
        for _ in range(REPAIRS):
            self._determine(state, used)
            self._settle(state)
            violations = self._violations(state, used)
            if not len(violations[0]):
                return state
            rounds = 0 if len(violations[0]) < fewest else rounds + 1
            fewest = min(fewest, len(violations[0]))
            # All at once as long as they become fewer, which takes few rounds; then the largest one alone.
            chosen = range(len(violations[0])) if rounds < PATIENCE else [int(violations[2].argmax())]
            for i in chosen:
                self._change_sets(state, int(violations[0][i]), int(violations[1][i]))
        raise PathError("the optimum was not found")

    def _determine(self, state: _State, used: NDArray[np.bool_]) -> None:
        """Put the example nearest to a kink there, in every group without one whose forces do not balance."""
        at_kink = np.flatnonzero(state.kink >= 0)
        force = self._levels(state) * self.weights
        force[at_kink] = 0.0
        excess, free = self.intercepts.excess(force, self.weights), ~self.intercepts.determined(at_kink)
        for group in np.flatnonzero(free & (np.abs(excess) > ROUNDING * float(self.weights.sum()))):
            # Forces fall from kink to kink, so that too large ones have to pass a kink upwards.
            kink = state.segment + (0 if excess[group] > 0 else -1)
            inside = (kink >= 0) & (kink < self.kinks.places.shape[1]) & used & (self.intercepts.members[group] > 0)
            if not inside.any():
                raise PathError("no example can balance the intercept")
            rows = np.flatnonzero(inside)
            distances = np.abs(self.kinks.places[rows, kink[rows]] - state.output[rows])
            nearest = int(rows[distances.argmin()])
            state.kink[nearest] = kink[nearest]

    def _settle(self, state: _State) -> None:
        """Forces, intercept and outputs that these sets determine."""
        at_kink = np.flatnonzero(state.kink >= 0)
        force = self._levels(state) * self.weights
        force[at_kink] = 0.0
        target, pushed = self.kinks.places[at_kink, state.kink[at_kink]], self._times(force)
        excess = self.intercepts.excess(force, self.weights)
        force[at_kink], state.intercept = self._solve(at_kink, target - pushed[at_kink], excess)
        pushed = pushed + force[at_kink] @ self.gram[at_kink]
        for group in np.flatnonzero(
            ~self.intercepts.determined(at_kink)
        ):  # its intercept may be anywhere in an interval
            members = self.intercepts.members[group] > 0
            state.intercept[group] = np.median((self._outputs - pushed)[members])
        state.force = force
        state.output = pushed + state.intercept @ self.intercepts.members
        state.output[at_kink] = target

    def _violations(self, state: _State, used: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        """Examples that disagree with their set, where each belongs (+1 or −1 from there), and by how much."""
        at_kink, parts = np.flatnonzero(state.kink >= 0), []
        kink, scale = state.kink[at_kink], max(float(self.weights.max()), 1e-300)
        for side in (0, 1):
            gap = state.force[at_kink] - self.kinks.forces[at_kink, kink + side] * self.weights[at_kink]
            parts.append((at_kink, 1 if side else -1, (gap if side == 0 else -gap) / scale))
        others = np.flatnonzero((state.kink < 0) & used)
        for step in (-1, 1):
            kink = state.segment[others] + (0 if step > 0 else -1)
            inside = (kink >= 0) & (kink < self.kinks.places.shape[1])
            place = self.kinks.places[others, np.clip(kink, 0, self.kinks.places.shape[1] - 1)]
            excess = np.where(inside, step * (state.output[others] - place) / self.spread, -np.inf)
            parts.append((others, step, excess))
        rows = np.concatenate([rows for rows, _, _ in parts])
        where = np.concatenate([np.full(len(rows), step) for rows, step, _ in parts])
        excess = np.concatenate([excess for _, _, excess in parts])
        beyond = excess > VIOLATION
        return rows[beyond], where[beyond], excess[beyond]
