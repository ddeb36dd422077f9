"""Whether the loss of an example depends on the other examples of its batch, tried on a few examples.

A network whose examples interact has no gradient of a single example. Contrastive and triplet losses, a norm over the
batch and targets of a shape that broadcasts to (n, n) are of this kind. Losses that compare labels show only if some of
the examples share a label and others do not, so the examples are chosen by label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.failed_calls import first_line
from upweight.gradients.functional import gradient, single_gradient, values_alone
from upweight.gradients.network import Network, Quantity
from upweight.gradients.network_memo import NetworkMemo
from upweight.gradients.outputs import NoOutputsError, output_values
from upweight.gradients.preserve_model import without_graph

COMPARED_EXAMPLES = 16  # at most, in one batch and alone
GRADIENT_EXAMPLES = 3  # examples of a batch whose gradients are always compared
MAX_CANDIDATES = 2048  # examples among which these are chosen
MAX_COMPUTED_NUMBERS = 1 << 22  # of gradients of examples alone that are held in memory, 16 MB
Blocks = Mapping[str, Tensor]


def choose_examples(examples: Examples, size: int = COMPARED_EXAMPLES) -> tuple[NDArray[np.intp], bool]:
    """(Positions of up to `size` examples, whether two of them share a label and another has a different one).

    Up to two examples of each class come first, those of the most frequent class before the others; then examples that
    are spread evenly over the set. So the first two share a label if any do, and the third has another one.
    """
    count = len(examples)
    candidates = np.unique(np.linspace(0, count - 1, min(count, MAX_CANDIDATES)).astype(np.intp)).tolist()
    groups: dict[object, list[int]] = {}
    if examples.y is not None:
        for position, label in zip(candidates, examples.y[candidates], strict=True):
            groups.setdefault(label if np.ndim(label) == 0 else label.tobytes(), []).append(position)
    by_size = sorted(groups.values(), key=len, reverse=True)
    has_pairs = len(by_size) > 1 and len(by_size[0]) > 1
    ends = [position for group in by_size[: size // 2] for position in (group[0], group[-1])] if has_pairs else []
    spread = [candidates[i] for i in np.linspace(0, len(candidates) - 1, size).astype(int)]
    chosen = dict.fromkeys([*ends, spread[0], spread[size // 2], spread[-1], *spread])
    return np.array(list(chosen)[:size], dtype=np.intp), has_pairs


class CheckedSets:
    """Which sets of examples were compared with their members alone, for one network and one use of it.

    A further set is compared only if it can show more than those before: more examples, or a shared label.
    """

    def __init__(self) -> None:
        self._count, self._has_pairs = 1, False
        self._seen: WeakSet[Examples] = WeakSet()

    def choose(self, examples: Examples, size: int) -> NDArray[np.intp] | None:
        """Positions of the examples to compare; None if an earlier comparison covers this set."""
        if examples in self._seen or (self._has_pairs and self._count >= min(size, len(examples))):
            return None
        self._seen.add(examples)
        positions, has_pairs = choose_examples(examples, size)
        if len(positions) <= self._count and (self._has_pairs or not has_pairs):
            return None
        self._count, self._has_pairs = max(self._count, len(positions)), self._has_pairs or has_pairs
        return positions


_CHECKED: NetworkMemo[dict[Quantity, CheckedSets]] = NetworkMemo()


def checked_sets(network: Network, use: Quantity) -> CheckedSets:
    """The sets that were compared for this use: "loss" for training sets, "measure" for queries."""
    return _CHECKED.get_or_make(network, dict).setdefault(use, CheckedSets())


def share_checked_sets(source: Network, target: Network) -> None:
    """Let two networks with the same modules and loss share what was compared."""
    _CHECKED.get_or_make(source, dict)
    _CHECKED.share(source, target)


class GradientsAlone:
    """The gradients of a few examples, each in a batch of one; those of a small network are computed once.

    Raises ValueError for a gradient that is NaN or infinite. Use it inside `network.preserved()`.
    """

    def __init__(self, network: Network, quantity: Quantity, sample: Examples) -> None:
        self.network, self.quantity, self.sample = network, quantity, sample
        self._computed: dict[int, Blocks] = {}

    def __getitem__(self, position: int) -> Blocks:
        if position in self._computed:
            return self._computed[position]
        sample = self.sample
        blocks = _gradient_alone(self.network, self.quantity, sample.take([position]), len(sample))
        if not all(isfinite(_square(block)) for block in blocks.values()):
            raise ValueError(
                f"the gradient of {self.quantity} is NaN or infinite for example {sample.ids[position].item()!r}; "
                "check the loss for a square root or a logarithm at zero"
            )
        if self.network.size * len(sample) <= MAX_COMPUTED_NUMBERS:
            self._computed[position] = blocks
        return blocks

    def sum(self, factors: Tensor) -> Blocks:
        """Σ factorᵢ · gradientᵢ."""
        total: dict[str, Tensor] = {}
        for i, factor in enumerate(factors):
            for name, block in self[i].items():
                term = block * factor.to(block)
                total[name] = total[name] + term if name in total else term
        return total


def refuse_interaction(alone: GradientsAlone) -> None:
    """Raise ValueError if the gradient of an example depends on the other examples of its batch.

    Call it inside `network.preserved()`.
    """
    network, quantity, sample = alone.network, alone.quantity, alone.sample
    values = network.values(quantity, network.batch(sample), sample.ids)
    factors = random_factors(len(sample), values)
    together = gradient(values @ factors, list(network.parameters().values()), network.names)
    different = differing_sums(network, quantity, sample, alone.sum(factors), together)
    if different:
        raise ValueError(
            f"expected a {quantity} that treats examples separately, but the gradient of an example changes with the "
            f"other examples of its batch (first at {different[0]!r}): either examples interact (a contrastive or "
            "triplet loss, a norm over the batch, a loss divided by a count over the batch, outputs and targets whose "
            "shapes (n,) and (n, 1) broadcast to (n, n)) or the net is random in eval mode (dropout called as a "
            "function). Then no example has a gradient of its own; write a loss of each example alone"
        )


def values_change_with_batch(network: Network, quantity: Quantity, sample: Examples) -> bool:
    """Whether the values of a batch differ from those of its members alone by more than rounding.

    Call it inside `network.preserved()`.
    """
    together, alone = _values(network, quantity, sample), values_alone(network, quantity, sample)
    if alone is None:
        alone = torch.cat([_value_alone(network, quantity, example, len(sample)) for example in sample.batches(1)])
    tolerance = torch.finfo(network.dtype).eps ** 0.5
    return not bool(((alone - together).abs() <= tolerance * (together.abs() + 0.1 * together.abs().mean())).all())


def differing_parameters(alone: GradientsAlone, row: Callable[[int], Blocks]) -> list[str]:
    """Parameters whose gradients in `row(i)` differ from those of example i alone by more than rounding.

    One example at a time, so that memory holds two gradients of a large network and not those of all examples.
    """
    differences: dict[str, float] = {}
    sizes: dict[str, float] = {}
    total = 0.0
    for i in range(len(alone.sample)):
        truth = alone[i]
        total += sum(_square(block) for block in truth.values())
        for name, block in row(i).items():
            differences[name] = differences.get(name, 0.0) + _square(block - truth[name])
            sizes[name] = sizes.get(name, 0.0) + _square(truth[name])
    return _beyond_rounding(alone.network, alone.quantity, alone.sample, differences, sizes, total)


def differing_sums(network: Network, quantity: Quantity, sample: Examples, truth: Blocks, sums: Blocks) -> list[str]:
    """Parameters whose sums of gradients differ from the true ones by more than rounding."""
    differences = {name: _square(block.view_as(truth[name]) - truth[name]) for name, block in sums.items()}
    sizes = {name: _square(block) for name, block in truth.items()}
    return _beyond_rounding(network, quantity, sample, differences, sizes, sum(sizes.values()))


def _beyond_rounding(
    network: Network,
    quantity: Quantity,
    sample: Examples,
    differences: Mapping[str, float],
    sizes: Mapping[str, float],
    total: float,
) -> list[str]:
    def beyond(precision: torch.dtype) -> list[str]:
        tolerance = torch.finfo(precision).eps ** 0.5
        return [
            name
            for name, difference in differences.items()
            if not difference**0.5 <= tolerance * (3 * sizes[name] ** 0.5 + 0.1 * total**0.5)
        ]

    names = beyond(network.dtype) and beyond(_lowest_precision(network, quantity, sample))
    noise = _rounding_of_outputs(network, sample) if names else {}
    return [name for name in names if not differences[name] ** 0.5 <= noise.get(name, 0.0)]


def _rounding_of_outputs(network: Network, sample: Examples) -> dict[str, float]:
    """Size of the change in the sum of gradients if the derivative of every loss by its outputs is rounded, by name.

    That derivative is a difference (probability minus label, prediction minus target). Its rounding has the size of
    what is subtracted and not of what is left, which all but vanishes for an example that is fitted well. Empty for a
    loss that has no outputs, and in half precision, where it would be a tenth of any gradient.
    """
    if torch.finfo(network.dtype).eps > torch.finfo(torch.float32).eps:
        return {}
    try:
        values = output_values(network, network.batch(sample), sample.ids)
    except NoOutputsError:
        return {}
    parameters = list(network.parameters().values())
    eps = torch.finfo(network.dtype).eps
    blocks = gradient((values * values.detach().abs().clamp(min=1)).sum(), parameters, network.names)
    return {name: 16 * eps * _square(block) ** 0.5 for name, block in blocks.items()}


def _lowest_precision(network: Network, quantity: Quantity, sample: Examples) -> torch.dtype:
    """The coarsest floating-point type in a forward pass: of parameters, buffers, and what the backward pass needs.

    A frozen base in half precision and autocast round the gradients of parameters that are more precise.
    """
    precisions = {t.dtype for t in (*network.net.parameters(), *network.net.buffers()) if t.is_floating_point()}

    def record(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            precisions.add(tensor.dtype)
        return tensor  # a loss that differentiates inside itself reads it again

    try:
        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            network.values(quantity, network.batch(sample), sample.ids)
    except RuntimeError:  # the loss transforms functions (torch.func), which allows no such hooks
        pass
    return max(precisions, key=lambda precision: torch.finfo(precision).eps)


def _square(block: Tensor) -> float:
    return float(torch.linalg.vector_norm(block)) ** 2


def _gradient_alone(network: Network, quantity: Quantity, example: Examples, count: int) -> dict[str, Tensor]:
    """The gradient of an example in a batch of one."""
    try:
        return single_gradient(network, quantity, example, network.names)
    except Exception as error:
        _refuse_fixed_batch(error, quantity, example, count)
        raise


def _values(network: Network, quantity: Quantity, examples: Examples) -> Tensor:
    """The values of a batch in float64, without their graph."""
    return without_graph(lambda: network.values(quantity, network.batch(examples), examples.ids)).detach().double()


def _value_alone(network: Network, quantity: Quantity, example: Examples, count: int) -> Tensor:
    """The value of an example in a batch of one, (1,)."""
    try:
        return _values(network, quantity, example)
    except Exception as error:
        _refuse_fixed_batch(error, quantity, example, count)
        raise


def _refuse_fixed_batch(error: Exception, quantity: Quantity, example: Examples, count: int) -> None:
    """Raise ValueError if the batch of `count` examples can be computed but this example alone cannot."""
    if count > 1:
        raise ValueError(
            f"the {quantity} of {count} examples together can be computed, but that of example "
            f"{example.ids[0].item()!r} in a batch of one cannot ({first_line(error)}): examples interact, or a "
            "shape is fixed to one batch size"
        ) from error


def random_factors(count: int, like: Tensor) -> Tensor:
    """Numbers of size 1 to 2 with random signs, (count,): a sum of gradients with them does not cancel by design."""
    generator = torch.Generator().manual_seed(count)
    sizes = 1 + torch.rand(count, generator=generator, dtype=torch.float64)
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return (sizes * signs).to(like)
