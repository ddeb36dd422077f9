"""The distance between two networks as functions, which does not depend on how their parameters are written."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from upweight.core.capability_checks import require
from upweight.core.choices import require_choice
from upweight.core.examples import Examples
from upweight.core.responsive import Responsive


def function_distance(
    model: Any, reference: Any, examples: Examples, metric: Literal["outputs", "bregman"] = "outputs"
) -> float:
    """The distance between the functions of two networks, over some examples.

    Two nets with far parameters may be the same function, and nets with near parameters different ones. Influence in
    the metric of this distance is that of the Gauss–Newton matrix.

    Args:
        model, reference: each a `TorchModel`; their outputs have the same shape.
        examples: the examples over which the mean is taken.
        metric: "outputs" is √mean ‖f(x) − g(x)‖². "bregman" is the mean Bregman divergence of the reference's loss from
            the reference's outputs, in the unit of the loss: for a cross-entropy, KL of the reference's probabilities
            from the model's. It is not symmetric, and locally half the squared distance in the Gauss–Newton metric. It
            can be negative for a loss that is not convex in the outputs.

    Both nets compute in float64 where they can, so that near nets are told apart.

    Raises:
        TypeError: a model that is not a network, or whose loss is not a function of one output tensor.
        ValueError: outputs of different shapes, or an unknown metric.
    """
    require_choice("metric", metric, "outputs", "bregman")
    for each in (model, reference):
        require(each, [Responsive], "function_distance", examples)
    squares, bregman = model.output_divergences(reference, examples)
    return float(np.sqrt(squares.mean())) if metric == "outputs" else float(bregman.mean())
