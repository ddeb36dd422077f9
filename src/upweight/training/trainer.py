"""From a training and example weights to trained nets, one by one or many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.core.model import Stack
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights
from upweight.gradients.network import BATCH_NORMS, Network, copied
from upweight.training.recipe import Training
from upweight.training.run import Run, replay, set_parameter_views
from upweight.training.stacked import choose_stack as choose_run_stack
from upweight.training.stacked import train_stacked

Array = NDArray[np.float64]
TrainFn = Callable[[Array, int], nn.Module]


def combine_l2(given: Objective | str | None, l2: float) -> Objective | str | float | None:
    """The objective with the older keyword `l2`; the l2 alone where the training has to say the reduction.

    Raises ValueError for two l2 that differ.
    """
    if isinstance(given, Objective) and l2 not in (0.0, given.l2):
        raise ValueError(f"expected one l2, got {l2} and {given.l2} in the objective")
    if isinstance(given, Objective) or not l2:
        return given
    return float(l2) if given is None else Objective(given, float(l2))  # type: ignore[arg-type]


def resolve_objective(given: Objective | str | float | None, training: Training | TrainFn | None) -> Objective:
    """Reduction and l2, from whoever says them: the caller, else the training, else the mean without l2.

    Raises ValueError for an unknown reduction, a negative l2, or what the training contradicts.
    """
    default = training.objective if isinstance(training, Training) else Objective("mean")
    found = given if isinstance(given, Objective) else default
    if isinstance(given, str):
        found = Objective(given, default.l2)  # type: ignore[arg-type]
    elif isinstance(given, float):
        found = Objective(default.reduction, given or default.l2)
    if found.reduction not in ("mean", "sum", "fixed"):
        raise ValueError(f'expected objective "mean", "sum" or "fixed", got {found.reduction!r}')
    if not (np.isfinite(found.l2) and found.l2 >= 0):
        raise ValueError(f"expected a finite l2 ≥ 0, got {found.l2}")
    if isinstance(training, Training):
        training.require(found)
    return found


def train_network(
    training: Training | TrainFn, network: Network, train: Examples, weights: Array, seed: int
) -> nn.Module:
    """A new net, trained with these weights (n,) on top of the examples' own, in eval mode."""
    if isinstance(training, Training):
        (run,) = make_runs(training, network, train, weights[None], [seed])
        return replay(run, weights * sample_weights(train)).eval()
    net = training(weights, seed)
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected training(weights, seed) to return the trained net, got {type(net).__name__}")
    found = Network(net, network.loss)
    if found.shapes != network.shapes:
        raise ValueError("expected training(weights, seed) to return a net with the same parameters as the model's")
    used = {p.data_ptr() for p in network.parameters().values()}
    if any(p.data_ptr() in used for p in found.parameters().values()):
        raise ValueError("training(weights, seed) trained the model's own net; let it make a new one every time")
    return net


def choose_stack(training: Training | TrainFn, network: Network, train: Examples) -> Stack:
    """How many nets to train at once."""
    if not isinstance(training, Training):
        return Stack(1, "a training function trains one net at a time")
    return choose_run_stack(make_runs(training, network, train, np.ones((1, len(train))), [0])[0])


def train_networks(
    training: Training, network: Network, train: Examples, weights: Array, seeds: Sequence[int]
) -> list[nn.Module]:
    """New nets, one for every row of weights (M, n) and its seed, all at once."""
    wanted = make_runs(training, network, train, weights, seeds)
    nets = []
    for run, theta in zip(wanted, _trained(wanted, weights * sample_weights(train)), strict=True):
        net = copied(run.network.net).eval()
        set_parameter_views(list(Network(net, network.loss).parameters().values()), theta.clone())
        nets.append(net)
    return nets


def _trained(wanted: Sequence[Run], weights: Array) -> list[Tensor]:
    """Parameters of every run, of all together where they have the same steps and share or need no random numbers."""
    first = wanted[0]
    alike = all([len(p) for p in run.positions] == [len(p) for p in first.positions] for run in wanted)
    if all(run is first for run in wanted) or (alike and not first.is_random):
        return list(train_stacked(wanted, weights))
    found: dict[int, Tensor] = {}
    for run in dict.fromkeys(wanted):
        places = [place for place, one in enumerate(wanted) if one is run]
        found |= zip(places, train_stacked([run] * len(places), weights[places]), strict=True)
    return [found[place] for place in range(len(wanted))]


def make_runs(training: Training, network: Network, train: Examples, weights: Array, seeds: Sequence[int]) -> list[Run]:
    """The run of every row of weights (M, n) and its seed; the same object where they are the same.

    Seed 0 is the training's own, every other counts on from there.
    """
    own, made = sample_weights(train), dict[Any, Run]()
    found = []
    for row, seed in zip(weights * own, seeds, strict=True):
        key = (seed, (row > 0).tobytes() if training.denominator == "rebatched" else b"")
        if key not in made:
            whole = next(iter(made.values())).whole if made else None
            made[key] = Run.of(training, network, train, row, training.seed + seed, whole)
        found.append(made[key])
    return found


def add_initial(training: Training, net: nn.Module | Callable[[int], nn.Module]) -> Training:
    """The training with where it begins: this net as it is now, or the function that makes it, unless it says so."""
    if training.initial is not None:
        return training
    if not isinstance(net, nn.Module):
        return replace(training, initial=net)
    return replace(training, initial={name: value.detach().clone() for name, value in net.state_dict().items()})


def removal_warnings(training: Training | TrainFn | None, network: Network) -> list[str]:
    """What a reader should know of removal in this training, as sentences."""
    coupled = [name for name, module in network.net.named_modules() if isinstance(module, BATCH_NORMS)]
    if not coupled or not isinstance(training, Training) or training.denominator == "rebatched":
        return []
    return [
        f"An example of weight 0 still takes part in the batch statistics of {coupled[0]}: its loss goes, no more; "
        'Training(denominator="rebatched") removes the whole example.'
    ]
