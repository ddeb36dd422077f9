"""The settings and state of an optimiser, read from the torch optimiser itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upweight.gradients.network import unwrap
from upweight.training.parameter_groups import ParameterGroup
from upweight.training.recipe import Training
from upweight.training.recorded_rates import RecordedRates

GAIN_TOLERANCE = 1e-12  # relative rounding error of a gain without dampening


@dataclass(frozen=True)
class OptimiserSettings:
    """The settings of an optimiser that stay the same over a training: all but the learning rate.

    Attributes:
        kind: "SGD", "Adam", "AdamW" or "RMSprop".
        gain: the factor that momentum puts on one gradient over time, (1 − dampening)/(1 − momentum) for SGD, 1 for
            the others (RMSprop with momentum: 1/(1 − momentum)).
        weight_decay: λ of λ/2 ‖θ‖², or the decoupled λ of AdamW; if parameter groups differ, the mean over the
            parameters, and `decays` has the values.
        decoupled: whether weight decay acts on the parameters directly (AdamW).
        eps, beta: the term added to √v, and the decay of the second moments, Adam's β₂ or RMSprop's α; 0 for SGD.
        momentum, nesterov: of SGD and RMSprop; for Adam `momentum` is β₁.
        decays: the parameters that the optimiser holds, each with its own weight decay; None if the trajectory was
            recorded by a version that did not store them.
        groups: the parameters that the optimiser holds, each with the number of its parameter group; None if there is
            one group, or if an earlier version recorded the trajectory.
        centred: of RMSprop.
        clip: the norm to which the loop clips gradients, or None.
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
    groups: Mapping[str, int] | None = None
    centred: bool = False
    clip: float | None = None

    def require_well_formed(self) -> None:
        """Raise ValueError or TypeError for values that no optimiser has, as in a file that was changed."""
        numbers = (self.gain, self.weight_decay, self.eps, self.beta, self.momentum, *(self.decays or {}).values())
        numbers = (*numbers, *(self.groups or {}).values(), *(() if self.clip is None else (self.clip,)))
        if any(type(number) not in (int, float) or not np.isfinite(number) for number in numbers):
            raise ValueError("the settings of its optimiser are not finite numbers")
        if (
            self.kind not in ("SGD", "Adam", "AdamW", "RMSprop")
            or type(self.decoupled) is not bool
            or type(self.nesterov) is not bool
            or type(self.centred) is not bool
        ):
            raise ValueError(f"its optimiser is not one that a trajectory knows ({self.kind!r:.40})")

    def decay_of(self, name: str) -> float:
        """The weight decay of this parameter."""
        return self.weight_decay if self.decays is None else self.decays.get(name, 0.0)

    def continued_by(self, later: OptimiserSettings) -> bool:
        """Whether `later` differs at most in parameters that were added to the optimiser."""
        rules = (replace(s, weight_decay=0.0, decays=None, groups=None, clip=None) for s in (self, later))
        if len({str(rule) for rule in rules}) > 1:
            return False
        if self.decays is None or later.decays is None:
            return self.weight_decay == later.weight_decay
        return self.decays.items() <= later.decays.items()

    def as_dict(self) -> dict[str, Any]:
        """The settings as the manifest of a trajectory holds them."""
        return asdict(self)

    def training(self, steps: RecordedRates, batches: Sequence[Any], names: Sequence[str]) -> Training:
        """The recipe of the same steps for the parameters of these names, without initial parameters.

        Raises ValueError for dampening, which no recipe has.
        """
        by_group = defaultdict[tuple[int, float], list[str]](list)
        for name in names:
            number = 0 if steps.groups is None else (self.groups or {}).get(name, 0)
            by_group[number, self.decay_of(name)].append(name)
        if len(by_group) == 1:
            ((number, decay),) = by_group
            lr = steps.of_group(number)
            return Training(lr=lr, batches=batches, weight_decay=decay, clip=self.clip, **self.rule())
        groups = [
            ParameterGroup(parameters=group, lr=steps.of_group(number), weight_decay=decay)
            for (number, decay), group in by_group.items()
        ]
        return Training(lr=steps.mean, batches=batches, groups=groups, clip=self.clip, **self.rule())

    def rule(self) -> dict[str, Any]:
        """The settings of `Training` that name the rule, without learning rate and weight decay.

        Raises ValueError for dampening, which no recipe has.
        """
        if self.kind == "RMSprop":
            settings = {"alpha": self.beta, "eps": self.eps, "centred": self.centred, "momentum": self.momentum}
            return {"optimiser": "rmsprop", **settings}
        if self.kind != "SGD":
            optimiser = "adamw" if self.decoupled else "adam"
            return {"optimiser": optimiser, "eps": self.eps, "betas": (self.momentum, self.beta)}
        if abs(self.gain * (1.0 - self.momentum) - 1.0) > GAIN_TOLERANCE:
            raise ValueError(
                "steps with dampening cannot be followed one by one; pass segments=3, or train without dampening"
            )
        return {"momentum": self.momentum, "nesterov": self.nesterov}

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
        parameter_groups: dict[str, Any] = {"decays": _decays(net, optimiser), "groups": _group_numbers(net, optimiser)}
        # torch's Adam and AdamW are one class with a flag in newer versions, two in older ones
        match type(optimiser):
            case torch.optim.SGD:
                _require_same(groups, "momentum", "dampening", "nesterov")
                momentum, dampening = _momentum(group), float(group["dampening"])
                gain = (1 - dampening) / (1 - momentum) if momentum else 1.0
                return cls(
                    "SGD", gain, mean_decay, momentum=momentum, nesterov=bool(group["nesterov"]), **parameter_groups
                )
            case torch.optim.Adam | torch.optim.AdamW:
                _require_same(groups, "betas", "eps")
                decoupled = isinstance(optimiser, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
                kind = "AdamW" if decoupled else "Adam"
                first, second = (float(beta) for beta in group["betas"])
                return cls(kind, 1.0, mean_decay, decoupled, float(group["eps"]), second, first, **parameter_groups)
            case torch.optim.RMSprop:
                _require_same(groups, "alpha", "eps", "momentum", "centered")
                momentum, centred = _momentum(group), bool(group["centered"])
                gain = 1.0 / (1.0 - momentum)
                moments: dict[str, Any] = {"beta": float(group["alpha"]), "momentum": momentum}
                return cls(
                    "RMSprop", gain, mean_decay, eps=float(group["eps"]), **moments, centred=centred, **parameter_groups
                )
        raise TypeError(f"{type(optimiser).__name__} is not supported: {_SUPPORTED}")


def _momentum(group: Mapping[str, Any]) -> float:
    """The momentum of a parameter group. Raises ValueError for one with which a gradient is never forgotten."""
    momentum = float(group["momentum"])
    if not 0 <= momentum < 1:
        raise ValueError(f"expected a momentum in [0, 1), got {momentum}")
    return momentum


_SUPPORTED = (
    "known are the steps of torch.optim.SGD (with momentum), Adam, AdamW and RMSprop, without amsgrad or maximize; for "
    "any other rule pass TorchModel(…, training=uw.Training(optimiser=uw.UpdateRule(step, state=…), …))"
)


def unwrap_optimiser(optimiser: Any) -> Any:
    """The torch optimiser inside a wrapper that holds it as `.optimizer` (accelerate's AcceleratedOptimizer)."""
    wrapped = getattr(optimiser, "optimizer", None)
    inside = optimiser if wrapped is None else unwrap_optimiser(wrapped)
    return inside if isinstance(inside, torch.optim.Optimizer) else optimiser


def read_learning_rates(optimiser: Any) -> list[float]:
    """The learning rate of every parameter group. Raises ValueError if one is negative or not finite."""
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    for rate in rates:
        if not 0 <= rate < float("inf"):
            raise ValueError(f"expected a finite learning rate ≥ 0, got {rate}")
    return rates


def group_sizes(optimiser: Any) -> list[int]:
    """How many numbers the optimiser trains in every parameter group."""
    return [sum(p.numel() for p in group["params"]) for group in optimiser.param_groups]


def read_state(net: nn.Module, optimiser: Any) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter, `<kind of state>.<parameter>` → tensor.

    Raises ValueError if the optimiser trains parameters that are not the net's.
    """
    names = parameter_names(net, optimiser)
    tensors: dict[str, Tensor] = {}
    for parameter, name in names.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                tensor = torch.as_tensor(value)
                tensors[f"{key}.{name}"] = tensor.to_dense() if tensor.is_sparse else tensor
    return tensors


def restore_state(net: nn.Module, optimiser: Any, state: Mapping[str, Tensor]) -> None:
    """Put the tensors of `read_state` back into the optimiser."""
    for parameter, name in parameter_names(net, optimiser).items():
        by_key = {key.removesuffix(f".{name}"): value for key, value in state.items() if key.endswith(f".{name}")}
        optimiser.state[parameter] = {
            key: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
            for key, value in by_key.items()
            if "." not in key
        }


def parameter_names(net: nn.Module, optimiser: Any) -> dict[Tensor, str]:
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
    names = parameter_names(net, optimiser)
    return {
        names[p]: float(group.get("weight_decay", 0.0)) for group in optimiser.param_groups for p in group["params"]
    }


def _group_numbers(net: nn.Module, optimiser: Any) -> dict[str, int] | None:
    """The number of the parameter group of every parameter that the optimiser holds; None if there is one group."""
    names = parameter_names(net, optimiser)
    groups = enumerate(optimiser.param_groups)
    numbers = {names[p]: number for number, group in groups for p in group["params"]}
    return numbers if len(optimiser.param_groups) > 1 else None


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
