"""Training: a training run as a value, from which the same run can be made again with other example weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from upweight.core.identity import digest
from upweight.core.objective import Objective

Initial = Callable[[int], nn.Module] | nn.Module | Mapping[str, Tensor]
OPTIMISERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
DENOMINATORS = ("fixed", "renormalised", "rebatched")
SHORT = 2  # entries of a setting that are written out
SHOWN = 16  # digits of the digest of a longer one
ORDER, NOISE = 0, 1  # streams of random numbers of one seed: the order of examples, and what happens in a step


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Training:
    """How a network was trained: optimiser, steps, batches, randomness.

    Step t = 0, 1, … takes the batch B_t, the example weights w, the losses ℓᵢ and

        J_t(θ) = Σ_{i∈B_t} wᵢ ℓᵢ(θ) / d_t                    d_t by `denominator`, below
        g = ∇J_t(θ_t), times min(1, clip / (‖g‖ + 1e-6)) where `clip` is given

    to θ_{t+1}, in exactly the numbers of `torch.optim` (η_t is the learning rate of the step, λ is `weight_decay`):

        sgd     g ← g + λθ;  m ← μm + g;  θ ← θ − η_t m      (nesterov: − η_t (g + μm))
        adam    g ← g + λθ;  m ← β₁m + (1−β₁)g;  s ← β₂s + (1−β₂)g²
                θ ← θ − η_t m̂ / (√(ŝ + eps_root) + eps),     m̂ = m/(1−β₁^{t+1}),  ŝ = s/(1−β₂^{t+1})
        adamw   as adam without λ in g, after θ ← (1 − η_t λ) θ

    With T steps and W = `warmup`, η_t = lr · (t+1)/(W+1) for t < W; from then on lr ("constant"), lr·(1 − u)
    ("linear") or lr·(1 + cos πu)/2 ("cosine"), u = (t − W)/(T − W).

    What it means that an example is removed (its weight is 0):

        "fixed"         d_t = |B_t|: nobody takes its place; linear in the weights. With weight decay the regulariser
                        stays, as in a sum of losses.
        "renormalised"  d_t = Σ_{B_t} wᵢ: the batch's average is taken over the others; a batch without weight has
                        no gradient, its step is taken all the same.
        "rebatched"     examples of weight 0 are left out before batches are drawn: fewer steps, other batches, and
                        d_t = |B_t|. The only one in which batch statistics (batch norm) do not see what was removed.

    Args:
        optimiser: "sgd", "adam" or "adamw".
        lr: the learning rate, or one for every step.
        epochs: passes over the data; every one in a new order drawn from the seed, cut into `batch_size`, the last
            batch of a pass as small as it comes.
        batches: instead of epochs: positions in the training set, one array for every step, e.g. [steps, batch].
        batch_size: examples in a batch.
        momentum, nesterov: μ of sgd.
        betas, eps, eps_root: of adam and adamw; `eps_root` is 0 in torch.
        weight_decay: λ.
        clip: largest norm of the gradient.
        schedule, warmup: of the learning rate.
        denominator: what removal means.
        augment: `augment(batch, generator) -> batch`, called in every step with a seeded `torch.Generator`.
        seed: of order, dropout, augmentation, and of `initial` where it is a function.
        initial: where training begins: `seed -> module` (called with torch seeded), a module, or a state dict.

    Raises:
        ValueError, TypeError: a setting that makes no training.
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
        _one_of("optimiser", self.optimiser, OPTIMISERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("denominator", self.denominator, DENOMINATORS)
        if (self.epochs is None) == (self.batches is None):
            raise ValueError("expected either epochs= (batches are drawn from the seed) or batches= (positions a step)")
        if self.batches is not None and self.denominator == "rebatched":
            raise ValueError('denominator="rebatched" draws batches of what is left; pass epochs= instead of batches=')
        if self.batches is not None:
            object.__setattr__(self, "batches", tuple(_positions(t, b) for t, b in enumerate(self.batches)))
        self._require_numbers()

    def _require_numbers(self) -> None:
        lr = np.asarray(self.lr, dtype=np.float64)
        _require("lr", lr.ndim <= 1 and lr.size > 0 and np.isfinite(lr).all() and (lr >= 0).all(), "numbers ≥ 0", lr)
        if lr.ndim == 1 and (self.schedule != "constant" or self.warmup):
            raise ValueError("one lr for every step is a schedule of its own; leave schedule and warmup out")
        if lr.ndim == 1 and self.batches is not None and len(self.batches) != len(lr):
            raise ValueError(f"expected one lr for every step ({len(self.batches)}), got {len(lr)}")
        _require("epochs", self.epochs is None or _whole(self.epochs, 1), "a whole number ≥ 1", self.epochs)
        _require("batches", self.batches is None or len(self.batches) > 0, "at least one step", self.batches)
        _require("batch_size", _whole(self.batch_size, 1), "a whole number ≥ 1", self.batch_size)
        _require("warmup", _whole(self.warmup, 0), "a whole number ≥ 0", self.warmup)
        _require("seed", _whole(self.seed, 0), "a whole number ≥ 0", self.seed)
        _require("momentum", 0 <= self.momentum < 1, "a number in [0, 1)", self.momentum)
        _require("betas", all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)", self.betas)
        _require("eps", self.eps >= 0 and self.eps_root >= 0, "numbers ≥ 0", (self.eps, self.eps_root))
        _require("weight_decay", 0 <= self.weight_decay < np.inf, "a number ≥ 0", self.weight_decay)
        _require("clip", self.clip is None or self.clip > 0, "a norm > 0", self.clip)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum > 0")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(f"momentum is of sgd, {self.optimiser} has betas; leave it out")

    def __repr__(self) -> str:
        """The settings that are not the defaults, long ones by a digest: the same training has the same words."""
        said = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        words = (
            f"{name}={_words(value)}" for name, value, default in said if value is not default and value != default
        )
        return f"Training({', '.join(words)})"

    @property
    def l2(self) -> float:
        """The λ in λ/2 ‖θ‖² that this training minimises beside the losses: none where the decay is decoupled."""
        return 0.0 if self.optimiser == "adamw" else self.weight_decay

    @property
    def objective(self) -> Objective:
        """What this training minimises, and what removal means in it."""
        return Objective("fixed" if self.denominator == "fixed" else "mean", self.l2)

    def require(self, objective: Objective) -> None:
        """Raise ValueError for an objective that is not this training's: scores and retraining would differ."""
        own = self.objective
        if self.optimiser != "adamw" and objective.l2 != own.l2:
            raise ValueError(
                f"expected l2 as in training (weight_decay {own.l2}), got {objective.l2}; leave objective= out"
            )
        if objective.l2 and objective.reduction != own.reduction:
            raise ValueError(
                f"expected objective {own.reduction!r}, as denominator={self.denominator!r} has it, got "
                f"{objective.reduction!r}: scores would take removal for another thing than training; leave it out"
            )

    def drawn(self, kept: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], ...]:
        """Positions of every step's batch: those given, or drawn by this seed from the positions `kept`."""
        if self.batches is not None:
            return tuple(self.batches)
        assert self.epochs is not None
        rng = np.random.default_rng([seed, ORDER])
        orders = (rng.permutation(kept) for _ in range(self.epochs))
        return tuple(
            order[start : start + self.batch_size]
            for order in orders
            for start in range(0, len(order), self.batch_size)
        )

    def rates(self, steps: int) -> NDArray[np.float64]:
        """η_t, (steps,). Raises ValueError where one lr a step was given, and they are fewer or more."""
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
        """τ = Σ ηₜ/(1 − μ) over the steps on so many examples; None for Adam, whose steps have their own metric."""
        if self.optimiser != "sgd":
            return None
        steps = len(self.drawn(np.arange(examples), self.seed))
        return float(self.rates(steps).sum() / (1.0 - self.momentum)) or None

    def noise(self, steps: int, seed: int) -> list[int]:
        """What seeds the random numbers of every step (dropout, augmentation)."""
        found: list[int] = np.random.default_rng([seed, NOISE]).integers(2**63, size=steps).tolist()
        return found


def _words(value: Any) -> str:
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, np.ndarray | list | tuple | Mapping) and len(value) > SHORT:
        return f"<{digest(value)[:SHOWN]}>"
    return str(getattr(value, "__qualname__", None) or repr(value))


def _positions(step: int, batch: Any) -> NDArray[np.intp]:
    array = np.asarray(batch)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(f"expected positions ≥ 0 in the training set for step {step} of batches=, got {batch!r}")
    array = array.astype(np.intp)
    array.setflags(write=False)
    return array


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {value!r}")


def _require(name: str, holds: Any, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"expected {name} to be {expected}, got {value}")
