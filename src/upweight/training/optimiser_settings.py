"""OptimiserSettings: what an optimiser does to a gradient, read from the torch optimiser itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.gradients.network import unwrapped
from upweight.training.recipe import Training

ROUNDING = 1e-12


@dataclass(frozen=True)
class OptimiserSettings:
    """How one step follows from a gradient, as far as it stays the same over a training.

    Attributes:
        kind: "SGD", "Adam" or "AdamW".
        gain: what momentum makes of one gradient over time, (1 − dampening)/(1 − momentum) for SGD, 1 for Adam.
        weight_decay: λ of λ/2 ‖θ‖², or the decoupled one of AdamW; the mean over the parameters where groups differ.
        decoupled: whether it acts on the parameters directly (AdamW).
        eps, beta: of Adam: what is added to √v, and the decay of the second moments; 0 for SGD.
        momentum, nesterov: of SGD; `momentum` is β₁ for Adam.
    """

    kind: str
    gain: float
    weight_decay: float
    decoupled: bool = False
    eps: float = 0.0
    beta: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)

    def training(self, rates: NDArray[np.float64], batches: Sequence[NDArray[np.intp]]) -> Training:
        """The same steps as a recipe that begins nowhere. Raises ValueError for dampening, which none has."""
        settings: dict[str, Any] = {"lr": rates, "batches": batches, "weight_decay": self.weight_decay}
        if self.kind != "SGD":
            settings |= {"optimiser": "adamw" if self.decoupled else "adam", "eps": self.eps}
            return Training(betas=(self.momentum, self.beta), **settings)
        if abs(self.gain * (1.0 - self.momentum) - 1.0) > ROUNDING:
            raise ValueError("steps with dampening are not gone through one by one; pass segments=3, or train without")
        return Training(momentum=self.momentum, nesterov=self.nesterov, **settings)

    @classmethod
    def of(cls, optimiser: Any) -> OptimiserSettings:
        """What this optimiser does. Raises TypeError or ValueError where that is not known here."""
        groups = getattr(optimiser, "param_groups", None)
        if not groups:
            raise TypeError(f"expected the torch optimiser of the loop, got {type(optimiser).__name__}")
        group = groups[0]
        for option in ("amsgrad", "maximize"):
            if any(g.get(option) for g in groups):
                raise ValueError(f"{type(optimiser).__name__}({option}=True) is not supported: {_SUPPORTED}")
        decay = _mean_decay(groups)
        # torch's Adam and AdamW are one class with a flag in newer versions, two in older ones
        match type(optimiser):
            case torch.optim.SGD:
                _same(groups, "momentum", "dampening", "nesterov")
                momentum, dampening = float(group["momentum"]), float(group["dampening"])
                if not 0 <= momentum < 1:
                    raise ValueError(f"expected a momentum in [0, 1), got {momentum}")
                gain = (1 - dampening) / (1 - momentum) if momentum else 1.0
                return cls("SGD", gain, decay, momentum=momentum, nesterov=bool(group["nesterov"]))
            case torch.optim.Adam | torch.optim.AdamW:
                _same(groups, "betas", "eps")
                decoupled = isinstance(optimiser, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
                kind = "AdamW" if decoupled else "Adam"
                first, second = (float(beta) for beta in group["betas"])
                return cls(kind, 1.0, decay, decoupled, float(group["eps"]), second, first)
        raise TypeError(f"{type(optimiser).__name__} is not supported: {_SUPPORTED}")


_SUPPORTED = (
    "a trajectory knows the steps of torch.optim.SGD (with momentum), Adam and AdamW, without amsgrad or maximize"
)


def read_learning_rate(optimiser: Any) -> float:
    """The learning rate of the step. Raises ValueError where groups differ or the rate is no finite number ≥ 0."""
    rates = {float(group["lr"]) for group in optimiser.param_groups}
    if len(rates) > 1:
        raise ValueError(f"expected one learning rate for all parameter groups, got {sorted(rates)}")
    rate = rates.pop()
    if not 0 <= rate < float("inf"):
        raise ValueError(f"expected a finite learning rate ≥ 0, got {rate}")
    return rate


def read_state(net: nn.Module, optimiser: Any) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter, `<kind of state>.<parameter>` → tensor.

    Raises ValueError where it trains parameters that are not the net's.
    """
    names = _names(net, optimiser)
    found: dict[str, Tensor] = {}
    for parameter, name in names.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                found[f"{key}.{name}"] = torch.as_tensor(value)
    return found


def restore_state(net: nn.Module, optimiser: Any, state: Mapping[str, Tensor]) -> None:
    """The inverse of `read_state`."""
    names = _names(net, optimiser)
    for parameter, name in names.items():
        own = {key.removesuffix(f".{name}"): value for key, value in state.items() if key.endswith(f".{name}")}
        own = {key: value for key, value in own.items() if "." not in key}
        optimiser.state[parameter] = {
            key: value.clone() if value.ndim == 0 else value.to(parameter.device, copy=True)
            for key, value in own.items()
        }


def _names(net: nn.Module, optimiser: Any) -> dict[Tensor, str]:
    of = {parameter: name for name, parameter in unwrapped(net).named_parameters()}
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    strange = sum(p not in of for p in trained)
    if strange:
        raise ValueError(
            f"expected the optimiser of this net, got one that trains {strange} parameters that are not the net's; "
            "record the net whose parameters were handed to the optimiser"
        )
    return {p: of[p] for p in trained}


def _mean_decay(groups: Any) -> float:
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    decays = [float(group.get("weight_decay", 0.0)) for group in groups]
    return float(sum(s * d for s, d in zip(sizes, decays, strict=True)) / max(1, sum(sizes)))


def _same(groups: Any, *names: str) -> None:
    for name in names:
        if any(group[name] != groups[0][name] for group in groups):
            raise ValueError(f"expected the same {name} for all parameter groups, got {[g[name] for g in groups]}")
