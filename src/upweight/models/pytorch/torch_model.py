"""The model family of networks: any torch.nn.Module with a loss per example."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.curvature import Curvature
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.identity import digests
from upweight.core.library_calls import library_call
from upweight.core.memory import BYTES_OF_A_NUMBER, queries_within
from upweight.core.model import Predictions
from upweight.core.objective import Objective
from upweight.core.picklable import require_picklable
from upweight.gradients import optimality, predictions
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.copied_net import copy_net
from upweight.gradients.gradient_totals import collect_totals
from upweight.gradients.inspection import inspections_of, share_inspections
from upweight.gradients.network import Network, PerExampleFunction, unwrap
from upweight.gradients.outputs import share_joint_axes
from upweight.gradients.preserve_model import tensor_versions
from upweight.models.pytorch.checkpointed_network import CheckpointedNetwork, hold_untrained_fixed
from upweight.models.pytorch.embeddable_network import EmbeddableNetwork
from upweight.models.pytorch.forecast_network import ForecastNetwork
from upweight.models.pytorch.inspected_network import InspectedNetwork
from upweight.models.pytorch.measurements import MeanOverPrompts
from upweight.models.pytorch.perturbable_network import PerturbableNetwork
from upweight.models.pytorch.responsive import ResponsiveNetwork
from upweight.models.pytorch.retraining import RetrainableNetwork
from upweight.models.pytorch.storable_network import StorableNetwork
from upweight.models.pytorch.token_network import TokenNetwork
from upweight.training import trainer
from upweight.training.recipe import Training
from upweight.training.trainer import TrainFn

if TYPE_CHECKING:
    from upweight.training.trajectory import Trajectory

Array = NDArray[np.float64]
COPIES_OF_QUERIES = 2  # their gradients, and what the curvature makes of them


class TorchModel(
    CheckpointedNetwork,
    PerturbableNetwork,
    EmbeddableNetwork,
    RetrainableNetwork,
    InspectedNetwork,
    StorableNetwork,
    TokenNetwork,
    ForecastNetwork,
    ResponsiveNetwork,
):
    """A trained network, its loss and the measurement of a query.

    Args:
        net: the trained module. It is never changed: passes run in eval mode and restore everything.
        loss: `loss(net, batch) -> (n,)`, the training loss of every example without the regulariser, e.g.
            `lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none")`. With `uw.TokenLoss(…)` the
            loss of a sequence is known token by token, which `uw.token_scores` needs.
        measure: `measure(net, batch) -> (m,)`, higher = more of the behaviour; None for −loss.
        objective: "mean" (losses are averaged, as in most training loops), "sum" or "fixed"; with a regulariser
            `uw.Objective("mean", l2=…)`, the λ in λ/2 ‖θ‖² over all trainable parameters (the `weight_decay` of
            `torch.optim.SGD`). None: the objective of `training`, else "mean" without a regulariser.
        collate: `collate(examples) -> batch`, which makes the batches for `loss`; None for an object with tensors `.x`
            and `.y`. Labels that came as a column (n, 1) are one in `examples.y` too.
        training: how the net was trained: a `Training` with its `initial`, or your own `train_fn(weights, seed) -> net`
            that trains a new net with these example weights (n,). Weights of 1 and seed 0 have to give this net.
            Without `training` the model cannot be retrained.
        trajectory: the recorded training; its last checkpoint is the net.

    Raises:
        TypeError: `net` is not a module.
        ValueError: a net without gradients of single examples (batch norm without running statistics), a net without
            trainable parameters or with complex ones; a negative l2; an objective that is not the training's; a
            trajectory of another net.

    Frozen parameters (`requires_grad=False`) are held fixed and left out of everything, and so are parameters that the
    optimiser of the `trajectory` never held; `notes` says so.
    """

    @accept_old_keywords(
        {"l2": ReplacedBy("objective", "l2")}, {"objective": BuiltBy("uw.Objective", trainer.combine_l2, '"mean"')}
    )
    def __init__(
        self,
        net: nn.Module,
        loss: PerExampleFunction,
        measure: PerExampleFunction | None = None,
        *,
        objective: Objective | Literal["mean", "sum", "fixed"] | None = None,
        collate: Callable[[Examples], Any] | None = None,
        training: Training | TrainFn | None = None,
        trajectory: Trajectory | None = None,
    ) -> None:
        self.objective = trainer.resolve_objective(objective, training)
        self.network = Network(net, loss, measure, collate)
        self.training = training
        self.trajectory = trajectory
        if trajectory is not None:
            trajectory.require_end(self.network.net)
            self.network = hold_untrained_fixed(self.network, trajectory)

    @property
    def max_queries(self) -> int | None:
        """As many as have room in a limit of memory, with gradients and solutions of all parameters."""
        return queries_within(BYTES_OF_A_NUMBER * COPIES_OF_QUERIES * self.network.size, 1 / 4)

    def __reduce_ex__(self, protocol: Any) -> Any:
        network = self.network
        parts = {"loss": network.loss, "measurement": network.measure, "collate": network.collate}
        require_picklable("TorchModel", {**parts, "training": self.training})
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> TorchModel:
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchModel:
        copied = memo[id(self)] = object.__new__(type(self))
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    @classmethod
    @library_call
    def trained(
        cls,
        net: nn.Module | Callable[[int], nn.Module],
        loss: PerExampleFunction,
        train: Examples,
        measure: PerExampleFunction | None = None,
        *,
        training: Training,
        collate: Callable[[Examples], Any] | None = None,
    ) -> TorchModel:
        """Train a new net and return the model, ready to be explained and retrained.

        Args:
            net: the net before training (never changed), or a function seed -> net that makes a new one, so that runs
                with other seeds have other initial parameters. `training.initial` takes precedence if it is given.
            loss, measure, collate: as above.
            train: the training set.
            training: the recipe.
        """
        initial = unwrap(net if isinstance(net, nn.Module) else net(training.seed))
        training = trainer.add_initial(training, initial if isinstance(net, nn.Module) else net)
        untrained = cls(initial, loss, measure, collate=collate, training=training)
        return untrained.retrain(train, np.ones(len(train)))

    @property
    def name(self) -> str:
        """The class of the net, and its number of parameters."""
        return f"{type(self.network.net).__name__} of {self.network.size:,} parameters"

    @property
    def measurement(self) -> str:
        """−loss, or the name of the measurement function."""
        if self.network.measure is None:
            return "−loss"
        return str(getattr(self.network.measure, "__name__", type(self.network.measure).__name__))

    def identity(self) -> dict[str, str]:
        """Digests of the net with its code, the objective, the loss, the measurement and the training."""
        network = self.network
        return digests(
            parameters=network.net,
            objective=self.objective,
            loss=(network.loss, network.collate),
            measurement=network.measure,
            training=self.training,
        )

    def version(self) -> tuple[tuple[int, int], ...]:
        """Address of every parameter and buffer, and torch's count of its changes (optimisers, loading, `.to()`)."""
        return tensor_versions(self.network.net)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the reader: frozen parameters, training mode, gradients that hooks do not capture."""
        inspected = [note for inspection in inspections_of(self.network) for note in inspection.notes]
        removal = trainer.removal_warnings(self.training, self.network, self.objective)
        return tuple(dict.fromkeys([*self.network.notes, *removal, *inspected]))

    @property
    def parameters(self) -> Array:
        """All trainable parameters as one vector, in the order of `net.named_parameters()`."""
        return self.network.vector()

    def with_parameters(self, parameters: Array) -> TorchModel:
        """A copy of the model and its net, with other parameters."""
        moved = self.network.writable_copy()
        moved.write(parameters)
        return self.with_net(moved.net)

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query, (m,)."""
        return predictions.measurements(self.network, queries)

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, parameters): (m, g), on a copy of the net."""
        return predictions.shifted_measurements(self.network, queries, np.atleast_2d(shifts))

    def predict(self, examples: Examples) -> Predictions:
        """The likeliest class with softmax probabilities for outputs (n, C), else the output.

        If the loss has no output with one number or one row per example, every prediction is None.
        """
        return predictions.predictions(self.network, examples)

    def measure_and_predict(self, queries: Examples) -> tuple[Array, Predictions]:
        """Both, in one pass if the loss is measured."""
        return predictions.measurements_and_predictions(self.network, queries)

    def parameter_query(self) -> Examples | None:
        """The query of a mean over prompts, which needs no other; else None."""
        measure = self.network.measure
        return measure.query() if isinstance(measure, MeanOverPrompts) else None

    def loss_rows(self, train: Examples) -> CapturedRows:
        """wᵢ(∇ℓᵢ + l2 θ), with the second term only if the objective is a mean."""
        self.require_same_values("loss", train)
        share = None
        if self.objective.reduction == "mean" and self.objective.l2 > 0:
            parameters, wide = self.network.parameters().items(), self.network.precision
            share = {name: self.objective.l2 * p.detach().to(wide) for name, p in parameters}
        return self.read_if_stored(CapturedRows(self.network, train, "loss", self.weights(train), share))

    def measure_rows(self, queries: Examples) -> CapturedRows:
        """∇θ of the measurement of every query."""
        self.require_same_values("measure", queries)
        return CapturedRows(self.network, queries, "measure")

    def gradient_norm(self, train: Examples) -> float | None:
        """‖∇objective‖ divided by √Σ‖wᵢ∇ℓᵢ‖²: 0 at the optimum, about 1 on data with gradients of random signs.

        A row whose weight stands for several copies counts as several gradients.
        None if factors are read from a store, so that no pass over the training set is made for it.
        """
        if self._factors is not None:
            return None
        weights = self.weights(train)
        rows = CapturedRows(self.network, train, "loss", weights)
        ridge = self.objective.ridge(self.weights(train if self.whole is None else self.whole))
        return optimality.gradient_norm(rows, ridge * self.parameters)

    def dispersion(self, train: Examples, effective: float) -> float:
        """1: the loss is assumed to be a negative log-likelihood."""
        return 1.0

    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature of the recipe (None: Gauss–Newton). If damping is None, it is chosen from the spectrum."""
        from upweight.curvature import registry

        collect_totals(self.network, train, self.weights(train))
        stored = self.curvature_of_store(recipe, damping)
        if stored is not None:
            return stored
        built: Curvature = registry.build(self, train, recipe, damping)
        return built

    def _arguments(self) -> dict[str, Any]:
        """The arguments beside the net of a model of another one."""
        network = self.network
        of_network = {"loss": network.loss, "measure": network.measure, "collate": network.collate}
        return {**of_network, "objective": self.objective, "training": self.training}

    def with_net(self, net: nn.Module) -> TorchModel:
        """This model with another net."""
        model = TorchModel(net, **self._arguments())
        if self.trajectory is not None:
            model.network = hold_untrained_fixed(model.network, self.trajectory)
        return model

    def with_tensors(self, tensors: dict[str, Tensor]) -> TorchModel:
        """A copy with these parameters and buffers, whose rows do not contain the regulariser's share."""
        network = self.network
        net = copy_net(network.net)
        with torch.no_grad():
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
                if name in tensors:
                    tensor.copy_(tensors[name])
        checkpoint = TorchModel(net, network.loss, network.measure, objective="sum", collate=network.collate)
        if checkpoint.network.names != network.names:
            checkpoint.network = checkpoint.network.narrowed(network.names)
        # Inspections hold for the checkpoint too: the same modules process the same examples at the same places.
        share_inspections(network, checkpoint.network)
        share_joint_axes(network, checkpoint.network)
        return checkpoint
