"""The checkpoints of a network's recorded training, and the network restricted to some of its layers."""

from __future__ import annotations

import copy
from abc import abstractmethod
from math import prod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.checkpoints import Checkpointed, Layered
from upweight.core.examples import Examples
from upweight.core.modules import Modules, chosen_parameters
from upweight.core.objective import Objective
from upweight.core.weights import sample_weights
from upweight.gradients.embedding_rows import dependent_examples, require_same_values, with_embedding_rows
from upweight.gradients.network import Network, Quantity

if TYPE_CHECKING:
    from upweight.curvature.segments import FittedSegment
    from upweight.training.checkpoint_models import CheckpointModel
    from upweight.training.recorded_steps import RecordedSteps
    from upweight.training.trajectory import Trajectory


def hold_untrained_fixed(network: Network, trajectory: Trajectory) -> Network:
    """The network with the parameters held fixed that the optimiser of the trajectory never held, and a note of it.

    Raises ValueError if the optimiser held none of the trainable parameters.
    """
    untrained = [] if trajectory.trained is None else [n for n in network.names if n not in trajectory.trained]
    if not untrained:
        return network
    if len(untrained) == len(network.names):
        raise ValueError(
            f"expected a net some of whose trainable parameters the optimiser of {trajectory.folder} held, got a net "
            "whose trained parameters are all frozen; call requires_grad_(True) on those that were trained"
        )
    count = sum(prod(network.shapes[name]) for name in untrained)
    fixed = network.narrowed([name for name in network.names if name not in untrained])
    fixed.frozen = (*network.frozen, *untrained)
    fixed.notes = (
        *network.notes,
        f"{len(untrained)} parameters ({count:,} of {network.size:,} numbers, e.g. {untrained[0]}) require gradients, "
        "but the optimiser of the recorded training never held them: they are held fixed, and scores are about the "
        "parameters that it trained.",
    )
    return fixed


class CheckpointedNetwork(Checkpointed, Layered):
    """A network with the trajectory of its training, or None if none was recorded."""

    network: Network
    objective: Objective
    trajectory: Trajectory | None
    unrestricted: Network | None = None  # of which the network trains only some rows of embeddings
    whole: Examples | None = None  # the training set, if the model is fitted on those that its parameters act on

    @abstractmethod
    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """A copy with these parameters and buffers, whose rows do not contain the regulariser's share."""

    def lacks(self, capability: type) -> str | None:
        """Checkpoints, if no trajectory was passed."""
        from upweight.training.checkpoint_models import NO_CHECKPOINTS

        return NO_CHECKPOINTS if capability is Checkpointed and self.trajectory is None else super().lacks(capability)

    def checkpoints(self) -> tuple[CheckpointModel, ...]:
        """The checkpoints of the trajectory."""
        from upweight.training.checkpoint_models import read_checkpoints

        return read_checkpoints(self.trajectory, self.with_tensors)

    @property
    def rate_notes(self) -> tuple[str, ...]:
        """A sentence if parameter groups of the recorded training have different learning rates."""
        return () if self.trajectory is None else self.trajectory.notes

    def segments(self, train: Examples, recipe: Any, count: int) -> tuple[FittedSegment, ...]:
        """The trajectory in `count` segments; the recipe is `EKFAC()` or `GaussNewton()`."""
        from upweight.curvature.segments import segments

        over = self.mean_over(train)
        return segments(self.checkpoints(), sample_weights(train), train, recipe, count, over)

    def mean_over(self, train: Examples) -> float:
        """The number of all rows if the objective is "fixed", else the number of examples that they count for."""
        return float(len(train)) if self.objective.reduction == "fixed" else super().mean_over(train)

    def stepwise(self, train: Examples) -> RecordedSteps | None:
        """The recorded steps; None if the trajectory lacks the batches or the initial parameters."""
        from upweight.training.recorded_steps import RecordedSteps

        checkpoints = self.checkpoints()
        if self.trajectory is None or checkpoints[0].step != 0 or (batches := self.trajectory.batches()) is None:
            return None
        fixed = self.objective.reduction == "fixed"
        weights = sample_weights(train)
        return RecordedSteps(self.trajectory, batches, self.network, train, weights, checkpoints, fixed)

    def contradictions(self, steps: Any) -> list[str]:
        """What the training did that SOURCE by segments does not model, with the steps of `stepwise`."""
        from upweight.training.segment_check import training_mode_warnings, unfollowed_modes, unmodelled_settings

        assert self.trajectory is not None
        unmodelled = [*self.rate_notes, *unmodelled_settings(self.trajectory)]
        if steps is not None and steps.checked:
            return [*unmodelled, *steps.contradictions, *unfollowed_modes(steps.training_modules)]
        return [*unmodelled, *training_mode_warnings(self.trajectory, self.network.net)]

    @property
    def layers(self) -> tuple[str, ...]:
        """Modules that hold trainable parameters themselves, in the order of `net.named_modules()`."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.network.names))

    def narrowed(self, modules: Modules) -> Self:
        """The same model with all parameters held fixed but those of these modules, or of these rows of embeddings."""
        rows = chosen_parameters(modules, self.network.names)
        restricted = copy.copy(self)
        if all(part is None for part in rows.values()):
            restricted.network = self.network.narrowed(list(rows))
        else:
            restricted.network = with_embedding_rows(self.network, rows)
            restricted.unrestricted = self.network
        return restricted

    def with_dependent(self, train: Examples) -> tuple[Self, NDArray[np.intp]] | None:
        """The examples that look up the chosen rows; None if whole modules are trained too, on which all depend."""
        if self.unrestricted is None:
            return None
        require_same_values(self.unrestricted, self.network, "loss", train)
        positions = dependent_examples(self.network, train)
        if len(positions) == len(train):
            return None
        part = copy.copy(self)
        part.whole = train
        return part, positions

    def require_same_values(self, quantity: Quantity, examples: Examples) -> None:
        """Raise ValueError if the net with chosen rows of embeddings computes something else than the whole net."""
        if self.unrestricted is not None:
            require_same_values(self.unrestricted, self.network, quantity, examples)
