"""Input attributions: which words, columns or numbers of an input an output is owed to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upweight.core.blocks import blocks
from upweight.core.capability_checks import require
from upweight.core.chosen_outputs import ChosenOutputs
from upweight.core.erasing import Eraser, Parts, index_name
from upweight.core.examples import Examples
from upweight.core.input_attributions import (
    InputAttributable,
    InputAttributions,
    NetAttributions,
)
from upweight.core.input_recipes import AttentionWeights, Erasure, InputRecipe
from upweight.core.model import Measurable

Array = NDArray[np.float64]
Words = Sequence[Sequence[str]] | Callable[[Examples], Sequence[Sequence[str]]]
BATCH_COPIES = 4096  # copies of one example that are predicted at a time


def attribute_inputs(
    model: Measurable,
    examples: Examples,
    recipe: InputRecipe | None = None,
    *,
    of: Any = "predicted",
    train: Examples | None = None,
    words: Words | None = None,
) -> InputAttributions:
    """The contribution of each part of its input to the output of the model for each example.

    Args:
        model: any model for `Erasure`; a `TorchModel` for all other recipes, which captum computes (extra `captum`).
        examples: queries or training examples.
        recipe: `Erasure()`, the default; `Saliency()`, `GradientTimesInput()`, `IntegratedGradients()`, `DeepLIFT()`,
            `Occlusion()`, `InfluenceDirected(layer=…)` or `AttentionWeights()`.
        of: which output: that of the "predicted" class, of the "label", of one class, or of one class per example. Of a
            net it is the output as the net returns it, before a softmax. For numbers there is one output.
        train: the training set, from which `Erasure` takes what stands in for a column or number.
        words: the words or tokens of every example, one per position, or a function of examples that returns them, for
            a net that receives token ids.

    Raises:
        TypeError: a model that the recipe is not for, or outputs that are neither numbers nor classes.
        ValueError: an unknown class or layer; inputs or a baseline that are not finite or of another shape; a window
            larger than the input.
        ImportError: captum is not installed.
    """
    require(model, [Measurable], "attribute_inputs")
    require(model, [], "attribute_inputs", *([examples] if train is None else [train, examples]))
    recipe = Erasure() if recipe is None else recipe
    if not isinstance(recipe, InputRecipe):
        raise TypeError(f"expected a recipe such as Erasure() or IntegratedGradients(), got {recipe!r}")
    if isinstance(recipe, Erasure):
        return _erasure(ChosenOutputs.of(model, examples, of), examples, recipe, train)
    if not isinstance(model, InputAttributable):
        raise TypeError(
            f"{type(recipe).__name__} needs a model that is InputAttributable (a TorchModel), got "
            f"{type(model).__name__}; uw.Erasure() works for any model"
        )
    _require_finite(examples)
    outputs = ChosenOutputs.of(model, examples, of)
    return _named(model.attribute_inputs(examples, recipe, outputs.columns), outputs, examples, recipe, words)


def _erasure(outputs: ChosenOutputs, examples: Examples, recipe: Erasure, train: Examples | None) -> InputAttributions:
    """The drop of the output without each part."""
    eraser = Eraser(examples, recipe.baseline, train)
    names = tuple(eraser.names(i) for i in range(len(examples)))
    values, contents = [], []
    for i, target in enumerate(outputs.targets):
        contents.append(tuple(eraser.parts(i)))
        drops = np.zeros(len(contents[-1]))
        places = np.flatnonzero(eraser.differs(i))
        whole = outputs.values(eraser.erased(i, np.zeros((1, len(drops)), dtype=bool)), target, log=True)[0]
        for block in blocks(len(places), BATCH_COPIES):
            masks = np.zeros((len(places[block]), len(drops)), dtype=bool)
            masks[np.arange(len(masks)), places[block]] = True
            drops[places[block]] = whole - outputs.values(eraser.erased(i, masks), target, log=True)
        values.append(drops if eraser.is_text else drops.reshape(eraser.shape))
    described = {"probability": "log-probability of the class", "measurement": outputs.model.measurement}
    return InputAttributions(
        values=tuple(values),
        names=names,
        contents=tuple(contents),
        examples=examples,
        targets=outputs.targets,
        described=described.get(outputs.kind, "prediction"),
        parts=eraser.kind,
        recipe=recipe,
        diagnostics={"warnings": []},
    )


def _named(
    result: NetAttributions, outputs: ChosenOutputs, examples: Examples, recipe: InputRecipe, words: Words | None
) -> InputAttributions:
    """The attributions of a net with the names of the parts."""
    if not all(np.isfinite(values).all() for values in result.values):
        raise ValueError(
            f"{type(recipe).__name__} gave NaN or infinite attributions: the output has no finite gradient there; use "
            "uw.Erasure() or uw.Occlusion()"
        )
    contents = [tuple(row.ravel().tolist()) for row in result.contents]
    shape = result.values[0].shape
    parts: Parts = "numbers"
    if result.is_token:
        parts, texts = "words", _words(words, examples, [len(row) for row in contents])
        names = texts or [tuple(str(token) for token in row) for row in contents]
    elif len(shape) == 1 and examples.names is not None and len(examples.names) == shape[0]:
        parts, names = "columns", [tuple(examples.names)] * len(examples)
    else:
        names = [tuple(index_name(index) for index in np.ndindex(values.shape)) for values in result.values]
    return InputAttributions(
        values=result.values,
        names=tuple(names),
        contents=tuple(contents),
        examples=examples,
        targets=outputs.targets,
        described=_described(outputs, recipe),
        parts=parts,
        recipe=recipe,
        diagnostics={"warnings": list(result.warnings), **(result.facts or {})},
    )


def _described(outputs: ChosenOutputs, recipe: InputRecipe) -> str:
    if isinstance(recipe, AttentionWeights):
        return f"attention of layer {recipe.layer}"
    return "output of the net for the class" if outputs.classes else "output of the net"


def _words(words: Words | None, examples: Examples, lengths: Sequence[int]) -> list[tuple[str, ...]]:
    """The words of every position; positions beyond the last word, which are padding, have none."""
    if words is None:
        return []
    texts = [tuple(row) for row in (words(examples) if callable(words) else words)]
    if len(texts) != len(examples) or any(len(row) > length for row, length in zip(texts, lengths, strict=False)):
        raise ValueError(
            f"expected words for {len(examples)} examples with at most {max(lengths)} positions, got {len(texts)} with "
            f"{max(map(len, texts), default=0)}"
        )
    return [(*row, *[""] * (length - len(row))) for row, length in zip(texts, lengths, strict=True)]


def _require_finite(examples: Examples) -> None:
    x = examples.x
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise ValueError(f"the inputs of example {examples.ids[bad].item()!r} contain NaN or infinite numbers")
