"""The recipe of a training loop, read from the net and the torch optimiser that it steps."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from upweight.training.optimiser_settings import OptimiserSettings, parameter_names, unwrap_optimiser
from upweight.training.parameter_groups import ParameterGroup
from upweight.training.recipe import Training


def training_of(net: nn.Module, optimiser: Optimizer, **settings: Any) -> Training:
    """The `Training` of a loop that steps this torch optimiser: its rule, learning rates and parameter groups.

    Args:
        net: the net whose parameters the optimiser trains.
        optimiser: SGD, Adam, AdamW or RMSprop of `torch.optim`.
        settings: all other settings of `Training` (`epochs` or `batches`, `initial`, `clip`, …); they take precedence.
            After a loop with a scheduler, the learning rates are those of the last step; pass `lr=` with those of all.

    Raises:
        TypeError, ValueError: an optimiser of another class; pass `Training(optimiser=uw.UpdateRule(…))`.
    """
    optimiser = unwrap_optimiser(optimiser)
    rule, names = OptimiserSettings.of(net, optimiser).rule(), parameter_names(net, optimiser)
    first, *others = optimiser.param_groups
    groups = [
        ParameterGroup(
            parameters=[names[p] for p in group["params"]],
            lr=None if group["lr"] == first["lr"] else float(group["lr"]),
            weight_decay=float(group.get("weight_decay", 0.0)),
        )
        for group in others
    ]
    read = {"lr": float(first["lr"]), "weight_decay": float(first.get("weight_decay", 0.0)), "groups": groups, **rule}
    return Training(**{**read, **settings})
