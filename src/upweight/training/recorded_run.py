"""What is known of a recorded run beside its steps: random numbers, device, and the gradient of its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from upweight.core.identity import digest

NOT_RANDOM = -1  # the place of the state of a micro-batch that draws no random numbers


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """One run, recorded while it was made; `Training(recorded=…)` makes the same run again.

    Attributes:
        device: the type of the device on which it ran, "cpu" or "cuda"; random numbers differ between types.
        states: the states of torch's random numbers on that device, (distinct states, bytes).
        places: for every step and micro-batch, the row of `states` with which it begins; −1 if it draws none.
        first_gradient: parameter → sketch of the gradient of the first step, after clipping. With it a replay of
            another net, loss or training set is refused before it begins.
        autocast: whether it trained in bf16 under autocast, which has no second derivatives.
    """

    device: str
    states: Tensor
    places: Sequence[Sequence[int]]
    first_gradient: Mapping[str, Tensor] = field(default_factory=dict)
    autocast: bool = False

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers."""
        return len(self.states) > 0

    def __repr__(self) -> str:
        content = digest(self.device, self.states, self.places, self.first_gradient)
        return f"RecordedRun(<{content[:16]}>, {len(self.places)} steps)"

    def require_derivatives(self) -> None:
        """Raise ValueError if the steps have no second derivatives."""
        if self.autocast:
            raise ValueError(
                "expected a run in one precision for derivatives through its steps, got one in bf16 under autocast, "
                "for which torch has no second derivatives. It can be made again without some examples (uw.verify, "
                "uw.retrain_truth), and its trajectory serves TracIn, GAS and SOURCE; for Metagradient train without "
                "bf16=True"
            )

    def restore(self, t: int, k: int, device: torch.device) -> None:
        """Set the state with which micro-batch k of step t began, on this device."""
        place = self.places[t][k]
        if place == NOT_RANDOM:
            return
        state = self.states[place].clone()  # torch reads a state from the beginning of its memory
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.default_generator.set_state(state)

    def require(self, device: torch.device, seed: int) -> None:
        """Raise ValueError for another seed, or for another device if random numbers were drawn."""
        if seed != 0:
            raise ValueError(
                f"expected seed 0 for a recorded run, got {seed}: its order of examples and its random numbers are "
                "those of one run. For other seeds describe the training as uw.Training(epochs=…), or pass "
                "training=train_fn, a function (weights, seed) -> net that makes a new run"
            )
        if self.is_random and device.type != self.device:
            raise ValueError(
                f"expected a net on the device of the recorded run ({self.device}), got one on {device.type}: its "
                "dropout draws other random numbers. Move the net there, or record a run without dropout"
            )
