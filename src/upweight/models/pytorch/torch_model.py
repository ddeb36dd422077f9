"""TorchModel: any torch.nn.Module with a loss per example."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from upweight.core.checkpoints import Checkpointed, Layered
from upweight.core.curvature import Curvature
from upweight.core.deprecation import BuiltBy, ReplacedBy, accept_old_keywords
from upweight.core.examples import Examples
from upweight.core.identity import digests
from upweight.core.model import (
    Embeddable,
    Movable,
    Parametric,
    Perturbable,
    Predictions,
)
from upweight.core.objective import Objective
from upweight.gradients import input_gradients, optimality, predictions
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.features import features
from upweight.gradients.gradient_totals import collect_totals
from upweight.gradients.inspection import inspections_of, share_inspections
from upweight.gradients.network import Network, PerExampleFunction, copy_net, unwrap
from upweight.gradients.outputs import share_joint_axes
from upweight.models.pytorch.retraining import RetrainableNetwork
from upweight.training import trainer
from upweight.training.recipe import Training
from upweight.training.trainer import TrainFn

if TYPE_CHECKING:
    from upweight.curvature.segments import FittedSegment
    from upweight.training.checkpoint_models import CheckpointModel
    from upweight.training.recorded_steps import RecordedSteps
    from upweight.training.trajectory import Trajectory

Array = NDArray[np.float64]


class TorchModel(Checkpointed, Layered, Parametric, Perturbable, Embeddable, RetrainableNetwork):
    """A trained network, its loss and what is asked of a query.

    Args:
        net: the trained module. It is never changed: passes run in eval mode and put everything back.
        loss: `loss(net, batch) -> (n,)`, the training loss of every example without the regulariser, e.g.
            `lambda net, batch: F.cross_entropy(net(batch.x), batch.y, reduction="none")`.
        measure: `measure(net, batch) -> (m,)`, higher = more of the behaviour; None for −loss.
        objective: "mean" (losses are averaged, as in most training loops), "sum" or "fixed"; with a regulariser
            `uw.Objective("mean", l2=…)`, the λ in λ/2 ‖θ‖² over all trainable parameters (the `weight_decay` of
            `torch.optim.SGD`). Left out: what `training` says, else "mean" without one.
        collate: `collate(examples) -> batch`, what `loss` gets; None for an object with tensors `.x` and `.y`.
        training: how the net was trained: a `Training` with its `initial`, or your own `train_fn(weights, seed) -> net`
            that trains a new net with these example weights (n,), where ones and seed 0 give this net. Without it the
            model cannot be trained again.
        trajectory: what was recorded of the training; its last checkpoint is the net.

    Raises:
        TypeError: `net` is no module.
        ValueError: a net without gradients of single examples (batch norm without running statistics), nothing to
            train, complex parameters; a negative l2; an objective that is not the training's; a
            trajectory of another net.

    Frozen parameters (`requires_grad=False`) are held fixed and left out of everything; `notes` says so.
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

    @classmethod
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
        """Train a fresh net and get the model, ready to be explained and trained again.

        Args:
            net: the net before training (never changed), or a function seed -> net that makes it afresh, which lets
                runs of other seeds begin elsewhere; `training.initial` where that is given.
            loss, measure, collate: as above.
            train: what to train on.
            training: how.
        """
        begins = unwrap(net if isinstance(net, nn.Module) else net(training.seed))
        training = trainer.add_initial(training, begins if isinstance(net, nn.Module) else net)
        untrained = cls(begins, loss, measure, collate=collate, training=training)
        return untrained.retrain(train, np.ones(len(train)))

    @property
    def name(self) -> str:
        """The class of the net, and its size."""
        return f"{type(self.network.net).__name__} of {self.network.size:,} parameters"

    @property
    def measurement(self) -> str:
        """−loss, or the name of the function that measures."""
        if self.network.measure is None:
            return "−loss"
        return str(getattr(self.network.measure, "__name__", type(self.network.measure).__name__))

    def lacks(self, capability: type) -> str | None:
        """Checkpoints, where no trajectory was passed; training, where none was."""
        from upweight.training.checkpoint_models import NO_CHECKPOINTS

        return NO_CHECKPOINTS if capability is Checkpointed and self.trajectory is None else super().lacks(capability)

    def identity(self) -> dict[str, str]:
        """The net with its code, how losses are put together, loss, measurement and training."""
        network = self.network
        return digests(
            parameters=network.net,
            objective=self.objective,
            loss=(network.loss, network.collate),
            measurement=network.measure,
            training=self.training,
        )

    def version(self) -> tuple[tuple[int, int], ...]:
        """Where every parameter and buffer lies, and how often torch wrote to it: optimisers, loading, `.to()`."""
        net = self.network.net
        return tuple((tensor.data_ptr(), tensor._version) for tensor in (*net.parameters(), *net.buffers()))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: frozen parameters, training mode, gradients that hooks could not see."""
        said = [note for found in inspections_of(self.network) for note in found.notes]
        removal = trainer.removal_warnings(self.training, self.network)
        return tuple(dict.fromkeys([*self.network.notes, *removal, *said]))

    @property
    def parameters(self) -> Array:
        """All trainable parameters as one vector, in the order of `net.named_parameters()`."""
        return self.network.vector()

    def with_parameters(self, parameters: Array) -> TorchModel:
        """The same model at other parameters, on a copy of the net."""
        moved = self.network.writable_copy()
        moved.write(parameters)
        return self.with_net(moved.net)

    def measure(self, queries: Examples) -> Array:
        """The measurement of every query, (m,)."""
        return predictions.measurements(self.network, queries)

    def measure_shifted(self, queries: Examples, shifts: Array) -> Array:
        """The measurement at θ + shift, for every shift (g, parameters): (m, g), on a copy of the net."""
        shifts = np.atleast_2d(shifts)
        here, moved = self.parameters, self.network.writable_copy()
        out = np.empty((len(queries), len(shifts)))
        for g, shift in enumerate(shifts):
            moved.write(here + shift)
            out[:, g] = predictions.measurements(moved, queries)
        return out

    def predict(self, examples: Examples) -> Predictions:
        """What the net says: the likeliest class with softmax probabilities for outputs (n, C), else the output.

        Where no output of one number or one row per example is to be seen, the measurement stands for it.
        """
        return predictions.predictions(self.network, examples)

    def embed(self, examples: Examples) -> Array:
        """What enters the last layer (penultimate activations), (n, d); positions of a sequence are averaged."""
        return features(self.network, examples)

    def loss_rows(self, train: Examples) -> CapturedRows:
        """wᵢ(∇ℓᵢ + l2 θ), the second term only where the objective takes the mean."""
        share = None
        if self.objective.reduction == "mean" and self.objective.l2 > 0:
            share = {name: self.objective.l2 * p.detach() for name, p in self.network.parameters().items()}
        return CapturedRows(self.network, train, "loss", self.weights(train), share)

    def measure_rows(self, queries: Examples) -> CapturedRows:
        """∇θ of every query's measurement."""
        return CapturedRows(self.network, queries, "measure")

    def movable(self, examples: Examples) -> Movable:
        """The `x` of the batches that the net takes."""
        values = input_gradients.inputs(self.network, examples)
        named = values.ndim == 2 and examples.names is not None and len(examples.names) == values.shape[1]
        same = np.shape(examples.x) == values.shape and np.allclose(examples.x, values, atol=1e-6)
        return Movable(
            values, tuple(examples.names or ()) if named else None, "inputs" if same else "what `collate` made", same
        )

    def input_gradients(self, train: Examples, vectors: Array) -> Array:
        """wᵢ ∂⟨∇ℓᵢ, v⟩/∂xᵢ by double backward through the net, (k, n, …)."""
        found = input_gradients.input_gradients(self.network, train, np.atleast_2d(vectors))
        return found * self.weights(train).reshape(-1, *(1,) * (found.ndim - 2))

    def gradient_norm(self, train: Examples) -> float:
        """‖∇objective‖ over √Σ‖wᵢ∇ℓᵢ‖²: 0 at the optimum, about 1 on data with gradients of random signs.

        A row that counts for several copies is several gradients.
        """
        weights = self.weights(train)
        rows = CapturedRows(self.network, train, "loss", weights)
        return optimality.gradient_norm(rows, self.objective.ridge(weights) * self.parameters)

    def dispersion(self, train: Examples, effective: float) -> float:
        """1: the loss is taken for a negative log-likelihood."""
        return 1.0

    def curvature(self, train: Examples, recipe: Any, damping: float | None) -> Curvature:
        """The curvature that the recipe names (None: Gauss–Newton); damping None is chosen from the spectrum."""
        from upweight.curvature import registry

        collect_totals(self.network, train, self.weights(train))
        built: Curvature = registry.build(self, train, recipe, damping)
        return built

    def with_net(self, net: nn.Module) -> TorchModel:
        """This model with another net."""
        network = self.network
        return TorchModel(
            net,
            network.loss,
            network.measure,
            objective=self.objective,
            collate=network.collate,
            training=self.training,
        )

    def checkpoints(self) -> tuple[CheckpointModel, ...]:
        """The moments of its trajectory."""
        from upweight.training.checkpoint_models import read_checkpoints

        return read_checkpoints(self.trajectory, self._at)

    def segments(self, train: Examples, recipe: Any, count: int) -> tuple[FittedSegment, ...]:
        """The trajectory as `count` stretches; recipe is `EKFAC()` or `GaussNewton()`."""
        from upweight.curvature.segments import segments

        over = self.mean_over(train)
        return segments(self.checkpoints(), self.weights(train), train, recipe, count, over)

    def mean_over(self, train: Examples) -> float:
        """All rows whatever they weigh where the objective says so ("fixed"), else the examples that count."""
        return float(len(train)) if self.objective.reduction == "fixed" else super().mean_over(train)

    def stepwise(self, train: Examples) -> RecordedSteps | None:
        """The trajectory step by step, where it was told the batches and holds the start."""
        from upweight.training.recorded_steps import RecordedSteps

        moments = self.checkpoints()
        if self.trajectory is None or moments[0].step != 0 or self.trajectory.batches() is None:
            return None
        fixed = self.objective.reduction == "fixed"
        return RecordedSteps(self.trajectory, self.network, train, self.weights(train), moments, fixed)

    @property
    def layers(self) -> tuple[str, ...]:
        """Modules that hold trainable parameters themselves, in the order of `net.named_modules()`."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.network.names))

    def narrowed(self, layers: Sequence[str]) -> TorchModel:
        """All other layers held fixed."""
        unknown = set(layers) - set(self.layers)
        if unknown or not layers:
            raise ValueError(f"expected layers out of {self.layers}, got {tuple(layers)}")
        there = copy.copy(self)
        there.network = self.network.narrowed([n for n in self.network.names if n.rpartition(".")[0] in layers])
        return there

    def _at(self, tensors: dict[str, Tensor]) -> TorchModel:
        """A copy at these parameters and buffers, without the regulariser's share in its rows."""
        network = self.network
        net = copy_net(network.net)
        with torch.no_grad():
            for name, own in [*net.named_parameters(), *net.named_buffers()]:
                if name in tensors:
                    own.copy_(tensors[name])
        there = TorchModel(net, network.loss, network.measure, objective="sum", collate=network.collate)
        share_inspections(network, there.network)  # the same modules see the same examples at the same places
        share_joint_axes(network, there.network)
        return there
