"""What a network does with its inputs: attributions to them, activations of its layers, and steps against its loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from upweight.core.examples import Examples
from upweight.core.input_attributions import InputAttributable, NetAttributions
from upweight.core.input_recipes import InputRecipe
from upweight.core.layer_activations import LayerActivations
from upweight.gradients.network import Network

Array = NDArray[np.float64]


class InspectedNetwork(InputAttributable, LayerActivations):
    """A network whose inputs and layers can be looked at."""

    network: Network

    def attribute_inputs(self, examples: Examples, recipe: InputRecipe, columns: NDArray[np.intp]) -> NetAttributions:
        """Attributions of one output per example, by captum; see `upweight.attribute_inputs`."""
        from upweight.gradients.input_attributions import input_attributions

        return input_attributions(self.network, examples, recipe, columns)

    def layer_names(self) -> tuple[str, ...]:
        """The names of all modules of the net but itself, as in `net.named_modules()`."""
        return tuple(name for name, _ in self.network.net.named_modules() if name)

    def activations(self, examples: Examples, layer: str) -> Iterator[tuple[Array, NDArray[np.intp], tuple[int, ...]]]:
        """Activations and positions of every neuron of a layer, batch by batch, and the shape of a neuron's map."""
        from upweight.gradients.activations import activations

        return activations(self.network, examples, layer)

    def signed_step(
        self, examples: Examples, radius: float, bounds: tuple[float, float], towards: bool = False
    ) -> Array:
        """The inputs after one signed step against, or `towards`, the labels of the examples: (n, …)."""
        from upweight.gradients.signed_step import signed_step

        return signed_step(self.network, examples, radius, bounds, towards)
