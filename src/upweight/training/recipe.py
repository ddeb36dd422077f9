"""A recipe of a training run, from which the same run can be made again with other example weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from upweight.core.blocks import blocks
from upweight.core.identity import digest
from upweight.core.objective import Objective

Initial = Callable[[int], nn.Module] | nn.Module | Mapping[str, Tensor]
OPTIMISERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
DENOMINATORS = ("fixed", "renormalised", "rebatched")
MAX_PRINTED_ENTRIES = 2  # a setting with more entries is printed as a digest
DIGEST_DIGITS = 16  # digits of that digest
ORDER_STREAM, STEP_STREAM = 0, 1  # two streams of random numbers from one seed: the order of examples, and the steps


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Training:
    """How a network was trained: optimiser, steps, batches, randomness.

    Step t = 0, 1, … takes the batch B_t, the example weights w, the losses ℓᵢ and

        J_t(θ) = Σ_{i∈B_t} wᵢ ℓᵢ(θ) / d_t                    d_t by `denominator`, below
        g = ∇J_t(θ_t), times min(1, clip / (‖g‖ + 1e-6)) if `clip` is given

    to θ_{t+1}, with the same numbers as `torch.optim` (η_t is the learning rate of the step, λ is `weight_decay`):

        sgd     g ← g + λθ;  m ← μm + g;  θ ← θ − η_t m      (nesterov: − η_t (g + μm))
        adam    g ← g + λθ;  m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)g²
                θ ← θ − η_t m̂ / (√(ŝ + eps_root) + eps),     m̂ = m/(1−β₁^{t+1}),  ŝ = s/(1−β₂^{t+1})
        adamw   θ ← (1 − η_t λ) θ, then as adam without λ in g

    With T steps and W = `warmup`, η_t = lr · (t+1)/(W+1) for t < W. From then on it is lr ("constant"), lr·(1 − u)
    ("linear") or lr·(1 + cos πu)/2 ("cosine") with u = (t − W)/(T − W).

    The denominator says what it means to remove an example (to give it weight 0):

        "fixed"         d_t = |B_t|: no other example takes its place, and J_t is linear in the weights. With weight
                        decay the regulariser stays, as in a sum of losses.
        "renormalised"  d_t = Σ_{B_t} wᵢ: the batch's average is taken over the other examples. If all weights of a
                        batch are 0, its gradient is 0, but the step is still taken.
        "rebatched"     examples of weight 0 are left out before batches are drawn: fewer steps, other batches, and
                        d_t = |B_t|. Only with this rule are removed examples not part of batch statistics.

    Args:
        optimiser: "sgd", "adam" or "adamw".
        lr: the learning rate, or one for every step.
        epochs: passes over the data. Each pass takes the examples in a new order drawn from the seed, in batches of
            `batch_size`; the last batch of a pass may be smaller.
        batches: instead of epochs: positions in the training set, one array for every step, e.g. [steps, batch].
        batch_size: the number of examples in a batch.
        momentum, nesterov: μ of sgd, and whether it looks ahead.
        betas, eps, eps_root: of adam and adamw; torch has no `eps_root`, which is 0 there.
        weight_decay: λ.
        clip: the largest norm of the gradient.
        schedule, warmup: of the learning rate.
        denominator: what removal means.
        augment: `augment(batch, generator) -> batch`, called in every step with a seeded `torch.Generator`.
        seed: of the order, dropout and augmentation, and of `initial` if it is a function.
        initial: where training begins: `seed -> module` (called with torch seeded), a module, or a state dict.

    Raises:
        ValueError, TypeError: settings that do not define a training.
    """

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float | Sequence[float] | NDArray[np.float64]
    epochs: int | None = None
    batches: Sequence[Any] | NDArray[np.intp] | None = None
    batch_size: int = 64
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    denominator: Literal["fixed", "renormalised", "rebatched"] = "fixed"
    augment: Callable[[Any, Generator], Any] | None = None
    seed: int = 0
    initial: Initial | None = None

    def __post_init__(self) -> None:
        _require_one_of("optimiser", self.optimiser, OPTIMISERS)
        _require_one_of("schedule", self.schedule, SCHEDULES)
        _require_one_of("denominator", self.denominator, DENOMINATORS)
        if (self.epochs is None) == (self.batches is None):
            raise ValueError(
                "expected either epochs= (batches are drawn from the seed) or batches= (one array per step)"
            )
        if self.batches is not None and self.denominator == "rebatched":
            raise ValueError(
                'denominator="rebatched" draws batches of the remaining examples; pass epochs=, not batches='
            )
        if self.batches is not None:
            object.__setattr__(self, "batches", tuple(_positions(t, b) for t, b in enumerate(self.batches)))
        self._require_numbers()

    def _require_numbers(self) -> None:
        lr = np.asarray(self.lr, dtype=np.float64)
        _require("lr", lr.ndim <= 1 and lr.size > 0 and np.isfinite(lr).all() and (lr >= 0).all(), "numbers ≥ 0", lr)
        if lr.ndim == 1 and (self.schedule != "constant" or self.warmup):
            raise ValueError("a sequence of learning rates is a schedule of its own; leave schedule and warmup out")
        if lr.ndim == 1 and self.batches is not None and len(self.batches) != len(lr):
            raise ValueError(f"expected one lr for every step ({len(self.batches)}), got {len(lr)}")
        _require("epochs", self.epochs is None or _is_whole_number(self.epochs, 1), "a whole number ≥ 1", self.epochs)
        _require("batches", self.batches is None or len(self.batches) > 0, "at least one step", self.batches)
        _require("batch_size", _is_whole_number(self.batch_size, 1), "a whole number ≥ 1", self.batch_size)
        _require("warmup", _is_whole_number(self.warmup, 0), "a whole number ≥ 0", self.warmup)
        _require("seed", _is_whole_number(self.seed, 0), "a whole number ≥ 0", self.seed)
        _require("momentum", 0 <= self.momentum < 1, "a number in [0, 1)", self.momentum)
        _require("betas", all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)", self.betas)
        _require("eps", self.eps >= 0 and self.eps_root >= 0, "numbers ≥ 0", (self.eps, self.eps_root))
        _require("weight_decay", 0 <= self.weight_decay < np.inf, "a number ≥ 0", self.weight_decay)
        _require("clip", self.clip is None or self.clip > 0, "a norm > 0", self.clip)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum > 0")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(f"momentum is a setting of sgd, {self.optimiser} has betas; leave it out")

    def __repr__(self) -> str:
        """The settings that differ from the defaults, long ones as a digest: equal trainings have equal texts."""
        settings = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        texts = (
            f"{name}={_text(value)}" for name, value, default in settings if value is not default and value != default
        )
        return f"Training({', '.join(texts)})"

    @property
    def l2(self) -> float:
        """The λ in the term λ/2 ‖θ‖² that this training minimises beside the losses; 0 if the decay is decoupled."""
        return 0.0 if self.optimiser == "adamw" else self.weight_decay

    @property
    def objective(self) -> Objective:
        """The objective that this training minimises, and what removal means in it."""
        return Objective("fixed" if self.denominator == "fixed" else "mean", self.l2)

    def require(self, objective: Objective) -> None:
        """Raise ValueError if the objective is not this training's: scores and retraining would then differ."""
        expected = self.objective
        if self.optimiser != "adamw" and objective.l2 != expected.l2:
            raise ValueError(
                f"expected l2 as in training (weight_decay {expected.l2}), got {objective.l2}; leave objective= out"
            )
        if objective.l2 and objective.reduction != expected.reduction:
            raise ValueError(
                f"expected objective {expected.reduction!r}, which denominator={self.denominator!r} implies, got "
                f"{objective.reduction!r}: removal would mean one thing in scores and another in training; leave it out"
            )

    def drawn(self, remaining: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], ...]:
        """The positions of every step's batch: those given, or drawn with this seed from the positions `remaining`."""
        if self.batches is not None:
            return tuple(self.batches)
        assert self.epochs is not None
        rng = np.random.default_rng([seed, ORDER_STREAM])
        orders = (rng.permutation(remaining) for _ in range(self.epochs))
        return tuple(order[batch] for order in orders for batch in blocks(len(order), self.batch_size))

    def rates(self, steps: int) -> NDArray[np.float64]:
        """η_t, (steps,). Raises ValueError if `lr` is a sequence of another length."""
        lr = np.asarray(self.lr, dtype=np.float64)
        if lr.ndim == 1:
            if len(lr) != steps:
                raise ValueError(f"expected one lr for every step ({steps}), got {len(lr)}")
            return lr
        t = np.arange(steps)
        u = np.clip((t - self.warmup) / max(steps - self.warmup, 1), 0.0, 1.0)
        after = {"constant": np.ones(steps), "linear": 1.0 - u, "cosine": (1.0 + np.cos(np.pi * u)) / 2.0}
        return np.asarray(lr * np.where(t < self.warmup, (t + 1) / (self.warmup + 1), after[self.schedule]))

    def time(self, examples: int) -> float | None:
        """τ = Σ ηₜ/(1 − μ) over the steps on this many examples; None for Adam, whose steps have their own metric."""
        if self.optimiser != "sgd":
            return None
        steps = len(self.drawn(np.arange(examples), self.seed))
        return float(self.rates(steps).sum() / (1.0 - self.momentum)) or None

    def noise(self, steps: int, seed: int) -> list[int]:
        """The seeds of the random numbers in every step (dropout, augmentation)."""
        seeds: list[int] = np.random.default_rng([seed, STEP_STREAM]).integers(2**63, size=steps).tolist()
        return seeds


def _text(value: Any) -> str:
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, np.ndarray | list | tuple | Mapping) and len(value) > MAX_PRINTED_ENTRIES:
        return f"<{digest(value)[:DIGEST_DIGITS]}>"
    return str(getattr(value, "__qualname__", None) or repr(value))


def _positions(step: int, batch: Any) -> NDArray[np.intp]:
    array = np.asarray(batch)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(f"expected positions ≥ 0 in the training set for step {step} of batches=, got {batch!r}")
    array = array.astype(np.intp)
    array.setflags(write=False)
    return array


def _is_whole_number(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _require_one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {value!r}")


def _require(name: str, holds: Any, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"expected {name} to be {expected}, got {value}")
