"""Update rules of the user's own: what a step does with a gradient, as a function that torch can differentiate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Step = Callable[[Tensor, Tensor, dict[str, Tensor], float, int], tuple[Tensor, dict[str, Tensor]]]
_NEW_TENSORS = "write it with operations of torch that return new tensors"
MIN_SLOPE = 1e-6  # of an update in the gradient, relative to the update itself


@dataclass(frozen=True)
class UpdateRule:
    """The update of an optimiser that `Training` does not know.

        def heavy_ball(parameter, gradient, state, lr, t):
            velocity = 0.9 * state["velocity"] - lr * gradient
            return parameter + velocity, {"velocity": velocity}

        training = uw.Training(optimiser=uw.UpdateRule(heavy_ball, state=("velocity",)), lr=0.1, …)

    Args:
        step: `step(parameter, gradient, state, lr, t) -> (parameter, state)`, a pure function, called for every
            parameter with tensors of its shape; t = 0, 1, … It overwrites nothing. The gradient is already clipped, and
            contains λ times the parameter if the training has a weight decay.
        state: the names of the tensors, of the parameter's shape and zero before step 0, that the rule carries on.

    Derivatives go through `step` by torch. Where a rule takes a root of a moment, add `eps` inside of the root, because
    the root has no derivative at 0. A rule whose update does not depend smoothly on the gradient (Lion, signSGD) has
    derivatives that say nothing, and replay refuses it.
    """

    step: Step
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", tuple(self.state))
        if not callable(self.step):
            raise TypeError(f"expected step(parameter, gradient, state, lr, t), got {type(self.step).__name__}")

    def __call__(
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], lr: float, t: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The parameter and its state after the step. Raises ValueError for a result of another form."""
        try:
            result: Any = self.step(parameter, gradient, dict(state), lr, t)
        except RuntimeError as error:
            if "inplace" not in str(error) and "in-place" not in str(error):
                raise
            raise ValueError(f"the update rule overwrites one of its arguments; {_NEW_TENSORS}") from error
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            raise ValueError(f"expected step(…) to return (parameter, state), got {type(result).__name__}")
        after, new_state = result
        shapes = {name: getattr(new_state.get(name), "shape", None) for name in self.state}
        wrong = [name for name, shape in shapes.items() if shape != parameter.shape]
        if not isinstance(after, Tensor) or after.shape != parameter.shape or wrong or set(new_state) != set(shapes):
            raise ValueError(
                f"expected step(…) to return the parameter of shape {tuple(parameter.shape)} and a dict of the state "
                f"{self.state} with tensors of this shape, got {type(after).__name__} and {sorted(new_state)}"
            )
        return after, new_state

    def require_derivative(self, gradient: Tensor, lr: float) -> None:
        """Raise ValueError if the update of the first step does not respond to this gradient, as that of a sign."""
        state = {name: torch.zeros_like(gradient) for name in self.state}
        direction = torch.linspace(0.5, 1.5, gradient.numel()).to(gradient).view_as(gradient)

        def update(scale: Tensor) -> Tensor:
            after, moments = self(torch.zeros_like(gradient), gradient * scale, state, lr or 1.0, 0)
            return self(after, 2.0 * gradient, moments, lr or 1.0, 1)[0]  # another gradient, after which Adam responds

        try:
            tangents: tuple[Tensor, Tensor] = torch.func.jvp(  # type: ignore[assignment]
                update, (torch.ones_like(gradient),), (direction,)
            )
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(
                f"the update rule cannot be differentiated ({str(error).splitlines()[0]}); {_NEW_TENSORS}"
            ) from error
        moved, slope = tangents
        if not bool(torch.isfinite(slope).all()) or float(slope.norm()) <= MIN_SLOPE * float(moved.norm()):
            raise ValueError(
                "the update rule does not respond to small changes of the gradient, as rules by signs (Lion, signSGD), "
                "or takes a root at 0 (add eps inside of it): derivatives through this training are 0 or not finite. "
                "Use a method that retrains (LeaveOneOut, Datamodels), or Influence at the trained net; uw.retrain and "
                "uw.verify work with this rule"
            )
