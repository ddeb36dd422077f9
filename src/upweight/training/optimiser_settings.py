"""The settings and state of an optimiser, read from the torch optimiser itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.gradients.network import unwrap
from upweight.training.recipe import Training

GAIN_TOLERANCE = 1e-12  # relative rounding error of a gain without dampening


@dataclass(frozen=True)
class OptimiserSettings:
    """The settings of an optimiser that stay the same over a training: all but the learning rate.

    Attributes:
        kind: "SGD", "Adam" or "AdamW".
        gain: the factor that momentum puts on one gradient over time, (1 − dampening)/(1 − momentum) for SGD, 1 for
            Adam.
        weight_decay: λ of λ/2 ‖θ‖², or the decoupled λ of AdamW; if parameter groups differ, the mean over the
            parameters, and `decays` has the values.
        decoupled: whether weight decay acts on the parameters directly (AdamW).
        eps, beta: for Adam the term added to √v, and β₂, the decay of the second moments; 0 for SGD.
        momentum, nesterov: of SGD; for Adam `momentum` is β₁.
        decays: the parameters that the optimiser holds, each with its own weight decay; None if the trajectory was
            recorded by a version that did not store them.
    """

    kind: str
    gain: float
    weight_decay: float
    decoupled: bool = False
    eps: float = 0.0
    beta: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    decays: Mapping[str, float] | None = None

    def require_well_formed(self) -> None:
        """Raise ValueError or TypeError for values that no optimiser has, as in a file that was changed."""
        numbers = (self.gain, self.weight_decay, self.eps, self.beta, self.momentum, *(self.decays or {}).values())
        if any(type(number) not in (int, float) or not np.isfinite(number) for number in numbers):
            raise ValueError("the settings of its optimiser are not finite numbers")
        if (
            self.kind not in ("SGD", "Adam", "AdamW")
            or type(self.decoupled) is not bool
            or type(self.nesterov) is not bool
        ):
            raise ValueError(f"its optimiser is not one that a trajectory knows ({self.kind!r:.40})")

    def decay_of(self, name: str) -> float:
        """The weight decay of this parameter."""
        return self.weight_decay if self.decays is None else self.decays.get(name, 0.0)

    def continued_by(self, later: OptimiserSettings) -> bool:
        """Whether `later` differs at most in parameters that were added to the optimiser."""
        same_rule = replace(self, weight_decay=0.0, decays=None) == replace(later, weight_decay=0.0, decays=None)
        if self.decays is None or later.decays is None:
            return same_rule and self.weight_decay == later.weight_decay
        return same_rule and self.decays.items() <= later.decays.items()

    def as_dict(self) -> dict[str, Any]:
        """As written to the manifest of a trajectory."""
        return asdict(self)

    def training(self, rates: NDArray[np.float64], batches: Sequence[NDArray[np.intp]]) -> Training:
        """The recipe of the same steps, without initial parameters.

        Raises ValueError for dampening, which no recipe has.
        """
        settings: dict[str, Any] = {"lr": rates, "batches": batches, "weight_decay": self.weight_decay}
        if self.kind != "SGD":
            settings |= {"optimiser": "adamw" if self.decoupled else "adam", "eps": self.eps}
            return Training(betas=(self.momentum, self.beta), **settings)
        if abs(self.gain * (1.0 - self.momentum) - 1.0) > GAIN_TOLERANCE:
            raise ValueError(
                "steps with dampening cannot be followed one by one; pass segments=3, or train without dampening"
            )
        return Training(momentum=self.momentum, nesterov=self.nesterov, **settings)

    @classmethod
    def of(cls, net: nn.Module, optimiser: Any) -> OptimiserSettings:
        """The settings of this optimiser of the net. Raises TypeError or ValueError if it is not supported."""
        groups = getattr(optimiser, "param_groups", None)
        if not groups:
            raise TypeError(f"expected the torch optimiser of the loop, got {type(optimiser).__name__}")
        group = groups[0]
        for option in ("amsgrad", "maximize"):
            if any(g.get(option) for g in groups):
                raise ValueError(f"{type(optimiser).__name__}({option}=True) is not supported: {_SUPPORTED}")
        mean_decay = _mean_weight_decay(groups)
        # torch's Adam and AdamW are one class with a flag in newer versions, two in older ones
        match type(optimiser):
            case torch.optim.SGD:
                _require_same(groups, "momentum", "dampening", "nesterov")
                momentum, dampening = float(group["momentum"]), float(group["dampening"])
                if not 0 <= momentum < 1:
                    raise ValueError(f"expected a momentum in [0, 1), got {momentum}")
                gain = (1 - dampening) / (1 - momentum) if momentum else 1.0
                nesterov, decays = bool(group["nesterov"]), _decays(net, optimiser)
                return cls("SGD", gain, mean_decay, momentum=momentum, nesterov=nesterov, decays=decays)
            case torch.optim.Adam | torch.optim.AdamW:
                _require_same(groups, "betas", "eps")
                decoupled = isinstance(optimiser, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
                kind = "AdamW" if decoupled else "Adam"
                first, second = (float(beta) for beta in group["betas"])
                eps, decays = float(group["eps"]), _decays(net, optimiser)
                return cls(kind, 1.0, mean_decay, decoupled, eps, second, first, decays=decays)
        raise TypeError(f"{type(optimiser).__name__} is not supported: {_SUPPORTED}")


_SUPPORTED = (
    "a trajectory knows the steps of torch.optim.SGD (with momentum), Adam and AdamW, without amsgrad or maximize"
)


def unwrap_optimiser(optimiser: Any) -> Any:
    """The torch optimiser inside a wrapper that holds it as `.optimizer` (accelerate's AcceleratedOptimizer)."""
    wrapped = getattr(optimiser, "optimizer", None)
    inside = optimiser if wrapped is None else unwrap_optimiser(wrapped)
    return inside if isinstance(inside, torch.optim.Optimizer) else optimiser


def read_learning_rate(optimiser: Any) -> float:
    """The learning rate of the step. Raises ValueError if groups differ, or the rate is negative or not finite."""
    rates = {float(group["lr"]) for group in optimiser.param_groups}
    if len(rates) > 1:
        raise ValueError(
            f"expected one learning rate for all parameter groups, got {sorted(rates)}; a trajectory has one learning "
            "rate per step, so record a training whose groups share it (their weight decay may differ)"
        )
    rate = rates.pop()
    if not 0 <= rate < float("inf"):
        raise ValueError(f"expected a finite learning rate ≥ 0, got {rate}")
    return rate


def read_state(net: nn.Module, optimiser: Any) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter, `<kind of state>.<parameter>` → tensor.

    Raises ValueError if the optimiser trains parameters that are not the net's.
    """
    names = _parameter_names(net, optimiser)
    tensors: dict[str, Tensor] = {}
    for parameter, name in names.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
    return tensors


def restore_state(net: nn.Module, optimiser: Any, state: Mapping[str, Tensor]) -> None:
    """Put the tensors of `read_state` back into the optimiser."""
    for parameter, name in _parameter_names(net, optimiser).items():
        by_key = {key.removesuffix(f".{name}"): value for key, value in state.items() if key.endswith(f".{name}")}
        optimiser.state[parameter] = {
            key: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
            for key, value in by_key.items()
            if "." not in key
        }


def _parameter_names(net: nn.Module, optimiser: Any) -> dict[Tensor, str]:
    """The names of the parameters that the optimiser trains."""
    names = {parameter: name for name, parameter in unwrap(net).named_parameters()}
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    unknown = sum(p not in names for p in trained)
    if unknown:
        raise ValueError(
            f"expected the optimiser of this net, got one that trains {unknown} parameters that are not the net's; "
            "record the net whose parameters were passed to the optimiser"
        )
    return {p: names[p] for p in trained}


def _decays(net: nn.Module, optimiser: Any) -> dict[str, float]:
    """The weight decay of every parameter that the optimiser holds, by name."""
    names = _parameter_names(net, optimiser)
    return {
        names[p]: float(group.get("weight_decay", 0.0)) for group in optimiser.param_groups for p in group["params"]
    }


def _mean_weight_decay(groups: Any) -> float:
    """The mean weight decay over the parameters."""
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    decays = [float(group.get("weight_decay", 0.0)) for group in groups]
    if len(set(decays)) == 1:
        return decays[0]
    return float(sum(s * d for s, d in zip(sizes, decays, strict=True)) / max(1, sum(sizes)))


def _require_same(groups: Any, *names: str) -> None:
    for name in names:
        if any(group[name] != groups[0][name] for group in groups):
            raise ValueError(f"expected the same {name} for all parameter groups, got {[g[name] for g in groups]}")
