"""How far a model is from the optimum of a loss with kinks: the shortest subgradient, with the forces at kinks free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from upweight.linear.problem import Problem

Array = NDArray[np.float64]
AT_KINK = 0.01  # distance of an output from a kink at which it is on it, in standard deviations of the places of kinks


def off_optimum_of_kinks(problem: Problem) -> float:
    """‖shortest subgradient‖ of the loss with kinks, relative to gradients with random signs: 0 at the optimum.

    An example on a kink pushes with any force between those on both sides of it, which a smoothed loss only guesses.
    """
    rows, penalty = problem.features.dense(), problem.ridge * problem.penalty_gradient(problem.theta)
    lengths = (rows**2).sum(axis=1)
    shortest, noise = 0.0, 0.0
    for c in range(problem.family.outputs):
        least, largest = (problem.weights * force for force in _forces(problem, c))
        free = np.flatnonzero(largest > least)
        rest = penalty[c] - rows.T @ least
        forces = least.copy()
        if len(free):
            forces[free] += lsq_linear(rows[free].T, rest, bounds=(0.0, (largest - least)[free])).x
        shortest += float(((penalty[c] - rows.T @ forces) ** 2).sum())
        noise += float(forces**2 @ lengths)
    return float(np.sqrt(shortest) / max(np.sqrt(noise), 1e-300))


def _forces(problem: Problem, c: int) -> tuple[Array, Array]:
    """The least and the largest force of every example on output c, (n,): they differ on a kink."""
    kinks, z = problem.family.kinks(problem.targets[:, c]), problem.outputs[:, c, None]
    near = AT_KINK * float(np.std(kinks.places))
    at_least = np.take_along_axis(kinks.forces, (kinks.places <= z + near).sum(axis=1)[:, None], axis=1)
    at_most = np.take_along_axis(kinks.forces, (kinks.places < z - near).sum(axis=1)[:, None], axis=1)
    return at_least[:, 0], at_most[:, 0]
