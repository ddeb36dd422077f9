"""Recipes that name a way to attribute an output to parts of the input. They are settings only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upweight.core.blocks import require_count


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """f(x) − f(x without the part), for every word, column or number (Li, Monroe & Jurafsky 2016). Any model.

    With class probabilities, f is the log-probability of the class; else the prediction.

    Attributes:
        baseline: what stands in for an erased column or number: one value, or one per part. None: the mean of the
            training set (the most frequent value of a column that is not a number), if it is passed; else 0. Words are
            left out.
    """

    baseline: Any = None


@dataclass(frozen=True, kw_only=True)
class Saliency:
    """|∂f/∂x| (Simonyan et al. 2013): where a small change of the input changes the output most. It has no sign."""


@dataclass(frozen=True, kw_only=True)
class GradientTimesInput:
    """x ⊙ ∂f/∂x (Shrikumar et al. 2016): to first order, what the output owes to a number that is not 0."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """(x − x′) ⊙ ∫ ∂f(x′ + t(x − x′))/∂x dt (Sundararajan et al. 2017). The parts add up to f(x) − f(x′).

    Attributes:
        baseline: x′, one number or an array shaped as one input; of token ids, the id of a token. None: zeros.
        steps: points of the integral.
    """

    baseline: Any = None
    steps: int = 50

    def __post_init__(self) -> None:
        require_count("steps", self.steps)


@dataclass(frozen=True, kw_only=True)
class DeepLIFT:
    """Differences from a baseline, backpropagated by the rescale rule (Shrikumar et al. 2017). Adds up as above.

    `baseline` is as for `IntegratedGradients`. Refused if the parts do not add up to f(x) − f(x′), as for a net whose
    non-linearities are functions (`F.relu`) rather than modules (`nn.ReLU`).
    """

    baseline: Any = None


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """f(x) − f(x with a window set to the baseline), averaged over the windows that cover a number (Zeiler 2014).

    Attributes:
        window: the sides of the window, one per axis of one input (channels too); an int for all axes but channels.
        stride: how far it moves; None for half of the window.
        baseline: one number, or an array shaped as one input.
    """

    window: int | tuple[int, ...] = 3
    stride: int | tuple[int, ...] | None = None
    baseline: Any = None

    def __post_init__(self) -> None:
        for name, sides in (("window", self.window), ("stride", self.stride)):
            for side in sides if isinstance(sides, tuple) else () if sides is None else (sides,):
                require_count(name, side)


@dataclass(frozen=True, kw_only=True)
class InfluenceDirected:
    """The inputs of the neurons that influence the output most (Leino et al. 2018).

    The influence of a neuron z of a layer is ∂f/∂z, averaged over the line from the baseline to the input. The inputs'
    share is Σ influence · ∂z/∂x over the `neurons` of largest |influence| for each example.

    Attributes:
        layer: the name of a module of the net, as in `net.named_modules()`.
        neurons: how many neurons.
        steps, baseline: of the average, as for `IntegratedGradients`.
    """

    layer: str
    neurons: int = 1
    baseline: Any = None
    steps: int = 50

    def __post_init__(self) -> None:
        require_count("neurons", self.neurons)
        require_count("steps", self.steps)


@dataclass(frozen=True, kw_only=True)
class AttentionWeights:
    """The attention that every position receives, averaged over heads and over the positions that attend.

    Attributes:
        layer: the position of the attention layer, from 0; −1 is the last one.
    """

    layer: int = -1


InputRecipe = (
    Erasure
    | Saliency
    | GradientTimesInput
    | IntegratedGradients
    | DeepLIFT
    | Occlusion
    | InfluenceDirected
    | AttentionWeights
)
UNSIGNED = (Saliency, AttentionWeights)  # their numbers have no sign
