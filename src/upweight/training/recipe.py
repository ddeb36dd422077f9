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
from upweight.training.parameter_groups import ParameterGroup
from upweight.training.recipe_checks import check_numbers, check_words, steps_of_batches
from upweight.training.recorded_run import RecordedRun
from upweight.training.update_rule import UpdateRule

Initial = Callable[[int], nn.Module] | nn.Module | Mapping[str, Tensor]
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
        rmsprop g ← g + λθ;  s ← αs + (1−α)g²;  m ← μm + g / (√(s + eps_root) + eps);  θ ← θ − η_t m
                (centred: √(s − a² + eps_root) with a ← αa + (1−α)g)

    With T steps and W = `warmup`, η_t = lr · (t+1)/(W+1) for t < W. From then on it is lr ("constant"), lr·(1 − u)
    ("linear") or lr·(1 + cos πu)/2 ("cosine") with u = (t − W)/(T − W).

    The denominator says what it means to remove an example (to give it weight 0); cᵢ are `counts`, 1 by default:

        "fixed"         d_t = Σ_{B_t} cᵢ: no other example takes its place, and J_t is linear in the weights. With
                        weight decay the regulariser stays, as in a sum of losses.
        "renormalised"  d_t = Σ_{B_t} cᵢ wᵢ: the batch's average is taken over the other examples. If all weights of a
                        batch are 0, its gradient is 0, but the step is still taken.
        "rebatched"     examples of weight 0 are left out before batches are drawn: fewer steps, other batches, and
                        d_t as fixed. Only with this rule are removed examples not part of batch statistics.

    Args:
        optimiser: "sgd", "adam", "adamw", "rmsprop", or an `UpdateRule` of your own.
        lr: the learning rate, or one for every step.
        epochs: passes over the data. Each pass takes the examples in a new order drawn from the seed, in batches of
            `batch_size`; the last batch of a pass may be smaller.
        batches: instead of epochs: positions in the training set, one array for every step, e.g. [steps, batch]; a list
            of arrays for a step that accumulates the gradients of several batches.
        batch_size: the number of examples in a batch.
        momentum, nesterov: μ of sgd (and rmsprop), and whether sgd looks ahead.
        betas, eps, eps_root: of adam and adamw, eps of rmsprop as well; torch has no `eps_root`, which is 0 there.
        alpha, centred: of rmsprop.
        weight_decay: λ.
        groups: parameters with a learning rate or weight decay of their own.
        clip: the largest norm of the gradient, over all parameters.
        schedule, warmup: of the learning rate; a schedule may be a function step → factor, as of torch's `LambdaLR`.
        accumulate: with epochs, the number of consecutive batches whose gradients make one step; the last step of a
            pass may have fewer.
        mean_over: the mean of a step that accumulates k batches. "batch": that of the batches' means J (each loss is
            divided by k, as in a plain loop); "step": one mean over all examples of the step. "sum": the
            sum of the batches' means, of a loop that does not divide.
        ema: the decay β of an average a ← βa + (1−β)θ over the steps, which is the trained net (torch's
            `AveragedModel` with `get_ema_multi_avg_fn(β)`, updated after every step); the average begins after step 0.
        denominator: what removal means.
        counts: (n,) how much each example counts in d_t. For `CrossEntropyLoss(weight=v)` the loss of an example is
            v[yᵢ] times its cross-entropy, and counts=v[y]; for a mean over tokens they are numbers of tokens.
        augment: `augment(batch, generator) -> batch`, called in every step with a seeded `torch.Generator`.
        random_states: the state of torch's random numbers at the beginning of each step, as a trajectory recorded them,
            for runs with the seed of the training; other seeds draw anew. `augment` gets torch's own generator then.
        seed: of the order, dropout and augmentation, and of `initial` if it is a function.
        initial: where training begins: `seed -> module` (called with torch seeded), a module, or a state dict.
        recorded: of a recorded run (`TrajectoryCallback.training`), its random numbers; it has one seed.

    Raises:
        ValueError, TypeError: settings that do not define a training.
    """

    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] | UpdateRule = "sgd"
    lr: float | Sequence[float] | NDArray[np.float64]
    epochs: int | None = None
    batches: Sequence[Any] | NDArray[np.intp] | None = None
    batch_size: int = 64
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    alpha: float = 0.99
    centred: bool = False
    weight_decay: float = 0.0
    groups: Sequence[ParameterGroup] = ()
    clip: float | None = None
    schedule: Literal["constant", "linear", "cosine"] | Callable[[int], float] = "constant"
    warmup: int = 0
    accumulate: int = 1
    mean_over: Literal["batch", "step", "sum"] = "batch"
    ema: float | None = None
    denominator: Literal["fixed", "renormalised", "rebatched"] = "fixed"
    counts: Sequence[float] | NDArray[np.float64] | None = None
    augment: Callable[[Any, Generator], Any] | None = None
    random_states: Sequence[Tensor] | None = None
    seed: int = 0
    initial: Initial | None = None
    recorded: RecordedRun | None = None

    def __post_init__(self) -> None:
        check_words(self)
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.counts is not None:
            object.__setattr__(self, "counts", tuple(np.asarray(self.counts, dtype=np.float64).tolist()))
        if self.batches is not None:
            object.__setattr__(self, "batches", steps_of_batches(self.batches))
        check_numbers(self)

    def __repr__(self) -> str:
        """The settings that differ from the defaults, long ones as a digest: equal trainings have equal texts."""
        settings = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        texts = (
            f"{name}={_text(value)}"
            for name, value, default in settings
            if value is not default and (isinstance(value, np.ndarray) or value != default)
        )
        return f"Training({', '.join(texts)})"

    @property
    def l2(self) -> float:
        """The λ in the term λ/2 ‖θ‖² that this training minimises beside the losses; 0 if the decay is decoupled."""
        return 0.0 if self.is_decoupled else self.weight_decay

    @property
    def is_decoupled(self) -> bool:
        """Whether weight decay acts on the parameters directly (adamw)."""
        return self.optimiser == "adamw"

    @property
    def objective(self) -> Objective:
        """The objective that this training minimises, and what removal means in it."""
        return Objective("fixed" if self.denominator == "fixed" else "mean", self.l2)

    def require(self, objective: Objective) -> None:
        """Raise ValueError if the objective is not this training's: scores and retraining would then differ."""
        expected = self.objective
        if not self.is_decoupled and objective.l2 != expected.l2:
            raise ValueError(
                f"expected l2 as in training (weight_decay {expected.l2}), got {objective.l2}; leave objective= out"
            )
        if objective.l2 and objective.reduction != expected.reduction:
            raise ValueError(
                f"expected objective {expected.reduction!r}, which denominator={self.denominator!r} implies, got "
                f"{objective.reduction!r}: removal would mean one thing in scores and another in training; leave it out"
            )

    def drawn(self, remaining: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], ...]:
        """The positions that every step takes: those given, or drawn with this seed from the positions `remaining`."""
        if self.batches is not None:
            return tuple(np.concatenate(step) if isinstance(step, tuple) else step for step in self.batches)
        assert self.epochs is not None
        rng = np.random.default_rng([seed, ORDER_STREAM])
        orders = (rng.permutation(remaining) for _ in range(self.epochs))
        size = self.batch_size * self.accumulate
        return tuple(order[step] for order in orders for step in blocks(len(order), size))

    def passes(self, t: int, size: int) -> list[slice]:
        """The batches, as parts of the positions of step t, whose gradients make the step."""
        if self.batches is None:
            return list(blocks(size, self.batch_size))
        step = self.batches[t]
        if not isinstance(step, tuple):
            return [slice(0, size)]
        ends = np.cumsum([len(batch) for batch in step])
        return [slice(int(start), int(end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def rates(self, steps: int, rate: Any = None) -> NDArray[np.float64]:
        """η_t, (steps,), from `lr` or from this rate. Raises ValueError for a sequence of another length."""
        lr: NDArray[np.float64] = np.asarray(self.lr if rate is None else rate, dtype=np.float64)
        if lr.ndim == 1:
            if len(lr) != steps:
                raise ValueError(f"expected one lr for every step ({steps}), got {len(lr)}")
            return lr
        t = np.arange(steps)
        if callable(self.schedule):
            after = np.array([float(self.schedule(int(step))) for step in t], dtype=np.float64)
        else:
            u = np.clip((t - self.warmup) / max(steps - self.warmup, 1), 0.0, 1.0)
            cosine = (1.0 + np.cos(np.pi * u)) / 2.0
            after = np.asarray({"constant": np.ones(steps), "linear": 1.0 - u, "cosine": cosine}[self.schedule])
        factors = np.where(t < self.warmup, (t + 1) / (self.warmup + 1), after)
        return np.asarray(lr * factors, dtype=np.float64)

    def time(self, examples: int) -> float | None:
        """τ = Σ ηₜ/(1 − μ) over the steps on this many examples; None if steps have a metric of their own."""
        if self.optimiser != "sgd" or any(group.lr is not None for group in self.groups):
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
