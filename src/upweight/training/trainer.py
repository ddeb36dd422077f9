"""Train nets with example weights, one by one or many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.examples import Examples
from upweight.core.objective import Objective
from upweight.core.stackable import Stack
from upweight.core.weights import sample_weights
from upweight.gradients.copied_net import copy_net
from upweight.gradients.network import BATCH_NORMS, Network
from upweight.training.recipe import Training
from upweight.training.recorded_start import require_recorded_start
from upweight.training.run import Run, replay, set_parameter_views
from upweight.training.stacked import MIN_TRACED_STEPS, choose_copies, train_stacked

Array = NDArray[np.float64]
TrainFn = Callable[[Array, int], nn.Module]


def combine_l2(given: Objective | str | None, l2: float) -> Objective | str | float | None:
    """The objective with the older keyword `l2`; the l2 alone if the training has to determine the reduction.

    Raises ValueError for two l2 that differ.
    """
    if isinstance(given, Objective) and l2 not in (0.0, given.l2):
        raise ValueError(f"expected one l2, got {l2} and {given.l2} in the objective")
    if isinstance(given, Objective) or not l2:
        return given
    return float(l2) if given is None else Objective(given, float(l2))  # type: ignore[arg-type]


def resolve_objective(given: Objective | str | float | None, training: Training | TrainFn | None) -> Objective:
    """Reduction and l2: those given, else those of the training, else the mean without l2.

    Raises ValueError for an unknown reduction, a negative l2, or an objective that contradicts the training.
    """
    default = training.objective if isinstance(training, Training) else Objective("mean")
    objective = given if isinstance(given, Objective) else default
    if isinstance(given, str):
        objective = Objective(given, default.l2)  # type: ignore[arg-type]
    elif isinstance(given, float):
        objective = Objective(default.reduction, given or default.l2)
    if objective.reduction not in ("mean", "sum", "fixed"):
        raise ValueError(f'expected objective "mean", "sum" or "fixed", got {objective.reduction!r}')
    if not (np.isfinite(objective.l2) and objective.l2 >= 0):
        raise ValueError(f"expected a finite l2 ≥ 0, got {objective.l2}")
    if isinstance(training, Training):
        training.require(objective)
    return objective


def train_network(
    training: Training | TrainFn, network: Network, train: Examples, weights: Array, seed: int
) -> nn.Module:
    """A new net in eval mode, trained with these weights (n,) multiplied by the examples' own."""
    if isinstance(training, Training):
        (run,) = make_runs(training, network, train, weights[None], [seed])
        return replay(run, weights * sample_weights(train)).eval()
    net = training(weights, seed)
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected training(weights, seed) to return the trained net, got {type(net).__name__}")
    trained = Network(net, network.loss)
    if trained.shapes != network.shapes:
        raise ValueError("expected training(weights, seed) to return a net with the same parameters as the model's")
    pointers = {p.data_ptr() for p in network.parameters().values()}
    if any(p.data_ptr() in pointers for p in trained.parameters().values()):
        raise ValueError("training(weights, seed) trained the model's own net; let it make a new one every time")
    return net


def train_steered(
    training: Training,
    network: Network,
    train: Examples,
    weights: Array,
    steer: Callable[[nn.Module, Array], Array],
    times: int,
    seed: int,
) -> nn.Module:
    """As `train_network`, but `steer(net so far, weights (n,))` gives new weights at `times` steps.

    Raises ValueError for a training of fewer steps, or one whose batches depend on the weights.
    """
    if training.denominator == "rebatched":
        raise ValueError(
            'denominator="rebatched" draws other batches for other weights, so they cannot change while it trains; '
            'train with denominator="fixed" or "renormalised"'
        )
    (run,) = make_runs(training, network, train, weights[None], [seed])
    if run.steps <= times:
        raise ValueError(f"expected a training of more than {times} steps, got {run.steps}: weights change that often")
    at = {round(run.steps * (number + 1) / (times + 1)) for number in range(times)}
    own, current = sample_weights(train), np.array(weights)
    in_run = current * own  # read in every step

    def watch(t: int, theta: Tensor) -> None:
        if t in at:
            current[:] = steer(copy_net(run.network.net).eval(), current.copy())
            in_run[:] = current * own

    return replay(run, in_run, watch).eval()


def choose_stack(training: Training | TrainFn, network: Network, train: Examples) -> Stack:
    """How many nets to train at once."""
    if not isinstance(training, Training):
        return Stack(1, "a training function trains one net at a time")
    return choose_copies(make_runs(training, network, train, np.ones((1, len(train))), [0])[0])


def train_networks(
    training: Training,
    network: Network,
    train: Examples,
    weights: Array,
    seeds: Sequence[int],
    *,
    min_traced_steps: int = MIN_TRACED_STEPS,
) -> list[nn.Module]:
    """New nets, one for every row of weights (M, n) and its seed, trained at once.

    `min_traced_steps` is the number of steps of one shape from which they are traced.
    """
    if training.recorded is not None:
        pairs = zip(weights, seeds, strict=True)
        return [train_network(training, network, train, row, seed) for row, seed in pairs]
    runs = make_runs(training, network, train, weights, seeds)
    parameters = _train_runs(runs, weights * sample_weights(train), min_traced_steps)
    nets = []
    for run, theta in zip(runs, parameters, strict=True):
        net = copy_net(run.network.net).eval()
        set_parameter_views(list(Network(net, network.loss).parameters().values()), theta.clone())
        nets.append(net)
    return nets


def _train_runs(runs: Sequence[Run], weights: Array, min_traced_steps: int) -> list[Tensor]:
    """The parameters of every run.

    All runs are stacked if they have the same sizes of steps and share their random numbers or draw none. Otherwise
    only copies of the same run are.
    """
    first = runs[0]
    same_sizes = all([len(p) for p in run.positions] == [len(p) for p in first.positions] for run in runs)
    if all(run is first for run in runs) or (same_sizes and not first.is_random):
        return list(train_stacked(runs, weights, min_traced_steps))
    parameters: dict[int, Tensor] = {}
    for run in dict.fromkeys(runs):
        rows = [position for position, other in enumerate(runs) if other is run]
        parameters |= zip(rows, train_stacked([run] * len(rows), weights[rows], min_traced_steps), strict=True)
    return [parameters[position] for position in range(len(runs))]


def make_runs(training: Training, network: Network, train: Examples, weights: Array, seeds: Sequence[int]) -> list[Run]:
    """The run of every row of weights (M, n) and its seed; equal runs are the same object.

    Seed 0 stands for the training's own seed, seed s for that plus s.
    """
    distinct = dict[Any, Run]()
    runs = []
    for row, seed in zip(weights * sample_weights(train), seeds, strict=True):
        key = (seed, (row > 0).tobytes() if training.denominator == "rebatched" else b"")
        if key not in distinct:
            if training.recorded is not None:
                training.recorded.require(network.device, seed)
            collated = next(iter(distinct.values())).collated if distinct else None
            distinct[key] = Run.of(training, network, train, row, training.seed + seed, collated)
            require_recorded_start(distinct[key])
        runs.append(distinct[key])
    return runs


def add_initial(training: Training, net: nn.Module | Callable[[int], nn.Module]) -> Training:
    """The training with this net's current state, or the function that makes the net, as `initial` if it has none."""
    if training.initial is not None:
        return training
    if not isinstance(net, nn.Module):
        return replace(training, initial=net)
    return replace(training, initial={name: value.detach().clone() for name, value in net.state_dict().items()})


def removal_warnings(training: Training | TrainFn | None, network: Network, objective: Objective) -> list[str]:
    """Sentences about what removing an example does not change in this training, and what its objective leaves out."""
    return [*_decay_notes(training, objective), *_batch_norm_notes(training, network)]


def _decay_notes(training: Training | TrainFn | None, objective: Objective) -> list[str]:
    if not isinstance(training, Training):
        return []
    if training.is_decoupled:
        largest = max(training.weight_decay, *(group.weight_decay or 0.0 for group in training.groups), 0.0)
        if not largest or objective.l2:
            return []
        return [
            f"AdamW's weight decay ({largest:g}) moves the parameters directly and is no part of the objective: "
            "retraining and Metagradient follow it, methods with a curvature leave it out."
        ]
    decays = {group.weight_decay for group in training.groups} - {None, training.weight_decay}
    if not decays:
        return []
    return [
        f"Weight decay differs between parameter groups ({sorted(d for d in decays if d is not None)} beside "
        f"{training.weight_decay:g}): retraining and Metagradient follow each, methods with a curvature take the l2 of "
        f"the objective ({training.l2:g}) for all parameters."
    ]


def _batch_norm_notes(training: Training | TrainFn | None, network: Network) -> list[str]:
    batch_norms = [name for name, module in network.net.named_modules() if isinstance(module, BATCH_NORMS)]
    if not batch_norms or not isinstance(training, Training) or training.denominator == "rebatched":
        return []
    return [
        f"An example of weight 0 still takes part in the batch statistics of {batch_norms[0]!r}: only its loss is "
        'removed. Training(denominator="rebatched") removes the whole example.'
    ]
