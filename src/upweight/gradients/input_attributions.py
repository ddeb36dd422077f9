"""Attributions of a net's outputs to its inputs, by captum."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upweight.core.examples import Examples
from upweight.core.input_attributions import NetAttributions
from upweight.core.input_recipes import (
    AttentionWeights,
    DeepLIFT,
    GradientTimesInput,
    InfluenceDirected,
    InputRecipe,
    IntegratedGradients,
    Occlusion,
    Saliency,
)
from upweight.gradients.attention_weights import attention_weights
from upweight.gradients.functional import plain_attention
from upweight.gradients.net_call import NetCall, OutputOfInput, layer_of, record_call
from upweight.gradients.network import Network

BATCH_EXAMPLES = 32  # of one pass; integrals hold `steps` copies of each
INTEGRAL_EXAMPLES = 256  # copies of examples in one pass of an integral
MAX_DELTA = 0.05  # share of f(x) − f(x′) by which an integral may fail to add up before there is a warning
WRONG_DELTA = 1e-2  # the same for the rescale rule, which adds up exactly if all modules are seen
TOLERANCE = 1e-3  # relative difference of an example alone and in its batch
Attributor = Callable[[OutputOfInput, NetCall, Tensor, Any], "Result"]


class Result(NamedTuple):
    """Attributions shaped as `NetCall.start`, how far they fail to add up (n,), and the chosen neurons."""

    values: Tensor
    delta: Tensor | None = None
    neurons: Tensor | None = None


def input_attributions(
    network: Network, examples: Examples, recipe: InputRecipe, columns: NDArray[np.intp]
) -> NetAttributions:
    """Attributions of the output in column `columns[i]` of every example i.

    Raises:
        ImportError: captum is not installed.
        TypeError: a net or an input that the recipe is not for.
        ValueError: examples that depend on their batch, a baseline of another shape, an unknown layer, or parts that
            do not add up.
    """
    compute = attention if isinstance(recipe, AttentionWeights) else _by_captum(recipe)
    results: list[NDArray[np.float64]] = []
    contents: list[NDArray[Any]] = []
    is_token, gaps, held_fixed = False, [], 0
    for start, part in enumerate(examples.batches(BATCH_EXAMPLES)):
        chosen = columns[start * BATCH_EXAMPLES :][: len(part)]
        result, call, outputs = _attribute(network, part, compute, recipe, chosen)
        if start == 0 and len(part) > 1:
            alone = _attribute(network, part.take([0]), compute, recipe, chosen[:1])[0]
            _require_independent(alone.values[0], result.values[0], part)
        if result.delta is not None:
            gaps.append((result.delta.abs(), outputs))
        is_token, held_fixed = call.embedding is not None, call.others
        results.extend(_per_part(call, result))
        contents.extend(call.x.detach().cpu().numpy())
    warned, facts = _completeness(recipe, gaps)
    if isinstance(recipe, InfluenceDirected):
        warned += _inactive(results)
    if held_fixed:
        warned.append(
            f"The net receives {held_fixed + 1} tensors of numbers; parts are those of one, others are fixed."
        )
    return NetAttributions(tuple(results), tuple(contents), is_token, tuple(warned), facts)


def _attribute(
    network: Network, part: Examples, compute: Attributor, recipe: InputRecipe, columns: NDArray[np.intp]
) -> tuple[Result, NetCall, Tensor]:
    with network.preserved(), plain_attention(), _without_words_of_hooks():
        call = record_call(network, part)
        output = OutputOfInput(call, torch.as_tensor(columns, device=network.device))
        positions = torch.arange(len(part), device=network.device)
        result = compute(output, call, positions, recipe)
        change = torch.zeros(len(part))
        if result.delta is not None:
            with torch.no_grad():
                start = call.baseline(getattr(recipe, "baseline", None)).expand_as(call.start)
                change = (output(call.start, positions) - output(start, positions)).abs()
    return Result(*(None if t is None else t.detach() for t in result)), call, change  # type: ignore[arg-type]


def _by_captum(recipe: InputRecipe) -> Attributor:
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{type(recipe).__name__} needs captum, which is not installed ({error}); run pip install "
            "'upweight[captum]', or use uw.Erasure(), which needs nothing"
        ) from error
    return COMPUTE[type(recipe)]


def saliency(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """|∂f/∂x|."""
    from captum.attr import Saliency as ByCaptum

    return Result(ByCaptum(output).attribute(_leaf(call), abs=True, additional_forward_args=positions))


def gradient_times_input(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """x ⊙ ∂f/∂x."""
    from captum.attr import InputXGradient

    return Result(InputXGradient(output).attribute(_leaf(call), additional_forward_args=positions))


def integrated_gradients(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """The path integral of the gradient from the baseline, with how far it fails to add up."""
    from captum.attr import IntegratedGradients as ByCaptum

    values, delta = ByCaptum(output, multiply_by_inputs=True).attribute(
        call.start,
        call.baseline(recipe.baseline),
        additional_forward_args=positions,
        n_steps=recipe.steps,
        internal_batch_size=max(INTEGRAL_EXAMPLES, call.count),
        return_convergence_delta=True,
    )
    return Result(values, delta)


def deep_lift(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """DeepLIFT by the rescale rule, with how far it fails to add up."""
    from captum.attr import DeepLift

    values, delta = DeepLift(output).attribute(
        _leaf(call),
        call.baseline(recipe.baseline),
        additional_forward_args=positions,
        return_convergence_delta=True,
    )
    return Result(values, delta)


def occlusion(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """Mean change of the output over the windows that cover a number."""
    from captum.attr import Occlusion as ByCaptum

    if call.embedding is not None:
        raise TypeError("Occlusion is for numbers, and this net receives token ids; use uw.Erasure(baseline=token id)")
    shape = tuple(call.x.shape[1:])
    window = _sides(recipe.window, shape, "window")
    strides = tuple(max(1, side // 2) for side in window)
    if recipe.stride is not None:
        strides = tuple(
            min(side, full) for side, full in zip(_sides(recipe.stride, shape, "stride"), window, strict=True)
        )
    return Result(
        ByCaptum(output).attribute(
            call.start,
            sliding_window_shapes=window,
            strides=strides,
            baselines=call.baseline(recipe.baseline),
            additional_forward_args=positions,
        )
    )


def influence_directed(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """Σ influence · ∂z/∂x over the neurons z of the layer that influence the output of each example most."""
    from captum.attr import InternalInfluence, NeuronGradient

    layer = layer_of(call.net, recipe.layer)
    influence = InternalInfluence(output, layer).attribute(
        call.start,
        call.baseline(recipe.baseline),
        additional_forward_args=positions,
        n_steps=recipe.steps,
        internal_batch_size=max(INTEGRAL_EXAMPLES, call.count),
    )
    if not isinstance(influence, Tensor):
        raise TypeError(f"expected layer {recipe.layer!r} to return one tensor, got {len(influence)}")
    flat = influence.flatten(1).detach()
    if recipe.neurons > flat.shape[1]:
        raise ValueError(f"expected at most {flat.shape[1]} neurons, those of {recipe.layer!r}, got {recipe.neurons}")
    neurons = flat.abs().topk(recipe.neurons, dim=1).indices
    weights = torch.zeros_like(flat).scatter(1, neurons, flat.gather(1, neurons))

    def weighted(activations: Tensor) -> Tensor:
        return (activations.flatten(1) * weights).sum(1)

    values = NeuronGradient(output, layer).attribute(
        _leaf(call), neuron_selector=weighted, additional_forward_args=positions
    )
    return Result(values, None, neurons)


def attention(output: OutputOfInput, call: NetCall, positions: Tensor, recipe: Any) -> Result:
    """The attention that every position receives."""
    return Result(attention_weights(call, recipe.layer))


COMPUTE: dict[type, Attributor] = {
    Saliency: saliency,
    GradientTimesInput: gradient_times_input,
    IntegratedGradients: integrated_gradients,
    DeepLIFT: deep_lift,
    Occlusion: occlusion,
    InfluenceDirected: influence_directed,
}


def _leaf(call: NetCall) -> Tensor:
    return call.start.detach().clone().requires_grad_(True)


def _sides(value: Any, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The side of a window along every axis of one input; channels come first if there are three axes."""
    if isinstance(value, tuple):
        if len(value) != len(shape):
            raise ValueError(f"expected a {name} with {len(shape)} sides, as inputs of shape {shape}, got {value}")
        return tuple(min(side, size) for side, size in zip(value, shape, strict=True))
    sides = [min(value, size) for size in shape]
    return tuple([shape[0], *sides[1:]] if len(shape) == 3 else sides)


def _per_part(call: NetCall, result: Result) -> NDArray[np.float64]:
    """Embeddings are summed to one number per token; attention already is one."""
    values = result.values
    if call.embedding is not None and values.shape != call.x.shape:
        values = values.sum(-1)
    return np.asarray(values.double().cpu().numpy())


def _require_independent(alone: Tensor, together: Tensor, part: Examples) -> None:
    if alone.shape != together.shape:  # padded to the longest of the batch
        return
    if not float((alone - together).abs().max()) <= TOLERANCE * float(together.abs().max()) + 1e-12:
        raise ValueError(
            f"the output for example {part.ids[0].item()!r} depends on which others are in its batch, so that it "
            "cannot be attributed to its own input; pass the examples one by one"
        )


def _completeness(recipe: InputRecipe, gaps: list[tuple[Tensor, Tensor]]) -> tuple[list[str], dict[str, float]]:
    """A warning if parts do not add up to f(x) − f(x′), and by which share of it they fail at worst.

    Raises ValueError for DeepLIFT, which then did not see all non-linearities.
    """
    if not gaps:
        return [], {}
    gap, change = (torch.cat(list(tensors)).double() for tensors in zip(*gaps, strict=True))
    share = float(gap.mean() / change.mean().clamp_min(1e-300))
    if isinstance(recipe, DeepLIFT) and share > WRONG_DELTA:
        raise ValueError(
            f"the parts fail to add up to f(x) − f(baseline) by {share:.0%}: DeepLIFT does not see all "
            "non-linearities of this net; make them modules, each called once (nn.ReLU() in place of F.relu), or use "
            "uw.IntegratedGradients()"
        )
    facts = {"delta": share}
    if share <= MAX_DELTA:
        return [], facts
    return [f"The parts fail to add up to f(x) − f(baseline) by {share:.0%}; raise steps={recipe.steps}."], facts  # type: ignore[union-attr]


def _inactive(results: list[NDArray[np.float64]]) -> list[str]:
    """A warning if the chosen neurons of examples have no gradient in the input, as behind a ReLU that is off."""
    count = sum(not values.any() for values in results)
    if not count:
        return []
    return [
        f"The most influential neurons of {count} of {len(results)} examples are off there, and have no gradient in "
        "the input; raise neurons=, or name the layer before the ReLU."
    ]


@contextmanager
def _without_words_of_hooks() -> Iterator[None]:
    """Without captum's warning that it sets hooks, which it removes again."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "\\s*Setting forward, backward hooks", UserWarning)
        yield
