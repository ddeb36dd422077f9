"""How a network is retrained: by a recipe, or by a function of the user's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import nn

from upweight.core.capability_checks import require
from upweight.core.examples import Examples
from upweight.core.forgettable import Forgettable, ForgottenStep, Route, Unlearned
from upweight.core.library_calls import library_call
from upweight.core.model import Parametric, Retrainable
from upweight.core.replay import Replay
from upweight.core.replayable import Replayable
from upweight.core.rows import DenseRows, Rows
from upweight.core.stackable import Stack, Stackable
from upweight.core.steerable import Steer, Steerable
from upweight.core.weights import checked_weights, only_examples, sample_weights, weighted_positions
from upweight.gradients.network import Network
from upweight.training import trainer
from upweight.training.batch_statistics import read_norm_buffers, statistic_gradients, write_norm_buffers
from upweight.training.recipe import Training
from upweight.training.trainer import TrainFn
from upweight.training.training_replay import TrainingReplay

Array = NDArray[np.float64]


class RetrainableNetwork(Stackable, Replayable, Steerable, Forgettable, Parametric):
    """A network with its training: a recipe, the user's function (weights, seed) -> net, or None if it is not known."""

    network: Network
    training: Training | TrainFn | None
    converges = False

    @abstractmethod
    def with_parameters(self, parameters: Array) -> Self:
        """A copy of the model and its net, with other parameters."""

    @abstractmethod
    def with_net(self, net: nn.Module) -> Self:
        """This model with another net."""

    @property
    def reads_examples(self) -> bool:  # type: ignore[override]
        """Whether training uses the examples passed to `retrain`; a training function of the user's has its own."""
        return self.training is None or isinstance(self.training, Training)

    @property
    def has_one_run(self) -> bool:  # type: ignore[override]
        """Whether the training is a recorded run."""
        return isinstance(self.training, Training) and self.training.recorded is not None

    def lacks(self, capability: type) -> str | None:
        """Why it cannot be retrained or replayed, if no training or a training function was passed."""
        if not issubclass(capability, Retrainable) or isinstance(self.training, Training):
            return None
        if self.training is not None:
            return (
                "its training is a function of yours; pass uw.Training(…) instead"
                if capability in (Replayable, Steerable)
                else None
            )
        return (
            "this TorchModel does not say how its net was trained; pass TorchModel(…, training=uw.Training(lr=…, "
            "epochs=…, initial=…)), training=train_fn with train_fn(weights, seed) -> net, or make both at once with "
            "TorchModel.trained(net, loss, train, training=…)"
        )

    @library_call
    def retrain(self, train: Examples, weights: Array, seed: int = 0) -> Self:
        """A new net, trained from the beginning with these example weights (n,) multiplied by the examples' own.

        Raises:
            ValueError: weights of another length, negative, not finite or all zero; training that diverged.
            TypeError: a model without `training`.
        """
        require(self, [Retrainable], "retrain")
        net = trainer.train_network(self.training, self.network, train, checked_weights(train, weights), seed)  # type: ignore[arg-type]
        return self.with_net(net)

    def retrain_steered(self, train: Examples, weights: Array, steer: Steer, times: int, seed: int = 0) -> Self:
        """A new net, whose example weights `steer` changes while it trains."""
        require(self, [Steerable], "retrain_steered")
        assert isinstance(self.training, Training)

        def follow(net: nn.Module, before: Array) -> Array:
            return checked_weights(train, steer(self.with_net(net), before))

        weights = checked_weights(train, weights)
        return self.with_net(trainer.train_steered(self.training, self.network, train, weights, follow, times, seed))

    @property
    def estimator(self) -> nn.Module:
        """The net."""
        return self.network.net

    def forget(self, train: Examples, remaining: NDArray[np.bool_], seed: int = 0, refit: bool = False) -> Unlearned:
        """A net that was trained without the other examples: a network has no shorter way to it."""
        model = self.retrain(train, remaining.astype(np.float64), seed)
        name = type(model.network.net).__name__
        return Unlearned(model.network.net, model, Route.REFIT, (ForgottenStep(name, name, "trained again"),))

    def stack(self, train: Examples) -> Stack:
        """How many copies of the net to train at once."""
        require(self, [Stackable], "stack")
        return trainer.choose_stack(self.training, self.network, train)  # type: ignore[arg-type]

    def retrain_many(self, train: Examples, weights: Array, seeds: Sequence[int]) -> list[Self]:
        """Retrain many copies of the net at once, one for every row of weights (M, n) and its seed."""
        weights = checked_weights(train, weights, len(seeds))
        if not isinstance(self.training, Training):
            return [self.retrain(train, row, seed) for row, seed in zip(weights, seeds, strict=True)]
        return [
            self.with_net(net) for net in trainer.train_networks(self.training, self.network, train, weights, seeds)
        ]

    def training_time(self, train: Examples) -> float | None:
        """τ = Σ ηₜ/(1 − μ) of the training, to which damping is matched; None if it is not known, or for Adam."""
        if not isinstance(self.training, Training):
            return None
        rebatched = self.training.denominator == "rebatched"  # batches contain only examples of weight above 0
        return self.training.time(len(weighted_positions(train)) if rebatched else len(train))

    @library_call
    def replay(self, train: Examples, weights: Array, seed: int = 0) -> TrainingReplay:
        """The training with these example weights (n,), with exact derivatives in the weights.

        Raises:
            ValueError: as `retrain`; a training without derivatives (see `TrainingReplay`).
            TypeError: a model without `Training`.
        """
        require(self, [Replayable], "replay")
        weights = checked_weights(train, weights)
        (run,) = trainer.make_runs(self.training, self.network, train, weights[None], [seed])  # type: ignore[arg-type]
        return TrainingReplay(run, weights, sample_weights(train))

    @property
    def trained_state(self) -> Array:
        """The parameters, and the running statistics of batch norms."""
        return np.concatenate([self.parameters, read_norm_buffers(self.network.net)])

    def with_trained_state(self, state: Array) -> Self:
        """A copy of the model and its net, with other parameters and running statistics."""
        size = self.network.size
        model: Self = self.with_parameters(state[:size])
        write_norm_buffers(model.network.net, state[size:])
        return model

    def after(self, replay: Replay) -> Self:
        """This model with the parameters and buffers of the run."""
        model = super().after(replay)
        assert isinstance(replay, TrainingReplay)
        replay.write_buffers(model.network.net)
        trained: Self = model
        return trained

    def outcome_rows(self, queries: Examples, replay: Replay) -> Rows:
        """Gradients of the measurement in the parameters and in the running statistics of batch norms."""
        rows = super().outcome_rows(queries, replay)
        assert isinstance(replay, TrainingReplay)
        if not replay.statistic_names:
            return rows
        of_statistics = statistic_gradients(self.network, queries, replay.statistic_names)
        return DenseRows(np.concatenate([rows.dense(), of_statistics], axis=1))

    def running_statistics(self, replay: Replay) -> Array:
        """The running statistics of the net, (b,)."""
        assert isinstance(replay, TrainingReplay)
        return replay.read_statistics(dict(self.network.net.named_buffers()))

    def weights(self, train: Examples) -> Array:
        """Sample weights, (n,)."""
        return sample_weights(train)

    def only_examples(self, train: Examples) -> Mapping[Any, Any]:
        """Class → id of its only training example, if labels are 0 and 1 or positions among the net's outputs."""
        alone = only_examples(train)
        if not alone or train.y is None:
            return {}
        if np.isin(train.y, (0, 1)).all():
            return alone
        outputs = self.predict(train.take([0])).classes if train.y.dtype.kind in "iu" else ()
        return alone if train.y.min() >= 0 and train.y.max() < len(outputs) else {}
