"""The recipe of a training loop, read from the net and the torch optimiser that it steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from upweight.core.modules import MAX_NAMED
from upweight.gradients.network import unwrap
from upweight.training.optimiser_settings import OptimiserSettings, parameter_names, unwrap_optimiser
from upweight.training.parameter_groups import ParameterGroup
from upweight.training.recipe import Training


def training_of(net: nn.Module, optimiser: Optimizer, **settings: Any) -> Training:
    """The `Training` of a loop that steps this torch optimiser: its rule, learning rates and parameter groups.

    Args:
        net: the net whose parameters the optimiser trains.
        optimiser: SGD, Adam, AdamW or RMSprop of `torch.optim`.
        settings: all other settings of `Training` (`epochs` or `batches`, `initial`, `clip`, …); they take precedence.
            With a `schedule` or `warmup`, the learning rates are those from which a scheduler of torch started. After a
            loop with a scheduler that you do not pass, pass `lr=` with the learning rates of all steps.

    Raises:
        TypeError: an optimiser of another class; pass `Training(optimiser=uw.UpdateRule(…))`.
        ValueError: settings that no `Training` has, trainable parameters that the optimiser does not hold, or learning
            rates that a scheduler has changed.
    """
    optimiser = unwrap_optimiser(optimiser)
    rule, names = OptimiserSettings.of(net, optimiser).rule(), parameter_names(net, optimiser)
    _require_all_optimised(net, set(names.values()))
    first, *others = optimiser.param_groups
    lr, *rates = _learning_rates(optimiser, settings)
    groups = [
        ParameterGroup(
            parameters=[names[p] for p in group["params"]],
            lr=None if rate == lr else rate,
            weight_decay=float(group.get("weight_decay", 0.0)),
        )
        for group, rate in zip(others, rates, strict=True)
    ]
    read = {"lr": lr, "weight_decay": float(first.get("weight_decay", 0.0)), "groups": groups, **rule}
    return Training(**{**read, **settings})


def _require_all_optimised(net: nn.Module, optimised: set[str]) -> None:
    fixed = [name for name, p in unwrap(net).named_parameters() if p.requires_grad and name not in optimised]
    if fixed:
        raise ValueError(
            f"expected an optimiser of all trainable parameters, but it does not hold {', '.join(fixed[:MAX_NAMED])}"
            f"{', …' if len(fixed) > MAX_NAMED else ''}; call requires_grad_(False) on those that stay as they are, in "
            "this net and in `initial`"
        )


def _learning_rates(optimiser: Optimizer, settings: Mapping[str, Any]) -> list[float]:
    """The learning rate of each parameter group, before a scheduler multiplied it."""
    now = [float(group["lr"]) for group in optimiser.param_groups]
    started = [float(group.get("initial_lr", group["lr"])) for group in optimiser.param_groups]
    if "schedule" in settings or "warmup" in settings:
        return started
    missing = [name for name in ("lr", "groups")[: len(set(now))] if name not in settings]
    if started != now and missing:
        raise ValueError(
            f"a scheduler has changed the learning rates from {started} to {now}; pass schedule= (a function of the "
            f"step, as of LambdaLR), or {' and '.join(f'{name}=' for name in missing)} with those of every step"
        )
    return now
