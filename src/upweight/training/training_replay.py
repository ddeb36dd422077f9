"""A training run that can be replayed: backwards for many queries or forwards for many groups."""

from __future__ import annotations

from itertools import islice
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.identity import digest
from upweight.core.replay import Replay
from upweight.core.rows import Rows
from upweight.training.adjoint import TrainingStep, limit_growth, pull_back, push_forward
from upweight.training.optimiser_step import initial_state
from upweight.training.replay_checkpoint import BackwardState, ReplayCheckpoint
from upweight.training.run import Run, TrainingState, initial_training_state, iterate_steps, require_finite
from upweight.training.second_order import SecondOrderProducts

Array = NDArray[np.float64]
ROOM = 1 << 30  # bytes of cotangents that are carried at a time


class TrainingReplay(Replay):
    """A run with these example weights, whose derivatives in the weights are exact.

    Args:
        run: the steps.
        weights: (n,), on top of the examples' own.
        own: the examples' own weights (n,).

    Parameters and state before every √T-th step are kept, and the steps between made again when they are needed
    (Griewank & Walther 2000): memory for 2√T steps, time for one more training.

    Raises:
        ValueError: batches that depend on the weights, and so have no derivative; batch statistics; a step that gives
            another gradient when it is made again; training that diverged.
    """

    def __init__(self, run: Run, weights: Array, own: Array) -> None:
        if run.training.denominator == "rebatched":
            raise ValueError(
                'denominator="rebatched" draws other batches when an example is left out, which has no derivative; '
                'train with denominator="fixed" or "renormalised"'
            )
        self._run, self._own, self._weights = run, own, weights * own
        self._products = SecondOrderProducts(run)
        _require_repeatable(run, self._weights)
        self._every = max(1, isqrt(run.steps))
        self._kept: list[TrainingState] = []
        for moment, _ in iterate_steps(run, self._weights, initial_training_state(run), run.steps):
            if moment.t % self._every == 0 and moment.t < run.steps:
                self._kept.append(moment)
        self._theta = moment.theta
        require_finite(self._theta, run.steps)

    @property
    def beginning(self) -> Array:
        """The parameters before the first step, (p,)."""
        return np.asarray(self._kept[0].theta.double().cpu().numpy())

    @property
    def parameters(self) -> Array:
        """The trained parameters, (p,)."""
        return np.asarray(self._theta.double().cpu().numpy())

    def gradients(self, rows: Rows, folder: str | Path | None = None, clip: float | None = None) -> Array:
        """∂m_q/∂wᵢ from the measurements' gradients (m, p) at the trained parameters: (m, n).

        With `folder` every √T steps are kept there, and a pass that was broken off goes on from them, to the same bits.
        With `clip` no step back lets a query's cotangent grow by more than that; `clipped` says how often one would.
        """
        states = 3 if self._run.training.optimiser != "sgd" else 2
        together = max(1, ROOM // (self._theta.element_size() * states * len(self._theta)))
        scores, clipped = np.zeros((len(rows), len(self._weights))), 0
        for first in range(0, len(rows), together):
            where = np.arange(first, min(first + together, len(rows)))
            cotangents = torch.from_numpy(rows.take(where).dense()).to(self._theta)
            halfway = None if folder is None else ReplayCheckpoint(folder, self._identity(cotangents, clip))
            back = self._backward(cotangents, halfway, clip)
            scores[where], clipped = back.scores, clipped + back.clipped
        self.clipped = clipped / (self._run.steps * max(1, len(rows)))
        return scores * self._own

    def shifts(self, directions: Array) -> Array:
        """How the trained parameters move along directions (r, n) in the weights: (r, p)."""
        carried = self._theta.new_zeros(len(directions), len(self._theta))
        held = initial_state(self._run.training, carried)
        for step in (step for kept in self._kept for step in self._steps(kept)):
            turned, _ = self._products(step.theta, step.t, self._weights, carried)
            shares = self._turned_shares(step.t, directions * self._own)
            turned += self._products.weighted(step.theta, step.t, torch.from_numpy(shares).to(carried))
            carried, held = push_forward(step, carried, held, turned)
        return np.asarray(carried.double().cpu().numpy())

    def _backward(self, after: Tensor, halfway: ReplayCheckpoint | None, clip: float | None) -> BackwardState:
        """Go through all steps with cotangents c (m, p); the scores are ∂⟨c, θ_T⟩/∂(own wᵢ), (m, n)."""
        back = BackwardState(
            self._run.steps, after, initial_state(self._run.training, after), np.zeros((len(after), len(self._weights)))
        )
        back = back if halfway is None else halfway.read(back)
        for kept in [kept for kept in reversed(self._kept) if kept.t < back.t]:
            after, held, scores, clipped = back.after, back.held, back.scores, back.clipped
            for step in reversed(self._steps(kept)):
                before, held, u = pull_back(step, after, held)
                bent, along = self._products(step.theta, step.t, self._weights, u)
                before = bent.add_(before)
                if clip is not None:
                    before, held, grown = limit_growth(after, before, held, clip)
                    clipped += int(grown.sum())
                after = before
                slopes = self._slopes(step.t, along.double().cpu().numpy())
                np.add.at(scores.T, self._run.positions[step.t], slopes.T)  # a batch may hold an example twice
            back = BackwardState(kept.t, after, held, scores, clipped)
            if halfway is not None:
                halfway.write(back)
        return back

    def _steps(self, kept: TrainingState) -> list[TrainingStep]:
        """The steps from a kept moment to the next, made again."""
        run = self._run
        return [
            TrainingStep(run.training, theta, state, gradient, t, float(run.rates[t]))
            for (t, theta, state), gradient in iterate_steps(
                run, self._weights, kept, min(kept.t + self._every, run.steps)
            )
            if gradient is not None
        ]

    def _identity(self, cotangents: Tensor, clip: float | None) -> str:
        """Everything that a pass back depends on: the run from its beginning to its end, and what is asked of it."""
        run, network = self._run, self._run.network
        steps = run.training, run.noise, run.rates, run.positions, run.train.digest(), network.loss, network.collate
        return digest(steps, self._weights, self._kept[0].theta, self._theta, cotangents, clip)

    def _slopes(self, t: int, along: Array) -> Array:
        """∂⟨u, ∇J_t⟩/∂wᵢ of the batch from ⟨u, ∇ℓᵢ⟩, both (m, batch)."""
        if self._run.training.denominator == "fixed":
            return np.asarray(along / along.shape[1])
        shares, total = self._averaged(t)
        return np.asarray((along - along @ shares[:, None]) / total)

    def _turned_shares(self, t: int, directions: Array) -> Array:
        """The derivative of the batch's shares along directions (r, n): (r, batch)."""
        chosen = directions[:, self._run.positions[t]]
        if self._run.training.denominator == "fixed":
            return np.asarray(chosen / chosen.shape[1])
        shares, total = self._averaged(t)
        return np.asarray((chosen - chosen.sum(axis=1, keepdims=True) * shares) / total)

    def _averaged(self, t: int) -> tuple[Array, float]:
        """The batch's shares (batch,) of its total weight, and that; a batch without weight moves nothing."""
        chosen = self._weights[self._run.positions[t]]
        total = float(chosen.sum())
        return (chosen / total, total) if total > 0 else (np.zeros_like(chosen), np.inf)


def _require_repeatable(run: Run, weights: Array) -> None:
    """Refuse a training whose steps do not repeat: its replay would be another run."""
    one, two = (
        gradient
        for _ in range(2)
        for _, gradient in islice(iterate_steps(run, weights, initial_training_state(run), 1), 1)
    )
    assert one is not None and two is not None
    if not torch.equal(one, two):
        apart = float(torch.linalg.vector_norm(one - two) / torch.linalg.vector_norm(one))
        raise ValueError(
            f"the first step gives another gradient when it is made again ({apart:.1g} apart, relative): this training "
            "is not deterministic, and its replay would be another run. Draw the random numbers of net, loss and "
            "augment from torch alone, which is seeded in every step; on a GPU call "
            "torch.use_deterministic_algorithms(True)"
        )
